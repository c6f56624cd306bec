// SPDX-License-Identifier: Apache-2.0
// Chunkwise mLSTM whose chunks fit one block: L <= 64 (contract §2, §3).
//
//   P = (s q kᵀ)∘D    l = Σ_j P_j + s past∘(q n)    h = (P v + s past∘(q C)) / d
//   dP = (dh vᵀ)/d + γ     dS = s dP∘D     G = dP∘P     g = dh/d
//   dq = dS k + s past∘((dh Cᵀ)/d + γ n)    dk = dSᵀ q + D_last∘(v dCᵀ + dn)    dv = Pᵀ g + D_last∘(k dC)
//
// The idea: one block has a whole chunk, so P, dP and G are made once for all results of the chunk (tiled variants make
// them for every 128 columns of every result), and one kernel gives dq, dk, dv and what di and df need. The price is a
// state in memory every L steps.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::chunkwise_limit_chunk_cuda {

constexpr std::int64_t kLargestChunk = 64;

/// Chunks of problem.chunk_size <= kLargestChunk steps.
void forward(const Problem& problem, const ForwardArgs& args);
void backward(const Problem& problem, const BackwardArgs& args);

}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
