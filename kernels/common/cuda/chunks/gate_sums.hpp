// SPDX-License-Identifier: Apache-2.0
// Cotangents of log_i and logσ(f) when all m are held constant (contract §3). G_tj = dP_tj P_tj is what the pair of
// steps (t, j) contributes; it goes to log_i of j and to logσ(f) of every r with j < r <= t:
//
//   d_log_i_j = Σ_t G_tj = k_j.dk_j          d_log_f_r = Σ_{t>=r} Σ_{j<r} G_tj
//
// The second sum takes only pairs that straddle r (the difference of the cumulative sums of q.dq and k.dk is the same
// number, but cancels). For r in tile I of a chunk they are
//
//   t in I, j in I                 summed here from G of the tile on the diagonal
//   t in I, j before I             Σ_{t>=r} of q_t.dq_t without the diagonal tile    (RowDots::q_before)
//   t after I, j in I              Σ_{j<r} of k_j.dk_j without the diagonal tile     (RowDots::k_beyond)
//   t after I, j before I          one number a tile:
//     t after the chunk too, j before the chunk     <dC', C> + <dn', n>              (StateBackward::crossing)
//     t after the chunk too, j in an earlier tile   Σ_j k_j.dk_j from after the chunk  (RowDots::k_state)
//     t in a later tile, j before I                 Σ over later tiles               (RowDots::q_over)
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
