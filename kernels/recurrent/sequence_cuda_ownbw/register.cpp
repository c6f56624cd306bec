// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "common/cuda/launch.hpp"
#include "common/cuda/variant.hpp"
#include "recurrent/sequence_cuda_ownbw/variant.hpp"

namespace mlstm::kernels::recurrent_sequence_cuda {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info =
        cuda::cuda_variant(Module::recurrent, "sequence_cuda_ownbw",
                           "step by step, states in registers; backward from one kept state in sqrt(S)",
                           {DType::float64, DType::float32, DType::bfloat16, DType::float16});
    return info;
  }
  std::string unsupported(const Problem& problem) const override {
    if (const std::string reason = declared_limits(problem); !reason.empty()) return reason;
    if (const std::int64_t blocks = blocks_of(problem); blocks > cuda::kMaxGridX)
      return "it needs " + std::to_string(blocks) + " blocks; a launch takes " + std::to_string(cuda::kMaxGridX);
    return {};
  }
  std::size_t saved_size(const Problem& problem) const override { return recurrent_sequence_cuda::saved_size(problem); }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return backward ? backward_workspace_size(problem) : forward_workspace_size(problem);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    cuda::require_inputs(problem, args);
    recurrent_sequence_cuda::forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    cuda::require_inputs(problem, args);
    recurrent_sequence_cuda::backward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_sequence_cuda
