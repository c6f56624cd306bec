// SPDX-License-Identifier: Apache-2.0
// What forward and backward share: who holds which part of a state, where its rows and columns come from, and what
// forward leaves for backward.
#pragma once

#include <algorithm>
#include <cstddef>

#include "common/cuda/arena.hpp"
#include "common/cuda/gates.hpp"
#include "common/cuda/scan.cuh"
#include "common/cuda/types.cuh"
#include "common/cuda/wide.cuh"
#include "recurrent/sequence_cuda_ownbw/variant.hpp"

namespace mlstm::kernels::recurrent_sequence_cuda {

using cuda::RealOf;

constexpr int kMaxThreads = 256;
constexpr int kRows = 4, kColumns = 8;      ///< of the state, in the registers of a thread
constexpr int kMaxTile = 16;                ///< steps that are in shared memory at a time, at most
constexpr std::size_t kShared = 40 * 1024;  ///< for them; every device gives 48 KiB without being asked

/// How a state of DHQK rows and any number of columns is cut. A block holds rows() x columns() of it: `groups` of
/// `row_threads` threads, whole warps, each of them all rows of kColumns columns. A thread's rows are `row_threads`
/// apart, so that neighbours read neighbouring q and k. More rows than 256 threads hold are taken one row block after
/// the other.
struct Cut {
  int row_threads, groups;
  std::int64_t row_blocks, slabs;

  static Cut of(std::int64_t DHQK, std::int64_t columns) {
    const auto ceil = [](std::int64_t a, std::int64_t b) { return (a - 1) / b + 1; };
    Cut cut;
    cut.row_blocks = ceil(DHQK, kRows * kMaxThreads);
    cut.row_threads = static_cast<int>(32 * ceil(ceil(DHQK, cut.row_blocks), 32 * kRows));
    const std::int64_t needed = ceil(columns, kColumns);
    cut.slabs = ceil(needed, kMaxThreads / cut.row_threads);
    cut.groups = static_cast<int>(ceil(needed, cut.slabs));
    return cut;
  }
  __host__ __device__ int threads() const { return row_threads * groups; }
  __host__ __device__ int rows() const { return kRows * row_threads; }
  __host__ __device__ int columns() const { return kColumns * groups; }
  /// The n-th row of a thread.
  __device__ int row_of(int row_thread, int n) const { return n * row_threads + row_thread; }
  __host__ __device__ int row_warps() const { return row_threads / 32; }
  __host__ __device__ int warps() const { return threads() / 32; }
};

/// Steps per tile if each takes `reals` numbers of shared memory.
inline int tile_of(std::int64_t S, std::int64_t reals, std::size_t real_size) {
  const auto fit = static_cast<std::int64_t>(kShared / (static_cast<std::size_t>(reals) * real_size));
  return static_cast<int>(std::min(std::max<std::int64_t>(fit, 1), std::min<std::int64_t>(S, kMaxTile)));
}

/// `count` neighbours, a multiple of four, from a multiple of four on in shared memory, 16 bytes at a time.
template <int count, class Real>
__device__ inline void load_quads(Real (&to)[count], const Real* from) {
  struct alignas(16) Quad {
    Real x[4];
  };
#pragma unroll
  for (int n = 0; n < count; n += 4) {
    const auto quad = *reinterpret_cast<const Quad*>(from + n);
#pragma unroll
    for (int m = 0; m < 4; ++m) to[n + m] = quad.x[m];
  }
}

/// Sum of x over the lanes of a warp, for eight x at once: lane n returns that of x[n / 4]. A butterfly that halves the
/// number of sums as it doubles the number of terms: 9 shuffles instead of 40.
template <class Real>
__device__ inline Real sum_columns(Real (&x)[kColumns], int lane) {
#pragma unroll
  for (int half = kColumns / 2, lanes = 16; half > 0; half /= 2, lanes /= 2) {
    const bool upper = (lane & lanes) != 0;
#pragma unroll
    for (int c = 0; c < half; ++c) {
      const Real kept = upper ? x[c + half] : x[c], given = upper ? x[c] : x[c + half];
      x[c] = kept + __shfl_xor_sync(cuda::kAllLanes, given, lanes);
    }
  }
  x[0] += __shfl_xor_sync(cuda::kAllLanes, x[0], 2);
  x[0] += __shfl_xor_sync(cuda::kAllLanes, x[0], 1);
  return x[0];
}

/// The rows of a block, from `first_row` on, of x (n, DHQK), as Real, times `factor`; 0 past the end. `to` is
/// (n, cut.rows()). A thread requests its kRows elements of a step before it waits for one.
template <class T, class Real>
__device__ inline void stage_rows(Real* to, const T* x, const Cut& cut, std::int64_t DHQK, std::int64_t first_row,
                                  int row_thread, int group, int n, Real factor) {
  const std::int64_t left = DHQK - first_row - row_thread;
  const T* from = x + group * DHQK + first_row + row_thread;
#pragma unroll 1
  for (int t = group; t < n; t += cut.groups, from += cut.groups * DHQK) {
    Real value[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      value[r] = r * cut.row_threads < left ? cuda::to_real(from[r * cut.row_threads]) : Real(0);
#pragma unroll
    for (int r = 0; r < kRows; ++r) to[t * cut.rows() + cut.row_of(row_thread, r)] = factor * value[r];
  }
}

/// F_t and I_t of n steps. Each step is a chunk of its own (cuda/gates.hpp with L = 1).
template <class Real>
__device__ inline void stage_gates(Real* F, Real* I, const cuda::Gates& gates, std::int64_t at, int n) {
  for (int t = static_cast<int>(threadIdx.x); t < n; t += static_cast<int>(blockDim.x)) {
    const cuda::Wide M = cuda::load_wide(gates.M, gates.M_low, at + t);
    F[t] = static_cast<Real>(exp(cuda::difference({gates.m_entering[at + t], 0}, M)));
    I[t] = static_cast<Real>(exp(cuda::difference(cuda::load_wide(gates.a, gates.a_low, at + t), M)));
  }
}

/// Takes n elements of RealOf the problem's dtype.
inline void* take_real(cuda::Arena& arena, const Problem& problem, std::int64_t n) {
  if (problem.dtype == DType::float64) return arena.take<double>(n);
  return arena.take<float>(n);
}

/// What forward leaves for backward, in RealOf the dtype.
struct Saved {
  void* l;       ///< (B,NH,S)
  void* states;  ///< (B,NH,segments,DHQK,DHV+1): the states before each segment, n as one more column of C

  static Saved take(cuda::Arena& arena, const Problem& problem) {
    const Shape& shape = problem.shape;
    return {take_real(arena, problem, shape.heads() * shape.S),
            take_real(arena, problem, shape.heads() * number_of_segments(problem) * shape.DHQK * (shape.DHV + 1))};
  }
};

}  // namespace mlstm::kernels::recurrent_sequence_cuda
