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

/// How one step of h differs from the expected one.
struct Row {
  double error = 0;      ///< mean square, over the bounds
  double share = 0;      ///< of it that a factor explains
  double slope = 0;      ///< that factor, less 1
  double direction = 0;  ///< squared cosine with v, or with the step before if it is larger
};

/// What factors of rows with at least that mean square of errors say; "" if these are not factors of each row.
std::string said_of(const std::vector<Row>& rows, double least_error) {
  constexpr double most = 0.95;            // of the rows, or of the squared errors of one
  constexpr double alike = 0.9;            // squared cosine of rows that have one direction
  constexpr double least_variance = 0.05;  // of the factors' errors, over their mean square
  constexpr double fewest = 8;
  double count = 0, factors = 0, lost = 0, directions = 0, slopes = 0, squares = 0, smallest = 0, largest = 0;
  for (const Row& row : rows) {
    if (row.error < least_error) continue;
    ++count;
    factors += row.share >= most ? 1 : 0;
    lost += std::abs(1 + row.slope) < 1e-3 ? 1 : 0;
    directions += row.direction;
    slopes += row.slope, squares += row.slope * row.slope;
    smallest = std::min(smallest, row.slope), largest = std::max(largest, row.slope);
  }
  if (count < fewest || factors < most * count || lost > (1 - most) * count || directions > alike * count) return "";
  const double mean = slopes / count, mean_square = squares / count;
  if (mean_square - mean * mean < least_variance * mean_square) return "";  // one factor, of all rows or of some
  return fmt::format(
      "as if: the numerator of h is right, its denominator is not: that would give h, each step of which is off by a "
      "factor of its own, {:.4g} to {:.4g}",
      1 + smallest, 1 + largest);
}

}  // namespace

std::string wrong_denominator(const Case& c, const ReferenceData& reference, const Array& bound) {
  constexpr std::int64_t columns = 8;
  const Shape& s = c.problem.shape;
  if (!c.problem.normalized() || s.DHV < columns || !c.kernel->outputs.contains("h")) return "";
  const Array &h = c.kernel->outputs.at("h"), &expected = reference.outputs.at("h"), &v = c.inputs.at("v");
  std::vector<Row> rows;
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
    if (!(xx > 0) || !(ee > 0)) continue;
    const double direction = row % s.S > 0 ? std::max(to_value.square(), to_before.square()) : 1;
    rows.push_back({ee / static_cast<double>(s.DHV), xe * xe / (xx * ee), xe / xx, direction});
  }
  // Rows that fail; or, if none do, those whose errors are more than what is rounded in storing them.
  constexpr double failing = 1, coherent = 0.05;
  const std::string text = said_of(rows, failing);
  return text.empty() ? said_of(rows, coherent) : text;
}

}  // namespace mlstm::verify
