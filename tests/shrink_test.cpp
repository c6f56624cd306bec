// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <set>

#include "fake_kernels.hpp"
#include "sweep/explain.hpp"
#include "sweep/shrink.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::BentRecurrence, mlstm::test::Damage, mlstm::test::DamagedKernel, mlstm::test::Step,
    mlstm::test::writable;

namespace {

const std::string kLarge =
    "regime=forget6,seed=7,eps=0.01,dtype=float32,B=2,NH=3,S=100,DHQK=24,DHV=32,L=32,initial_states=1,"
    "last_state_cotangents=1";

ShrinkOptions quick() {
  ShrinkOptions options;
  options.seconds = 60;
  options.sweep.threads = 1;
  return options;
}

std::vector<Item> verdicts(const Kernel& kernel, const ProblemSpec& spec, std::optional<Convention> convention) {
  SweepOptions options;
  options.threads = 1;
  std::vector<Item> items;
  for (const Record& record : run_sweep(make_plan({&kernel}, {spec}, false, convention).units, options))
    items.push_back(record.item);
  return items;
}

Shrunk shrunken(const Kernel& kernel, const std::string& line, std::optional<Convention> convention = Convention::exact,
                const ShrinkOptions& options = quick()) {
  const ProblemSpec spec = parse_spec(line);
  const std::optional<Failure> failure = failure_of(verdicts(kernel, spec, convention));
  BOOST_REQUIRE_MESSAGE(failure.has_value(), line << " does not fail");
  const Shrunk result = shrink(kernel, spec, convention, *failure, options);
  BOOST_TEST_MESSAGE(to_text(result));
  if (result.failed == result.tried)
    BOOST_TEST(failure->occurs_in(verdicts(kernel, result.spec, convention)), to_line(result.spec));
  return result;
}

/// h is wrong in all steps of problems that `condition` holds for.
DamagedKernel wrong_if(std::function<bool(const Problem&)> condition) {
  return DamagedKernel({[condition](const Problem& problem, const ForwardArgs& args) {
                          if (!condition(problem)) return;
                          writable(args.h, "h", problem).edit([](double value, auto...) { return value + 1; });
                        },
                        {}});
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_mistake_of_long_sequences_shrinks_to_the_shortest_of_them_and_the_plainest_values) {
  const DamagedKernel kernel = wrong_if([](const Problem& p) { return p.shape.S > 64; });
  const Shrunk result = shrunken(kernel, kLarge);
  ProblemSpec expected = parse_spec("regime=ones,gate=sigmoid,normalize=0,eps=0,S=65,L=1,cotangents=0,dtype=float32");
  BOOST_TEST(to_line(result.spec) == to_line(expected));
  BOOST_TEST(!result.out_of_time);
  BOOST_TEST(result.problems < 100);
  const std::string text = to_text(result);
  BOOST_TEST(text.find("S 100 -> 65") != std::string::npos, text);
  BOOST_TEST(text.find("mlstm verify --variant chunkwise--native_eigen_ownbw --case \"" + to_line(expected) + "\"") !=
                 std::string::npos,
             text);
}

BOOST_AUTO_TEST_CASE(every_condition_of_a_mistake_is_kept_and_nothing_else) {
  const auto shape = [](std::function<bool(const Problem&)> condition) {
    const DamagedKernel kernel = wrong_if(std::move(condition));
    return shrunken(kernel, kLarge).spec.problem;
  };
  BOOST_TEST((shape([](const Problem& p) { return p.shape.B > 1; }).shape == Shape{2, 1, 1, 1, 1}));
  BOOST_TEST((shape([](const Problem& p) { return p.shape.NH > 2; }).shape == Shape{1, 3, 1, 1, 1}));
  BOOST_TEST((shape([](const Problem& p) { return p.shape.DHV > p.shape.DHQK; }).shape == Shape{1, 1, 1, 1, 2}));
  BOOST_TEST((shape([](const Problem& p) { return p.shape.DHQK >= 24 && p.has_initial_state; }).shape ==
              Shape{1, 1, 1, 24, 1}));
  const Problem ragged =
      shape([](const Problem& p) { return p.shape.S > p.chunk_size && p.shape.S % p.chunk_size != 0; });
  BOOST_TEST((ragged.shape == Shape{1, 1, 3, 1, 1}));
  BOOST_TEST(ragged.chunk_size == 2);
  const Problem exp_gate = shape([](const Problem& p) { return p.gate == Gate::exp && p.eps > 0; });
  BOOST_TEST((exp_gate.gate == Gate::exp));
  BOOST_TEST(exp_gate.eps == 1);
}

BOOST_AUTO_TEST_CASE(limits_of_the_variant_are_respected) {
  DamagedKernel kernel = wrong_if([](const Problem&) { return true; });
  kernel.change().DHQK = {16, 512, 8};
  kernel.change().DHV = {8, 512, 8};
  kernel.change().L = {16, 64, 16};
  kernel.change().unnormalized = false;
  kernel.change().initial_states = true;
  const Problem& problem = shrunken(kernel, kLarge).spec.problem;
  BOOST_TEST((problem.shape == Shape{1, 1, 1, 16, 8}));
  BOOST_TEST(problem.chunk_size == 16);
  BOOST_TEST((problem.gate == Gate::sigmoid && problem.normalize));
}

BOOST_AUTO_TEST_CASE(a_gradient_that_fails_keeps_its_cotangents_and_the_convention) {
  const DamagedKernel kernel({{}, [](const Problem& problem, const BackwardArgs& args) {
                                writable(args.df, "f", problem).edit([](double value, auto...) { return 2 * value; });
                              }});
  const Shrunk result = shrunken(kernel, kLarge, Convention::detached);
  BOOST_TEST(result.spec.cotangents);
  BOOST_TEST(!result.spec.last_state_cotangents);
  BOOST_TEST(result.spec.regime == "halving");  // with gates that are open a little, so that df is of normal size
  // df of the first step without a past is 0, so there is a second one, or a state.
  BOOST_TEST((result.spec.problem.shape.S <= 2 && result.spec.problem.shape.heads() == 1));
  BOOST_TEST(result.repro.ends_with("--convention detached"));
  BOOST_TEST(std::any_of(result.items.begin(), result.items.end(),
                         [](const Item& item) { return item.tensor == "df" && item.status == Status::FAIL; }));
}

BOOST_AUTO_TEST_CASE(only_the_same_failure_counts) {
  // Short sequences fail too, but elsewhere.
  const DamagedKernel kernel(
      {[](const Problem& problem, const ForwardArgs& args) {
         if (problem.shape.S > 40)
           writable(args.h, "h", problem).edit([](double value, auto...) { return value + 1; });
         else if (args.n_last != nullptr)
           writable(args.n_last, "n_last", problem).edit([](double value, auto...) { return value + 1; });
       },
       {}});
  BOOST_TEST(shrunken(kernel, kLarge).spec.problem.shape.S == 41);
}

BOOST_AUTO_TEST_CASE(a_run_that_stops_shrinks_to_one_that_stops_for_the_same_reason) {
  const DamagedKernel kernel({[](const Problem& problem, const ForwardArgs&) {
                                const std::int64_t S = problem.shape.S;
                                if (S >= 10) throw std::runtime_error("illegal address in block " + std::to_string(S));
                                if (S < 5) throw std::runtime_error("launch failed");
                              },
                              {}});
  const Shrunk result = shrunken(kernel, kLarge);
  BOOST_TEST(result.spec.problem.shape.S == 10);
  BOOST_TEST(result.items.front().note.find("illegal address") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_mistake_in_the_state_keeps_the_chunks_that_show_it) {
  BentRecurrence kernel(Module::chunkwise);
  kernel.bend_gates = [](Step& step) {
    if (step.t == 2 * step.problem.chunk_size) step.log_forget = -1000;  // the state is dropped
  };
  const ProblemSpec& spec = shrunken(kernel, kLarge, {}).spec;
  BOOST_TEST((spec.problem.shape == Shape{1, 1, 3, 1, 1}));
  BOOST_TEST(spec.problem.chunk_size == 1);
}

BOOST_AUTO_TEST_CASE(shrinking_is_deterministic) {
  BentRecurrence kernel(Module::chunkwise);
  kernel.bend_state = [](Step& step) {
    if (step.t % 7 == 5) step.m += 1;
  };
  const Shrunk one = shrunken(kernel, kLarge, {}), other = shrunken(kernel, kLarge, {});
  BOOST_TEST(to_text(one) == to_text(other));
  BOOST_TEST(one.spec.problem.shape.S == 6);
}

BOOST_AUTO_TEST_CASE(a_failure_that_comes_and_goes_is_tried_again_before_a_pass_is_believed) {
  // One run in three is wrong. With repeats and two poisons a run calls forward three times.
  auto calls = std::make_shared<std::int64_t>(0);
  const DamagedKernel kernel({[calls](const Problem& problem, const ForwardArgs& args) {
                                if (problem.shape.S < 20 || (*calls)++ / 3 % 3 != 0) return;
                                writable(args.h, "h", problem).edit([](double value, auto...) { return value + 1; });
                              },
                              {}});
  const Shrunk result = shrunken(kernel, "regime=forget3,dtype=float32,NH=2,S=100,DHQK=8,DHV=8,L=16,cotangents=0", {});
  BOOST_TEST(result.failed < result.tried);
  BOOST_TEST(result.attempts > 3);
  BOOST_TEST((result.spec.problem.shape == Shape{1, 1, 20, 1, 1}));
  BOOST_TEST(to_text(result).find("it comes and goes: the original failed in 1 of 3 runs") != std::string::npos,
             to_text(result));
}

BOOST_AUTO_TEST_CASE(a_failure_that_never_comes_again_is_not_shrunk) {
  const DamagedKernel kernel({});
  const Shrunk result = shrink(kernel, parse_spec("dtype=float32,S=4,L=2"), {}, {Status::FAIL, {"h"}, {}}, quick());
  BOOST_TEST(result.failed == 0);
  BOOST_TEST(to_text(result) == "shrunken: not possible, it passed in 20 more runs");
}

BOOST_AUTO_TEST_CASE(no_run_begins_after_the_time_is_over_and_what_is_found_still_fails) {
  const DamagedKernel kernel = wrong_if([](const Problem& p) { return p.shape.S > 64; });
  ShrinkOptions options = quick();
  options.seconds = 1e-9;
  const Shrunk result = shrunken(kernel, kLarge, Convention::exact, options);
  BOOST_TEST(result.out_of_time);
  BOOST_TEST(result.runs == 1);
  BOOST_TEST(to_line(result.spec) == to_line(parse_spec(kLarge)));
  BOOST_TEST(to_text(result).find("time ran out") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(simplicity_orders_every_regime_once) {
  std::set<std::string> names(regimes_by_simplicity().begin(), regimes_by_simplicity().end());
  BOOST_TEST(names.size() == regimes_by_simplicity().size());
  BOOST_TEST(names.size() == regimes().size() + simple_regimes().size());
  BOOST_TEST(regimes_by_simplicity().front() == "ones");
}

BOOST_AUTO_TEST_CASE(a_run_that_a_check_stopped_names_the_tensor_and_the_check) {
  std::int64_t calls = 0;
  const DamagedKernel kernel(
      {{}, [&calls](const Problem& problem, const BackwardArgs& args) {
         const auto offset = static_cast<double>(++calls);
         writable(args.dv, "v", problem).edit([=](double value, auto...) { return value + offset; });
       }});
  const ProblemSpec spec = parse_spec("regime=forget3,dtype=float64,S=4,DHQK=2,DHV=2,L=4");
  std::vector<Item> items;
  for (const Record& record : run_sweep(make_plan({&kernel}, {spec}, true, Convention::exact).units, {}))
    items.push_back(record.item);
  BOOST_REQUIRE(items.size() == 1u);
  BOOST_TEST((items[0].status == Status::FAIL));
  BOOST_TEST(items[0].tensor == "dv");
  BOOST_TEST(items[0].convention == "exact");
  BOOST_TEST(items[0].run == "exact");
  BOOST_TEST(items[0].check == "repeat");
  BOOST_TEST(describe(items[0]).starts_with("dv (exact): "));
  BOOST_TEST(failure_of(items).value().reason == "repeat");
}

BOOST_AUTO_TEST_CASE(the_first_failures_of_a_variant_get_explanations) {
  const DamagedKernel kernel({[](const Problem& problem, const ForwardArgs& args) {
                                writable(args.h, "h", problem).edit([](double value, auto...) { return 2 * value; });
                              },
                              [](const Problem& problem, const BackwardArgs& args) {
                                writable(args.dv, "v", problem).edit([](double value, auto...) { return -value; });
                              }});
  const std::vector<Unit> units = make_plan({&kernel},
                                            {parse_spec("regime=forget3,dtype=float32,S=8,DHQK=4,DHV=4,L=4"),
                                             parse_spec("regime=forget6,dtype=float32,S=8,DHQK=4,DHV=4,L=4"),
                                             parse_spec("regime=forget3,dtype=float64,S=8,DHQK=4,DHV=4,L=4")},
                                            true)
                                      .units;
  for (const std::int64_t failures : {1, 2, 99}) {
    ExplainOptions options;
    options.stages = true;
    options.seconds = 60;
    options.failures = failures;
    options.sweep.threads = 1;
    std::int64_t called = 0;
    options.progress = [&](const Item&) { ++called; };
    std::vector<Record> records = run_sweep(units, options.sweep);
    explain_failures(records, units, options);
    const auto explained = std::count_if(records.begin(), records.end(), [](const Record& record) {
      return record.item.explanation.find("shrunken: ") != std::string::npos &&
             record.item.explanation.find("wrong first") != std::string::npos;
    });
    BOOST_TEST(explained == called);
    BOOST_TEST(called == std::min<std::int64_t>(failures, 4));  // outputs and gradients in two dtypes
  }
}
