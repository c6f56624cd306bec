// SPDX-License-Identifier: Apache-2.0
#include "mlstm/reference/extended.hpp"

#include "mlstm/reference/evaluate_head.hpp"

namespace mlstm::reference {
void evaluate_head_extended(const HeadProblem& problem, const Inputs<double>& inputs,
                            const HeadRequest<double>& request) {
  ExtendedBuffers buffers(problem);
  HeadRequest<Extended> wide;
  wide.outputs = buffers.reserve(request.outputs);
  wide.intermediates = buffers.reserve(request.intermediates);
  wide.cotangents = buffers.widen(request.cotangents);
  wide.exact = buffers.reserve(request.exact);
  wide.detached = buffers.reserve(request.detached);
  evaluate_head<Extended>(problem, buffers.widen(inputs), wide);
  spare_states<Extended>() = {};
  buffers.round(wide.outputs, request.outputs);
  buffers.round(wide.intermediates, request.intermediates);
  buffers.round(wide.exact, request.exact);
  buffers.round(wide.detached, request.detached);
}

}  // namespace mlstm::reference
