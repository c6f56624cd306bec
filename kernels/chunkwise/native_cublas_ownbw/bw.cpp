// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/native_cublas_ownbw/variant.hpp"
#include "common/cuda/blas_chunks.hpp"

namespace mlstm::kernels::chunkwise_native_cublas {

void backward(const Problem& problem, const BackwardArgs& args) {
  cuda::blas_chunks::backward(problem, problem.chunk_size, args);
}

}  // namespace mlstm::kernels::chunkwise_native_cublas
