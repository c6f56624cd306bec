// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "common/cuda/launch.hpp"
#include "common/cuda/variant.hpp"
#include "recurrent/step_fused_cuda/variant.hpp"

namespace mlstm::kernels::recurrent_step_fused_cuda {
namespace {

class StepFusedCuda : public cuda::CudaVariant {
 public:
  StepFusedCuda()
      : CudaVariant(as_step(takes_everything(
            Module::recurrent, Device::cuda, "step_fused_cuda",
            "one decoding step in one pass over the state, in place or not, forward only", all_dtypes()))) {}

 private:
  std::string too_large(const Problem& problem) const override {
    const std::int64_t blocks = blocks_of(problem);
    if (blocks <= cuda::kMaxGridX) return {};
    return "the state needs " + std::to_string(blocks) + " blocks; a launch takes " + std::to_string(cuda::kMaxGridX);
  }
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    recurrent_step_fused_cuda::forward(problem, args);
  }
};

const RegisterKernel<StepFusedCuda> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_step_fused_cuda
