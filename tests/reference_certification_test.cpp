// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Certifies the float64 reference against more than 50 digits, and prints the table of the README.
#include <fmt/format.h>
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <iostream>
#include <map>

#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "judge/bounds.hpp"
#include "judge/judge.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

// The raw bound of float64 is u = 4 * 2^-53 times the scale of the sums, that is 2 units of 2^-52; the calibrated bound
// is three times that.
constexpr double kUnitsOfBound = 6;
// The float64 reference has to meet the bound that float64 kernels are held to; `fixtures check` relies on it.
constexpr double kLargestUnits = kUnitsOfBound;

constexpr DType f64 = DType::float64;

struct Gating {
  const char *name, *spec;
};
constexpr Gating kGatings[] = {
    {"exp", ""}, {"sigmoid", ",gate=sigmoid"}, {"sigmoid, not normalized", ",gate=sigmoid,normalize=0"}};

double largest_units(const Case& c, const ReferenceData& truth, const TensorMap& bounds, Module formulation) {
  reference::Options how;
  how.formulation = formulation;
  const ReferenceData computed = evaluate_reference(c, how);
  double largest = 0;
  const auto take = [&](const TensorMap& values, const TensorMap& expected, const std::string& prefix) {
    for (const auto& [name, value] : values) {
      // Sums over straddling pairs are what the reference computes, too.
      const std::string key = prefix + (name == "f" ? "f_straddling" : name);
      largest = std::max(largest, kUnitsOfBound * compare(value, expected.at(name), bounds.at(key), f64).error_ratio);
    }
  };
  take(computed.outputs, truth.outputs, "");
  take(computed.exact, truth.exact, "exact/");
  take(computed.detached, truth.detached, "detached/");
  return largest;
}

}  // namespace

BOOST_AUTO_TEST_CASE(float64_errors_are_a_few_units_of_the_condition_bound) {
  std::string table = "| regime | gate | recurrent | parallel | chunkwise |\n|---|---|---|---|---|\n";
  std::map<std::string, double> worst;
  for (const Regime& regime : regimes())
    for (const Gating& gating : kGatings) {
      double units[3] = {};
      for (const char* states : {"", ",initial_states=1,last_state_cotangents=1,stabilizer_init=neg_inf,eps=0.01"}) {
        const Case c = make_case(
            parse_spec("regime=" + regime.name + ",seed=5,B=1,NH=2,S=29,DHQK=6,DHV=7,L=8" + gating.spec + states));
        const ReferenceData truth = evaluate_reference(c, {}, true);
        for (const Module formulation : {Module::recurrent, Module::parallel, Module::chunkwise}) {
          const std::int64_t window = formulation == Module::recurrent ? 0 : formulation == Module::parallel ? 29 : 8;
          const double u = largest_units(c, truth, error_bounds(c, truth, {f64, f64, f64, f64, window}), formulation);
          double& cell = units[static_cast<int>(formulation)];
          cell = std::max(cell, u);
          BOOST_TEST(u <= kLargestUnits, c.name << " " << to_string(formulation) << ": " << u);
        }
      }
      table += fmt::format("| {} | {} | {:.2f} | {:.2f} | {:.2f} |\n", regime.name, gating.name, units[0], units[1],
                           units[2]);
    }
  std::cout << table;
  replace_file(MLSTM_BINARY_DIR "/certification.md", table);
}

BOOST_AUTO_TEST_CASE(an_error_of_three_parts_in_ten_to_the_thirteen_is_seen) {
  const Case c = make_case(parse_spec("regime=standard,seed=5,B=1,NH=1,S=29,DHQK=6,DHV=7,L=8"));
  const ReferenceData truth = evaluate_reference(c, {}, true);
  const TensorMap bounds = error_bounds(c, truth, {f64, f64, f64, f64, 8});
  Array wrong = truth.outputs.at("h");
  wrong *= 1 + 3e-13;
  BOOST_TEST(kUnitsOfBound * compare(wrong, truth.outputs.at("h"), bounds.at("h"), f64).error_ratio > kLargestUnits);
}
