// SPDX-License-Identifier: Apache-2.0
// Chunkwise mLSTM (contract §2) with materialised states and L x L matrices and cuBLAS: a chain of chunks of L steps,
// the last one ragged.
//
//   forward:   added_c of all chunks, then the scan (C,n)_{c+1} = past_last (C,n)_c + added_c, then h of all chunks
//   backward:  added_c of all chunks, then the scan (dC,dn)_{c-1} = past_last (dC,dn)_c + added_c, then all gradients
//
// Only the scan goes chunk by chunk; each product is one GEMM over all chunks (common/cuda/blas_chunks.hpp: formulas,
// and what is rounded). Saved for backward: l and the float32 state before every chunk, S + NC DHQK (DHV + 1) numbers
// per head. Scratch: up to twice that and O(S (L + DHQK + DHV)) per head computed at once, as many heads as fit 2 GiB.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::chunkwise_native_cublas {

void forward(const Problem&, const ForwardArgs&);
void backward(const Problem&, const BackwardArgs&);

}  // namespace mlstm::kernels::chunkwise_native_cublas
