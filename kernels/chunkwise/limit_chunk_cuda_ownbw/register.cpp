// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/limit_chunk_cuda_ownbw/variant.hpp"
#include "common/cuda/chunks/variant.hpp"

namespace mlstm::kernels::chunkwise_limit_chunk_cuda {
namespace {

class LimitChunkCuda : public cuda::TiledVariant {
 public:
  LimitChunkCuda()
      : TiledVariant(Module::chunkwise, "limit_chunk_cuda_ownbw",
                     "a chunk of up to 64 steps fits one block; tensor cores in 16 bits, true float32 otherwise",
                     {1, kLargestChunk, 1}) {}

 private:
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    chunkwise_limit_chunk_cuda::forward(problem, args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const override {
    chunkwise_limit_chunk_cuda::backward(problem, args);
  }
};

const RegisterKernel<LimitChunkCuda> registration;

}  // namespace
}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
