// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
#include "studies/bench/bench.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <stdexcept>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "fake_kernels.hpp"
#include "program.hpp"
#include "runner/runner.hpp"

namespace {
using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::Damage, mlstm::test::DamagedKernel, mlstm::test::Result,
    mlstm::test::Workplace;

/// Quick on any CPU: one variant of every kind.
const std::string kSmall =
    "bench --variant 'chunkwise--*_eigen_*,recurrent--step_fused_eigen' --repetitions 2 --chunk-size 8 "
    "--shape 1,2,1,8,16 --shape 1,2,20,8,16 ";

std::string peers_file(const std::string& rows) {
  return "{\"schema\": \"mlstm-bench-peers\", \"schema_version\": 1, \"device\": \"D\", \"rows\": [" + rows + "]}";
}

std::string peer_row(const std::string& shape, const std::string& chunk_size, const std::string& times) {
  return "{\"kernel\": \"theirs\", \"compares_with\": \"chunkwise--native_eigen_ownbw\", \"shape\": [" + shape +
         "], \"dtype\": \"bfloat16\", \"gate\": \"exp\", \"chunk_size\": " + chunk_size + ", " + times + "}";
}

const Damage kWrong{.forward = [](const Problem&, const ForwardArgs& args) { *static_cast<float*>(args.h) += 1; }};

/// Asks for more memory than there is, if B > 1.
class NeedsTooMuch : public DamagedKernel {
 public:
  NeedsTooMuch() : DamagedKernel({}) {}
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return problem.shape.B > 1 ? std::size_t{1} << 60 : DamagedKernel::workspace_size(problem, backward);
  }
};

BenchTask task_of(const Kernel& kernel, Shape shape, std::optional<Convention> convention = Convention::exact) {
  return {&kernel, {.shape = shape, .dtype = DType::float32, .chunk_size = 8}, convention};
}

const BenchBudget kTwice{.repetitions = 2};

}  // namespace

BOOST_FIXTURE_TEST_CASE(the_table_has_a_line_per_variant_and_problem, Workplace) {
  const Result result = run(kSmall);
  BOOST_TEST(result.status == 0, result.err);
  BOOST_TEST(contains(result.out, "chunkwise--native_eigen_ownbw\n  1,2,1,8,16 "));
  BOOST_TEST(contains(result.out, "\n  1,2,20,8,16 "));
  BOOST_TEST(contains(result.out, "recurrent--step_fused_eigen\n  1,2,1,8,16 "));
  BOOST_TEST(!contains(result.out, "ours/theirs"));
  BOOST_TEST(std::count(result.out.begin(), result.out.end(), '\n') >= 8);
}

BOOST_FIXTURE_TEST_CASE(json_has_all_numbers_and_the_file_is_the_same, Workplace) {
  const Result result = run(kSmall + "--format json --gate exp,sigmoid --dtype float32 --out out.json");
  BOOST_REQUIRE_MESSAGE(result.status == 0, result.err);
  BOOST_TEST(read_text_file(path / "out.json") == result.out);
  const Json root = Json::parse(result.out);
  BOOST_TEST(root.at("schema").get<std::string>() == "mlstm-bench");
  BOOST_TEST(!root.at("devices").at("cpu").at("name").get<std::string>().empty());
  const Json& rows = root.at("rows");
  BOOST_TEST(rows.size() == 6u);  // both shapes, and the step's one, with two gates
  for (const Json& value : rows) {
    const Json& row = value;
    const bool step = contains(row.at("variant").get<std::string>(), "step");
    BOOST_TEST(row.at("status").get<std::string>() == "TIMED");
    BOOST_TEST(row.at("dtype").get<std::string>() == "float32");
    BOOST_TEST(row.at("initial_states").get<bool>() == step);
    BOOST_TEST(row.at("forward_ms").get<double>() > 0);
    BOOST_TEST(row.at("forward").at("fastest_ms").get<double>() <= row.at("forward_ms").get<double>());
    BOOST_TEST(row.at("forward").at("samples").get<std::int64_t>() == 2);
    BOOST_TEST(row.at("forward").at("gb_per_s").get<double>() > 0);
    BOOST_TEST(row.at("forward_backward_ms").is_null() == step);
    BOOST_TEST(row.at("convention").is_null() == step);
    if (!step) BOOST_TEST(row.at("forward_backward").at("extra_bytes").get<double>() >= 0);
    BOOST_TEST(row.at("peer").is_null());
  }
}

BOOST_FIXTURE_TEST_CASE(options_choose_what_is_timed, Workplace) {
  const auto rows = [&](const std::string& options) {
    const Result result = run(kSmall + "--format json " + options);
    BOOST_REQUIRE_MESSAGE(result.status == 0, result.err);
    return Json::parse(result.out).at("rows");
  };
  for (const Json& row : rows("--forward-only")) BOOST_TEST(row.at("forward_backward_ms").is_null());
  for (const Json& row : rows("--initial-states")) BOOST_TEST(row.at("initial_states").get<bool>());
  for (const Json& row : rows("--convention detached"))
    BOOST_TEST((row.at("convention").is_null() || row.at("convention").get<std::string>() == "detached"));
}

BOOST_FIXTURE_TEST_CASE(peers_are_joined_by_the_key_in_their_file, Workplace) {
  write("peers.json",
        peers_file(
            peer_row("1,2,20,8,16", "64", "\"forward_ms\": 1e9, \"forward_backward_ms\": 1e6") + "," +
            peer_row("1,2,20,8,16", "128", "\"forward_ms\": 1e6, \"forward_backward_ms\": null, \"error\": \"x\"") +
            "," + peer_row("1,2,21,8,16", "64", "\"forward_ms\": 1, \"forward_backward_ms\": 1")));
  const Result result = run(kSmall + "--peers peers.json --out out.json");
  BOOST_TEST(result.status == 0, result.err);
  BOOST_TEST(contains(result.out, "ours/theirs"));
  BOOST_TEST(contains(result.out, "  0.00 / 0.00\n"));
  std::int64_t joined = 0;
  const Json written = Json::parse(read_text_file(path / "out.json"));
  for (const Json& row : written.at("rows")) {
    if (row.at("peer").is_null()) continue;
    ++joined;
    const Json& peer = row.at("peer");
    BOOST_TEST(peer.at("forward_ms").get<double>() == 1e6);  // the faster one
    BOOST_TEST(peer.at("forward_ours_over_theirs").get<double>() == row.at("forward_ms").get<double>() / 1e6,
               boost::test_tools::tolerance(1e-12));
    BOOST_TEST(
        peer.at("forward_backward_ours_over_theirs").get<double>() == row.at("forward_backward_ms").get<double>() / 1e6,
        boost::test_tools::tolerance(1e-12));
  }
  BOOST_TEST(joined == 1);
}

BOOST_FIXTURE_TEST_CASE(bad_arguments_are_named_with_status_2, Workplace) {
  write("not.json", "no JSON");
  write("schema.json", "{\"schema\": \"other\"}");
  write("shape.json", peers_file(peer_row("1,2,3", "64", "\"forward_ms\": 1")));
  write("time.json", peers_file(peer_row("1,2,3,4,5", "64", "\"forward_ms\": -1")));
  const std::pair<std::string, std::string> bad[] = {
      {"--variant 'no*such'", "--variant is \"no*such\"; expected a glob that matches one of"},
      {"--dtype tfloat32", "--dtype is \"tfloat32\"; expected one of float64, float32, float16, bfloat16"},
      {"--gate relu", "--gate is \"relu\"; expected one of exp, sigmoid"},
      {"--shape 1,2,3", "--shape is \"1,2,3\"; expected five positive integers B,NH,S,DHQK,DHV"},
      {"--chunk-size 0", "--chunk-size is \"0\"; expected an integer of at least 1"},
      {"--convention both", "--convention is \"both\"; expected one of exact, detached"},
      {"--seconds -1", "--seconds is \"-1\"; expected a finite number >= 0"},
      {"--repetitions 0", "--repetitions is \"0\"; expected an integer of at least 1"},
      {"--repetitions 1 --seconds 1", "--seconds"},
      {"--format xml", "--format is \"xml\"; expected one of table, json"},
      {"--peers absent.json", "absent.json"},
      {"--peers not.json", "not.json: not JSON"},
      {"--peers schema.json", "schema.json: \"schema\" is missing or wrong; expected \"mlstm-bench-peers\""},
      {"--peers shape.json", "shape.json: row 0: \"shape\" is missing or wrong; expected five positive integers"},
      {"--peers time.json", "time.json: row 0: \"forward_ms\" is missing or wrong; expected a number"},
  };
  for (const auto& [arguments, message] : bad) {
    const Result result = run("bench " + arguments);
    BOOST_TEST(result.status == 2, arguments << " ends with " << result.status);
    BOOST_TEST(contains(result.err, message), arguments << " says " << result.err);
  }
}

BOOST_FIXTURE_TEST_CASE(what_supports_nothing_is_said_and_status_3_is_nothing_timed, Workplace) {
  const Result result = run("bench --variant recurrent--step_fused_eigen --shape 1,1,5,8,8");
  BOOST_TEST(result.status == 3);
  BOOST_TEST(contains(result.err, "not run, supports no selected problem: recurrent--step_fused_eigen: "));
}

BOOST_AUTO_TEST_CASE(a_variant_that_is_wrong_has_no_speed) {
  const DamagedKernel kernel(kWrong);
  const BenchRow row = Bench(kTwice).run(task_of(kernel, {2, 1, 20, 8, 16}));
  BOOST_CHECK(row.status == BenchStatus::NOT_VERIFIED);
  BOOST_TEST(!row.forward);
  BOOST_TEST(contains(row.note, "h: error_ratio"));
  BOOST_TEST(contains(row.note, "mlstm verify --variant chunkwise--native_eigen_ownbw --case"));
  BOOST_TEST(contains(bench_line(row, false), "NOT VERIFIED"));
  BOOST_TEST(exit_status(std::vector{row}) == 1);
}

BOOST_AUTO_TEST_CASE(what_is_timed_is_verified) {
  // wrong at the timed size alone
  const auto wrong_head = [](std::int64_t head) {
    return DamagedKernel({.forward = [head](const Problem& problem, const ForwardArgs& args) {
      if (problem.shape.B > 1) static_cast<float*>(args.h)[head * problem.shape.S * problem.shape.DHV] += 1;
    }});
  };
  for (const std::int64_t head : {2, 3}) {
    const DamagedKernel kernel = wrong_head(head);
    const BenchRow row = Bench(kTwice).run(task_of(kernel, {4, 1, 20, 8, 16}));
    BOOST_CHECK(row.status == BenchStatus::NOT_VERIFIED);
    BOOST_TEST(contains(row.note, "what was timed is wrong: head " + std::to_string(head) + " of 4: h: error_ratio"),
               row.note);
    BOOST_TEST((!row.forward && !row.forward_backward));
  }
  const auto late = [](const Damage& damage) {
    const DamagedKernel kernel(damage);
    return Bench(kTwice).run(task_of(kernel, {4, 1, 20, 8, 16}));
  };
  // right while it is warming up; then it does nothing, or something else in a head that is not judged
  int calls = 0;
  BenchRow row = late({.forward = [&calls](const Problem& problem, const ForwardArgs& args) {
    if (problem.shape.B > 1 && ++calls > 2)
      std::fill_n(static_cast<float*>(args.h), size_of("h", problem.shape), std::nanf(""));
  }});
  BOOST_CHECK(row.status == BenchStatus::NOT_VERIFIED);
  BOOST_TEST(contains(row.note, "what was timed is wrong: head 2 of 4: h: "), row.note);
  calls = 0;
  row = late({.forward = [&calls](const Problem& problem, const ForwardArgs& args) {
    if (problem.shape.B > 1) static_cast<float*>(args.h)[0] += static_cast<float>(++calls);
  }});
  BOOST_CHECK(row.status == BenchStatus::NOT_VERIFIED);
  BOOST_TEST(row.note == "what was timed is not what a call by itself computes: h");
  // a backward pass alone
  row = late({.backward = [](const Problem& problem, const BackwardArgs& args) {
    if (problem.shape.B > 1) static_cast<float*>(args.dk)[size_of("k", problem.shape) - 1] += 1;
  }});
  BOOST_CHECK(row.status == BenchStatus::NOT_VERIFIED);
  BOOST_TEST(contains(row.note, "what was timed is wrong: head 3 of 4: dk"), row.note);
  BOOST_TEST(exit_status(std::vector{row}) == 1);
  // what writes nothing once it is warm leaves the poison
  class Lazy : public DamagedKernel {
   public:
    Lazy() : DamagedKernel({}) {}
    void forward(const Problem& problem, const ForwardArgs& args) const override {
      if (problem.shape.B == 1 || ++calls_ <= 2) DamagedKernel::forward(problem, args);
    }

   private:
    mutable int calls_ = 0;
  };
  const Lazy lazy;
  row = Bench(kTwice).run(task_of(lazy, {4, 1, 20, 8, 16}));
  BOOST_CHECK(row.status == BenchStatus::NOT_VERIFIED);
  BOOST_TEST(contains(row.note, "what was timed is wrong: head 2 of 4: h: "), row.note);
}

BOOST_AUTO_TEST_CASE(an_error_while_timing_is_a_row_and_status_1) {
  const DamagedKernel kernel({.before_forward = [](Problem& problem, ForwardArgs&) {
    if (problem.shape.B > 1) throw std::runtime_error("launch failed");
  }});
  const BenchRow row = Bench(kTwice).run(task_of(kernel, {2, 1, 20, 8, 16}));
  BOOST_CHECK(row.status == BenchStatus::ERROR);
  BOOST_TEST(row.note == "launch failed");
  BOOST_TEST(exit_status(std::vector{row}) == 1);
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_the_device_is_skipped) {
  const NeedsTooMuch kernel;
  const BenchRow row = Bench(kTwice).run(task_of(kernel, {2, 1, 20, 8, 16}));
  BOOST_CHECK(row.status == BenchStatus::SKIPPED);
  BOOST_TEST(contains(row.note, "GiB are free"));
  BOOST_TEST(exit_status(std::vector{row}) == 3);
}

BOOST_AUTO_TEST_CASE(without_a_gpu_its_variants_are_skipped) {
  DamagedKernel kernel({});
  kernel.change().device = Device::cuda;
  const BenchPlan plan = plan_bench({&kernel}, {});
  if (unavailable(kernel).empty()) {
    BOOST_TEST(!plan.tasks.empty());
    return;
  }
  BOOST_TEST(plan.tasks.empty());
  BOOST_TEST((plan.unavailable == std::vector<const Kernel*>{&kernel}));
  const BenchRow row = Bench(kTwice).run(task_of(kernel, {2, 1, 20, 8, 16}));
  BOOST_CHECK(row.status == BenchStatus::SKIPPED);
  BOOST_TEST(row.note == unavailable(kernel));
}

BOOST_AUTO_TEST_CASE(work_is_counted_as_documented) {
  const auto task = [](const char* key, Shape shape, std::int64_t L, bool states) {
    return BenchTask{
        find_kernel(key), {.shape = shape, .dtype = DType::bfloat16, .chunk_size = L, .has_initial_state = states}, {}};
  };
  const Shape s{2, 3, 100, 8, 16};
  const double T = 600, d = 8, e = 16;
  const BenchTask chunkwise = task("chunkwise--native_eigen_ownbw", s, 32, false);
  BOOST_TEST(forward_work(chunkwise).flops == T * (32 * (d + e) + 4 * d * e));
  BOOST_TEST(backward_work(chunkwise).flops == T * (32 * (3 * d + 2 * e) + 10 * d * e));
  BOOST_TEST(forward_work(chunkwise).bytes == T * 2 * (2 * d + 2 * e));
  BOOST_TEST(backward_work(chunkwise).bytes == T * 2 * (4 * d + 3 * e));
  const BenchTask one_chunk = task("chunkwise--native_eigen_ownbw", s, 128, false);
  BOOST_TEST(forward_work(one_chunk).flops == T * (100 * (d + e) + 4 * d * e));
  BOOST_TEST(forward_work(task("parallel--native_eigen_ownbw", s, 0, false)).flops == T * 100 * (d + e));
  BOOST_TEST(forward_work(task("recurrent--sequence_eigen_ownbw", s, 0, false)).flops == T * 4 * d * e);
  const BenchTask step = task("recurrent--step_fused_eigen", {2, 3, 1, 8, 16}, 0, true);
  BOOST_TEST(forward_work(step).bytes == 6 * (2 * 4 * (d * e + d + 1) + 2 * (2 * d + 2 * e)));
}
