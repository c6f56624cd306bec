// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include "studies/fixtures/fixtures.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>

#include "cases/case_file.hpp"
#include "small_case.hpp"

namespace fs = std::filesystem;
using namespace mlstm;
using namespace mlstm::verify;

namespace {

std::vector<ProblemSpec> two_specs() {
  ProblemSpec plain{.problem = {.shape = {1, 2, 9, 4, 6}, .eps = 1e-3, .dtype = DType::bfloat16, .chunk_size = 4},
                    .seed = 1};
  ProblemSpec states{.problem = {.shape = {1, 1, 7, 3, 2}, .gate = Gate::sigmoid, .has_initial_state = true},
                     .seed = 2,
                     .last_state_cotangents = true};
  return {plain, states};
}

/// Fixtures in a directory of their own.
struct Generated {
  test::TemporaryDirectory directory;
  std::vector<fs::path> paths;
  explicit Generated(const FixtureOptions& options = {}, const std::vector<ProblemSpec>& specs = two_specs())
      : paths(generate_fixtures(specs, directory.path(), options)) {}

  FixtureCheck check() const { return check_fixtures({directory.path()}); }
  /// Changes the first file with another program's freedom, and checks everything again.
  FixtureCheck check_after(const std::function<void(Case&)>& edit) const {
    Case c = read_case(paths.front());
    edit(c);
    write_case(c, paths.front());
    return check();
  }
};

void move_one_step(double& value) { value = std::nextafter(value, std::numeric_limits<double>::infinity()); }

std::string precision_of_reference(const fs::path& path) {
  return std::get<std::string>(read_case(path).reference->attributes.at("precision"));
}

}  // namespace

BOOST_AUTO_TEST_CASE(fixtures_hold_inputs_cotangents_reference_bounds_and_the_line_that_makes_them) {
  const Generated generated;
  BOOST_TEST(generated.paths.size() == 2u);
  for (std::size_t n = 0; n < 2; ++n) {
    const ProblemSpec spec = two_specs()[n];
    BOOST_TEST(generated.paths[n].stem().string() == case_name(spec));
    const Case c = read_case(generated.paths[n]);
    BOOST_TEST((parse_spec(std::get<std::string>(c.attributes.at("spec"))) == spec));
    BOOST_TEST(test::same(c.inputs, make_case(spec).inputs));
    BOOST_TEST(test::same(c.cotangents, make_case(spec).cotangents));
    BOOST_TEST(c.reference->outputs.size() == output_names(spec.problem).size());
    BOOST_TEST(c.reference->exact.size() == c.inputs.size());
    BOOST_TEST(c.reference->detached.size() == c.inputs.size());
    BOOST_TEST(precision_of_reference(generated.paths[n]) == "extended");
    for (const char* name : {"h", "exact/q", "detached/f"}) BOOST_TEST(c.reference->bounds.contains(name), name);
  }
  BOOST_TEST(!fs::exists(generated.directory.path() / "MANIFEST.sha256"));
}

BOOST_AUTO_TEST_CASE(fresh_fixtures_do_not_drift) {
  FixtureOptions options;
  options.manifest = true;
  const Generated generated(options);
  BOOST_TEST(fs::exists(generated.directory.path() / "MANIFEST.sha256"));
  const FixtureCheck result = generated.check();
  BOOST_TEST(result.files == 2);
  BOOST_TEST(result.drifts.empty());
  BOOST_TEST(result.errors.empty());
}

BOOST_AUTO_TEST_CASE(fixtures_are_the_same_bytes_for_any_number_of_threads) {
  FixtureOptions options;
  options.threads = 1;
  const Generated one(options);
  options.threads = 2;
  const Generated two(options);
  for (std::size_t n = 0; n < 2; ++n) BOOST_TEST(sha256_of_file(one.paths[n]) == sha256_of_file(two.paths[n]));
}

BOOST_AUTO_TEST_CASE(problems_beyond_the_limit_are_solved_in_float64_and_say_so) {
  FixtureOptions options;
  options.extended_limit = cost_of(two_specs()[1].problem, true);
  const Generated generated(options);
  BOOST_TEST(precision_of_reference(generated.paths[0]) == "float64");
  BOOST_TEST(precision_of_reference(generated.paths[1]) == "extended");
  BOOST_TEST(generated.check().drifts.empty());
}

BOOST_AUTO_TEST_CASE(one_unit_in_the_last_place_of_an_extended_reference_is_drift) {
  const Generated generated;
  double before = 0;
  const FixtureCheck result = generated.check_after([&](Case& c) {
    before = c.reference->exact["k"](0, 1, 3, 2);
    move_one_step(c.reference->exact["k"](0, 1, 3, 2));
  });
  BOOST_TEST(result.files == 2);
  BOOST_REQUIRE(result.drifts.size() == 1u);
  const Drift& drift = result.drifts.front();
  BOOST_TEST(drift.file == generated.paths.front());
  BOOST_TEST(drift.tensor == "/reference/gradients/exact/k");
  BOOST_TEST((drift.index == std::vector<std::int64_t>{0, 1, 3, 2}));
  BOOST_TEST(drift.computed == before);
  BOOST_TEST(drift.stored > before);
  BOOST_TEST(drift.count == 1);
  BOOST_TEST(to_string(drift).find("/reference/gradients/exact/k[0,1,3,2] is ") != std::string::npos, to_string(drift));
}

BOOST_AUTO_TEST_CASE(a_float64_reference_may_move_within_its_bound_and_no_further) {
  FixtureOptions options;
  options.extended_limit = 0;
  options.bounds = false;
  const Generated generated(options);
  BOOST_TEST(
      generated.check_after([](Case& c) { move_one_step(c.reference->outputs["h"](0, 0, 5, 1)); }).drifts.empty());
  const FixtureCheck result = generated.check_after([](Case& c) { c.reference->outputs["h"](0, 0, 5, 1) += 1e-9; });
  BOOST_REQUIRE(result.drifts.size() == 1u);
  BOOST_TEST(result.drifts.front().tensor == "/reference/outputs/h");
  BOOST_TEST((result.drifts.front().index == std::vector<std::int64_t>{0, 0, 5, 1}));
  BOOST_TEST(result.drifts.front().allowed > 0);
  BOOST_TEST(result.drifts.front().allowed < 1e-9);
}

BOOST_AUTO_TEST_CASE(a_float64_reference_that_is_off_by_a_factor_drifts_before_its_elements_do) {
  FixtureOptions options;
  options.extended_limit = 0;
  options.bounds = false;
  const Generated generated(options, {parse_spec("regime=forget6,dtype=float64,NH=4,S=256,DHQK=16,DHV=16,L=32")});
  const Array right = read_case(generated.paths.front()).reference->outputs.at("n_last");
  const auto check_times = [&](double factor) {
    return generated.check_after([&](Case& c) { c.reference->outputs["n_last"] = right * factor; });
  };
  BOOST_TEST(check_times(1 + 4e-16).drifts.empty());
  for (double off = 1e-15; off < 1e-12; off *= 1.1) {
    const FixtureCheck result = check_times(1 + off);
    if (result.drifts.empty()) continue;
    const Drift& drift = result.drifts.front();
    BOOST_TEST(drift.tensor == "/reference/outputs/n_last");
    BOOST_TEST(drift.count == 0);
    BOOST_TEST(drift.bias.starts_with("n_last is "), drift.bias);
    BOOST_TEST(to_string(drift).find("too large on average") != std::string::npos, to_string(drift));
    return;
  }
  BOOST_ERROR("no drift");
}

BOOST_AUTO_TEST_CASE(the_worst_of_several_drifts_is_named) {
  FixtureOptions options;
  options.extended_limit = 0;
  options.bounds = false;
  const Generated generated(options);
  const FixtureCheck result = generated.check_after([](Case& c) {
    for (const std::int64_t t : {1, 4, 6}) c.reference->detached["q"](0, 0, t, 0) += t == 4 ? 0.5 : 1e-4;
  });
  BOOST_REQUIRE(result.drifts.size() == 1u);
  BOOST_TEST((result.drifts.front().index == std::vector<std::int64_t>{0, 0, 4, 0}));
  BOOST_TEST(result.drifts.front().count == 3);
}

BOOST_AUTO_TEST_CASE(inputs_that_the_spec_does_not_generate_are_drift) {
  const Generated generated;
  const FixtureCheck result = generated.check_after([](Case& c) { c.inputs["v"](0, 1, 8, 5) = 0.25; });
  BOOST_REQUIRE(!result.drifts.empty());
  BOOST_TEST(result.drifts.front().tensor == "/inputs/v");
  BOOST_TEST((result.drifts.front().index == std::vector<std::int64_t>{0, 1, 8, 5}));
  BOOST_TEST(result.drifts.front().stored == 0.25);
}

BOOST_AUTO_TEST_CASE(bounds_that_are_out_of_date_are_drift) {
  const Generated generated;
  const FixtureCheck result = generated.check_after([](Case& c) { c.reference->bounds["h"](0, 0, 2, 2) *= 1.01; });
  BOOST_REQUIRE(result.drifts.size() == 1u);
  BOOST_TEST(result.drifts.front().tensor == "/reference/bounds/h");
}

BOOST_AUTO_TEST_CASE(filling_in_kernel_results_is_no_drift) {
  const Generated generated;
  const FixtureCheck result = generated.check_after([](Case& c) {
    c.kernel.emplace();
    c.kernel->operand_dtype = DType::float16;
    c.kernel->outputs["h"] = c.reference->outputs["h"];
  });
  BOOST_TEST(result.files == 2);
  BOOST_TEST(result.drifts.empty());
}

BOOST_AUTO_TEST_CASE(a_file_that_cannot_be_checked_is_an_error_and_the_others_are_checked) {
  const Generated generated;
  const FixtureCheck result = generated.check_after([](Case& c) { c.reference.reset(); });
  BOOST_TEST(result.files == 1);
  BOOST_REQUIRE(result.errors.size() == 1u);
  BOOST_TEST(result.errors.front() == generated.paths.front().string() + ": /reference is missing; expected a fixture");

  const FixtureCheck other = generated.check_after([](Case& c) { c.attributes["spec"] = std::string("regime=none"); });
  BOOST_REQUIRE(other.errors.size() == 1u);
  const FixtureCheck foreign = generated.check_after([](Case& c) { c.attributes["spec"] = to_line(two_specs()[1]); });
  BOOST_REQUIRE(foreign.errors.size() == 1u);
}

BOOST_AUTO_TEST_CASE(a_description_names_problem_tensors_reference_and_kernel) {
  const test::TemporaryDirectory directory;
  write_case(test::small_case(DType::bfloat16, Gate::exp, true), directory.path() / "case.h5");
  const std::string text = describe_case(directory.path() / "case.h5");
  for (const char* part :
       {"B=2 NH=1 S=5 DHQK=3 DHV=4", "bfloat16", "c_initial", "/reference/gradients/detached", "extended",
        "chunkwise--native_eigen_ownbw", "tfloat32", "seed", "-7", "(2,1,5,3)", "2 NaN or infinite"})
    BOOST_TEST(text.find(part) != std::string::npos, part << " is not in\n" << text);
}
