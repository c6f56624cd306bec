// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "chunkwise/native_cublas_ownbw/variant.hpp"
#include "common/cuda/blas_chunks.hpp"
#include "common/cuda/variant.hpp"

namespace mlstm::kernels::chunkwise_native_cublas {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = [] {
      VariantInfo about =
          cuda::cuda_variant(Module::chunkwise, "native_cublas_ownbw",
                             "cuBLAS baseline: GEMMs over materialised chunk states and L x L matrices, any chunk size",
                             {DType::float64, DType::float32, DType::bfloat16, DType::float16});
      about.L.max = cuda::blas_chunks::kMaxChunk;
      return about;
    }();
    return info;
  }
  std::string unsupported(const Problem& problem) const override {
    const std::string reason = declared_limits(problem);
    return reason.empty() ? cuda::blas_chunks::too_large(problem, problem.chunk_size) : reason;
  }
  std::size_t saved_size(const Problem& problem) const override {
    return cuda::blas_chunks::saved_size(problem, problem.chunk_size);
  }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return backward ? cuda::blas_chunks::backward_workspace(problem, problem.chunk_size)
                    : cuda::blas_chunks::forward_workspace(problem, problem.chunk_size);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    chunkwise_native_cublas::forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    chunkwise_native_cublas::backward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::chunkwise_native_cublas
