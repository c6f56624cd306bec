// SPDX-License-Identifier: Apache-2.0
// Sums over the pairs of steps of one tile that straddle a gate.
#pragma once

#include "common/cuda/tile.cuh"

namespace mlstm::kernels::cuda {

/// Elements between the rows of G: a column is read by 32 lanes without conflicts.
constexpr int kGStride = kTile + 1;

/// For thread r < 64: Σ_{t>=r} Σ_{j<r} G_tj of a 64 x 64 tile G[t][j] in shared memory (stride kGStride, zero where j >
/// t), which is overwritten; 0 for other threads. Synchronises the block before and inside.
__device__ inline float straddling_sum(float* G) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (thread < kTile) {  // row t: G_tr <- Σ_{j<r} G_tj
    float sum = 0;
    float* const row = G + thread * kGStride;
    for (int r = 0; r <= thread; ++r) {
      const float x = row[r];
      row[r] = sum;
      sum += x;
    }
  }
  __syncthreads();
  float sum = 0;
  if (thread < kTile)
    for (int t = kTile - 1; t >= thread; --t) sum += G[t * kGStride + thread];
  return sum;
}

}  // namespace mlstm::kernels::cuda
