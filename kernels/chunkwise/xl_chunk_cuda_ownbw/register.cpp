// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/xl_chunk_cuda_ownbw/variant.hpp"
#include "common/cuda/chunks/variant.hpp"

namespace mlstm::kernels::chunkwise_xl_chunk_cuda {
namespace {

class XlChunkCuda : public cuda::TiledVariant {
 public:
  XlChunkCuda()
      : TiledVariant(Module::chunkwise, "xl_chunk_cuda_ownbw",
                     "tiled within chunks of any size; tensor cores in 16 bits, true float32 otherwise") {}

 private:
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    chunkwise_xl_chunk_cuda::forward(problem, problem.chunk_size, args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const override {
    chunkwise_xl_chunk_cuda::backward(problem, problem.chunk_size, args);
  }
};

const RegisterKernel<XlChunkCuda> registration;

}  // namespace
}  // namespace mlstm::kernels::chunkwise_xl_chunk_cuda
