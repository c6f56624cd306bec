// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/chunk_pass.hpp"
#include "parallel/limit_headdim_cuda_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_limit_headdim_cuda {

void backward(const Problem& problem, const BackwardArgs& args) {
  using namespace cuda;
  dispatch<float, bfloat16, float16>(
      problem.dtype, [&]<class T>(T) { chunk_backward(problem, problem.shape.S, args, tiled_kernels<T>()); });
}

}  // namespace mlstm::kernels::parallel_limit_headdim_cuda
