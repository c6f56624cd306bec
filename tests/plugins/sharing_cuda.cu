// SPDX-License-Identifier: Apache-2.0
// The example's kernel with a workspace of the library's own: with MLSTM_TEST_SHARES=workspace, h is put together in
// static memory of the device, where calls on two streams meet (tests/gpu_isolation_test.cpp).
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "mlstm_kernel.h"

extern "C" const mlstm_kernel_library* honest_kernels(uint32_t abi_version);

namespace {

__device__ unsigned char workspace[1 << 24];

const mlstm_kernel& honest() { return *honest_kernels(MLSTM_KERNEL_ABI_VERSION)->kernels[0]; }

bool shares_workspace() {
  const char* const text = std::getenv("MLSTM_TEST_SHARES");
  return text != nullptr && std::string_view(text) == "workspace";
}

int failed(cudaError_t error, char* message, size_t message_size) {
  std::snprintf(message, message_size, "%s", cudaGetErrorString(error));
  return 1;
}

int forward(const mlstm_kernel*, const mlstm_problem* p, const mlstm_forward_args* given, char* message,
            size_t message_size) {
  const size_t bytes = static_cast<size_t>(p->B * p->NH * p->S * p->DHV) * (p->dtype == MLSTM_FLOAT32 ? 4 : 2);
  // What does not fit is computed as it should be: the test's problems fit.
  if (!shares_workspace() || bytes > sizeof workspace)
    return honest().forward(&honest(), p, given, message, message_size);
  void* shared = nullptr;
  if (const cudaError_t error = cudaGetSymbolAddress(&shared, workspace); error != cudaSuccess)
    return failed(error, message, message_size);
  mlstm_forward_args args = *given;
  args.h = shared;
  if (const int status = honest().forward(&honest(), p, &args, message, message_size); status != 0) return status;
  const cudaError_t error =
      cudaMemcpyAsync(given->h, shared, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(given->stream));
  return error == cudaSuccess ? 0 : failed(error, message, message_size);
}

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(uint32_t) {
  static mlstm_kernel kernel = honest();
  static const mlstm_kernel* const pointers[] = {&kernel};
  static const mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, pointers};
  kernel.name = "sharing_cuda";
  kernel.forward = forward;
  return &library;
}
