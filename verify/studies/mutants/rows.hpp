// SPDX-License-Identifier: Apache-2.0
// The denominator of a row, and the scalars per row that the backward pass needs.
#pragma once

#include "studies/mutants/head.hpp"

namespace mlstm::verify::planted {

template <class Real>
struct Denominator {
  Real inverse = 1;  ///< 1 / d_t
  Real sign = 0;     ///< sign(l_t) where |l_t| is the denominator
};

/// The number that stands for `d` in a table with 32 places for each power of 2.
template <class Real>
Real middle_of_table(Real d) {
  int exponent = 0;
  const Real mantissa = std::frexp(d, &exponent);  // in [1/2, 1)
  if (mantissa == 0 || !std::isfinite(d)) return d;
  return std::ldexp((std::floor(mantissa * 64) + Real(0.5)) / 64, exponent);
}

/// d = max(|l|, exp(-m)) + eps, both sides times exp(m) where m < 0, so that nothing overflows.
template <class Real>
Denominator<Real> denominator(const Context& c, Real l, Real m) {
  const Problem& problem = c.problem;
  const bool is_sigmoid = problem.gate == Gate::sigmoid;
  const bool normalized = is_sigmoid && c.has("normalize_always")  ? true
                          : is_sigmoid && c.has("normalize_never") ? false
                                                                   : problem.normalized();
  if (!normalized) return {};
  const Real scale = std::exp(std::min(m, Real(0)));
  Real floor = std::exp(-std::max(m, Real(0)));
  if (c.has("floor_one")) floor = scale;
  if (c.has("floor_exp_plus_m")) floor = std::min(scale * std::exp(m), std::numeric_limits<Real>::max());
  if (c.has("floor_zero_sigmoid") && is_sigmoid) floor = 0;
  if (c.has("floor_missing")) floor = 0;
  if (c.has("single_step_without_floor") && c.is_single_step_without_eps()) floor = 0;
  if (c.has("sigmoid_neg_inf_floor") && is_sigmoid && c.starts_at_neg_inf()) floor = 0;
  Real eps = static_cast<Real>(problem.eps);
  if (c.has("eps_missing")) eps = 0;
  if (c.has("eps_squared")) eps *= eps;
  if (c.has("eps_twice")) eps *= 2;
  if (c.has("eps_default")) eps = Real(1e-6);
  if (c.has("eps_in_library")) eps = static_cast<Real>(c.library->eps.load());
  if (c.has("eps_of_zero_is_default") && c.is_single_step_without_eps()) eps = Real(1e-6);
  Real added = eps * scale;
  if (c.has("eps_unstabilized")) added = eps * floor;
  const Real magnitude = (c.has("no_absolute_value") ? l : std::abs(l)) * scale;
  Real d = std::max(magnitude, floor) + added;
  if (c.has("eps_inside_max")) d = std::max(magnitude, floor + added);
  if (c.has("eps_on_floor_only")) d = magnitude >= floor ? magnitude : floor + added;
  if (c.has("sum_for_max")) d = magnitude + floor + added;
  if (c.has("denominator_float16")) d = rounded(Rounding::float16, d);
  if (c.has("inverse_approximate")) d = middle_of_table(d);
  // d = 0 only where the floor underflows; a finite inverse keeps 0 / 0 at 0
  Denominator<Real> out{std::min(scale / d, std::numeric_limits<Real>::max()), 0};
  const Real sign = static_cast<Real>((l > 0) - (l < 0));
  if (magnitude >= floor) out.sign = c.has("sign_missing") ? Real(1) : sign;
  if (c.has("branch_ignored")) out.sign = sign;
  return out;
}

/// What a kernel does that takes every small input gate for padding.
template <class Real>
void clear_padded_rows(const Context& c, const Gates<Real>& gates, Matrix<Real>& h) {
  if (!c.has("padded_rows_zero")) return;
  for (Index t = 0; t < h.rows(); ++t)
    if (gates.log_i[static_cast<std::size_t>(t)] <= -25) std::fill_n(h[t], h.cols(), Real(0));
}

/// The m that goes into the denominator of row t.
template <class Real>
Real floor_m(const Context& c, const Gates<Real>& gates, Index t) {
  const Real before = gates.m_before(t);
  return c.has("floor_m_of_step_before") && std::isfinite(before) ? before : gates.m[static_cast<std::size_t>(t)];
}

/// Each (S).
template <class Real>
struct RowScalars {
  std::vector<Real> lift;     ///< a power of 2 that q_t, and with it d_t, is multiplied by; dq_t has to be, too
  std::vector<Real> inverse;  ///< 1 / (lift d)
  std::vector<Real> gamma;    ///< cotangent of lift l, exact convention only: -sign(l) (dh.h) / (lift d)
  std::vector<Real> dm;       ///< cotangent of m_t, exact convention only: -(dh.h) eps / d
};

/// Half of the exponents of a storage type.
inline int half_range(DType dtype) { return dtype == DType::float16 ? 8 : dtype == DType::float64 ? 512 : 64; }

/// Without the lift dh / d overflows where exp(-m) nearly vanishes and q_t is (nearly) 0.
template <class Real>
Real lift_of(const Context& c, Real inverse) {
  const int half = half_range(c.problem.dtype);
  // so that NaN, which bugs make, passes on
  if (c.has("no_lift") || !(inverse >= std::ldexp(Real(1), half))) return 1;
  return std::ldexp(Real(1), std::ilogb(inverse) + 1 - half);
}

/// Likewise for gamma, which grows with h / d: a quarter of the storage type's range is kept free.
template <class Real>
Real lift_of_gamma(const Context& c, Real gamma) {
  const int top = 2 * half_range(c.problem.dtype) - 2;
  if (c.has("no_lift") || !(std::abs(gamma) >= std::ldexp(Real(1), top)) || std::isinf(gamma)) return 1;
  return std::ldexp(Real(1), std::ilogb(gamma) + 1 - top);
}

/// dh_h: dh_t.h_t (S).
template <class Real>
RowScalars<Real> row_scalars(const Context& c, Convention convention, const Gates<Real>& gates, const Real* l,
                             const std::vector<Real>& dh_h) {
  const std::size_t S = dh_h.size();
  const Real largest = std::numeric_limits<Real>::max();
  RowScalars<Real> rows{std::vector<Real>(S), std::vector<Real>(S), std::vector<Real>(S, 0), std::vector<Real>(S, 0)};
  bool exact = convention == Convention::exact;
  if (c.has("always_detached")) exact = false;
  if (c.has("always_exact")) exact = true;
  for (std::size_t t = 0; t < S; ++t) {
    const Denominator<Real> d = denominator(c, l[t], floor_m(c, gates, static_cast<Index>(t)));
    rows.lift[t] = lift_of(c, d.inverse);
    rows.inverse[t] = d.inverse / rows.lift[t];
    if (!exact || !c.problem.normalized()) continue;
    Real dd = std::clamp(-dh_h[t] * d.inverse, -largest, largest);
    if (c.has("row_term_without_inverse")) dd = -dh_h[t];
    if (d.sign != 0) rows.lift[t] = std::max(rows.lift[t], lift_of_gamma(c, dd));
    rows.inverse[t] = d.inverse / rows.lift[t];
    rows.gamma[t] = d.sign * dd / rows.lift[t];
    if (c.has("row_term_sign")) rows.gamma[t] = -rows.gamma[t];
    if (!c.problem.has_m() || c.has("dm_path_missing")) continue;
    rows.dm[t] = dd * (c.has("dm_without_eps") ? Real(1) : static_cast<Real>(c.problem.eps));
    if (c.has("dm_sign")) rows.dm[t] = -rows.dm[t];
  }
  return rows;
}

}  // namespace mlstm::verify::planted
