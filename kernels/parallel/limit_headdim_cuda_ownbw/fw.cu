// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/chunk_pass.hpp"
#include "parallel/limit_headdim_cuda_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_limit_headdim_cuda {

void forward(const Problem& problem, const ForwardArgs& args) {
  using namespace cuda;
  dispatch<float, bfloat16, float16>(
      problem.dtype, [&]<class T>(T) { chunk_forward(problem, problem.shape.S, args, tiled_kernels<T>()); });
}

}  // namespace mlstm::kernels::parallel_limit_headdim_cuda
