// SPDX-License-Identifier: Apache-2.0
// Recurrent mLSTM over a whole sequence on the GPU, step by step (contract §2): one kernel per direction, no chunks.
//
//   forward    C_t = F_t C_{t-1} + I_t k_t v_tᵀ,  n_t = F_t n_{t-1} + I_t k_t,  h_t = C_tᵀ (s q_t) / d_t
//   backward   dC_t = s q_t g_tᵀ + F_{t+1} dC_{t+1},  dn_t = s γ_t q_t + F_{t+1} dn_{t+1}
//              dq_t = s (C_t g_t + γ_t n_t),  dk_t = I_t (dC_t v_t + dn_t),  dv_t = I_t dC_tᵀ k_t
//              with g = dh/d and γ the cotangent of l;
//              dlog_i_t = k_t.dk_t,  dlog_f_t = F_t (<dC_t, C_{t-1}> + <dn_t, n_{t-1}>)
//
// The state lives in registers: a thread holds 4 rows x 8 columns of it for the whole sequence and shares it with
// nobody, so a step needs no synchronisation. Products with q and k go over rows, within a warp by shuffles; products
// with v and g go over columns, within a thread. The backward pass needs every C_t. Keeping them all would take S
// states, undoing steps divides by F_t, which may be tiny; so forward keeps one state in √S, and backward runs each
// segment of √S steps again from its first state. Every product here is a vector's: nothing is rounded but what is
// stored.
#pragma once

#include <cstddef>

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::recurrent_sequence_cuda {

/// Steps per segment: the least n with n² >= S.
inline std::int64_t segment_length(const Problem& problem) {
  std::int64_t n = 1;
  while (n * n < problem.shape.S) ++n;
  return n;
}
inline std::int64_t number_of_segments(const Problem& problem) {
  return (problem.shape.S - 1) / segment_length(problem) + 1;
}

/// Blocks of the largest launch.
std::int64_t blocks_of(const Problem&);

std::size_t saved_size(const Problem&);
std::size_t forward_workspace_size(const Problem&);
std::size_t backward_workspace_size(const Problem&);

void forward(const Problem&, const ForwardArgs&);
void backward(const Problem&, const BackwardArgs&);

}  // namespace mlstm::kernels::recurrent_sequence_cuda
