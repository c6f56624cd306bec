// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/blas_chunks.hpp"
#include "parallel/native_cublas_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_cublas {

void forward(const Problem& problem, const ForwardArgs& args) {
  cuda::blas_chunks::forward(problem, problem.shape.S, args);
}

}  // namespace mlstm::kernels::parallel_native_cublas
