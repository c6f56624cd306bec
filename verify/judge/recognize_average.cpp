// SPDX-License-Identifier: Apache-2.0
// What the errors of a tensor have in common though single elements, within bounds that are wider, do not show it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "judge/tensor_view.hpp"

namespace mlstm::verify {
namespace {

constexpr double kShare = 0.9;      // of the sum of squared errors that a factor has to explain
constexpr double kSample = 32;      // elements, as many as there would be if all weighed the same
constexpr double kLargest = 0.1;    // a factor further from 1 shows in single elements
constexpr std::size_t kFewest = 8;  // steps of a range
constexpr double kEven = 0.3;       // how much parts may differ from the whole
constexpr double kElsewhere = 4;    // times smaller the factor has to be where it is said not to be

/// Sums over elements, each over its bound: x is the expected value and e the error.
struct Moments {
  double xe = 0, xx = 0, ee = 0, xxxx = 0;

  void add(double x, double e) { xe += x * e, xx += x * x, ee += e * e, xxxx += x * x * x * x; }
  void add(const Moments& other) { xe += other.xe, xx += other.xx, ee += other.ee, xxxx += other.xxxx; }
  double slope() const { return xx > 0 ? xe / xx : 0; }
  double share() const { return xx > 0 && ee > 0 ? xe * xe / (xx * ee) : 0; }
  bool is_sample() const { return xx * xx >= kSample * xxxx; }
  bool is_factor() const { return is_sample() && share() >= kShare && std::abs(slope()) <= kLargest; }
};

Moments sum_of(const std::vector<Moments>& parts) {
  Moments all;
  for (const Moments& part : parts) all.add(part);
  return all;
}

/// Whether quarters of them, of those that are large enough to tell, have the factor of all.
bool is_even(const std::vector<Moments>& parts) {
  const double slope = sum_of(parts).slope();
  const std::size_t quarter = (parts.size() + 3) / 4;
  for (std::size_t begin = 0; begin < parts.size(); begin += quarter) {
    Moments part;
    for (std::size_t n = begin; n < std::min(begin + quarter, parts.size()); ++n) part.add(parts[n]);
    if (part.is_sample() && std::abs(part.slope() - slope) > kEven * std::abs(slope)) return false;
  }
  return true;
}

/// Steps [begin, end) in which errors of slope `slope` are likeliest, if they are nowhere else and noise is the same
/// everywhere.
std::pair<std::size_t, std::size_t> likeliest_range(const std::vector<Moments>& steps, double slope) {
  double sum = 0, best = 0;
  std::size_t begin = 0;
  std::pair<std::size_t, std::size_t> range{0, 0};
  for (std::size_t t = 0; t < steps.size(); ++t) {
    if (sum <= 0) sum = 0, begin = t;
    sum += slope * steps[t].xe - slope * slope / 2 * steps[t].xx;
    if (sum > best) best = sum, range = {begin, t + 1};
  }
  return range;
}

std::string times(double slope) {
  if (std::abs(slope) < 0.01) return fmt::format("the expected values times 1 {:+.3g} on average", slope);
  return fmt::format("the expected values times {:.4g} on average", 1 + slope);
}

bool is_elsewhere(const Moments& all, const Moments& part) {
  Moments rest = all;
  rest.xe -= part.xe, rest.xx -= part.xx;
  return kElsewhere * std::abs(rest.slope()) <= std::abs(part.slope());
}

std::string in_some_heads(const std::vector<Moments>& heads, std::int64_t NH) {
  Moments those;
  std::vector<std::size_t> found;
  for (std::size_t head = 0; head < heads.size(); ++head) {
    if (!heads[head].is_factor()) continue;
    found.push_back(head);
    those.add(heads[head]);
  }
  if (found.empty() || found.size() == heads.size() || !those.is_factor() || !is_elsewhere(sum_of(heads), those))
    return "";
  const auto first = static_cast<std::int64_t>(found.front());
  if (found.size() == 1) return fmt::format("{}, in head [{}, {}] alone", times(those.slope()), first / NH, first % NH);
  return fmt::format("{}, in {} of {} heads", times(those.slope()), found.size(), heads.size());
}

std::string in_some_steps(const std::vector<Moments>& steps) {
  // To begin with, the slope of the block that shows most.
  double slope = 0, most = 0;
  for (std::size_t length = 1; length < steps.size(); length *= 2)
    for (std::size_t begin = 0; begin < steps.size(); begin += length) {
      Moments block;
      for (std::size_t t = begin; t < std::min(begin + length, steps.size()); ++t) block.add(steps[t]);
      if (block.xx > 0 && block.xe * block.xe / block.xx > most)
        most = block.xe * block.xe / block.xx, slope = block.slope();
    }
  Moments those;
  std::pair<std::size_t, std::size_t> range;
  for (int refined = 0; refined < 3; ++refined) {
    range = likeliest_range(steps, slope);
    those = {};
    for (std::size_t t = range.first; t < range.second; ++t) those.add(steps[t]);
    slope = those.slope();
  }
  const std::vector<Moments> in_range(steps.begin() + static_cast<std::ptrdiff_t>(range.first),
                                      steps.begin() + static_cast<std::ptrdiff_t>(range.second));
  if (in_range.size() < kFewest || !those.is_factor() || !is_even(in_range) || !is_elsewhere(sum_of(steps), those))
    return "";
  return fmt::format("{}, at t = {} ... {} alone", times(slope), range.first, range.second - 1);
}

}  // namespace

std::string recognize_average(const JudgedTensor& judged) {
  const TensorView view = view_of(judged);
  std::vector<Moments> heads(static_cast<std::size_t>(view.heads)), rows(static_cast<std::size_t>(view.rows));
  std::vector<Moments> vectors(view.columns >= 4 ? heads.size() * rows.size() : 0);
  bool within = true;
  for (std::int64_t n = 0; n < static_cast<std::int64_t>(judged.reference->size()); ++n) {
    const double expected = judged.reference->data()[n], bound = judged.bound->data()[n],
                 error = judged.values->data()[n] - expected;
    if (expected == 0 || !std::isfinite(expected) || !(bound > 0) || !std::isfinite(bound)) continue;
    if (!std::isfinite(error)) return "";
    within &= std::abs(error) <= bound;
    heads[static_cast<std::size_t>(view.head(n))].add(expected / bound, error / bound);
    rows[static_cast<std::size_t>(view.row(n))].add(expected / bound, error / bound);
    if (!vectors.empty()) vectors[static_cast<std::size_t>(n / view.columns)].add(expected / bound, error / bound);
  }
  const Moments all = sum_of(heads);
  if (all.is_factor() && is_even(heads) && is_even(rows)) return times(all.slope());
  if (!within) return "";  // single elements tell where
  if (view.heads > 1 && (view.has_time || view.is_c))
    if (const std::string text = in_some_heads(heads, judged.problem.shape.NH); !text.empty()) return text;
  if (view.has_time && view.rows > 1)
    if (const std::string text = in_some_steps(rows); !text.empty()) return text;
  // A number that is rounded toward zero loses 0.72 roundoffs on average, of any mantissa, and so does every operand of
  // a product; in all heads alike, and by no common factor, of steps neither.
  const double u = unit_roundoff(judged.problem.dtype), lost = -all.slope() / u;
  double by_vector = 0;
  for (const Moments& one : vectors) by_vector += one.xx > 0 ? one.xe * one.xe / one.xx : 0;
  const bool everywhere =
      std::all_of(heads.begin(), heads.end(), [](const Moments& one) { return !one.is_sample() || one.slope() < 0; });
  if (view.has_time && !vectors.empty() && u >= 0x1p-11 && all.is_sample() && lost > 0.25 && lost < 3 && everywhere &&
      by_vector < kShare * all.ee)
    return "rounded toward zero, as it is or in what it is made of";
  return "";
}

}  // namespace mlstm::verify
