// SPDX-License-Identifier: Apache-2.0
// Parallel mLSTM (contract §3) with materialised S x S matrices and cuBLAS:
//
//   h = P v / d,  P = (s q kᵀ)∘D,  D = exp(logD - m)
//   dq = (s dP∘D) k,  dk = (s dP∘D)ᵀ q,  dv = Pᵀ (dh/d)
//
// The whole sequence is one chunk between two states (common/cuda/blas_chunks.hpp: formulas, and what is rounded). The
// initial state is one more column of D, which all steps see, and the last state is what a step after the last would
// see. Memory: S² (r + b) bytes forward and twice that backward, for b bytes per element and r = 4 (float64: 8), for
// each head computed at once; those are as many as fit 2 GiB, or one. Hence the limit on S.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::parallel_native_cublas {

void forward(const Problem&, const ForwardArgs&);
void backward(const Problem&, const BackwardArgs&);

}  // namespace mlstm::kernels::parallel_native_cublas
