// SPDX-License-Identifier: Apache-2.0
#include "judge/bias.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "judge/tensor_view.hpp"

namespace mlstm::verify {

namespace {

using Numbers = std::vector<double>;

constexpr double kInf = std::numeric_limits<double>::infinity();

/// Shares of the tokens in a state that decays: of what a step sees, the part `kept` is what its neighbour saw, and
/// `alike` is the sum of the squares of all shares: 1 / (number of tokens that matter).
struct Overlap {
  Numbers kept, alike;
};

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

std::uint64_t hash_of(const double* x, std::int64_t n, DType dtype) {
  std::uint64_t hash = 1469598103934665603u;
  for (std::int64_t a = 0; a < n; ++a) {
    const double magnitude = std::abs(round_to(dtype, x[a]));
    hash = (hash ^ std::hash<double>{}(magnitude)) * 1099511628211u;
    hash ^= hash >> 29;
  }
  return hash;
}

/// Mean number of rows that equal a row, it itself included, but for signs; rows of zeros are left out.
double multiplicity(const double* x, std::int64_t rows, std::int64_t columns, DType dtype) {
  std::unordered_map<std::uint64_t, double> count;
  double all = 0;
  for (std::int64_t t = 0; t < rows; ++t) {
    const double* const row = x + t * columns;
    if (std::all_of(row, row + columns, [](double value) { return value == 0; })) continue;
    ++count[hash_of(row, columns, dtype)];
    ++all;
  }
  double sum = 0;
  for (const auto& [hash, n] : count) sum += n * n;
  return all > 0 ? sum / all : 1;
}

double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

}  // namespace

struct HeadSharing {
  Numbers rows, columns;       ///< relative error that all rows (columns) of a product may share: gates and sums
  Overlap past, future;        ///< of keys in what row t sees, of rows in what column j gets
  double keys = 1, queries = 1;  ///< independent roundings of one key (one row) on its way into a state
  double state = 1, dstate = 1;  ///< independent roundings of a state
  double products = 1, gradient_products = 1;  ///< rows of P and dP that are alike
  double equal_keys = 1, equal_rows = 1;       ///< tokens that are alike in a state, and in the cotangent of one
};

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
  const double *const q = c.inputs.at("q").data() + head * s.S * s.DHQK,
               *const k = c.inputs.at("k").data() + head * s.S * s.DHQK;
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
  const double ua = precision.storage == DType::float64 ? 0x1p-53 : 0x1p-24;
  const std::int64_t reference_window = problem.chunk_size > 0 ? problem.chunk_size : 64;
  const std::int64_t W = std::max(precision.window, precision.operand == DType::float64 ? reference_window : 1);
  out.rows.resize(S), out.columns.resize(S);
  const double* const f = c.inputs.at("f").data() + head * s.S;
  double span = 0, largest = 0;
  for (std::size_t t = 0; t < S; ++t) {
    span += log_sigmoid(f[t]);
    if (static_cast<std::int64_t>(t) >= W) span -= log_sigmoid(f[t - static_cast<std::size_t>(W)]);
    const double m = scan.m[t], width = static_cast<double>(W), steps = static_cast<double>(t);
    largest = std::max(largest, std::abs(m));
    const double random = std::sqrt(std::min(steps + 1, width));
    out.rows[t] = ua * (8 + (2 + random) * std::abs(span) + (1 + std::sqrt(steps / width)) * (1 + 2 * largest)) +
                  ua * (16 + random + steps / width);
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
  out.past = overlap_of(weight, scan.log_decay,
                        initial == c.inputs.end() ? -kInf
                                                  : log_of(square_sum(initial->second.data() + head * size, size)));
  const double key_columns = columns_that_matter(k, s.S, s.DHQK), value_columns = columns_that_matter(v, s.S, s.DHV);
  out.keys = std::min(key_columns, value_columns);
  out.state = key_columns * value_columns;
  const DType dtype = problem.dtype;
  const double equal_q = multiplicity(q, s.S, s.DHQK, dtype), equal_k = multiplicity(k, s.S, s.DHQK, dtype),
               equal_v = multiplicity(v, s.S, s.DHV, dtype);
  out.products = std::min(equal_q, equal_k);
  out.equal_keys = std::max(equal_k, equal_v);
  if (dh == nullptr && c.cotangents.empty()) return out;

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
  const double query_columns = columns_that_matter(q, s.S, s.DHQK);
  const double cotangent_columns = dh == nullptr ? 1 : columns_that_matter(dh, s.S, s.DHV);
  out.queries = std::min(query_columns, cotangent_columns);
  out.dstate = query_columns * cotangent_columns;
  const double equal_dh = dh == nullptr ? 1 : multiplicity(dh, s.S, s.DHV, dtype);
  out.gradient_products = std::min(equal_dh, equal_v);
  out.equal_rows = std::max(equal_q, equal_dh);
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
      return hash_of(x.data() + head * size, size, c.problem.dtype);
    };
    equal_heads_ = std::max(equal_heads_, ++equal[hash("q") ^ 3 * hash("k") ^ 5 * hash("v")]);
  }
  // The mean of a truncation is half of the step that is its largest error.
  if (precision.operand == DType::tfloat32) truncation_ = kTruncatedOperands * unit_roundoff(precision.operand);
}

ErrorSharing::~ErrorSharing() = default;

const HeadSharing& ErrorSharing::head(std::int64_t index) const { return heads_[static_cast<std::size_t>(index)]; }

namespace {

/// Kinds of tensors, by what shares an error.
enum class Kind { row, column, gate, state, dstate, vector, none };

Kind kind_of(const std::string& tensor) {
  if (tensor == "h" || tensor == "dq") return Kind::row;
  if (tensor == "dk" || tensor == "dv" || tensor == "di") return Kind::column;
  if (tensor == "df") return Kind::gate;
  if (tensor == "c_last") return Kind::state;
  if (tensor == "n_last") return Kind::vector;
  if (tensor == "dc_initial" || tensor == "dn_initial") return Kind::dstate;
  return tensor == "dm_initial" ? Kind::vector : Kind::none;
}

/// Sums over a part of a tensor, x being the expected value, e the error and b the bound of an element.
struct Part {
  double moment = 0;    ///< Σ x e / b²
  double squares = 0;   ///< Σ x² / b²
  double variance = 0;  ///< of the moment, in units of the bounds
  double shared = 0;    ///< Σ (relative error that everything shares) x² / b²
  double largest = 0;   ///< x² / b² of one element

  void add(const Part& other) {
    moment += other.moment, squares += other.squares, variance += other.variance, shared += other.shared;
    largest = std::max(largest, other.largest);
  }
};

/// Sums of one step (of all columns).
struct Row {
  double moment = 0, squares = 0, size = 0, signed_size = 0, shared = 0, largest = 0;  ///< size: Σ |x| / b
};

/// Variance of Σ size_t e_t where the errors e_t are of size 1 and t and t' share kept · alike of them.
double shared_variance(const std::vector<Row>& rows, std::size_t begin, std::size_t end, const Overlap& overlap,
                       bool forward, double extra) {
  double carried = 0, sum = 0;
  for (std::size_t n = begin; n < end; ++n) {
    const std::size_t t = forward ? n : end - 1 - (n - begin);
    const double own = rows[t].size * std::min(1.0, overlap.alike[t] + extra);
    sum += rows[t].size * (own + 2 * overlap.kept[t] * carried);
    carried = overlap.kept[t] * carried + own;
  }
  return sum;
}

class HeadParts {
 public:
  HeadParts(const JudgedTensor& judged, const TensorView& view, Kind kind, const HeadSharing& sharing,
            std::int64_t head, double open_rows)
      : judged_(judged), view_(view), kind_(kind), sharing_(sharing), head_(head), open_rows_(open_rows) {
    rows_.resize(static_cast<std::size_t>(view.rows));
    const double* const first = judged.reference->data() + head * view.rows * view.columns;
    equal_rows_ = view.has_time ? multiplicity(first, view.rows, view.columns, judged.problem.dtype) : 1;
    if (kind == Kind::state || kind == Kind::dstate) columns_.resize(static_cast<std::size_t>(view.columns));
    for (std::int64_t row = 0; row < view.rows; ++row) collect(row);
  }

  bool finite() const { return finite_; }

  Part part(std::size_t begin, std::size_t end) const {
    Part out;
    double size = 0, own = 0;
    for (std::size_t t = begin; t < end; ++t) {
      const Row& row = rows_[t];
      out.moment += row.moment;
      out.squares += row.squares;
      out.shared += row.shared;
      out.largest = std::max(out.largest, row.largest);
      size += row.size;
      own += row.size * row.size;
    }
    const double all = size * size;
    // On the other side of a kink every element of a row may be off by its bound over the constant of the bound.
    const double rows = static_cast<double>(end - begin);
    out.shared += std::min(open_rows_, rows) * static_cast<double>(view_.columns) / 4;
    switch (kind_) {
      case Kind::row:
        out.variance = std::min(std::max(equal_rows_, row_products()) * own, all) + all / sharing_.state +
                       std::min(all, sharing_.equal_keys *
                                         shared_variance(rows_, begin, end, sharing_.past, true, 0)) /
                           sharing_.keys;
        break;
      case Kind::column: {
        const double extra = sharing_.equal_keys > 1 ? 1 / sharing_.queries : 0;
        out.variance = std::min(std::max(equal_rows_, column_products()) * own, all) + all / sharing_.dstate +
                       std::min(all, sharing_.equal_rows *
                                         shared_variance(rows_, begin, end, sharing_.future, false, extra));
        break;
      }
      case Kind::gate:
        out.variance = nested_variance(begin, end);
        break;
      case Kind::state:
      case Kind::dstate: {
        out.variance = own;
        for (const double column : columns_) out.variance += column * column;
        if (kind_ == Kind::dstate) out.variance += all * std::min(1.0, sharing_.equal_rows * sharing_.future.alike[0]);
        break;
      }
      default:
        out.variance = out.squares;
    }
    return out;
  }

 private:
  double row_products() const { return judged_.tensor == "h" ? sharing_.products : sharing_.gradient_products; }
  double column_products() const {
    if (judged_.tensor == "dk") return sharing_.gradient_products;
    if (judged_.tensor == "dv") return sharing_.products;
    return std::max(sharing_.products, sharing_.gradient_products);
  }

  /// Errors of df are sums over pairs (t >= r, j < r), of which neighbours have most in common; how many is unknown, so
  /// the largest variance over all lengths counts.
  double nested_variance(std::size_t begin, std::size_t end) const {
    double sum = 0;
    for (std::size_t t = begin; t < end; ++t) sum += rows_[t].signed_size;
    if (end - begin == 1) return sum * sum;
    const std::size_t middle = begin + (end - begin + 1) / 2;
    return std::max(sum * sum, nested_variance(begin, middle) + nested_variance(middle, end));
  }

  double relative(std::int64_t row) const {
    switch (kind_) {
      case Kind::row:
      case Kind::gate:
        return kind_ == Kind::row ? sharing_.rows[static_cast<std::size_t>(row)] : sharing_.columns.front();
      case Kind::column:
        return sharing_.columns[static_cast<std::size_t>(row)];
      default:
        return std::max(sharing_.rows.back(), sharing_.columns.front());
    }
  }

  void collect(std::int64_t index) {
    Row& row = rows_[static_cast<std::size_t>(index)];
    const double coherent = relative(index);
    for (std::int64_t column = 0; column < view_.columns; ++column) {
      const auto at = static_cast<std::size_t>(view_.flat(head_, index, column));
      const double x = judged_.reference->data()[at], b = judged_.bound->data()[at];
      const double error = judged_.values->data()[at] - x;
      if (x == 0 || !std::isfinite(x) || !(b > 0)) continue;
      if (!std::isfinite(error) || !std::isfinite(b)) {
        finite_ = false;
        continue;
      }
      const double size = x / b;
      row.moment += size * (error / b);
      row.squares += size * size;
      row.largest = std::max(row.largest, size * size);
      row.size += std::abs(size);
      row.signed_size += size;
      row.shared += coherent * size * size;
      if (!columns_.empty()) columns_[static_cast<std::size_t>(column)] += std::abs(size);
    }
  }

  const JudgedTensor& judged_;
  const TensorView& view_;
  Kind kind_;
  const HeadSharing& sharing_;
  std::int64_t head_;
  double open_rows_, equal_rows_ = 1;
  bool finite_ = true;
  std::vector<Row> rows_;
  Numbers columns_;  ///< Σ |x| / b of every column of a state
};

}  // namespace

std::optional<Bias> bias_of(const JudgedTensor& judged, const ErrorSharing& sharing, const Array* open_rows,
                            double constant) {
  const Kind kind = kind_of(judged.tensor);
  if (kind == Kind::none) return {};
  const TensorView view = view_of(judged);
  const auto steps = static_cast<std::size_t>(view.has_time ? view.rows : 1);
  Bias worst;
  bool telling = false;
  // What is allowed: errors that everything shares, and so many standard deviations of the rest, in which one element
  // may use all of its bound.
  const auto add = [&](const Part& part, const BiasPlace& place) {
    if (!(part.squares > 0)) return 0.0;
    const double allowed = part.shared + sharing.truncation() * part.squares +
                           std::sqrt(constant * constant * part.variance + part.largest);
    const double slope = part.moment / part.squares, ratio = std::abs(part.moment) / allowed;
    telling |= allowed <= part.squares;
    if (ratio > worst.ratio) worst.ratio = ratio, worst.slope = slope, worst.place = place;
    return allowed / part.squares;
  };
  std::vector<HeadParts> heads;
  for (std::int64_t head = 0; head < view.heads; ++head) {
    heads.emplace_back(judged, view, kind, sharing.head(head), head,
                       open_rows == nullptr ? 0 : open_rows->data()[head]);
    if (!heads.back().finite()) return {};
  }
  // Blocks of 1, 2, 4, ... steps, in each head and in all of them.
  for (std::size_t length = 1;; length *= 2) {
    for (std::size_t begin = 0; begin < steps; begin += length) {
      const std::size_t end = std::min(begin + length, steps);
      Part all;
      BiasPlace place{-1, static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)};
      for (const HeadParts& head : heads) {
        const Part part = view.has_time ? head.part(begin, end) : head.part(0, static_cast<std::size_t>(view.rows));
        all.add(part);
        place.head = &head - heads.data();
        if (heads.size() > 1) add(part, place);
      }
      all.variance *= sharing.equal_heads();
      place.head = -1;
      const double allowed = add(all, place);
      if (length >= steps) worst.allowed = allowed;
    }
    if (length >= steps) break;
  }
  if (!telling || !std::isfinite(worst.ratio)) return {};
  return worst;
}

std::string bias_text(const std::string& tensor, const Bias& bias, const Problem& problem) {
  const Shape& s = problem.shape;
  std::string text = fmt::format("{} is {:.2g} % too {} on average", tensor, 100 * std::abs(bias.slope),
                                 bias.slope > 0 ? "large" : "small");
  if (bias.place.head >= 0) text += fmt::format(" in head [{}, {}]", bias.place.head / s.NH, bias.place.head % s.NH);
  if (bias.place.end - bias.place.begin < s.S && !(bias.place.begin == 0 && bias.place.end == 1 && s.S > 1 &&
                                                   tensor.find('_') != std::string::npos))
    text += bias.place.end - bias.place.begin == 1
                ? fmt::format("{} t = {}", bias.place.head >= 0 ? "," : " at", bias.place.begin)
                : fmt::format("{} t = {} ... {}", bias.place.head >= 0 ? "," : " at", bias.place.begin,
                              bias.place.end - 1);
  return text;
}

}  // namespace mlstm::verify
