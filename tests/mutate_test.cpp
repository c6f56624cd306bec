// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// Planted bugs: what finds them, what is reported of it, and what other acceptance rules say.
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/files.hpp"
#include "base/json.hpp"
#include "program.hpp"
#include "studies/mutation/honest.hpp"
#include "studies/mutation/mutate.hpp"
#include "studies/mutation/rules.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

Array array_of(std::vector<double> values, std::vector<std::size_t> shape) {
  Array array = Array::from_shape(shape);
  std::copy(values.begin(), values.end(), array.data());
  return array;
}

const Rule& rule(const std::string& name) {
  for (const Rule& candidate : acceptance_rules())
    if (candidate.name == name) return candidate;
  throw std::logic_error("no rule " + name);
}

/// A run that returned h and dv, in a shape (1, 1, S, columns).
struct HandMade {
  Problem problem;
  KernelData got, plain, loss_got;
  ReferenceData reference, loss_reference;
  RuleInput input;

  HandMade(std::size_t steps, std::size_t columns, DType dtype, double expected) {
    problem.dtype = dtype;
    problem.shape = {1, 1, static_cast<std::int64_t>(steps), 4, static_cast<std::int64_t>(columns)};
    Array values = Array::from_shape({1, 1, steps, columns});
    values.fill(expected);
    reference.outputs["h"] = got.outputs["h"] = plain.outputs["h"] = values;
    reference.exact["v"] = got.gradients["v"] = plain.gradients["v"] = values;
    loss_reference.exact["v"] = loss_got.gradients["v"] = values;
    input = {&problem, Module::chunkwise, Convention::exact, &got, &reference, &plain, &loss_got, &loss_reference};
  }
  double& h(std::size_t n) { return got.outputs["h"].data()[n]; }
  double& dv(std::size_t n) { return got.gradients["v"].data()[n]; }
  bool passes(const std::string& name) const { return rule(name).accepts(input); }
};

const Mutant& mutant(std::string_view name) {
  for (const Mutant& candidate : mutants())
    if (candidate.name == name) return candidate;
  throw std::logic_error("no mutant " + std::string(name));
}

MutationReport run(const std::vector<std::string>& names, const std::vector<std::string>& cases,
                   MutationOptions options = {}) {
  for (const std::string& name : names) options.mutants.push_back(&mutant(name));
  options.adapt = false;
  std::vector<ProblemSpec> specs;
  for (const std::string& line : cases) specs.push_back(parse_spec(line));
  return run_mutants(specs, options);
}

constexpr const char* kSmall =
    "regime=forget6,S=40,DHQK=8,DHV=8,L=16,dtype=float32,eps=0.01,initial_states=1,last_state_cotangents=1";

}  // namespace

BOOST_AUTO_TEST_SUITE(rules)

BOOST_AUTO_TEST_CASE(all_close_is_numpys) {
  const Array one = array_of({1, -2}, {2});
  BOOST_TEST(all_close(array_of({1.1, -2.2}, {2}), one, 0, 0.101));
  BOOST_TEST(!all_close(array_of({1.1, -2.2}, {2}), one, 0, 0.099));
  BOOST_TEST(all_close(array_of({1.1, -2.1}, {2}), one, 0.11, 0));
  BOOST_TEST(!all_close(array_of({1, kNaN}, {2}), one, 10, 10));
  BOOST_TEST(!all_close(array_of({1, -kInf}, {2}), one, 10, 10));
  BOOST_TEST(all_close(array_of({kInf}, {1}), array_of({kInf}, {1}), 0, 0));
  BOOST_TEST(!all_close(array_of({5}, {1}), array_of({kInf}, {1}), 1, 1));
}

BOOST_AUTO_TEST_CASE(published_tolerances_let_doubled_gradients_pass) {
  HandMade run(4, 4, DType::float32, 3);
  BOOST_TEST(run.passes("mlstm_kernels, tiled"));
  run.loss_got.gradients["v"] *= 2;  // 6 against 3: 3 <= 4.2 + 0.5 * 3
  BOOST_TEST(run.passes("mlstm_kernels, tiled"));
  BOOST_TEST(!run.passes("mlstm_kernels, native"));
  run.loss_got.gradients["v"] *= 2;  // 12 against 3
  BOOST_TEST(!run.passes("mlstm_kernels, tiled"));
}

BOOST_AUTO_TEST_CASE(published_tolerances_go_by_formulation_and_gate) {
  HandMade run(4, 4, DType::float32, 3);
  run.loss_got.gradients["v"] *= 2;
  run.problem.gate = Gate::sigmoid;  // 3 > 0.4 + 0.5 * 3
  BOOST_TEST(!run.passes("mlstm_kernels, tiled"));
  run.input.module = Module::parallel;  // 3 <= 0.3 + 1 * 3
  BOOST_TEST(run.passes("mlstm_kernels, tiled"));
  run.input.module = Module::recurrent;
  BOOST_TEST(!run.passes("mlstm_kernels, tiled"));
}

BOOST_AUTO_TEST_CASE(published_tolerances_of_h) {
  HandMade run(4, 4, DType::float32, 1);
  run.h(5) = 1.06;  // 0.06 <= 0.02 + 0.05
  BOOST_TEST(run.passes("mlstm_kernels, tiled"));
  run.problem.has_initial_state = true;  // handing on states is tested at 2e-3
  BOOST_TEST(!run.passes("mlstm_kernels, tiled"));
  run.problem.has_initial_state = false;
  run.h(5) = 1.08;
  BOOST_TEST(!run.passes("mlstm_kernels, tiled"));
  run.h(5) = kNaN;
  BOOST_TEST(!run.passes("mlstm_kernels, tiled"));
}

BOOST_AUTO_TEST_CASE(fixed_tolerance) {
  HandMade run(4, 4, DType::float32, 1);
  run.dv(3) = 1.019;
  BOOST_TEST(run.passes("atol = rtol = 1e-2"));
  run.dv(3) = 1.021;
  BOOST_TEST(!run.passes("atol = rtol = 1e-2"));
  run.dv(3) = kNaN;
  BOOST_TEST(!run.passes("atol = rtol = 1e-2"));
}

BOOST_AUTO_TEST_CASE(flash_attention_allows_twice_the_error_of_a_plain_program) {
  HandMade run(4, 4, DType::bfloat16, 0);
  run.plain.outputs["h"].data()[7] = 0.5;
  run.h(2) = -1;  // elsewhere, and as large as twice that
  BOOST_TEST(run.passes("FlashAttention"));
  run.h(2) = -1.01;  // the floor is 0.0016
  BOOST_TEST(!run.passes("FlashAttention"));
  run.h(2) = kNaN;
  BOOST_TEST(!run.passes("FlashAttention"));
}

BOOST_AUTO_TEST_CASE(flash_attention_has_a_floor) {
  // 0.01 + 0.3 is rounded to bfloat16, where steps are 2^-9: an error of up to 2^-10 is twice the floor's half
  HandMade run(4, 4, DType::bfloat16, 0.01);
  const double stored = round_to(DType::bfloat16, 0.01);
  const double back = round_to(DType::bfloat16, round_to(DType::bfloat16, stored + 0.3) - 0.3);
  const double floor = 2 * std::abs(back - stored);
  BOOST_TEST(floor > 0);
  run.h(0) = 0.01 + 0.99 * floor;
  BOOST_TEST(run.passes("FlashAttention"));
  run.h(0) = 0.01 + 1.01 * floor;
  BOOST_TEST(!run.passes("FlashAttention"));
}

BOOST_AUTO_TEST_CASE(benchdnn_norm_lets_zero_gradients_pass_in_bfloat16) {
  HandMade run(256, 8, DType::bfloat16, 1);
  run.got.gradients["v"].fill(0);
  BOOST_TEST(run.passes("benchdnn, RNN"));
  run.got.gradients["v"].fill(4);
  BOOST_TEST(!run.passes("benchdnn, RNN"));
  run.got.gradients["v"].fill(kNaN);
  BOOST_TEST(!run.passes("benchdnn, RNN"));
}

BOOST_AUTO_TEST_CASE(benchdnn_norm_in_float32) {
  HandMade run(256, 8, DType::float32, 1);
  run.h(77) = 1.0001;  // 1e-4 of one in 2048: 2.2e-6 of the norm
  BOOST_TEST(run.passes("benchdnn, RNN"));
  run.h(77) = 1.01;
  BOOST_TEST(!run.passes("benchdnn, RNN"));
}

BOOST_AUTO_TEST_CASE(benchdnn_looks_at_elements_of_a_single_step) {
  HandMade run(1, 512, DType::float32, 1);
  run.h(77) = 1.0001;
  BOOST_TEST(!run.passes("benchdnn, RNN"));
}

BOOST_AUTO_TEST_CASE(benchdnn_forgives_few_elements_that_the_norm_does_not_see) {
  HandMade run(256, 8, DType::float32, 1);
  run.h(0) = 1 + 2e-6;
  run.h(1) = 1 + 2e-6;  // 2 of 2048
  BOOST_TEST(run.passes("benchdnn, elements"));
  run.h(2) = 1 + 2e-6;
  BOOST_TEST(!run.passes("benchdnn, elements"));
  run.h(1) = run.h(2) = 1;
  run.h(0) = 1.1;  // one, and the norm sees it
  BOOST_TEST(!run.passes("benchdnn, elements"));
  run.h(0) = kNaN;
  BOOST_TEST(!run.passes("benchdnn, elements"));
}

BOOST_AUTO_TEST_CASE(fla_takes_the_root_mean_square) {
  HandMade run(10, 10, DType::float32, 1);
  run.h(0) = 1.049;  // rms 0.0049
  BOOST_TEST(rms_ratio(run.got.outputs["h"], run.reference.outputs["h"]) == 0.0049, boost::test_tools::tolerance(1e-5));
  BOOST_TEST(run.passes("fla"));
  run.h(0) = 1.051;
  BOOST_TEST(!run.passes("fla"));
  BOOST_TEST(run.passes("fla in CI"));
  run.got.outputs["h"].fill(1.29);  // 29 % everywhere: at most 0.3
  BOOST_TEST(run.passes("fla in CI"));
  run.got.outputs["h"].fill(1.31);
  BOOST_TEST(!run.passes("fla in CI"));
  run.h(0) = kNaN;
  BOOST_TEST(!run.passes("fla"));
  BOOST_TEST(!run.passes("fla in CI"));
}

BOOST_AUTO_TEST_CASE(fla_does_not_see_errors_of_a_millionth) {
  HandMade run(10, 10, DType::float32, 1e-7);
  run.got.outputs["h"].fill(1e-6);
  BOOST_TEST(run.passes("fla"));
}

BOOST_AUTO_TEST_CASE(layer_norm_loss_has_the_derivative_of_its_formula) {
  const Array h = array_of({0.3, -1.2, 2.0, 0.7, 5.0, 4.0, 3.0, -1.0}, {1, 1, 2, 4});
  const Array dh = layer_norm_cotangents(h, DType::float64, 3);
  // The offsets are not public; two slopes tell enough: dh is orthogonal to 1 and, but for the eps of 1e-5, to h.
  for (std::size_t row = 0; row < 2; ++row) {
    double sum = 0, along = 0, size = 0;
    for (std::size_t a = 0; a < 4; ++a) {
      sum += dh(0, 0, row, a);
      along += dh(0, 0, row, a) * h(0, 0, row, a);
      size += std::abs(dh(0, 0, row, a));
    }
    BOOST_TEST(std::abs(sum) < 1e-12 * size);
    BOOST_TEST(std::abs(along) < 1e-3 * size);
    BOOST_TEST(size > 0.1);
  }
  BOOST_TEST((layer_norm_cotangents(h, DType::bfloat16, 3)(0, 0, 1, 2) == round_to(DType::bfloat16, dh(0, 0, 1, 2))));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(engine)

BOOST_AUTO_TEST_CASE(every_check_names_what_it_found) {
  const std::pair<const char*, const char*> expected[] = {
      {"chunkwise.saved_written_past_end", "red zone"},      {"chunkwise.df_written_before_start", "red zone"},
      {"chunkwise.c_initial_input_damaged", "input damage"}, {"chunkwise.dv_last_element_unwritten", "not written"},
      {"chunkwise.accumulators_not_cleared", "poison"},      {"chunkwise.state_race", "repeat"}};
  std::vector<std::string> names;
  for (const auto& [name, check] : expected) names.push_back(name);
  const MutationReport report = run(names, {kSmall});
  for (std::size_t n = 0; n < names.size(); ++n) {
    BOOST_TEST_CONTEXT(names[n]) {
      const MutantResult& result = report.mutants.at(n);
      BOOST_TEST(result.mutant->name == names[n]);
      BOOST_TEST(report.evidence(result)->check == expected[n].second);
      // two conventions were run
      BOOST_TEST(result.by_regime.at("forget6").at(expected[n].second).runs == 2);
    }
  }
}

BOOST_AUTO_TEST_CASE(the_kill_matrix_says_where_and_by_what) {
  // A state that is never handed on shows in every tensor, but not within one chunk.
  const MutationReport report =
      run({"chunkwise.state_dropped"}, {kSmall, "regime=forget3,S=16,DHQK=8,DHV=8,L=16,dtype=float32",
                                        "regime=forget3,S=15,DHQK=8,DHV=8,L=16,dtype=float32"});
  const MutantResult& result = report.mutants.at(0);
  BOOST_TEST(result.detected());
  BOOST_TEST(result.outcomes.size() == 3u);
  BOOST_TEST(result.outcomes[0].killed);
  BOOST_TEST(!result.outcomes[1].killed);
  BOOST_TEST(!result.outcomes[2].killed);
  BOOST_TEST(result.by_regime.at("forget6").at("h").found == 1);
  BOOST_TEST(result.by_regime.at("forget6").at("h").runs == 1);
  BOOST_TEST(result.by_regime.at("forget3").at("h").found == 0);
  BOOST_TEST(result.by_regime.at("forget3").at("h").runs == 2);
  BOOST_TEST(report.evidence(result)->problem == 0);
  BOOST_TEST(report.score().found == 1);
  BOOST_TEST(report.exit_status() == 0);
}

BOOST_AUTO_TEST_CASE(a_regime_is_done_when_it_has_killed) {
  const std::vector<std::string> cases{"regime=forget6,S=40,DHQK=8,DHV=8,L=16,dtype=float32",
                                       "regime=forget6,S=48,DHQK=8,DHV=8,L=16,dtype=float32",
                                       "regime=forget3,S=40,DHQK=8,DHV=8,L=16,dtype=float32"};
  BOOST_TEST(run({"chunkwise.state_dropped"}, cases).mutants.at(0).outcomes.size() == 2u);
  MutationOptions all;
  all.exhaustive = true;
  BOOST_TEST(run({"chunkwise.state_dropped"}, cases, all).mutants.at(0).outcomes.size() == 3u);
}

// Those of 65536 heads are left to the suites, and mutants_test runs them.
BOOST_AUTO_TEST_CASE(bugs_of_geometry_are_found_in_the_problem_that_they_need) {
  std::map<std::string, std::vector<std::string>> by_problem;
  for (const Mutant& mutant : mutants())
    if (!mutant.needs.empty() && parse_spec(mutant.needs).problem.shape.heads() < 10000)
      by_problem[mutant.needs].push_back(mutant.name);
  BOOST_TEST(by_problem.size() >= 25u);
  for (const auto& [line, names] : by_problem)
    for (const MutantResult& result : run(names, {line}).mutants)
      BOOST_TEST(result.detected(), result.mutant->name << " is not found in " << line);
}

BOOST_AUTO_TEST_CASE(what_no_problem_shows_is_looked_for_by_properties) {
  const std::vector<std::string> names{"recurrent.c_last_needs_n_last", "chunkwise.saved_in_library"};
  BOOST_TEST(run(names, {kSmall}).score().found == 0);
  MutationOptions options;
  options.specimens = specimens();
  options.properties = {"null_arguments", "interleaving"};
  const MutationReport report = run(names, {kSmall}, options);
  BOOST_TEST(report.score().found == 2);
  BOOST_TEST(report.verdicts.found == 0);
  BOOST_TEST(report.mutants.at(0).by_property->property == "null_arguments");
  BOOST_TEST(report.mutants.at(1).by_property->property == "interleaving");
  const std::string json = to_json(report), text = to_text(report);
  const auto by = nlohmann::json::parse(json)["mutants"][0]["by"];
  BOOST_TEST(by["check"] == "property null_arguments");
  BOOST_TEST(by["repro"].get<std::string>().starts_with(
      "mlstm mutate --mutant recurrent.c_last_needs_n_last --property null_arguments --case "));
  BOOST_TEST(text.find("2 of 2 planted bugs detected (100.0 %) in 1 problems, 2 of them by properties alone") !=
             std::string::npos);
}

BOOST_AUTO_TEST_CASE(honest_kernels_pass_and_undetected_mutants_count) {
  MutationOptions options;
  options.specimens = specimens();
  const MutationReport report = run({"chunkwise.large_chunk_index", "chunkwise.dv_doubled"}, {kSmall}, options);
  BOOST_TEST(report.verdicts.found == 0);
  BOOST_TEST(report.verdicts.runs > 30);
  BOOST_TEST(report.score().found == 1);  // chunks of 16 do not show the first
  BOOST_TEST(report.score().runs == 2);
  BOOST_TEST(report.evidence(report.mutants.at(0)) == nullptr);
  BOOST_TEST(report.exit_status() == 1);
}

BOOST_AUTO_TEST_CASE(results_do_not_depend_on_threads) {
  const std::vector<std::string> names{"chunkwise.state_dropped", "recurrent.dm_last_ignored",
                                       "parallel.dP_without_inverse"};
  const std::vector<std::string> cases{kSmall, "regime=standard,S=20,DHQK=8,DHV=4,L=8,dtype=bfloat16",
                                       "regime=ties,S=20,DHQK=8,DHV=4,L=8,dtype=float64"};
  MutationOptions one, three;
  one.threads = 1;
  three.threads = 3;
  BOOST_TEST(to_json(run(names, cases, one)) == to_json(run(names, cases, three)));
}

BOOST_AUTO_TEST_CASE(a_mutant_without_a_problem_does_not_count) {
  const MutationReport report = run({"step.scale_missing"}, {kSmall});
  BOOST_TEST(report.unrun.size() == 1u);
  BOOST_TEST(report.score().runs == 0);
  BOOST_TEST(report.exit_status() == 3);
}

BOOST_AUTO_TEST_CASE(unchecked_runs_show_what_a_test_without_red_zones_sees) {
  const Case c = make_case(parse_spec(kSmall));
  const Mutant& bug = mutant("chunkwise.saved_written_past_end");
  BOOST_CHECK_THROW(run_kernel(*bug.kernel, c, Convention::exact), std::runtime_error);
  const KernelData wrong = run_unchecked(*bug.kernel, c, Convention::exact);
  const KernelData right = run_kernel(specimen_of(bug), c, Convention::exact);
  BOOST_TEST((wrong.outputs.at("h") == right.outputs.at("h")));
  BOOST_TEST((wrong.gradients.at("f") == right.gradients.at("f")));
}

BOOST_AUTO_TEST_CASE(others_miss_what_their_loss_and_memory_cannot_show) {
  MutationOptions options;
  options.rules = true;
  options.plain = specimens().front();
  const MutationReport report =
      run({"chunkwise.always_detached", "chunkwise.saved_written_past_end", "chunkwise.dv_without_inverse"},
          {"regime=standard,S=40,DHQK=16,DHV=16,L=16,dtype=float32"}, options);
  const auto found = [&](const std::string& name, RuleScope scope) {
    for (const RuleResult& result : report.rules)
      if (result.name == name) return result.mutants.at(scope).found;
    throw std::logic_error("no rule " + name);
  };
  BOOST_TEST(report.rules.size() == acceptance_rules().size() + 1);
  BOOST_TEST(found("mlstm verify", RuleScope::suite) == 3);
  BOOST_TEST(found("mlstm verify", RuleScope::setting) == 3);
  BOOST_TEST(found("fla", RuleScope::suite) == 2);                    // no red zones
  BOOST_TEST(found("mlstm_kernels, native", RuleScope::suite) == 1);  // nor a loss that tells conventions apart
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(choosing_problems)

/// A report in which mutant n is killed by the problems of row n; sizes of the problems by `steps`.
MutationReport killed_by(const std::vector<std::vector<std::size_t>>& rows, const std::vector<std::int64_t>& steps) {
  MutationReport report;
  for (const std::int64_t s : steps) {
    report.problems.push_back(parse_spec("regime=standard,S=1,DHQK=1,DHV=1,L=1"));
    report.problems.back().problem.shape.S = s;
  }
  for (const auto& row : rows) {
    MutantResult result;
    for (const std::size_t problem : row)
      result.outcomes.push_back({static_cast<std::int64_t>(problem), true, "h", 3, "h"});
    report.mutants.push_back(result);
  }
  return report;
}

BOOST_AUTO_TEST_CASE(greedy_cover_takes_the_cheaper_of_equals) {
  const std::vector<std::size_t> cheap{1}, both{0, 2};
  BOOST_TEST(minimal_suite(killed_by({{0, 1}, {0, 1}}, {9, 5, 1})) == cheap, boost::test_tools::per_element());
  BOOST_TEST(minimal_suite(killed_by({{0}, {2}, {0, 1}}, {1, 1, 1})) == both, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(what_becomes_superfluous_is_left_out) {
  // greed takes 0 first (4 mutants), then needs 1 and 2, which together make 0 superfluous
  const std::vector<std::size_t> expected{1, 2};
  BOOST_TEST(minimal_suite(killed_by({{0, 1}, {0, 1}, {0, 2}, {0, 2}, {1}, {2}}, {9, 1, 1})) == expected,
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(undetected_mutants_need_no_problem) { BOOST_TEST(minimal_suite(killed_by({{}}, {1})).empty()); }

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(honest)

BOOST_AUTO_TEST_CASE(random_problems_reach_everywhere) {
  std::set<std::string> names;
  std::int64_t ragged = 0, single = 0, states = 0, cotangents = 0, unnormalized = 0, odd = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const ProblemSpec spec = random_problem(seed);
    BOOST_TEST((spec == random_problem(seed)));
    BOOST_TEST((parse_spec(to_line(spec)) == spec));  // and it is valid
    names.insert(spec.regime);
    const Problem& p = spec.problem;
    ragged += p.shape.S > p.chunk_size && p.shape.S % p.chunk_size != 0;
    single += p.shape.S == 1;
    states += p.has_initial_state;
    cotangents += spec.last_state_cotangents;
    unnormalized += !p.normalize;
    odd += p.shape.DHQK % 2;
  }
  BOOST_TEST(names.size() == regimes().size());
  for (const std::int64_t count : {ragged, single, states, cotangents, unnormalized, odd}) BOOST_TEST(count > 20);
}

BOOST_AUTO_TEST_CASE(a_wrong_kernel_is_an_alarm) {
  HonestOptions options;
  options.kernels = {mutant("chunkwise.dv_doubled").kernel};
  options.dtypes = {DType::float32};
  options.seeds = 4;
  const HonestReport report = run_honest(options);
  BOOST_TEST(report.exit_status() == 1);
  BOOST_TEST(!report.alarms.empty());
  BOOST_TEST((report.largest.at({DType::float32, "dv"}).ratio > 1));
  BOOST_TEST((report.largest.at({DType::float32, "dq"}).ratio < 1));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(program)

BOOST_AUTO_TEST_CASE(a_named_mutant_in_a_named_problem) {
  const test::Workplace here;
  const test::Result found = here.run(std::string("mutate --mutant chunkwise.dv_doubled --report r --case ") + kSmall);
  BOOST_TEST(found.status == 0);
  BOOST_TEST(test::contains(found.out, "1 of 1 planted bugs detected (100.0 %) in 1 problems"));
  BOOST_TEST(test::contains(found.out, "dv (exact)"));
  const Json report = Json::parse(read_text_file(here.path / "r/mutate.json"));
  BOOST_TEST(report.at("score").get<double>() == 1);
  const Json& first = report.at("mutants").at(0);
  BOOST_TEST((first.at("name") == "chunkwise.dv_doubled"));
  BOOST_TEST((first.at("module") == "chunkwise"));
  BOOST_TEST(first.at("detected").get<bool>());
  BOOST_TEST((first.at("kills").at("forget6").at("dv (exact)") == Json::array({1, 1})));
  BOOST_TEST((first.at("regimes").at("forget6") == Json::array({1, 1})));
  BOOST_TEST(report.at("false_alarms").at("not_passed").get<std::int64_t>() == 0);

  // The line that the report gives does the same again.
  const std::string repro = first.at("by").at("repro");
  BOOST_TEST(repro.starts_with("mlstm mutate --mutant chunkwise.dv_doubled --case "));
  BOOST_TEST(here.run(repro.substr(6)).status == 0);
}

BOOST_AUTO_TEST_CASE(an_undetected_mutant_fails) {
  const test::Workplace here;
  const test::Result missed = here.run(std::string("mutate --mutant chunkwise.large_chunk_index --case ") + kSmall);
  BOOST_TEST(missed.status == 1);
  BOOST_TEST(test::contains(missed.out, "NOT DETECTED"));
}

BOOST_AUTO_TEST_CASE(bad_arguments_are_named) {
  const test::Workplace here;
  const test::Result unknown = here.run("mutate --mutant chunkwise.no_such_bug");
  BOOST_TEST(unknown.status == 2);
  BOOST_TEST(test::contains(unknown.err, "--mutant is \"chunkwise.no_such_bug\"; expected"));
  BOOST_TEST(here.run("mutate --honest 0").status == 2);
  BOOST_TEST(here.run("mutate --variant 'recurrent*'").status == 2);
}

BOOST_AUTO_TEST_CASE(mutants_are_listed) {
  const test::Workplace here;
  const test::Result list = here.run("mutate --list");
  BOOST_TEST(list.status == 0);
  for (const Mutant& mutant : mutants()) BOOST_TEST(test::contains(list.out, mutant.name));
}

BOOST_AUTO_TEST_CASE(honest_variants_give_no_alarm) {
  const test::Workplace here;
  const test::Result result =
      here.run("mutate --honest 12 --variant 'recurrent--sequence_eigen*,chunkwise--*eigen*' --report r");
  BOOST_TEST(result.status == 0);
  BOOST_TEST(test::contains(result.out, "verdicts on honest kernels: 0 other than PASS"));
  const Json report = Json::parse(read_text_file(here.path / "r/honest.json"));
  BOOST_TEST(report.at("seeds").get<std::int64_t>() == 12);
  BOOST_TEST(report.at("not_passed").get<std::int64_t>() == 0);
  BOOST_TEST(report.at("largest").size() == 48u);  // 12 tensors, 4 dtypes
}

BOOST_AUTO_TEST_SUITE_END()
