// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Problems that a variant does not take are said aloud, and are an error where its declaration admits them.
#include <boost/test/unit_test.hpp>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "fake_kernels.hpp"
#include "report/report.hpp"
#include "report/report_html.hpp"
#include "sweep/sweep.hpp"
#include "sweep/sweep_properties.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains;

namespace {

/// Right, but choosy: takes an even S only, whatever it declares.
class Choosy final : public Kernel {
 public:
  explicit Choosy(std::int64_t multiple_of = 1) : info_(right().info()) { info_.S.multiple_of = multiple_of; }
  const VariantInfo& info() const override { return info_; }
  std::string unsupported(const Problem& problem) const override {
    const std::string reason = declared_limits(problem);
    return reason.empty() && problem.shape.S % 2 != 0 ? "S has to be even" : reason;
  }
  std::size_t saved_size(const Problem& problem) const override { return right().saved_size(problem); }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return right().workspace_size(problem, backward);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override { right().forward(problem, args); }
  void backward(const Problem& problem, const BackwardArgs& args) const override { right().backward(problem, args); }

 private:
  static const Kernel& right() { return *find_kernel("recurrent--sequence_eigen_ownbw"); }
  VariantInfo info_;
};

std::vector<Item> verdicts_on(const Kernel& kernel) {
  std::vector<ProblemSpec> specs;
  for (const char* const S : {"4", "5", "6", "7", "8"})
    specs.push_back(parse_spec(std::string("regime=forget3,DHQK=4,DHV=4,dtype=float32,S=") + S));
  Plan plan = make_plan({&kernel}, specs, true);
  add_declined(plan);
  return finish(run_sweep(plan.units, {}), GroupBy::variant).items;
}

const Item* declined_in(const std::vector<Item>& items) {
  for (const Item& item : items)
    if (item.declined) return &item;
  return nullptr;
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_the_declaration_rules_out_is_said_and_no_verdict) {
  const std::vector<Item> items = verdicts_on(Choosy(2));
  const Item* const item = declined_in(items);
  BOOST_REQUIRE(item != nullptr);
  BOOST_TEST((item->status == Status::SKIPPED));
  BOOST_TEST(item->declined->problems == 2);
  BOOST_TEST(item->declined->of == 5);
  const std::string note = "declined 2 of 5 problems: S 5 is not supported (";
  BOOST_TEST(item->note.starts_with(note), item->note);
  BOOST_TEST(exit_status(items) == 0);
  BOOST_TEST(contains(to_text(items, GroupBy::variant), "DECLINED    recurrent--sequence_eigen_ownbw  " + note));
  BOOST_TEST(summary_line(items).ends_with(" PASS (variants that declined problems: 1)"), summary_line(items));
  BOOST_TEST(contains(to_html(items, {}), note));
  BOOST_TEST(contains(to_html(items, {}), "1 variant declined problems."));
  BOOST_TEST(contains(to_junit(items), note));
  const std::vector<Item> read = parse_report(to_json(items), "report.json");
  BOOST_TEST(declined_in(read)->declined->problems == 2);
  BOOST_TEST(declined_in(read)->declined->of == 5);
}

BOOST_AUTO_TEST_CASE(what_the_declaration_admits_is_an_error) {
  const std::vector<Item> items = verdicts_on(Choosy());
  const Item* const item = declined_in(items);
  BOOST_REQUIRE(item != nullptr);
  BOOST_TEST((item->status == Status::ERROR));
  BOOST_TEST(item->check == "declined");
  BOOST_TEST(item->note == "declined 2 of 5 problems, though its declaration admits them: S has to be even");
  BOOST_TEST(contains(item->repro, "S=5,"));
  BOOST_TEST(exit_status(items) == 1);
}

BOOST_AUTO_TEST_CASE(so_it_is_in_the_problems_of_properties) {
  const Choosy kernel;
  Plan plan;
  add_properties(plan, {&kernel}, {.names = {"split_state", "permutation"}});
  std::vector<std::string> notes;
  for (const Unit& unit : plan.units)
    if (unit.cannot_run() != nullptr) notes.push_back(unit.cannot_run()->reason);
  BOOST_REQUIRE(notes.size() == 2u);
  BOOST_TEST(contains(notes[0], "problems of split_state, though its declaration admits them: S has to be even"));
  BOOST_TEST(contains(notes[1], "problems of permutation, though its declaration admits them: S has to be even"));
}

BOOST_AUTO_TEST_CASE(reasons_of_one_kind_are_one_reason) {
  mlstm::test::DamagedKernel kernel({}, "recurrent--sequence_eigen_ownbw");
  kernel.change().S.max = 3;
  kernel.change().dtypes = {DType::float64};
  Refusals refusals(kernel);
  refusals.took();
  for (const char* const line : {"dtype=float64,S=4", "dtype=float64,S=5", "dtype=float32,S=6"}) {
    const ProblemSpec spec = parse_spec(std::string("regime=forget3,DHQK=4,DHV=4,") + line);
    refusals.declined(spec, kernel.unsupported(spec.problem));
  }
  const std::vector<CannotRun> report = refusals.report();
  BOOST_REQUIRE(report.size() == 1u);
  BOOST_TEST(report[0].reason ==
             "declined 3 of 4 problems: S 4 is not supported (from 1 to 3 in multiples of 1) (2); dtype float32 is not "
             "supported (1)");
}
