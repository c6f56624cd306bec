// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "common/cuda/blas_chunks.hpp"
#include "common/cuda/variant.hpp"
#include "parallel/native_cublas_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_cublas {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = [] {
      VariantInfo about = cuda::cuda_variant(Module::parallel, "native_cublas_ownbw",
                                             "cuBLAS baseline: GEMMs over materialised S x S matrices",
                                             {DType::float64, DType::float32, DType::bfloat16, DType::float16});
      about.S.max = cuda::blas_chunks::kMaxChunk;
      return about;
    }();
    return info;
  }
  std::string unsupported(const Problem& problem) const override {
    const std::string reason = declared_limits(problem);
    return reason.empty() ? cuda::blas_chunks::too_large(problem, problem.shape.S) : reason;
  }
  std::size_t saved_size(const Problem& problem) const override {
    return cuda::blas_chunks::saved_size(problem, problem.shape.S);
  }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return backward ? cuda::blas_chunks::backward_workspace(problem, problem.shape.S)
                    : cuda::blas_chunks::forward_workspace(problem, problem.shape.S);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    parallel_native_cublas::forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    cuda::require_supported(*this, problem);
    parallel_native_cublas::backward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::parallel_native_cublas
