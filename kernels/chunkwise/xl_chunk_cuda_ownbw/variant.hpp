// SPDX-License-Identifier: Apache-2.0
// Chunkwise mLSTM with chunks larger than a tile (contract §2, §3; tiled flash linear attention, arXiv 2503.14376).
//
// The idea: chunks are as long as one likes, so that few states go through memory, and within a chunk the L x L weights
// are made and used tile by tile (64 x 64), as in flash attention. The recurrence over chunks takes several steps of 64
// for each state that it writes.
//
//   states   common/cuda/chunks/states.hpp       one block per 64 x 128 of C and head, float32 in registers
//   h        tiles.cuh                           one block per 64 steps x 128 columns
//   dq dk dv the same kernel with other operands
//   di df    common/cuda/chunks/gate_sums.hpp
//
// Memory beside inputs and outputs: O(S), in each direction one state in the dtype every L steps, and in backward one
// float32 per pair of 64-step tiles of a chunk; no L x L matrix. Work within chunks grows with L, through the states
// with 1/L.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::chunkwise_xl_chunk_cuda {

/// Chunks of L >= 1 steps; more than S is taken as S.
void forward(const Problem& problem, std::int64_t L, const ForwardArgs& args);
void backward(const Problem& problem, std::int64_t L, const BackwardArgs& args);

}  // namespace mlstm::kernels::chunkwise_xl_chunk_cuda
