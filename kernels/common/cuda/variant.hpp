// SPDX-License-Identifier: Apache-2.0
// What the CUDA and cuBLAS variants declare and check alike.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "common/variant.hpp"

namespace mlstm::kernels::cuda {

/// Throws std::invalid_argument unless `pointer`, called `name`, is there.
inline void require_pointer(const char* name, const void* pointer) {
  if (pointer == nullptr) throw std::invalid_argument(std::string(name) + " is null; expected a device pointer");
}

/// A variant on the GPU: inputs and initial states that the problem has may not be null.
class CudaVariant : public Variant {
 protected:
  explicit CudaVariant(VariantInfo info) : Variant(std::move(info)) {}

 private:
  void require_arguments(const Problem& problem, const ForwardArgs& args) const final { require_inputs(problem, args); }
  void require_arguments(const Problem& problem, const BackwardArgs& args) const final {
    require_inputs(problem, args);
  }

  template <class Args>
  static void require_inputs(const Problem& problem, const Args& args) {
    require_pointer("q", args.q);
    require_pointer("k", args.k);
    require_pointer("v", args.v);
    require_pointer("i", args.i);
    require_pointer("f", args.f);
    if (!problem.has_initial_state) return;
    if (args.c_initial == nullptr || args.n_initial == nullptr || (problem.has_m() && args.m_initial == nullptr))
      throw std::invalid_argument("an initial state is null; expected device pointers to all of them");
  }
};

}  // namespace mlstm::kernels::cuda
