// SPDX-License-Identifier: Apache-2.0
#include "judge/error_sharing.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <unordered_map>
#include <vector>

#include "judge/hot/head_bounds.hpp"

namespace mlstm::verify {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

double add_logs(double a, double b) {
  const double large = std::max(a, b), small = std::min(a, b);
  return small == -kInf ? large : large + std::log1p(std::exp(small - large));
}

/// Tokens enter one after the other with the logarithms `log_weight` of their squares; before each, the state is
/// multiplied by exp(log_decay). `first`: what it holds before.
Overlap overlap_of(const Numbers& log_weight, const Numbers& log_decay, double first) {
  const std::size_t n = log_weight.size();
  Overlap out{Numbers(n), Numbers(n)};
  double sum = first, squares = 2 * first;
  for (std::size_t t = 0; t < n; ++t) {
    const double old = sum == -kInf || log_decay[t] == -kInf ? -kInf : sum + 2 * log_decay[t];
    const double old_squares = old == -kInf ? -kInf : squares + 4 * log_decay[t];
    sum = add_logs(old, log_weight[t]);
    squares = add_logs(old_squares, 2 * log_weight[t]);
    out.kept[t] = old == -kInf ? 0 : std::exp(old - sum);
    out.alike[t] = sum == -kInf ? 1 : std::min(1.0, std::exp(squares - 2 * sum));
  }
  return out;
}

double square_sum(const double* x, std::int64_t n) {
  double sum = 0;
  for (std::int64_t a = 0; a < n; ++a) sum += x[a] * x[a];
  return sum;
}

double log_of(double x) { return x > 0 ? std::log(x) : -kInf; }

/// How many columns matter in the rows: n where they are of one size, 1 where one is all.
double columns_that_matter(const double* x, std::int64_t rows, std::int64_t columns) {
  double num = 0, den = 0;
  for (std::int64_t t = 0; t < rows; ++t) {
    const double* const row = x + t * columns;
    const double size = square_sum(row, columns);
    if (!(size > 0)) continue;
    for (std::int64_t a = 0; a < columns; ++a) den += row[a] * row[a] / size * (row[a] * row[a] / size);
    num += 1;
  }
  return den > 0 ? num / den : 1;
}

/// Of directions: the square of their mean, or the mean square of the cosine between two of them if that is larger (the
/// sign of a row goes with that of the result). 1 / columns or so where they are random.
double alignment_of_rows(const double* x, std::int64_t rows, std::int64_t columns) {
  const auto n = static_cast<std::size_t>(columns);
  Numbers mean(n), second(n * n), unit(n);
  double count = 0;
  for (std::int64_t t = 0; t < rows; ++t) {
    const double size = std::sqrt(square_sum(x + t * columns, columns));
    if (!(size > 0)) continue;
    count += 1;
    for (std::size_t a = 0; a < n; ++a) mean[a] += unit[a] = x[t * columns + static_cast<std::int64_t>(a)] / size;
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = 0; b < n; ++b) second[a * n + b] += unit[a] * unit[b];
  }
  if (count == 0) return 0;
  return std::max(square_sum(mean.data(), columns), square_sum(second.data(), columns * columns)) / (count * count);
}

std::uint64_t hash_of(const double* x, std::int64_t n) {
  std::uint64_t hash = 1469598103934665603u;
  for (std::int64_t a = 0; a < n; ++a) {
    hash = (hash ^ std::hash<double>{}(x[a])) * 1099511628211u;
    hash ^= hash >> 29;
  }
  return hash;
}

/// The share of rows that equal the row before, but for signs.
double repetition(const double* x, std::int64_t rows, std::int64_t columns) {
  std::int64_t equal = 0;
  for (std::int64_t t = 1; t < rows; ++t)
    equal += std::equal(x + t * columns, x + (t + 1) * columns, x + (t - 1) * columns,
                        [](double a, double b) { return std::abs(a) == std::abs(b); });
  return rows > 1 ? static_cast<double>(equal) / static_cast<double>(rows - 1) : 0;
}

double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

}  // namespace

namespace {

/// What the gates of a head, and the denominators, come to.
struct Scan {
  Numbers log_decay, log_input, m, denominator;
};

Scan scan_of(const Case& c, std::int64_t head) {
  const Problem& problem = c.problem;
  const Shape& s = problem.shape;
  const auto S = static_cast<std::size_t>(s.S);
  const bool exp_gate = problem.gate == Gate::exp;
  const double *const f = c.inputs.at("f").data() + head * s.S, *const i = c.inputs.at("i").data() + head * s.S;
  const double *const q = c.inputs.at("q").data() + head * s.S * s.DHQK, *const k = c.inputs.at("k").data() +
                                                                                    head * s.S * s.DHQK;
  Scan out{Numbers(S), Numbers(S), Numbers(S), Numbers(S)};
  Numbers n(static_cast<std::size_t>(s.DHQK));
  double m = exp_gate ? (problem.stabilizer_init == StabilizerInit::zero ? 0 : -kInf) : 0;
  if (problem.has_initial_state) {
    std::copy_n(c.inputs.at("n_initial").data() + head * s.DHQK, n.size(), n.data());
    if (exp_gate) m = c.inputs.at("m_initial").data()[head];
  }
  for (std::size_t t = 0; t < S; ++t) {
    const double lf = log_sigmoid(f[t]), li = exp_gate ? i[t] : log_sigmoid(i[t]);
    const double next = exp_gate ? std::max(lf + m, li) : 0;
    out.log_decay[t] = lf + m - next;
    out.log_input[t] = li - next;
    out.m[t] = m = next;
    const double decay = std::exp(out.log_decay[t]), input = std::exp(out.log_input[t]);
    double l = 0;
    for (std::size_t a = 0; a < n.size(); ++a) {
      const std::size_t at = t * n.size() + a;
      n[a] = decay * n[a] + input * k[at];
      l += q[at] * n[a];
    }
    l /= std::sqrt(static_cast<double>(s.DHQK));
    out.denominator[t] = problem.normalized() ? std::max(std::abs(l), std::exp(-m)) + problem.eps : 1;
  }
  return out;
}

using Factor = std::function<double(std::size_t)>;

constexpr std::int64_t kSampledRows = 64, kSampledLags = 64;

/// Of the products left_t.right_j D_tj, times factor(t), of some rows and the columns next to them.
double coincidence_of_products(const Scan& scan, const double* left, const double* right, std::int64_t columns,
                               const Factor& factor) {
  const auto S = static_cast<std::int64_t>(scan.m.size()), rows = std::min(S, kSampledRows);
  Numbers products;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::int64_t t = (n + 1) * S / rows - 1;
    double log_D = 0;
    for (std::int64_t j = t; j >= std::max<std::int64_t>(0, t - kSampledLags + 1); --j) {
      const double D = std::exp(log_D + scan.log_input[static_cast<std::size_t>(j)]);
      double product = 0;
      for (std::int64_t a = 0; a < columns; ++a) product += left[t * columns + a] * right[j * columns + a];
      products.push_back(product * D * (factor ? factor(static_cast<std::size_t>(t)) : 1));
      log_D += scan.log_decay[static_cast<std::size_t>(j)];
    }
  }
  return coincidence(products);
}

/// Of the elements of some rows, times factor(t).
double coincidence_of_rows(const double* x, std::int64_t S, std::int64_t columns, const Factor& factor) {
  const std::int64_t rows = std::min(S, kSampledRows);
  Numbers values;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::int64_t t = (n + 1) * S / rows - 1;
    const double scale = factor(static_cast<std::size_t>(t));
    for (std::int64_t a = 0; a < columns; ++a) values.push_back(scale * x[t * columns + a]);
  }
  return coincidence(values);
}

constexpr double kLn2 = 0.69314718055994530942;

/// Whether multiplying numbers of a format by exp(log_weight) moves them by less than two roundings, but does move
/// them: they are all rounded back to where they were, which is an error of one sign.
bool is_nearly_one(double log_weight, double u) {
  const double off = std::abs(std::expm1(log_weight));
  return off > 0 && off < 2 * u;
}

/// Shares of a state that have such an error in common. Weights are 1 or less, so those of nearly 1 err alike; those of
/// nearly another power of two, which moves only the exponent, do it on either side.
class NearShare {
 public:
  void add(double kept, double log_weight, bool nearly_one, double u) {
    const double power = std::round(log_weight / kLn2) * kLn2, mine = 1 - kept;
    one_ = kept * one_ + mine * (nearly_one || is_nearly_one(log_weight, u) ? 1 : 0);
    squares_ = kept * kept * squares_ + mine * mine * (power != 0 && is_nearly_one(log_weight - power, u) ? 1 : 0);
  }
  double value() const { return one_; }
  /// The share of the one token that is most of the state, if there is one and its weight is nearly a power of two.
  double of_single_token() const { return squares_ > 0.5 ? std::sqrt(squares_) : 0; }

 private:
  double one_ = 0, squares_ = 0;
};

/// Adds to the shared errors of rows what keys have in common that enter the state with a weight of nearly 1 (from
/// their step to the end of their chunk), and to those of columns what rows have (from the chunk's first step on, or
/// through 1/d), in proportion to their shares in the state.
void add_nearly_equal_weights(const Scan& scan, std::int64_t window, double u, HeadSharing& out) {
  const std::size_t S = scan.m.size(), W = static_cast<std::size_t>(std::max<std::int64_t>(1, window));
  Numbers log_weight(S);
  for (std::size_t t = S; t-- > 0;)
    log_weight[t] = t + 1 == S || (t + 1) % W == 0 ? 0 : log_weight[t + 1] + scan.log_decay[t + 1];
  NearShare keys;
  for (std::size_t t = 0; t < S; ++t) {
    keys.add(out.past.kept[t], log_weight[t] + scan.log_input[t], false, u);
    out.rows[t] += u * keys.value();
  }
  out.last_token = u * keys.of_single_token();
  if (out.future.kept.empty()) return;
  double since = 0;
  for (std::size_t t = 0; t < S; ++t) {
    since = t % W == 0 ? scan.log_decay[t] : since + scan.log_decay[t];
    log_weight[t] = since;
  }
  NearShare rows;
  for (std::size_t t = S; t-- > 0;) {
    const bool by_denominator = is_nearly_one(-std::log(scan.denominator[t]), u);
    rows.add(out.future.kept[t], log_weight[t], by_denominator, u);
    out.columns[t] += u * rows.value();
    if (by_denominator) out.near_rows[t] = u;
  }
}

HeadSharing sharing_of(const Case& c, const Precision& precision, std::int64_t head) {
  const Problem& problem = c.problem;
  const Shape& s = problem.shape;
  const auto S = static_cast<std::size_t>(s.S);
  const Scan scan = scan_of(c, head);
  const auto rows_of = [&](const Array& x, std::int64_t columns) { return x.data() + head * s.S * columns; };
  const double *const q = rows_of(c.inputs.at("q"), s.DHQK), *const k = rows_of(c.inputs.at("k"), s.DHQK),
                      *const v = rows_of(c.inputs.at("v"), s.DHV);
  const auto found = c.cotangents.find("h");
  const double* const dh = found == c.cotangents.end() ? nullptr : rows_of(found->second, s.DHV);
  HeadSharing out;

  // Gates: as BOUNDS.md, section 2. Sums of them are carried from row to row, so their errors are shared.
  const double accumulator = precision.storage == DType::float64 ? 0x1p-53 : 0x1p-24;
  const double ua = precision.gate ? std::max(unit_roundoff(*precision.gate), accumulator) : accumulator;
  const std::int64_t reference_window = problem.chunk_size > 0 ? problem.chunk_size : 64;
  const std::int64_t W = std::max(precision.window, precision.operand == DType::float64 ? reference_window : 1);
  out.rows.resize(S), out.columns.resize(S);
  const double* const f = c.inputs.at("f").data() + head * s.S;
  const double smallest = precision.storage == DType::float64 ? 0x1p-1022 : 0x1p-126;  // what is less is out of sight
  double span = 0, largest = 0, memory = 0, all = 0;
  for (std::size_t t = 0; t < S; ++t) {
    span += log_sigmoid(f[t]);
    if (static_cast<std::int64_t>(t) >= W) span -= log_sigmoid(f[t - static_cast<std::size_t>(W)]);
    const double m = scan.m[t], width = static_cast<double>(W), steps = static_cast<double>(t);
    largest = std::max(largest, std::abs(m));
    const double random = std::sqrt(std::min(steps + 1, width));
    out.rows[t] = ua * (8 + (2 + random) * std::abs(span) + (1 + std::sqrt(steps / width)) * (1 + 2 * largest)) +
                  ua * (16 + random + steps / width);
    if (ua > accumulator) {
      memory = 1 + std::exp(log_sigmoid(f[t])) * memory;
      all = std::min(all + std::abs(log_sigmoid(f[t])), -std::log(smallest));
      out.rows[t] += lost_in_gate_sums(ua, memory, all, std::abs(span), largest);
    }
    out.columns[t] = 2 * ua * (std::abs(scan.log_input[t] + m) + std::abs(m));
  }
  double behind = 0;
  for (std::size_t t = S; t-- > 0;) {
    behind = std::max(behind, out.rows[t]);
    out.columns[t] += behind;
  }

  Numbers weight(S), decay(S);
  for (std::size_t t = 0; t < S; ++t) {
    const auto at = static_cast<std::int64_t>(t);
    weight[t] = 2 * scan.log_input[t] + log_of(square_sum(k + at * s.DHQK, s.DHQK) * square_sum(v + at * s.DHV, s.DHV));
  }
  const auto initial = c.inputs.find("c_initial");
  const std::int64_t size = s.DHQK * s.DHV;
  out.past =
      overlap_of(weight, scan.log_decay,
                 initial == c.inputs.end() ? -kInf : log_of(square_sum(initial->second.data() + head * size, size)));
  out.key_columns = columns_that_matter(k, s.S, s.DHQK), out.value_columns = columns_that_matter(v, s.S, s.DHV);
  out.keys = std::min(out.key_columns, out.value_columns);
  const bool narrow_states = unit_roundoff(precision.state) > unit_roundoff(DType::float32);
  if (narrow_states) {
    out.alike_keys = alignment_of_rows(k, s.S, s.DHQK), out.alike_values = alignment_of_rows(v, s.S, s.DHV);
    out.alike_queries = alignment_of_rows(q, s.S, s.DHQK);
  }
  out.repeated = std::max(repetition(k, s.S, s.DHQK), repetition(v, s.S, s.DHV));
  out.P = coincidence_of_products(scan, q, k, s.DHQK, {});
  out.key = coincidence_of_rows(k, s.S, s.DHQK, [&](std::size_t t) { return std::exp(scan.log_input[t]); });
  const double u = unit_roundoff(precision.operand);
  const bool narrow = u > unit_roundoff(DType::float32);
  if (c.cotangents.empty()) {
    if (narrow) add_nearly_equal_weights(scan, precision.window, u, out);
    return out;
  }

  // Rows, from the last to the first.
  const std::size_t last = S - 1;
  for (std::size_t n = 0; n < S; ++n) {
    const auto at = static_cast<std::int64_t>(last - n);
    const double d = scan.denominator[last - n];
    const double dh2 = dh == nullptr ? 0 : square_sum(dh + at * s.DHV, s.DHV);
    weight[n] = log_of(square_sum(q + at * s.DHQK, s.DHQK)) + log_of(dh2) - 2 * log_of(d) -
                std::log(static_cast<double>(s.DHQK));
    if (!(d > 0) || std::isinf(d)) weight[n] = d > 0 ? -kInf : weight[n];
    decay[n] = n == 0 ? 0 : scan.log_decay[last - n + 1];
    if (std::isnan(weight[n])) weight[n] = -kInf;
  }
  const auto dc = c.cotangents.find("c_last");
  Overlap reversed = overlap_of(
      weight, decay, dc == c.cotangents.end() ? -kInf : log_of(square_sum(dc->second.data() + head * size, size)));
  std::reverse(reversed.kept.begin(), reversed.kept.end());
  std::reverse(reversed.alike.begin(), reversed.alike.end());
  out.future = std::move(reversed);
  out.near_rows.resize(S);
  if (narrow) add_nearly_equal_weights(scan, precision.window, u, out);
  out.query_columns = columns_that_matter(q, s.S, s.DHQK);
  out.cotangent_columns = dh == nullptr ? 1 : columns_that_matter(dh, s.S, s.DHV);
  out.queries = std::min(out.query_columns, out.cotangent_columns);
  if (narrow_states && dh != nullptr) out.alike_cotangents = alignment_of_rows(dh, s.S, s.DHV);
  out.query = coincidence_of_rows(q, s.S, s.DHQK, [&](std::size_t t) {
    return std::exp(scan.log_decay[t]) / std::sqrt(static_cast<double>(s.DHQK));
  });
  if (dh != nullptr) {
    const auto inverse = [&](std::size_t t) { return 1 / scan.denominator[t]; };
    out.dS = coincidence_of_products(scan, dh, v, s.DHV, inverse);
    out.g = problem.normalized() ? coincidence_of_rows(dh, s.S, s.DHV, inverse) : 0;
  }
  if (unit_roundoff(precision.saved) > unit_roundoff(DType::float32)) {
    out.saved_rows.resize(S), out.saved_columns.resize(S);
    for (std::size_t t = 0; t < S; ++t) {
      const double m = scan.m[t], d = scan.denominator[t];
      const double of_m = round_to(precision.saved, m) - m, of_d = round_to(precision.saved, d) / d - 1;
      out.saved_rows[t] = std::isfinite(of_m + of_d) ? std::abs(of_m) > std::abs(of_d) ? of_m : of_d : 0;
    }
    double mean = 0;
    for (std::size_t t = S; t-- > 0;) {
      mean = out.future.kept[t] * mean + (1 - out.future.kept[t]) * out.saved_rows[t];
      out.saved_columns[t] = mean;
    }
  }
  return out;
}

/// Operands that may be truncated one after the other on the way to a result, and the result.
constexpr double kTruncatedOperands = 5;

}  // namespace

ErrorSharing::ErrorSharing(const Case& c, const Precision& precision) {
  const std::int64_t heads = c.problem.shape.heads();
  std::unordered_map<std::uint64_t, double> equal;
  for (std::int64_t head = 0; head < heads; ++head) {
    heads_.push_back(sharing_of(c, precision, head));
    const auto hash = [&](const char* name) {
      const Array& x = c.inputs.at(name);
      const auto size = static_cast<std::int64_t>(x.size()) / heads;
      return hash_of(x.data() + head * size, size);
    };
    equal_heads_ = std::max(equal_heads_, ++equal[hash("q") ^ 3 * hash("k") ^ 5 * hash("v")]);
  }
  // The mean of a truncation is half of the step that is its largest error.
  if (precision.truncates || precision.operand == DType::tfloat32)
    truncation_ = kTruncatedOperands * unit_roundoff(precision.operand);
}

double coincidence(const Numbers& values) {
  // Weights by the first 22 digits of the number, in a table that is never more than half full.
  struct Slot {
    std::uint32_t digits = 0;
    double weight = 0;  // 0: free
  };
  const std::size_t size = std::bit_ceil(2 * values.size() + 1);
  std::vector<Slot> slots(size);
  double all = 0, squares = 0;
  for (const double x : values) {
    const double weight = x * x;
    if (!(weight > 0) || !std::isfinite(weight)) continue;
    const auto digits = static_cast<std::uint32_t>((std::bit_cast<std::uint64_t>(x) + (1u << 30)) >> 31) & 0x1fffffu;
    std::size_t at = digits * 2654435761u & (size - 1);
    while (slots[at].weight > 0 && slots[at].digits != digits) at = (at + 1) & (size - 1);
    slots[at].digits = digits;
    slots[at].weight += weight;
    all += weight;
    squares += weight * weight;
  }
  double alike = -squares;
  for (const Slot& slot : slots) alike += slot.weight * slot.weight;
  const double pairs = all * all - squares;
  return pairs > squares * 1e-9 ? std::clamp(alike / pairs, 0.0, 1.0) : 0;
}

}  // namespace mlstm::verify
