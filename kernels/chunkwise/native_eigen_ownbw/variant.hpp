// SPDX-License-Identifier: Apache-2.0
// Chunkwise mLSTM (contract §2): a chain of blocks of L steps, the last one ragged.
//
//   (C,n)_c  --block c: h of its steps-->  (C,n)_{c+1}        forward, left to right; keeps the states before each
//   block (dC,dn)_c  <--block c: gradients of its steps--  (dC,dn)_{c+1}        backward, right to left
//
// What happens within a block, and what is rounded there, is in common/block.hpp. m is scanned over the whole sequence
// beforehand, since it depends on the gates alone; states are kept in float32 (float64 for float64) between blocks and
// rounded where a product reads them. Memory: O(S (DHQK+DHV) + NC DHQK DHV) per head, no S x S array.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::chunkwise_native_eigen {

inline std::int64_t number_of_chunks(const Problem& problem) { return (problem.shape.S - 1) / problem.chunk_size + 1; }

void forward(const Problem&, const ForwardArgs&);
void backward(const Problem&, const BackwardArgs&);

}  // namespace mlstm::kernels::chunkwise_native_eigen
