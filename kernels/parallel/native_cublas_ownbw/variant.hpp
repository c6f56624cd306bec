// SPDX-License-Identifier: Apache-2.0
// Parallel mLSTM (contract §3) with materialised S x S matrices and cuBLAS:
//
//   h = P v / d,  P = (s q kᵀ)∘D,  D = exp(logD - m)      dq = (s dP∘D) k,  dk = (s dP∘D)ᵀ q,  dv = Pᵀ (dh/d)
//
// The whole sequence is one chunk between two states (common/cuda/blas_chunks.hpp: formulas, and what is rounded). The
// initial state is one more column of D, which all steps see, and the last state is what a step after the last would
// see. Memory: per head computed at once, of which there are as many as fit 2 GiB, S² (4 + b) bytes forward and
// S² (8 + 2 b) backward for b bytes per element (twice the float32 part for float64), hence the limit on S.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::parallel_native_cublas {

void forward(const Problem&, const ForwardArgs&);
void backward(const Problem&, const BackwardArgs&);

}  // namespace mlstm::kernels::parallel_native_cublas
