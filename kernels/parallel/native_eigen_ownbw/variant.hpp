// SPDX-License-Identifier: Apache-2.0
// Parallel mLSTM (contract §3): every step sees every earlier one through one S x S matrix.
//
//   h = P v / d,  P = (s q kᵀ)∘D,  D = exp(logD - m)      dq = (s dP∘D) k,  dk = (s dP∘D)ᵀ q,  dv = (P/d)ᵀ dh
//
// The initial state is one more column of D, which all steps see, and the last state is what a step after the last
// would see: the sequence is one block between two states, so common/block.hpp has the formulas and says what is
// rounded. No state is ever kept. Memory: a handful of S x S arrays per head being computed, hence the limit on S.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::parallel_native_eigen {

void forward(const Problem&, const ForwardArgs&);
void backward(const Problem&, const BackwardArgs&);

}  // namespace mlstm::kernels::parallel_native_eigen
