// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/chunks/variant.hpp"
#include "parallel/limit_headdim_cuda_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_limit_headdim_cuda {
namespace {

/// One chunk of S steps.
class LimitHeaddimCuda : public cuda::TiledVariant {
 public:
  LimitHeaddimCuda()
      : TiledVariant(
            Module::parallel, "limit_headdim_cuda_ownbw",
            "tiled like flash attention, no S x S matrix in memory; tensor cores in 16 bits, true float32 otherwise") {}

 private:
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    chunkwise_xl_chunk_cuda::forward(problem, problem.shape.S, args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const override {
    chunkwise_xl_chunk_cuda::backward(problem, problem.shape.S, args);
  }
};

const RegisterKernel<LimitHeaddimCuda> registration;

}  // namespace
}  // namespace mlstm::kernels::parallel_limit_headdim_cuda
