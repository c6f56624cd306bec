// SPDX-License-Identifier: Apache-2.0
// The denominator d_t = max(|l_t|, exp(-m_t)) + eps of a row and the cotangents that belong to it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/numeric.hpp"

namespace mlstm::kernels {

template <class Real>
struct Denominator {
  Real inverse = 1;  ///< 1 / d_t
  Real sign = 0;     ///< sign(l_t) where |l_t| is the denominator, 0 where the floor is
};

/// l = s n_t.q_t, m = m_t (0 with the sigmoid gate, which makes the floor 1).
template <class Real>
Denominator<Real> denominator(const Problem& problem, Real l, Real m) {
  if (!problem.normalized()) return {};
  // For m < 0 numerator and denominator are scaled by exp(m): exp(-m) would overflow (float32: from m < -88).
  const Real scale = std::exp(std::min(m, Real(0)));
  const Real floor = std::exp(-std::max(m, Real(0)));
  const Real magnitude = std::abs(l) * scale;
  const Real inverse = scale / (std::max(magnitude, floor) + static_cast<Real>(problem.eps) * scale);
  // d = 0 only where exp(-m) underflows; a finite inverse keeps 0 / 0 at 0.
  Denominator<Real> out{std::min(inverse, std::numeric_limits<Real>::max()), 0};
  if (magnitude >= floor) out.sign = static_cast<Real>((l > 0) - (l < 0));
  return out;
}

/// Per-row scalars of a backward pass, each (S).
template <class Real>
struct RowCotangents {
  Vector<Real> lift;     ///< r_t, a power of 2: what q_t is multiplied by; then dq_t has to be, too
  Vector<Real> inverse;  ///< 1 / (r_t d_t)
  Vector<Real> gamma;    ///< cotangent of r_t l_t (exact only)
  Vector<Real> dm;       ///< cotangent of m_t that comes from h (exact only): -(dh_t.h_t) eps / d_t
};

/// r_t = 2^n is 1 unless 1/d_t is 2^(E/2) or more, for a storage type that ends at 2^E, and then just so much that
/// 1 / (r_t d_t) is below that: one of the cures for a huge 1/d (kernels/README.md).
template <class T, class Real>
Real lift_of(Real inverse) {
  constexpr int kHalf = std::numeric_limits<T>::max_exponent / 2;
  // so that NaN passes on
  return inverse >= std::ldexp(Real(1), kHalf) ? std::ldexp(Real(1), std::ilogb(inverse) + 1 - kHalf) : Real(1);
}

/// The same for the cotangent of l_t, so that it stays a quarter of 2^E away from the end: gamma_t grows with h_t /
/// d_t.
template <class T, class Real>
Real lift_of_gamma(Real gamma) {
  constexpr int kTop = std::numeric_limits<T>::max_exponent - 2;
  return std::abs(gamma) >= std::ldexp(Real(1), kTop) ? std::ldexp(Real(1), std::ilogb(gamma) + 1 - kTop) : Real(1);
}

/// l, m: (S). dh_h: dh_t.h_t (S), not read in the detached convention. T: the storage type.
template <class T, class Real>
RowCotangents<Real> row_cotangents(const Problem& problem, Convention convention, const Vector<Real>& l,
                                   const Vector<Real>& m, const Vector<Real>& dh_h) {
  const Index S = l.size();
  const Real largest = std::numeric_limits<Real>::max();
  RowCotangents<Real> rows{Vector<Real>(S), Vector<Real>(S), Vector<Real>::Zero(S), Vector<Real>::Zero(S)};
  for (Index t = 0; t < S; ++t) {
    const Denominator<Real> d = denominator(problem, l[t], m[t]);
    const bool exact = convention == Convention::exact && problem.normalized();
    // Finite, as it may be multiplied by 0: by eps, by the sign of l, and by q.
    const Real dd = exact ? std::clamp(-dh_h[t] * d.inverse, -largest, largest) : Real(0);
    rows.lift[t] = std::max(lift_of<T>(d.inverse), lift_of_gamma<T>(d.sign * dd));
    rows.inverse[t] = d.inverse / rows.lift[t];
    if (!exact) continue;
    rows.gamma[t] = d.sign * dd / rows.lift[t];
    if (problem.has_m()) rows.dm[t] = dd * static_cast<Real>(problem.eps);
  }
  return rows;
}

}  // namespace mlstm::kernels
