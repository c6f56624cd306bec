// SPDX-License-Identifier: Apache-2.0
// What the CUDA and cuBLAS variants declare and check alike.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::cuda {

/// A variant on the GPU that takes every gate, convention, stabilizer_init and state.
inline VariantInfo cuda_variant(Module module, std::string name, std::string description, std::vector<DType> dtypes) {
  VariantInfo info;
  info.module = module;
  info.name = std::move(name);
  info.description = std::move(description);
  info.device = Device::cuda;
  info.full_precision_rows = true;
  info.straddling_gate_gradients = true;
  info.dtypes = std::move(dtypes);
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

/// Throws std::invalid_argument that names the first pointer that the problem needs and that is null.
/// `Args` is ForwardArgs or BackwardArgs.
template <class Args>
void require_inputs(const Problem& problem, const Args& args) {
  const std::pair<const char*, const void*> needed[] = {
      {"q", args.q}, {"k", args.k}, {"v", args.v}, {"i", args.i}, {"f", args.f}};
  for (const auto& [name, pointer] : needed)
    if (pointer == nullptr) throw std::invalid_argument(std::string(name) + " is null; expected a device pointer");
  if (!problem.has_initial_state) return;
  if (args.c_initial == nullptr || args.n_initial == nullptr || (problem.has_m() && args.m_initial == nullptr))
    throw std::invalid_argument("an initial state is null; expected device pointers to all of them");
}

}  // namespace mlstm::kernels::cuda
