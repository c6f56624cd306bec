// SPDX-License-Identifier: Apache-2.0
// The recurrence over chunks, forward for the states and backward for their cotangents (formulas, ownership and what is
// rounded: states.cu).
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
