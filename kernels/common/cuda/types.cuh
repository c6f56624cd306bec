// SPDX-License-Identifier: Apache-2.0
// Storage types on the device, and what everything else is computed in.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "mlstm/problem.hpp"

namespace mlstm::kernels::cuda {

using bfloat16 = __nv_bfloat16;
using float16 = __half;

/// Gates, states, accumulators and reductions of a storage type: double for double, else float.
template <class T>
using RealOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ inline float to_real(float x) { return x; }
__device__ inline double to_real(double x) { return x; }
__device__ inline float to_real(bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_real(float16 x) { return __half2float(x); }

/// Rounds to nearest even.
template <class T>
__device__ inline T from_real(RealOf<T> x) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return __float2bfloat16_rn(x);
  else if constexpr (std::is_same_v<T, float16>)
    return __float2half_rn(x);
  else
    return x;
}

/// Calls body(T{}) with the storage type of `dtype`, one of Ts.
template <class... Ts, class Body>
void dispatch(DType dtype, const Body& body) {
  const auto is = [&]<class T>(T) {
    return (std::is_same_v<T, double> && dtype == DType::float64) ||
           (std::is_same_v<T, float> && dtype == DType::float32) ||
           (std::is_same_v<T, bfloat16> && dtype == DType::bfloat16) ||
           (std::is_same_v<T, float16> && dtype == DType::float16);
  };
  const bool found = ((is(Ts{}) && (body(Ts{}), true)) || ...);
  if (!found) throw std::logic_error("no kernel for " + std::string(to_string(dtype)));
}

/// The largest finite number of a storage type.
template <class T>
__host__ __device__ constexpr RealOf<T> largest() {
  if constexpr (std::is_same_v<T, double>)
    return 1.7976931348623157e308;
  else if constexpr (std::is_same_v<T, float16>)
    return 65504.0f;
  else if constexpr (std::is_same_v<T, bfloat16>)
    return 3.3895313892515355e38f;
  else
    return 3.4028234663852886e38f;
}

/// x, or the largest finite number of T in its place: one of the cures for a huge 1/d (kernels/README.md).
template <class T>
__device__ inline RealOf<T> saturate(RealOf<T> x) {
  return fmin(fmax(x, -largest<T>()), largest<T>());
}

template <class Real>
__device__ inline Real log_sigmoid(Real x) {
  return (x < Real(0) ? x : Real(0)) - log1p(exp(-fabs(x)));
}

template <class Real>
__device__ inline Real sigmoid(Real x) {
  const Real e = exp(-fabs(x));
  return (x < Real(0) ? e : Real(1)) / (Real(1) + e);
}

/// What the denominator needs to know of a problem.
struct DenominatorRule {
  bool normalized = true;
  double eps = 0;
  static DenominatorRule of(const Problem& problem) { return {problem.normalized(), problem.eps}; }
};

template <class Real>
struct Denominator {
  Real inverse = 1;  ///< 1 / d_t
  Real sign = 0;     ///< sign(l_t) where |l_t| is the denominator, 0 where the floor is
};

/// d_t = max(|l_t|, exp(-m_t)) + eps (contract §2); l = s n_t.q_t, m = m_t (0 with the sigmoid gate: the floor is 1).
/// For m < 0 numerator and denominator are scaled by exp(m), as exp(-m) overflows; and d = 0 only where exp(-m)
/// underflows: a finite inverse keeps 0 / 0 at 0.
template <class Real>
__device__ inline Denominator<Real> denominator(const DenominatorRule& rule, Real l, Real m) {
  if (!rule.normalized) return {};
  const Real scale = exp(m < Real(0) ? m : Real(0));
  const Real floor = exp(m > Real(0) ? -m : Real(0));
  const Real magnitude = fabs(l) * scale;
  const Real inverse = scale / ((magnitude > floor ? magnitude : floor) + static_cast<Real>(rule.eps) * scale);
  return {inverse < largest<Real>() ? inverse : largest<Real>(),
          magnitude >= floor ? Real((l > 0) - (l < 0)) : Real(0)};
}

}  // namespace mlstm::kernels::cuda
