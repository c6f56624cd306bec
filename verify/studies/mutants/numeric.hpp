// SPDX-License-Identifier: Apache-2.0
// Number formats and the three kinds of loops that everything else is made of.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "mlstm/dtype.hpp"

namespace mlstm::verify::planted {

using Index = std::int64_t;

/// What values are rounded to on their way, beside what they are stored in.
enum class Rounding {
  none,
  float32,
  tfloat32,
  bfloat16,
  float16,
  float16_overflowing,
  bfloat16_truncated,
  float16_truncated
};

/// `x` without its last `dropped` significant bits, to nearest even. What is beyond `largest` becomes that; NaN stays.
inline float drop_bits(float x, std::uint32_t dropped, float largest) {
  const float clamped = x > largest ? largest : x < -largest ? -largest : x;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(clamped), unit = 1u << dropped;
  const std::uint32_t kept = (bits + (unit / 2 - 1) + ((bits >> dropped) & 1u)) & ~(unit - 1);
  return x == x ? std::bit_cast<float>(kept) : x;
}

inline float to_bfloat16(float x) { return drop_bits(x, 16, 0x1.fep127f); }
/// Tensor cores drop the bits that they do not read.
inline float to_tfloat32(float x) { return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & ~0x1fffu); }
inline float to_float16(float x) {
  // Below 2^-14 the step is 2^-24, which is the step of float32 from 1/2 on.
  const float magnitude = std::abs(x), shifted = (magnitude + 0.5f) - 0.5f;
  return magnitude < 0x1p-14f ? std::copysign(shifted, x) : drop_bits(x, 13, 65504.0f);
}

/// The same, but what is too large becomes infinite, as conversions of the hardware do.
inline float to_float16_overflowing(float x) {
  return std::abs(x) < 65520.0f ? to_float16(x) : x * std::numeric_limits<float>::infinity();
}

/// Towards zero.
inline float to_bfloat16_truncated(float x) { return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & ~0xffffu); }
inline float to_float16_truncated(float x) {
  const float magnitude = std::abs(x);
  if (magnitude < 0x1p-14f) return std::copysign(std::floor(magnitude * 0x1p24f) * 0x1p-24f, x);
  return drop_bits(std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & ~0x1fffu), 13, 65504.0f);
}

/// The same type, but truncated.
inline Rounding truncated(Rounding to) {
  return to == Rounding::bfloat16                                         ? Rounding::bfloat16_truncated
         : to == Rounding::float16 || to == Rounding::float16_overflowing ? Rounding::float16_truncated
                                                                          : to;
}

template <class Real>
void round_all(Rounding to, Real* x, Index n) {
  const auto apply = [&](auto round) {
    for (Index a = 0; a < n; ++a) x[a] = static_cast<Real>(round(static_cast<float>(x[a])));
  };
  switch (to) {
    case Rounding::none:
      return;
    case Rounding::float32:
      return apply([](float value) { return value; });
    case Rounding::tfloat32:
      return apply(to_tfloat32);
    case Rounding::bfloat16:
      return apply(to_bfloat16);
    case Rounding::float16:
      return apply(to_float16);
    case Rounding::float16_overflowing:
      return apply(to_float16_overflowing);
    case Rounding::bfloat16_truncated:
      return apply(to_bfloat16_truncated);
    case Rounding::float16_truncated:
      return apply(to_float16_truncated);
  }
}

template <class Real>
Real rounded(Rounding to, Real x) {
  round_all(to, &x, 1);
  return x;
}

template <class Real>
Real dot(const Real* a, const Real* b, Index n) {
  constexpr Index kLanes = 16;
  Real lanes[kLanes] = {};
  Index at = 0;
  for (; at + kLanes <= n; at += kLanes)
    for (Index lane = 0; lane < kLanes; ++lane) lanes[lane] += a[at + lane] * b[at + lane];
  Real sum = 0;
  for (; at < n; ++at) sum += a[at] * b[at];
  for (const Real lane : lanes) sum += lane;
  return sum;
}

/// out += a * x, n elements.
template <class Real>
void add_scaled(Real* __restrict out, Real a, const Real* __restrict x, Index n) {
  for (Index at = 0; at < n; ++at) out[at] += a * x[at];
}

/// A matrix in somebody's memory, row-major.
template <class Real>
struct View {
  Real* first;
  Index stride;
  Real* operator[](Index row) const { return first + row * stride; }
};

/// A row-major matrix of its own.
template <class Real>
class Matrix {
 public:
  Matrix() = default;
  Matrix(Index rows, Index cols) : rows_(rows), cols_(cols), values_(static_cast<std::size_t>(rows * cols)) {}
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index size() const { return rows_ * cols_; }
  Real* data() { return values_.data(); }
  const Real* data() const { return values_.data(); }
  Real* operator[](Index row) { return data() + row * cols_; }
  const Real* operator[](Index row) const { return data() + row * cols_; }
  View<const Real> from(Index row) const { return {(*this)[row], cols_}; }
  View<Real> from(Index row) { return {(*this)[row], cols_}; }

 private:
  Index rows_ = 0, cols_ = 0;
  std::vector<Real> values_;
};

template <class Real>
Matrix<Real> transposed(View<const Real> x, Index rows, Index cols) {
  Matrix<Real> out(cols, rows);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) out[c][r] = x[r][c];
  return out;
}

/// out (cols) += Σ_r weight(r) x_r, four rows at a time. An accumulator narrower than Real is rounded after every row.
template <class Real, class Weight>
void add_rows(Rounding accumulator, Real* __restrict out, Weight weight, View<const Real> x, Index rows, Index cols) {
  Index r = 0;
  if (accumulator != Rounding::none) {
    for (; r < rows; ++r) {
      add_scaled(out, weight(r), x[r], cols);
      round_all(accumulator, out, cols);
    }
    return;
  }
  for (; r + 4 <= rows; r += 4) {
    const Real w0 = weight(r), w1 = weight(r + 1), w2 = weight(r + 2), w3 = weight(r + 3);
    const Real* __restrict x0 = x[r], * __restrict x1 = x[r + 1], * __restrict x2 = x[r + 2], * __restrict x3 = x[r + 3];
    for (Index c = 0; c < cols; ++c) out[c] += (w0 * x0[c] + w1 * x1[c]) + (w2 * x2[c] + w3 * x3[c]);
  }
  for (; r < rows; ++r) add_scaled(out, weight(r), x[r], cols);
}

/// out (rows,cols) += a (rows,inner) b (inner,cols)
template <class Real>
void add_product(Rounding accumulator, View<Real> out, View<const Real> a, View<const Real> b, Index rows, Index inner,
                 Index cols) {
  for (Index r = 0; r < rows; ++r) {
    const Real* const weights = a[r];
    add_rows(
        accumulator, out[r], [weights](Index at) { return weights[at]; }, b, inner, cols);
  }
}

/// out (inner,cols) += aᵀ b with a (rows,inner), b (rows,cols)
template <class Real>
void add_transposed_product(Rounding accumulator, View<Real> out, View<const Real> a, View<const Real> b, Index rows,
                            Index inner, Index cols) {
  for (Index j = 0; j < inner; ++j)
    add_rows(
        accumulator, out[j], [a, j](Index r) { return a[r][j]; }, b, rows, cols);
}

}  // namespace mlstm::verify::planted
