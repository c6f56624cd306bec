// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/blas_chunks.hpp"
#include "parallel/native_cublas_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_cublas {

void backward(const Problem& problem, const BackwardArgs& args) {
  cuda::blas_chunks::backward(problem, problem.shape.S, args);
}

}  // namespace mlstm::kernels::parallel_native_cublas
