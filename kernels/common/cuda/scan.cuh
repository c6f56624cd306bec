// SPDX-License-Identifier: Apache-2.0
// Scans and sums over the threads of a block, in a fixed order.
#pragma once

namespace mlstm::kernels::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

/// Inclusive scan over the threads of a block: thread n gets op(x_0, ..., x_n). `op(earlier, later)` is associative.
/// V has shuffle_up(value, lanes). `totals` is shared memory for one V per warp; blockDim.x is a multiple of 32.
/// `total` gets the result of the last thread. All threads call; the block is synchronised before and after.
template <class V, class Op>
__device__ V block_scan(V value, Op op, V* totals, V& total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const V earlier = V::shuffle_up(value, lanes);
    if (lane >= lanes) value = op(earlier, value);
  }
  __syncthreads();
  if (lane == 31) totals[warp] = value;
  __syncthreads();
  V before = totals[0];
  for (int other = 1; other < warp; ++other) before = op(before, totals[other]);
  if (warp > 0) value = op(before, value);
  total = totals[0];
  for (int other = 1; other < warps; ++other) total = op(total, totals[other]);
  __syncthreads();
  return value;
}

/// Sum over the 32 lanes, the same in all of them.
template <class Real>
__device__ inline Real warp_sum(Real value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

/// Sum over the threads of a block, the same in all of them. `totals`: shared memory for one Real per warp.
template <class Real>
__device__ Real block_sum(Real value, Real* totals) {
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) totals[threadIdx.x / 32] = value;
  __syncthreads();
  Real sum = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += totals[warp];
  __syncthreads();
  return sum;
}

}  // namespace mlstm::kernels::cuda
