// SPDX-License-Identifier: Apache-2.0
// What the forward and the backward kernel of a chunk do alike.
#pragma once

#include "chunkwise/limit_chunk_cuda_ownbw/variant.hpp"
#include "common/cuda/chunks/pass.hpp"
#include "common/cuda/chunks/state_slab.cuh"
#include "common/cuda/launch.hpp"
#include "common/cuda/tile.cuh"

namespace mlstm::kernels::chunkwise_limit_chunk_cuda {

using namespace cuda;

/// Sizes of tiles in shared memory, in elements.
template <class T>
struct ChunkKernel {
  static constexpr int NT = sizeof(T) == 2 ? 8 : 4;
  static constexpr int kColumns = 16 * NT;  ///< of a result at a time
  static constexpr int kStride = stride_of<T>(kTile), kWideStride = stride_of<T>(kColumns);
  static constexpr int kSlab = kTile * kStride, kX = kTile * kWideStride;
  static constexpr int kStateSlab = kX > kColumns* kStride ? kX : kColumns* kStride;
};

/// Where the block's chunk is.
struct ChunkPlace {
  std::int64_t head_chunk, step0;  ///< step0: its first step among those of all heads
  int chunk, steps;

  static __device__ ChunkPlace of_block(const ChunkSizes& sizes) {
    const std::int64_t head_chunk = blockIdx.x, head = head_chunk / sizes.chunks;
    const int chunk = static_cast<int>(head_chunk % sizes.chunks);
    return {head_chunk, head * sizes.S + chunk * sizes.L, chunk, min(sizes.L, sizes.S - chunk * sizes.L)};
  }
};

/// D_tj = gate_weight(a_term[j], M_term[t]), relative to the chunk's first M. Thread t < 64 writes the terms of step t.
__device__ inline void write_gate_terms(const Gates& gates, const ChunkPlace& at, GateTerm* M_term, GateTerm* a_term) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= kTile) return;
  const bool valid = thread < at.steps;
  const double origin = gates.M[at.step0];
  M_term[thread] = valid ? GateTerm(gates.M[at.step0 + thread], origin) : GateTerm();
  a_term[thread] = valid ? GateTerm(gates.a[at.step0 + thread], origin) : GateTerm();
}

/// Starts copying columns column0... of the chunk's rows.
template <class T>
__device__ void load_rows(T* to, int columns, const T* from, const ChunkPlace& at, int width, int column0) {
  load_tile(to, kTile, columns, from + at.step0 * width + column0, width, at.steps, width - column0);
}

}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
