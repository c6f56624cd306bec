// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "common/cuda/launch.hpp"
#include "common/cuda/variant.hpp"
#include "recurrent/step_fused_cuda/variant.hpp"

namespace mlstm::kernels::recurrent_step_fused_cuda {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = [] {
      VariantInfo about =
          cuda::cuda_variant(Module::recurrent, "step_fused_cuda",
                             "one decoding step in one pass over the state, in place or not, forward only",
                             {DType::float64, DType::float32, DType::bfloat16, DType::float16});
      about.gradient_conventions.clear();
      about.last_state_cotangents = false;
      about.S.max = 1;
      return about;
    }();
    return info;
  }
  std::string unsupported(const Problem& problem) const override {
    if (const std::string reason = declared_limits(problem); !reason.empty()) return reason;
    if (const std::int64_t blocks = blocks_of(problem); blocks > cuda::kMaxGridX)
      return "the state needs " + std::to_string(blocks) + " blocks; a launch takes " + std::to_string(cuda::kMaxGridX);
    return {};
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    cuda::require_inputs(problem, args);
    recurrent_step_fused_cuda::forward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_step_fused_cuda
