// SPDX-License-Identifier: Apache-2.0
// One decoding step of the recurrent mLSTM on the GPU (contract §2): S = 1, state in, state out, no backward.
//
//   C = F C_initial + I k vᵀ,  n = F n_initial + I k,  h = Cᵀ (s q) / d
//
// A step is limited by the memory traffic of C. Each element of C is read, updated, multiplied by q and written in one
// go, by one thread; so the update may be in place (c_last = c_initial, n_last = n_initial, m_last = m_initial).
#pragma once

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::recurrent_step_fused_cuda {

/// Blocks of the launch for this problem.
std::int64_t blocks_of(const Problem&);

void forward(const Problem&, const ForwardArgs&);

}  // namespace mlstm::kernels::recurrent_step_fused_cuda
