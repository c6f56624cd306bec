// SPDX-License-Identifier: Apache-2.0
// Every call of the CUDA runtime and of cuBLAS is checked; a failure is an exception that names the call.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace mlstm::kernels::cuda {

/// Throws std::runtime_error: "<call> failed: <reason> (<file>:<line>)".
inline void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(call) + " failed: " + cudaGetErrorString(status) + " (" + file + ":" +
                           std::to_string(line) + ")");
}

}  // namespace mlstm::kernels::cuda

#define MLSTM_CUDA_CALL(call) ::mlstm::kernels::cuda::check((call), #call, __FILE__, __LINE__)
