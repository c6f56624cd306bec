// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Certifies float64 with 50 digits: per formulation, gate and regime, the largest error of any element of any tensor,
// in units of the last place (2^-52) at the scale of the element's condition bound (verify/BOUNDS.md).
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <map>
#include <sstream>

#include "mlstm/verify/bounds.hpp"
#include "mlstm/verify/problems.hpp"
#include "reference_tools.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::test;

/// The float64 bound is 3 (calibrated constant) times 4 * 2^-53 (float64 operands) times the condition.
constexpr double kUlpsPerBound = 3 * 4 * 0.5;

/// Largest error over bound of the elements of one group of tensors.
void raise(double& worst, const std::string& prefix, const verify::TensorMap& value, const verify::TensorMap& exact,
           const verify::TensorMap& bounds) {
  for (const auto& [name, expected] : exact) {
    const auto straddling = bounds.find(prefix + name + "_straddling");  // how the reference sums df
    const verify::Array& bound = straddling != bounds.end() ? straddling->second : bounds.at(prefix + name);
    for (std::size_t e = 0; e < expected.size(); ++e) {
      const double x = value.at(name).data()[e], y = expected.data()[e];
      const double error = std::abs(x - y);
      if (x == y || error <= std::numeric_limits<double>::min()) continue;
      const double ratio = error / bound.data()[e];
      worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : std::max(worst, ratio);
    }
  }
}

double worst_ratio(const verify::Case& c, const verify::ReferenceData& value, const verify::ReferenceData& exact,
                   std::int64_t window) {
  const verify::Precision float64{DType::float64, DType::float64, DType::float64, DType::float64, window};
  const verify::TensorMap bounds = verify::error_bounds(c, exact, float64);
  double worst = 0;
  raise(worst, "", value.outputs, exact.outputs, bounds);
  raise(worst, "exact/", value.exact, exact.exact, bounds);
  raise(worst, "detached/", value.detached, exact.detached, bounds);
  return worst;
}

}  // namespace

BOOST_AUTO_TEST_CASE(float64_errors_stay_within_the_float64_bound_in_every_regime) {
  std::ostringstream table;
  table.precision(2);
  table << "| regime | exp: recurrent | parallel | chunkwise | sigmoid: recurrent | parallel | chunkwise |\n"
        << "|---|---|---|---|---|---|---|\n";
  for (const verify::Regime& regime : verify::regimes()) {
    table << "| " << regime.name;
    for (const auto gate : {Gate::exp, Gate::sigmoid}) {
      verify::ProblemSpec spec;
      spec.regime = regime.name;
      spec.problem = {.shape = {1, 1, 40, 8, 8}, .gate = gate, .dtype = DType::float64, .has_initial_state = true};
      spec.last_state_cotangents = true;
      const verify::Case c = verify::make_case(spec);
      const verify::ReferenceData exact =
          verify::evaluate_reference(c, {Module::recurrent, reference::Backward::ownbw, 0, 0}, true);
      for (const auto& [formulation, window] :
           {std::pair{Module::recurrent, 1}, std::pair{Module::parallel, 40}, std::pair{Module::chunkwise, 16}}) {
        const reference::Options options{formulation, reference::Backward::ownbw, 16, 0};
        const double ratio = worst_ratio(c, verify::evaluate_reference(c, options), exact, window);
        BOOST_TEST_CONTEXT(regime.name << " " << to_string(gate) << " " << describe(options)) {
          BOOST_TEST(ratio <= 1.0);
        }
        table << " | " << kUlpsPerBound * ratio;
      }
    }
    table << " |\n";
  }
  BOOST_TEST_MESSAGE(table.str());
}
