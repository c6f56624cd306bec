// SPDX-License-Identifier: Apache-2.0
// Parallel mLSTM, tiled like flash attention (contract §3, parallel form).
//
//   P = (s q kᵀ)∘D    l = Σ_j P_j    h = P v / d                      D from the gates: common/cuda/gates.hpp
//
// The idea: a block owns 64 rows of a result and goes over the 64-column tiles of P, made and used on the spot: memory
// is O(S), but for one float32 per pair of 64-step tiles in backward (S²/4096: less than q up to S = 262,144). Unlike
// softmax, the row's maximum m_t is known beforehand (it depends on the gates alone), so nothing is rescaled on the
// way. Backward does the same for dq (over earlier steps) and dk, dv (over later steps), making P and dP again. The
// name's limit: head dimensions up to 512.
//
// It is the variant chunkwise/xl_chunk_cuda_ownbw with one chunk of S steps: the only states are the initial and the
// last one.
#pragma once

#include "chunkwise/xl_chunk_cuda_ownbw/variant.hpp"
