// SPDX-License-Identifier: Apache-2.0
// What all variants declare and check alike: the base class of every register.cpp.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mlstm/kernel.hpp"

namespace mlstm::kernels {

/// A variant that takes every gate, convention, stabilizer_init and state, with and without normalize.
inline VariantInfo takes_everything(Module module, Device device, std::string name, std::string description,
                                    std::vector<DType> dtypes) {
  VariantInfo info;
  info.module = module;
  info.name = std::move(name);
  info.description = std::move(description);
  info.device = device;
  info.full_precision_rows = true;
  info.straddling_gate_gradients = true;
  info.dtypes = std::move(dtypes);
  info.gates = {Gate::exp, Gate::sigmoid};
  info.gradient_conventions = {Convention::exact, Convention::detached};
  info.stabilizer_init = {StabilizerInit::zero, StabilizerInit::neg_inf};
  info.initial_states = info.last_states = info.last_state_cotangents = true;
  return info;
}

inline std::vector<DType> all_dtypes() { return {DType::float64, DType::float32, DType::bfloat16, DType::float16}; }

/// `info` of a decoding step: S = 1, no backward pass.
inline VariantInfo as_step(VariantInfo info) {
  info.gradient_conventions.clear();
  info.last_state_cotangents = false;
  info.S.max = 1;
  return info;
}

/// Steps of a chunk, as many as there are at most; the parallel formulation is one chunk of all S steps.
inline std::int64_t chunk_length(Module module, const Problem& problem) {
  return module == Module::parallel ? problem.shape.S : problem.chunk_size;
}

/// A variant that says in `info` what it takes; run_forward and run_backward get only that.
class Variant : public Kernel {
 public:
  const VariantInfo& info() const final { return info_; }
  std::string unsupported(const Problem& problem) const final {
    const std::string reason = declared_limits(problem);
    return reason.empty() ? too_large(problem) : reason;
  }
  void forward(const Problem& problem, const ForwardArgs& args) const final {
    require_supported(problem);
    require_arguments(problem, args);
    run_forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const final {
    if (info_.gradient_conventions.empty()) return Kernel::backward(problem, args);
    require_supported(problem);
    require_arguments(problem, args);
    run_backward(problem, args);
  }

 protected:
  explicit Variant(VariantInfo info) : info_(std::move(info)) {}

  /// Why a problem within the declared limits cannot run all the same; empty if it can.
  virtual std::string too_large(const Problem&) const { return {}; }
  /// Throw std::invalid_argument for a pointer that is null and may not be.
  virtual void require_arguments(const Problem&, const ForwardArgs&) const {}
  virtual void require_arguments(const Problem&, const BackwardArgs&) const {}
  virtual void run_forward(const Problem& problem, const ForwardArgs& args) const = 0;
  /// Not called for a forward-only variant.
  virtual void run_backward(const Problem& problem, const BackwardArgs& args) const { Kernel::backward(problem, args); }

 private:
  void require_supported(const Problem& problem) const {
    validate(problem);
    if (const std::string reason = unsupported(problem); !reason.empty())
      throw std::invalid_argument(info_.key() + ": " + reason);
  }

  VariantInfo info_;
};

}  // namespace mlstm::kernels
