// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/chunk_pass.hpp"
#include "common/cuda/variant.hpp"
#include "parallel/limit_headdim_cuda_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_limit_headdim_cuda {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = [] {
      VariantInfo about = cuda::cuda_variant(
          Module::parallel, "limit_headdim_cuda_ownbw",
          "tiled like flash attention, no S x S matrix in memory; tensor cores in 16 bits, true float32 otherwise",
          {DType::float32, DType::bfloat16, DType::float16});
      about.DHQK = about.DHV = cuda::kTiledDimension;
      about.S = cuda::kTiledLength;
      return about;
    }();
    return info;
  }
  std::string unsupported(const Problem& problem) const override {
    const std::string reason = declared_limits(problem);
    return reason.empty() ? cuda::too_many_blocks(problem, problem.shape.S) : reason;
  }
  std::size_t saved_size(const Problem& problem) const override {
    return cuda::chunk_saved_size(problem, problem.shape.S);
  }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return cuda::chunk_workspace_size(problem, problem.shape.S, backward);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    parallel_limit_headdim_cuda::forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    parallel_limit_headdim_cuda::backward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::parallel_limit_headdim_cuda
