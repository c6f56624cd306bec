// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "common/cuda/launch.hpp"
#include "common/cuda/variant.hpp"
#include "recurrent/sequence_cuda_ownbw/variant.hpp"

namespace mlstm::kernels::recurrent_sequence_cuda {
namespace {

class SequenceCuda : public cuda::CudaVariant {
 public:
  SequenceCuda()
      : CudaVariant(takes_everything(Module::recurrent, Device::cuda, "sequence_cuda_ownbw",
                                     "step by step, states in registers; backward from one kept state in sqrt(S)",
                                     all_dtypes())) {}
  std::size_t saved_size(const Problem& problem) const override { return recurrent_sequence_cuda::saved_size(problem); }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return backward ? backward_workspace_size(problem) : forward_workspace_size(problem);
  }

 private:
  std::string too_large(const Problem& problem) const override {
    const std::int64_t blocks = blocks_of(problem);
    if (blocks <= cuda::kMaxGridX) return {};
    return "it needs " + std::to_string(blocks) + " blocks; a launch takes " + std::to_string(cuda::kMaxGridX);
  }
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    recurrent_sequence_cuda::forward(problem, args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const override {
    recurrent_sequence_cuda::backward(problem, args);
  }
};

const RegisterKernel<SequenceCuda> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_sequence_cuda
