// SPDX-License-Identifier: Apache-2.0
#include "judge/bias.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "judge/tensor_view.hpp"

namespace mlstm::verify {

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
  double largest = 0;   ///< square of Σ |x| / b of one row, or of one element where rows share nothing
  double size = 0;      ///< Σ |x| / b
  double alike = 0;     ///< part of its square that is variance, in all heads together too

  void add(const Part& other) {
    moment += other.moment, squares += other.squares, variance += other.variance, shared += other.shared;
    largest = std::max(largest, other.largest);
    size += other.size;
    alike = std::max(alike, other.alike);
  }
};

/// Sums of one step (of all columns).
struct Row {
  double moment = 0, squares = 0, size = 0, signed_size = 0, shared = 0, largest = 0, saved = 0;  ///< size: Σ |x| / b
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
    constexpr std::int64_t most = 1 << 12;
    const std::int64_t size = view.rows * view.columns, step = (size - 1) / most + 1;
    Numbers sample;
    for (std::int64_t at = 0; at < size; at += step) sample.push_back(first[at]);
    if (view.has_time) values_alike_ = coincidence(sample);
    if (kind == Kind::state || kind == Kind::dstate) columns_.resize(static_cast<std::size_t>(view.columns));
    for (std::int64_t row = 0; row < view.rows; ++row) collect(row);
  }

  bool finite() const { return finite_; }

  Part part(std::size_t begin, std::size_t end) const {
    Part out;
    double own = 0, saved = 0;
    for (std::size_t t = begin; t < end; ++t) {
      const Row& row = rows_[t];
      out.moment += row.moment;
      out.squares += row.squares;
      out.shared += row.shared;
      out.largest =
          std::max(out.largest, kind_ == Kind::row || kind_ == Kind::column ? row.size * row.size : row.largest);
      saved += row.saved;
      out.size += row.size;
      own += row.size * row.size;
    }
    const double all = out.size * out.size;
    out.alike = std::min(1.0, alike());
    out.shared += std::abs(saved);
    // On the other side of a kink every element of a row may be off by its bound over the constant of the bound.
    const double rows = static_cast<double>(end - begin);
    out.shared += std::min(open_rows_, rows) * static_cast<double>(view_.columns) / 4;
    switch (kind_) {
      case Kind::row:
        out.variance = own + all * of_state() + of_n(all) +
                       shared_variance(rows_, begin, end, sharing_.past, true, 0) / sharing_.keys;
        break;
      case Kind::column:
        out.variance = own + all * of_dstate() + of_n(all) +
                       shared_variance(rows_, begin, end, sharing_.future, false, sharing_.repeated / sharing_.queries);
        break;
      case Kind::gate:
        out.variance = nested_variance(begin, end);
        break;
      case Kind::state:
      case Kind::dstate: {
        out.variance = own;
        for (const double column : columns_) out.variance += column * column;
        if (kind_ == Kind::dstate) out.variance += all * sharing_.future.alike[0];
        break;
      }
      default:
        out.variance = out.squares;
    }
    return out;
  }

 private:
  /// The rounding of a state that rows share: of as many independent errors as it has elements that matter, unless the
  /// rows that it is multiplied by are alike. Columns of h and dq have errors of their own even then.
  double of_state() const {
    const HeadSharing& s = sharing_;
    const bool is_h = judged_.tensor == "h";
    const double alike = is_h ? s.alike_queries / s.value_columns : s.alike_cotangents / s.key_columns;
    return std::max(1 / (s.key_columns * s.value_columns), alike);
  }
  double of_dstate() const {
    const HeadSharing& s = sharing_;
    const double own = 1 / (s.query_columns * s.cotangent_columns);
    if (judged_.tensor == "dk") return std::max(own, s.alike_values / s.query_columns);
    if (judged_.tensor == "dv") return std::max(own, s.alike_keys / s.cotangent_columns);
    return std::max(own, s.alike_keys * s.alike_values);
  }
  /// n is rounded as few numbers, but enters through d alone: one of three or more terms of a bound, so a ninth.
  double of_n(double all) const { return judged_.problem.normalized() ? all / (9 * sharing_.key_columns) : 0; }
  /// Numbers that are rounded alike.
  double alike() const {
    const std::string& tensor = judged_.tensor;
    const HeadSharing& s = sharing_;
    if (tensor == "h") return s.P + s.key + values_alike_;
    if (tensor == "dq") return s.dS + s.g + s.key + values_alike_;
    if (tensor == "dk") return s.dS + s.g + s.query + values_alike_;
    if (tensor == "dv") return s.P + s.g + s.query + values_alike_;
    if (tensor == "di" || tensor == "df") return s.P + s.dS + s.g + s.key + s.query + values_alike_;
    return kind_ == Kind::dstate ? s.P + s.g + s.query : s.key;
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
      case Kind::gate: {
        if (kind_ == Kind::gate) return sharing_.columns.front();
        const auto at = static_cast<std::size_t>(row);
        return sharing_.rows[at] + (judged_.tensor == "dq" ? sharing_.near_rows[at] : 0);
      }
      case Kind::column:
        return sharing_.columns[static_cast<std::size_t>(row)];
      default:
        return std::max(sharing_.rows.back() + sharing_.last_token, sharing_.columns.front());
    }
  }

  double saved(std::int64_t row) const {
    if (sharing_.saved_rows.empty() || judged_.tensor[0] != 'd') return 0;
    const auto at = static_cast<std::size_t>(view_.has_time ? row : 0);
    return kind_ == Kind::row ? sharing_.saved_rows[at] : sharing_.saved_columns[at];
  }

  void collect(std::int64_t index) {
    Row& row = rows_[static_cast<std::size_t>(index)];
    const double coherent = relative(index), of_saved = saved(index);
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
      // An open row reaches all columns before it, and shows where their bounds are wider than they are.
      if (open_rows_ > 0 && kind_ != Kind::row && std::abs(size) < 1) row.shared += std::abs(size) / 2;
      row.saved += of_saved * size * size;
      if (!columns_.empty()) columns_[static_cast<std::size_t>(column)] += std::abs(size);
    }
  }

  const JudgedTensor& judged_;
  const TensorView& view_;
  Kind kind_;
  const HeadSharing& sharing_;
  std::int64_t head_;
  double open_rows_, values_alike_ = 0;
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
  // What is allowed: errors that everything shares, and so many standard deviations of the rest, in which one row (or
  // element) may use all of its bound.
  const auto add = [&](const Part& part, const BiasPlace& place) {
    if (!(part.squares > 0)) return;
    const double variance = part.variance + part.alike * part.size * part.size;
    const double allowed =
        part.shared + sharing.truncation() * part.squares + std::sqrt(constant * constant * variance + part.largest);
    const double slope = part.moment / part.squares, ratio = std::abs(part.moment) / allowed;
    telling |= allowed <= part.squares;
    if (ratio > worst.ratio) worst.ratio = ratio, worst.slope = slope, worst.place = place;
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
      BiasPlace place;
      if (view.has_time) place.begin = static_cast<std::int64_t>(begin), place.end = static_cast<std::int64_t>(end);
      for (const HeadParts& head : heads) {
        const Part part = view.has_time ? head.part(begin, end) : head.part(0, static_cast<std::size_t>(view.rows));
        all.add(part);
        place.head = &head - heads.data();
        if (heads.size() > 1) add(part, place);
      }
      all.variance *= sharing.equal_heads();
      place.head = -1;
      add(all, place);
      if (length >= steps && all.squares > 0) worst.overall = all.moment / all.squares;
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
  const std::int64_t first = bias.place.begin, last = bias.place.end - 1;
  if (last >= first && last - first + 1 < s.S) {
    text += bias.place.head >= 0 ? "," : " at";
    text += first == last ? fmt::format(" t = {}", first) : fmt::format(" t = {} ... {}", first, last);
  }
  return text;
}

}  // namespace mlstm::verify
