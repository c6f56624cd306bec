// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// mlstm verify --accept-nondeterminism: runs that differ in bits, by no more than both may be wrong.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "fake_kernels.hpp"
#include "program.hpp"
#include "properties/properties.hpp"
#include "report/report_html.hpp"
#include "runner/runner.hpp"
#include "sweep/sweep.hpp"

namespace {
using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::Result, mlstm::test::Workplace;

const std::string kAtomics = MLSTM_BINARY_DIR "/bin/mlstm verify --plugin " MLSTM_BINARY_DIR "/plugins/libatomics.so ";
const std::string kCase = "--case 'regime=forget3,dtype=float32,NH=2,S=40,DHQK=16,DHV=8,initial_states=1' ";
const std::string kAccept = "--accept-nondeterminism ";

std::size_t count_differing(const std::vector<Item>& items) {
  return static_cast<std::size_t>(
      std::count_if(items.begin(), items.end(), [](const Item& item) { return item.nondeterminism.has_value(); }));
}

Case small() { return make_case(parse_spec("regime=forget3,dtype=float32,S=6,DHQK=4,DHV=4,L=2")); }

/// The right kernel with another h in some of its calls: change(element, call).
template <class Change>
test::DamagedKernel changing(const Change& change) {
  return test::DamagedKernel(
      {.forward = [change, calls = std::make_shared<int>(0)](const Problem& p, const ForwardArgs& args) {
        const int call = (*calls)++;
        test::writable(args.h, "h", p).edit([&](double x, std::int64_t, std::int64_t t, std::int64_t) {
          return t == 3 ? change(x, call) : x;
        });
      }});
}

KernelData accepting_run(const Kernel& kernel, int repeats = 1) {
  return run_kernel(kernel, small(), std::nullopt, {.repeats = repeats, .accept_nondeterminism = true});
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(other_bits_fail_unless_they_are_accepted_and_are_reported, Workplace) {
  const Result strict = shell(kAtomics + kCase + "--report strict");
  BOOST_TEST(strict.status == 1, strict.out << strict.err);
  BOOST_TEST(contains(strict.out, "differs from run to run"), strict.out);

  const Result accepted = shell(kAtomics + kCase + kAccept + "--report r");
  BOOST_TEST(accepted.status == 0, accepted.out << accepted.err);
  const std::vector<Item> items = report("r");
  const std::size_t differing = count_differing(items);
  BOOST_TEST(differing >= 3u);
  for (const Item& item : items) {
    BOOST_TEST((item.status == Status::PASS));
    if (!item.nondeterminism) continue;
    BOOST_TEST(item.nondeterminism->elements > 0);
    BOOST_TEST(item.nondeterminism->max_abs_difference > 0);
    BOOST_TEST(item.nondeterminism->max_abs_difference < 1e-3);
    BOOST_TEST(item.nondeterminism->ratio > 0);
    BOOST_TEST(item.nondeterminism->ratio <= 1);
    BOOST_TEST(contains(item.note, " elements differ from run to run, by "), item.note);
    BOOST_TEST(contains(item.repro, "--accept-nondeterminism"), item.repro);
  }
  BOOST_TEST(contains(accepted.out, "Other bits from run to run, accepted up to twice the bound"), accepted.out);
  BOOST_TEST(contains(accepted.out, "(not the same bits in every run: " + std::to_string(differing) + ")"),
             accepted.out);
  for (const char* const file : {"report.json", "report.html", "junit.xml", "summary.txt"})
    BOOST_TEST(contains(read_text_file(path / "r" / file),
                        std::string(file) == "report.json" ? "\"nondeterminism\":{\"elements\":"
                        : std::string(file) == "junit.xml" ? "<system-out>"
                                                           : "Other bits from run to run"),
               file);
}

BOOST_FIXTURE_TEST_CASE(differences_beyond_the_bounds_fail_all_the_same, Workplace) {
  const Result result = shell("MLSTM_TEST_ATOMICS=lost " + kAtomics + kCase + kAccept + "--report r");
  BOOST_TEST(result.status == 1, result.out << result.err);
  const std::vector<Item> items = report("r");
  const auto h = std::find_if(items.begin(), items.end(), [](const Item& item) { return item.tensor == "h"; });
  BOOST_REQUIRE((h != items.end()));
  BOOST_TEST((h->status == Status::FAIL));
  BOOST_TEST(h->nondeterminism.value().ratio > 1);
  BOOST_TEST(contains(h->note, "times twice the bound (not accepted)"), h->note);
}

BOOST_FIXTURE_TEST_CASE(properties_accept_them_too, Workplace) {
  const std::string properties = "--property determinism,causality,neighbours,permutation,linear_v --dtype float32 ";
  BOOST_TEST(shell(kAtomics + properties).status == 1);
  const Result result = shell(kAtomics + properties + kAccept + "--report r");
  BOOST_TEST(result.status == 0, result.out << result.err);
  BOOST_TEST(count_differing(report("r")) > 0u);
  const Result lost = shell("MLSTM_TEST_ATOMICS=lost " + kAtomics + properties + kAccept);
  BOOST_TEST(lost.status == 1);
  BOOST_TEST(contains(lost.out, "determinism"), lost.out);
}

BOOST_FIXTURE_TEST_CASE(a_sweep_that_accepts_is_not_gone_on_with_without, Workplace) {
  BOOST_REQUIRE(shell(kAtomics + kCase + kAccept + "--report r").status == 0);
  const Result other = shell(kAtomics + kCase + "--resume --report r");
  BOOST_TEST(other.status == 2, other.out << other.err);
}

BOOST_AUTO_TEST_CASE(a_kernel_that_gives_the_same_bits_is_not_said_to_differ) {
  const KernelData data = accepting_run(*find_kernel("chunkwise--native_eigen_ownbw"), 3);
  for (const auto& [name, spread] : data.spread)
    BOOST_TEST(std::all_of(spread.begin(), spread.end(), [](double x) { return x == 0; }), name);
  BOOST_TEST(data.spread.size() == data.outputs.size());
}

BOOST_AUTO_TEST_CASE(the_spread_is_that_of_the_elements_that_differ) {
  const KernelData data = accepting_run(changing([](double x, int call) { return call % 3 == 1 ? x + 0.25 : x; }), 2);
  const Array& spread = data.spread.at("h");
  for (std::size_t n = 0; n < spread.size(); ++n)
    BOOST_TEST(std::abs(spread.data()[n] - (n / 4 % 6 == 3 ? 0.25 : 0)) < 1e-6);
  const KernelData infinite = accepting_run(changing([](double x, int call) { return call == 1 ? HUGE_VAL : x; }), 2);
  BOOST_TEST(std::isinf(infinite.spread.at("h").data()[12]));
}

// The poison is no other run: what depends on it is undefined, whatever else is accepted.
BOOST_AUTO_TEST_CASE(what_depends_on_poison_is_told_from_what_differs) {
  const auto fails = [](const Kernel& kernel) {
    return test::message_of<CheckFailure>([&] { accepting_run(kernel); });
  };
  const auto reads_h = [](bool differs) {
    auto found = std::make_shared<double>(0);
    test::DamagedKernel kernel(
        {.forward =
             [=, calls = std::make_shared<int>(0)](const Problem& p, const ForwardArgs& args) {
               const bool other = differs && (*calls)++ % 2 == 1;
               const test::Stored h = test::writable(args.h, "h", p), c = test::writable(args.c_last, "c_last", p);
               if (*found > 0) h.set(0, 2, 1, h.get(0, 2, 1) + 1e-9 + *found);
               if (other) c.set(0, 0, 0, c.get(0, 0, 0) + 1e-6);
             },
         .before_forward = [=](Problem& p,
                               ForwardArgs& args) { *found = test::writable(args.h, "h", p).get(0, 0, 0); }});
    return kernel;
  };
  BOOST_TEST(contains(fails(reads_h(false)), "h[0,0,2,1] depends on memory that was not initialised"));
  // Also if something else differs.
  BOOST_TEST(contains(fails(reads_h(true)), "h[0,0,2,1] depends on memory that was not initialised"));
  // Rarely other bits, first with the other poison.
  BOOST_TEST(fails(changing([](double x, int call) { return call == 2 ? x + 1e-6 : x; })) == "none");
  BOOST_TEST(fails(changing([](double x, int call) { return call % 2 == 0 ? x + 1e-6 : x; })) == "none");
}

BOOST_AUTO_TEST_CASE(what_was_not_written_is_found_among_what_differs) {
  auto poison = std::make_shared<float>(0);
  const test::DamagedKernel kernel(
      {.forward =
           [=, calls = std::make_shared<int>(0)](const Problem& p, const ForwardArgs& args) {
             const test::Stored h = test::writable(args.h, "h", p);
             h.set(0, 0, 0, h.get(0, 0, 0) + 1e-6 * (*calls)++);
             std::memcpy(static_cast<float*>(args.h) + 9, poison.get(), sizeof *poison);
           },
       .before_forward = [=](Problem&, ForwardArgs& args) { std::memcpy(poison.get(), args.h, sizeof *poison); }});
  BOOST_TEST(contains(test::message_of<CheckFailure>([&] { accepting_run(kernel); }), "h[0,0,2,1] was not written"));
}

BOOST_AUTO_TEST_CASE(reports_keep_what_is_not_finite) {
  Item item;
  item.variant = "parallel--x", item.case_name = "c", item.tensor = std::string("h"), item.status = Status::FAIL;
  item.nondeterminism = Nondeterminism{3, HUGE_VAL, HUGE_VAL};
  const std::vector<Item> read = parse_report(to_json({item}), "report.json");
  BOOST_TEST(read.front().nondeterminism.value().elements == 3);
  BOOST_TEST(std::isinf(read.front().nondeterminism->ratio));
  const std::string bad =
      "{\"report\": 2, \"summary\": {}, \"items\": [{\"variant\": \"v\", \"case\": \"c\", \"tensor\": "
      "\"h\", \"convention\": null, \"status\": \"PASS\", \"error_ratio\": 0, \"max_abs_error\": 0, "
      "\"rel_frobenius\": 0, \"worst_index\": [], \"repro\": null, \"note\": null, "
      "\"nondeterminism\": {\"elements\": 0}}]}";
  BOOST_TEST(contains(test::message_of<FileError>([&] { parse_report(bad, "r"); }), "nondeterminism"));
}
