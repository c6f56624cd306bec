// SPDX-License-Identifier: Apache-2.0
// Telling a wrong denominator of h from a wrong numerator.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "sweep/guesses.hpp"

namespace mlstm::verify {
namespace {

struct Cosine {
  double ab = 0, aa = 0, bb = 0;
  void add(double a, double b) { ab += a * b, aa += a * a, bb += b * b; }
  double square() const { return aa > 0 && bb > 0 ? ab * ab / (aa * bb) : 1; }
};

}  // namespace

std::string wrong_denominator(const Case& c, const ReferenceData& reference, const Array& bound) {
  constexpr double share = 0.95;           // of the squared errors that factors of rows have to explain
  constexpr double alike = 0.9;            // squared cosine of rows that have one direction
  constexpr double least_variance = 0.05;  // of the factors' logarithms, over their square
  constexpr std::int64_t columns = 8;
  constexpr double rows = 8;
  const Shape& s = c.problem.shape;
  if (!c.problem.normalized() || s.DHV < columns || !c.kernel->outputs.contains("h")) return "";
  const Array &h = c.kernel->outputs.at("h"), &expected = reference.outputs.at("h"), &v = c.inputs.at("v");
  double errors = 0, explained = 0, squares = 0, slopes = 0, slope_squares = 0, directions = 0, lost = 0;
  double smallest = 0, largest = 0;
  for (std::int64_t row = 0; row < s.heads() * s.S; ++row) {
    double xe = 0, xx = 0, ee = 0;
    Cosine to_value, to_before;
    for (std::int64_t at = row * s.DHV; at < (row + 1) * s.DHV; ++at) {
      const auto n = static_cast<std::size_t>(at);
      const double b = bound.data()[n], x = expected.data()[n], e = h.data()[n] - x;
      if (!std::isfinite(e)) return "";
      if (b > 0) xe += x / b * (e / b), xx += x / b * (x / b), ee += e / b * (e / b);
      to_value.add(x, v.data()[n]);
      if (row % s.S > 0) to_before.add(x, expected.data()[at - s.DHV]);
    }
    if (!(xx > 0)) continue;
    const double slope = xe / xx, one_direction = row % s.S > 0 ? std::max(to_value.square(), to_before.square()) : 1;
    errors += ee, explained += xe * slope, squares += ee * ee;
    slopes += ee * slope, slope_squares += ee * slope * slope, directions += ee * one_direction;
    lost += std::abs(1 + slope) < 1e-3 ? ee : 0;
    smallest = std::min(smallest, slope), largest = std::max(largest, slope);
  }
  if (!(errors > 0) || errors * errors < rows * squares || explained < share * errors) return "";
  const double mean = slopes / errors, mean_square = slope_squares / errors;
  if (mean_square - mean * mean < least_variance * mean_square) return "";  // a factor of all rows, or of some
  if (directions > alike * errors || lost > (1 - share) * errors) return "";
  return fmt::format(
      "as if: the numerator of h is right, its denominator is not: that would give h, each step of which is off by a "
      "factor of its own, {:.4g} to {:.4g}",
      1 + smallest, 1 + largest);
}

}  // namespace mlstm::verify
