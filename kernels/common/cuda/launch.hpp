// SPDX-License-Identifier: Apache-2.0
// Kernel launches: checked, with as much dynamic shared memory as asked for.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/cuda/check.hpp"

namespace mlstm::kernels::cuda {

/// Largest grid extents in x, and in y and z.
constexpr std::int64_t kMaxGridX = 2147483647, kMaxGridYZ = 65535;

/// A grid of x * y * z blocks. Throws std::invalid_argument if it is too large for one launch.
inline dim3 grid_of(std::int64_t x, std::int64_t y = 1, std::int64_t z = 1) {
  if (x > kMaxGridX || y > kMaxGridYZ || z > kMaxGridYZ)
    throw std::invalid_argument("a grid of " + std::to_string(x) + " x " + std::to_string(y) + " x " +
                                std::to_string(z) + " blocks is too large; expected at most " +
                                std::to_string(kMaxGridX) + " x " + std::to_string(kMaxGridYZ) + " x " +
                                std::to_string(kMaxGridYZ));
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

/// kernel<<<grid, threads, shared_bytes, stream>>>(arguments...), checked; `name` is what an error calls it.
template <class... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared_bytes,
            cudaStream_t stream, std::type_identity_t<Parameters>... arguments) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  const auto require = [&](cudaError_t status, const char* what) {
    if (status != cudaSuccess)
      throw std::runtime_error(std::string(what) + " of " + name + " failed: " + cudaGetErrorString(status));
  };
  if (shared_bytes > 48 * 1024)
    require(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
            "cudaFuncSetAttribute");
  void* pointers[] = {static_cast<void*>(&arguments)..., nullptr};
  require(cudaLaunchKernel(function, grid, dim3(static_cast<unsigned>(threads)), pointers, shared_bytes, stream),
          "cudaLaunchKernel");
}

}  // namespace mlstm::kernels::cuda
