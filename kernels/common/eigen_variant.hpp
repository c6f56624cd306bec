// SPDX-License-Identifier: Apache-2.0
// What all CPU variants declare alike.
#pragma once

#include <stdexcept>
#include <utility>

#include "mlstm/kernel.hpp"

namespace mlstm::kernels {

/// A variant that takes every dtype, gate, convention, stabilizer_init and state.
inline VariantInfo eigen_variant(Module module, std::string name, std::string description) {
  VariantInfo info;
  info.module = module;
  info.name = std::move(name);
  info.description = std::move(description);
  info.full_precision_rows = true;
  info.straddling_gate_gradients = true;
  info.dtypes = {DType::float64, DType::float32, DType::bfloat16, DType::float16};
  info.gates = {Gate::exp, Gate::sigmoid};
  info.gradient_conventions = {Convention::exact, Convention::detached};
  info.stabilizer_init = {StabilizerInit::zero, StabilizerInit::neg_inf};
  info.initial_states = info.last_states = info.last_state_cotangents = true;
  return info;
}

/// Throws std::invalid_argument with the reason if `kernel` cannot run `problem`.
inline void require_supported(const Kernel& kernel, const Problem& problem) {
  validate(problem);
  if (const std::string reason = kernel.unsupported(problem); !reason.empty())
    throw std::invalid_argument(kernel.info().key() + ": " + reason);
}

}  // namespace mlstm::kernels
