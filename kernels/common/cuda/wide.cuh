// SPDX-License-Identifier: Apache-2.0
// Sums of float64 numbers with twice the digits. A sum of log forget gates may be -3000 where it holds a reset, and the
// exponents behind the reset are differences of such sums: in plain float64 they lose 2^-53 of 3000 each.
#pragma once

#include <cstdint>

namespace mlstm::kernels::cuda {

/// hi + lo, |lo| at most half the last digit of hi.
struct Wide {
  double hi, lo;
};

/// The error of a float64 sum is a float64 number (Knuth's two-sum).
__device__ inline Wide plus(Wide a, Wide b) {
  const double sum = a.hi + b.hi, part = sum - a.hi;
  if (!isfinite(sum)) return {sum, 0};
  const double low = (a.hi - (sum - part)) + (b.hi - part) + (a.lo + b.lo), hi = sum + low;
  return {hi, low - (hi - sum)};
}
__device__ inline double plus(double a, double b) { return a + b; }

__device__ inline Wide larger(Wide a, Wide b) { return a.hi > b.hi || (a.hi == b.hi && a.lo > b.lo) ? a : b; }
__device__ inline double larger(double a, double b) { return fmax(a, b); }

__device__ inline Wide negated(Wide a) { return {-a.hi, -a.lo}; }
__device__ inline double negated(double a) { return -a; }

__device__ inline double high(Wide a) { return a.hi; }
__device__ inline double high(double a) { return a; }

__device__ inline void store(double* high, double* low, std::int64_t at, Wide a) {
  high[at] = a.hi;
  low[at] = a.lo;
}
__device__ inline void store(double* high, double*, std::int64_t at, double a) { high[at] = a; }

/// The element `at` of an array whose low parts are in `low`; null: it has none.
__device__ inline Wide load_wide(const double* high, const double* low, std::int64_t at) {
  return {high[at], low != nullptr ? low[at] : 0};
}

__device__ inline double difference(Wide a, Wide b) { return (a.hi - b.hi) + (a.lo - b.lo); }
__device__ inline bool equal(Wide a, Wide b) { return a.hi == b.hi && a.lo == b.lo; }

__device__ inline double shuffled_up(unsigned lanes, double a, int distance) {
  return __shfl_up_sync(lanes, a, distance);
}
__device__ inline Wide shuffled_up(unsigned lanes, Wide a, int distance) {
  return {__shfl_up_sync(lanes, a.hi, distance), __shfl_up_sync(lanes, a.lo, distance)};
}

}  // namespace mlstm::kernels::cuda
