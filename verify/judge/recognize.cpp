// SPDX-License-Identifier: Apache-2.0
// What failing values look like: the right values of another place, scale or sign.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "judge/tensor_view.hpp"

namespace mlstm::verify {
namespace {

constexpr double kMost = 0.95;       // of the failing elements have to fit
constexpr std::int64_t kSample = 8;  // elements that say something; fewer fit by chance
constexpr double kNearer = 4;        // times, to the answer than to the right one
constexpr double kShareTold = 0.25;  // of what has an answer, that lies so far from the right one
constexpr double kTold = 4;          // bounds that lie between the answer and the right one, or zero

struct Failing {
  const JudgedTensor& judged;
  TensorView view;
  std::vector<std::int64_t> flat;

  double value(std::int64_t n) const { return judged.values->data()[n]; }
  double expected(std::int64_t n) const { return judged.reference->data()[n]; }
  double bound(std::int64_t n) const { return judged.bound->data()[n]; }
};

/// An answer that is not the right one, for one element; NaN where it has none, infinite if it ought to have one.
struct Answer {
  double value = std::numeric_limits<double>::quiet_NaN(), bound = 0;
};

/// Whether nearly all failing elements are within the bound of `answer`, and far nearer to it than to the right one if
/// the two are apart. It has to have one for half of them at least, and for enough of them one that its bound tells
/// from the right one and from zero.
bool fits(const Failing& failing, const std::function<Answer(std::int64_t)>& answer) {
  const auto count = static_cast<double>(failing.flat.size());
  std::int64_t answered = 0, fitting = 0, told = 0;
  for (const std::int64_t n : failing.flat) {
    const Answer other = answer(n);
    if (std::isnan(other.value)) continue;
    ++answered;
    const double rest = std::abs(failing.value(n) - other.value),
                 error = std::abs(failing.value(n) - failing.expected(n));
    const bool is_apart = std::abs(other.value - failing.expected(n)) > kTold * other.bound;
    fitting += rest <= other.bound && (!is_apart || kNearer * rest <= error);
    told += is_apart && std::abs(other.value) > kTold * other.bound;
    if (static_cast<double>(answered - fitting) > (1 - kMost) * count) return false;  // soon, if it is another answer
  }
  return told >= kSample && static_cast<double>(told) >= kShareTold * static_cast<double>(answered) &&
         static_cast<double>(answered) >= count / 2 &&
         static_cast<double>(fitting) >= kMost * static_cast<double>(answered);
}

bool fits_factor(const Failing& failing, double factor) {
  return fits(failing, [&](std::int64_t n) {
    return Answer{factor * failing.expected(n), std::max(1.0, std::abs(factor)) * failing.bound(n)};
  });
}

/// Least-squares factor between values and expected values, each weighed by its bound.
double best_factor(const Failing& failing) {
  double products = 0, squares = 0;
  for (const std::int64_t n : failing.flat) {
    const double weight = 1 / (failing.bound(n) * failing.bound(n));
    products += weight * failing.value(n) * failing.expected(n);
    squares += weight * failing.expected(n) * failing.expected(n);
  }
  return products / squares;
}

std::string name_special(const Failing& failing) {
  std::int64_t nan = 0, infinite = 0, zero = 0;
  for (const std::int64_t n : failing.flat) {
    nan += std::isnan(failing.value(n));
    infinite += std::isinf(failing.value(n));
    zero += failing.value(n) == 0;
  }
  const auto count = static_cast<std::int64_t>(failing.flat.size());
  const auto share = [&](std::int64_t n) { return n == count ? std::string("") : fmt::format(" in {} of them", n); };
  if (nan > 0) return "NaN" + share(nan);
  if (infinite > 0) return "Inf" + share(infinite);
  if (static_cast<double>(zero) >= kMost * static_cast<double>(count)) return "zero";
  return "";
}

std::string name_factor(const Failing& failing) {
  const double s = 1 / std::sqrt(static_cast<double>(failing.judged.problem.shape.DHQK));
  const std::pair<double, const char*> named[] = {{-1, "negated"},
                                                  {2, "doubled"},
                                                  {0.5, "halved"},
                                                  {-2, "doubled and negated"},
                                                  {1 / s, "multiplied by sqrt(DHQK): the scale s is missing"},
                                                  {s, "multiplied by s = 1/sqrt(DHQK): the scale is applied twice"},
                                                  {1 / (s * s), "multiplied by DHQK"},
                                                  {s * s, "divided by DHQK"}};
  for (const auto& [factor, name] : named)
    if (factor != 1 && fits_factor(failing, factor)) return std::string("the expected values ") + name;
  return "";
}

/// Whether elements of several rows fail: a number that is wrong gives one vector a factor.
bool is_of_several_vectors(const Failing& failing) {
  return failing.flat.front() / failing.view.columns != failing.flat.back() / failing.view.columns;
}

std::string name_free_factor(const Failing& failing) {
  if (!is_of_several_vectors(failing)) return "";
  const double factor = best_factor(failing);
  if (!std::isfinite(factor) || factor == 0 || !fits_factor(failing, factor)) return "";
  if (std::abs(factor - 1) < 0.01) return fmt::format("the expected values times 1 {:+.3g}", factor - 1);
  return fmt::format("the expected values times {:.4g}", factor);
}

std::string name_offset(const Failing& failing) {
  double sum = 0, weights = 0;
  for (const std::int64_t n : failing.flat) {
    const double weight = 1 / (failing.bound(n) * failing.bound(n));
    sum += weight * (failing.value(n) - failing.expected(n));
    weights += weight;
  }
  const double offset = sum / weights;
  if (!std::isfinite(offset)) return "";
  const bool fitting = fits(failing, [&](std::int64_t n) {
    return Answer{failing.expected(n) + offset, failing.bound(n)};
  });
  return fitting ? fmt::format("the expected values plus {:.4g}", offset) : "";
}

/// The expected value of another step, chunk, head, batch entry or column.
std::string name_place(const Failing& failing) {
  const TensorView& view = failing.view;
  const Shape& shape = failing.judged.problem.shape;
  struct Move {
    std::string name{};
    std::int64_t batch = 0, head = 0, row = 0, column = 0, flat_heads = 0;
    bool reverse_rows = false, reverse_columns = false, transpose = false;
    bool is_far = false;  ///< what fails has to have such a place
  };
  std::vector<Move> moves;
  const auto both = [&](const std::string& before, const std::string& after, Move move) {
    move.name = before;
    moves.push_back(move);
    move.batch = -move.batch, move.head = -move.head, move.row = -move.row, move.column = -move.column;
    move.name = after;
    moves.push_back(move);
  };
  if (view.has_time && view.rows > 1) {
    both("one step before", "one step later", {.row = -1});
    if (failing.judged.chunked) {
      const std::int64_t L = failing.judged.problem.chunk_size;
      both("one chunk before", "one chunk later", {.row = -L});
    }
  }
  if (shape.NH > 1) both("the head before", "the head after", {.head = -1});
  // What an index of too few bits, or a tile taken for another one, gives.
  for (std::int64_t n = 8; n < std::max(shape.heads(), view.columns); n *= 2) {
    if (n < shape.heads())
      moves.push_back({.name = fmt::format("{} heads before", n), .flat_heads = -n, .is_far = true});
    if (n < view.columns) moves.push_back({.name = fmt::format("{} columns before", n), .column = -n, .is_far = true});
  }
  if (shape.B > 1) both("the batch entry before", "the batch entry after", {.batch = -1});
  if (view.columns > 1) both("the column before", "the column after", {.column = -1});
  if (view.columns > 2) moves.push_back({.name = "the columns in reverse", .reverse_columns = true});
  if (view.has_time && view.rows > 2) moves.push_back({.name = "the steps in reverse", .reverse_rows = true});
  if (view.is_c && view.rows == view.columns && view.rows > 1)
    moves.push_back({.name = "rows and columns exchanged", .transpose = true});
  for (const Move& move : moves) {
    const Answer none{move.is_far ? std::numeric_limits<double>::infinity() : Answer{}.value, 0};
    const bool fitting = fits(failing, [&](std::int64_t n) {
      const std::int64_t head = view.head(n) + move.flat_heads;
      if (head < 0) return none;
      std::int64_t b = head / shape.NH, h = head % shape.NH, row = view.row(n), column = view.column(n);
      b += move.batch, h += move.head, row += move.row, column += move.column;
      if (move.reverse_rows) row = view.rows - 1 - row;
      if (move.reverse_columns) column = view.columns - 1 - column;
      if (move.transpose) std::swap(row, column);
      const bool exists = b >= 0 && b < shape.B && h >= 0 && h < shape.NH && row >= 0 && row < view.rows &&
                          column >= 0 && column < view.columns;
      if (!exists) return none;
      const std::int64_t other = view.flat(b * shape.NH + h, row, column);
      return Answer{failing.expected(other), std::max(failing.bound(n), failing.bound(other))};
    });
    if (fitting) return "the expected values of " + move.name;
  }
  return "";
}

}  // namespace

std::string recognize(const JudgedTensor& judged) { return recognize(judged, ratios_of(judged)); }

std::string recognize(const JudgedTensor& judged, const Array& ratios) {
  Failing failing{judged, view_of(judged), {}};
  for (std::int64_t n = 0; n < static_cast<std::int64_t>(ratios.size()); ++n)
    if (!(ratios.data()[n] <= 1)) failing.flat.push_back(n);
  if (failing.flat.empty()) return "";
  for (const auto& name : {name_special, name_factor, name_place, name_free_factor, name_offset})
    if (std::string found = name(failing); !found.empty()) return found;
  return "";
}

}  // namespace mlstm::verify
