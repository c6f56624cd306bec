// SPDX-License-Identifier: Apache-2.0
#include "mlstm/reference/evaluate_head.hpp"

#include "mlstm/reference/hot.hpp"

namespace mlstm::reference::hot {

bool evaluate_head(const HeadProblem& problem, const Inputs<double>& inputs, const HeadRequest<double>& request) {
  return reference::evaluate_head<double>(problem, inputs, request);
}

void release_memory() { spare_states<double>() = {}; }

bool all_finite(const double* values, std::int64_t n) { return is_finite(ConstVectorMap<double>(values, n)); }

}  // namespace mlstm::reference::hot
