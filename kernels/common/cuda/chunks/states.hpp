// SPDX-License-Identifier: Apache-2.0
// The recurrence over chunks, forward for the states and backward for their cotangents (contract §2, §3; D, past from
// common/cuda/gates.hpp; sums over the steps of a chunk):
//
//   C' = past_last C + Σ_j (D_last,j k_j) v_jᵀ            dC = past_last dC' + Σ_t (s past_t q_t) g_tᵀ
//   n' = past_last n + Σ_j  D_last,j k_j                  dn = past_last dn' + Σ_t  s past_t γ_t q_t
//
// A block owns 64 rows x up to 128 columns of one head's C in registers (float32) and goes over the sequence in steps
// of 64: an inter-chunk state is written once a chunk, however many steps of 64 it has. All weights are relative to the
// chunk's last step (forward) or first (backward), so that the accumulators are scaled once a chunk.
// Rounded to the dtype: the scaled rows of k and q, as operands; the copies of C and dC that are written, since they
// are read as operands. n, dn and their sums are float32 of unrounded terms.
#pragma once

#include "common/cuda/chunks/sizes.hpp"
#include "common/cuda/types.cuh"

namespace mlstm::kernels::cuda {

/// Blocks of one head.
template <class T>
std::int64_t state_blocks(const ChunkSizes& sizes);

/// Fills states (entering each chunk) and, unless null, the last state: c_last, c_end (heads,DHQK,DHV) and n_last,
/// n_end (heads,DHQK), float32. Initial states are null if there are none. states.C may be null (only the last state is
/// wanted).
template <class T>
struct StateForward {
  const T *k, *v;
  const float *c_initial, *n_initial;
  float *c_last, *n_last, *c_end, *n_end;
  ChunkStates<T> states;
};
template <class T>
void states_forward(const ChunkSizes& sizes, const Gates& gates, const StateForward<T>& args, cudaStream_t stream);

/// Fills d_states (cotangents of the states that leave each chunk) and the cotangents of the initial state, float32.
/// crossing (heads,NC,state_blocks): parts of past_last (<dC', C> + <dn', n>), the pairs with one step before the chunk
/// and one after it; 0 where either is empty. dc_last, dn_last null: zero. dc_initial, dn_initial null: not wanted.
template <class T>
struct StateBackward {
  const T *q, *g;
  const float* gamma;
  const float *dc_last, *dn_last;
  float *dc_initial, *dn_initial;
  ChunkStates<T> states, d_states;
  float* crossing;
};
template <class T>
void states_backward(const ChunkSizes& sizes, const Gates& gates, const StateBackward<T>& args, cudaStream_t stream);

}  // namespace mlstm::kernels::cuda
