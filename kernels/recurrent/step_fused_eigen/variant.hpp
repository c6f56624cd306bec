// SPDX-License-Identifier: Apache-2.0
// One decoding step of the recurrent mLSTM (contract §2): S = 1, state in, state out, no backward.
//
//   C = F C_initial + I k vᵀ,  n = F n_initial + I k,  h = Cᵀ (s q) / d
//
// The update of the state and its product with q are one pass over C (common/step.hpp), because the step is limited by
// the state's memory traffic. There is no matrix product with a tensor core in it: nothing is rounded but h.
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::recurrent_step_fused_eigen {

void forward(const Problem&, const ForwardArgs&);

}  // namespace mlstm::kernels::recurrent_step_fused_eigen
