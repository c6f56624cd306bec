// SPDX-License-Identifier: Apache-2.0
// Cotangents of log_i and logσ(f) when all m are held constant (formulas and ownership: gate_sums.cu).
#pragma once

#include "common/cuda/chunks/sizes.hpp"

namespace mlstm::kernels::cuda {

/// diagonal (heads,S): Σ G_tj over pairs j < r <= t of the tile of r. All chunks, their 64-step tiles.
template <class T>
void diagonal_gate_sums(const ChunkSizes& sizes, const GradientInputs<T>& in, float* diagonal, cudaStream_t stream);

/// What gate_sums reads: parts of inner products, and sums per chunk (heads, NC, crossing_parts).
struct GateSums {
  RowDots dots;
  const float* diagonal;
  const float* crossing;
  std::int64_t crossing_parts;
};

/// d_log_i, d_log_f: (heads,S).
void gate_sums(const ChunkSizes& sizes, const GateSums& in, float* d_log_i, float* d_log_f, cudaStream_t stream);

}  // namespace mlstm::kernels::cuda
