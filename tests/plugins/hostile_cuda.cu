// SPDX-License-Identifier: Apache-2.0
// Hostile kernels on a GPU, as a plugin: each leaves the device's context, or the device, in a state in which nothing
// else runs. `mlstm verify --plugin` has to go on with the kernels after them (tests/gpu_isolation_test.cpp).
#include <cuda_runtime.h>

#include <cstdio>

#include "mlstm_kernel.h"

namespace {

__global__ void write_to_null(float* h) {
  if (h == nullptr) return;
  *reinterpret_cast<volatile float*>(threadIdx.x * 4) = 1;  // an illegal address: the context is lost
}

__global__ void trap(float*) { asm("trap;"); }

__global__ void never_ends(volatile float* h) {
  while (h[0] != 12345.f) {
  }
}

template <void (*kernel)(float*)>
void launch(float* h, cudaStream_t stream) {
  kernel<<<1, 1, 0, stream>>>(h);
}

void launch_endless(float* h, cudaStream_t stream) { never_ends<<<1, 1, 0, stream>>>(h); }

using Launch = void (*)(float*, cudaStream_t);
const Launch launches[] = {launch<write_to_null>, launch<trap>, launch_endless};

int forward(const mlstm_kernel* kernel, const mlstm_problem*, const mlstm_forward_args* args, char* message,
            size_t message_size) {
  launches[*static_cast<const int*>(kernel->user)](static_cast<float*>(args->h),
                                                   static_cast<cudaStream_t>(args->stream));
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return 0;
  std::snprintf(message, message_size, "%s", cudaGetErrorString(error));
  return 1;
}

const int numbers[] = {0, 1, 2};

mlstm_kernel hostile(int number, const char* name, const char* description) {
  mlstm_kernel kernel{};
  kernel.struct_size = sizeof kernel;
  kernel.module = MLSTM_RECURRENT;
  kernel.name = name;
  kernel.description = description;
  kernel.device = MLSTM_DEVICE_CUDA;
  kernel.dtypes = MLSTM_FLOAT32;
  kernel.gates = MLSTM_GATE_EXP;
  kernel.stabilizer_inits = MLSTM_STABILIZER_ZERO;
  kernel.user = &numbers[number];
  kernel.forward = forward;
  return kernel;
}

const mlstm_kernel kernels[] = {hostile(0, "hostile_illegal_address_cuda", "writes to an illegal address"),
                                hostile(1, "hostile_trap_cuda", "executes a trap"),
                                hostile(2, "hostile_endless_cuda", "never ends")};
const mlstm_kernel* const list[] = {&kernels[0], &kernels[1], &kernels[2]};
const mlstm_kernel_library library{sizeof(mlstm_kernel_library), MLSTM_KERNEL_ABI_VERSION, 3, list};

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(uint32_t abi_version) {
  return abi_version == MLSTM_KERNEL_ABI_VERSION ? &library : nullptr;
}
