// SPDX-License-Identifier: Apache-2.0
// Backward by automatic differentiation: the templated forward pass of any formulation, recorded on a tape.
#pragma once

#include "mlstm/reference/head.hpp"

namespace mlstm::reference {

/// Like hot::evaluate_head, with gradients from a tape instead of the hand-written backward pass; the detached
/// convention differentiates a second forward pass in which m and 1/d are constants. Throws std::invalid_argument if
/// one head needs more than Tape::kMaxNodes recorded operations (about 2 GiB).
bool evaluate_head_autograd(const HeadProblem&, const Inputs<double>&, const HeadRequest<double>&);

}  // namespace mlstm::reference
