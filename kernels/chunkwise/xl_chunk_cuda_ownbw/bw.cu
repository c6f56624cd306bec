// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/xl_chunk_cuda_ownbw/variant.hpp"
#include "common/cuda/chunk_pass.hpp"

namespace mlstm::kernels::chunkwise_xl_chunk_cuda {

void backward(const Problem& problem, const BackwardArgs& args) {
  using namespace cuda;
  dispatch<float, bfloat16, float16>(
      problem.dtype, [&]<class T>(T) { chunk_backward(problem, problem.chunk_size, args, tiled_kernels<T>()); });
}

}  // namespace mlstm::kernels::chunkwise_xl_chunk_cuda
