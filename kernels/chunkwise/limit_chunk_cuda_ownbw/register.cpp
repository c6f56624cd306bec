// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/limit_chunk_cuda_ownbw/variant.hpp"

#include "common/cuda/variant.hpp"

namespace mlstm::kernels::chunkwise_limit_chunk_cuda {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = [] {
      VariantInfo about = cuda::cuda_variant(
          Module::chunkwise, "limit_chunk_cuda_ownbw",
          "a chunk of up to 64 steps fits one block; tensor cores in 16 bits, true float32 otherwise",
          {DType::float32, DType::bfloat16, DType::float16});
      about.DHQK = about.DHV = cuda::kTiledDimension;
      about.S = cuda::kTiledLength;
      about.L = {1, kLargestChunk, 1};
      return about;
    }();
    return info;
  }
  std::string unsupported(const Problem& problem) const override {
    const std::string reason = declared_limits(problem);
    return reason.empty() ? cuda::too_many_blocks(problem, problem.chunk_size) : reason;
  }
  std::size_t saved_size(const Problem& problem) const override {
    return cuda::chunk_saved_size(problem, problem.chunk_size);
  }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return cuda::chunk_workspace_size(problem, problem.chunk_size, backward);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    cuda::dispatch<float, cuda::bfloat16, cuda::float16>(problem.dtype, [&]<class T>(T) {
      cuda::chunk_forward(problem, problem.chunk_size, args, cuda::ChunkKernels<T>{chunk_h<T>, chunk_gradients<T>});
    });
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    cuda::dispatch<float, cuda::bfloat16, cuda::float16>(problem.dtype, [&]<class T>(T) {
      cuda::chunk_backward(problem, problem.chunk_size, args, cuda::ChunkKernels<T>{chunk_h<T>, chunk_gradients<T>});
    });
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
