// SPDX-License-Identifier: Apache-2.0
// Tensor-core and copy instructions of sm_80 by name; nothing else contains assembler. Fragment layouts are those of
// the PTX manual ("Matrix Fragments for mma.m16n8k16"): with g = lane / 4 and c = 2 (lane % 4), a lane holds
//   accumulators  d[0..1] = (g, c), (g, c+1);  d[2..3] = (g+8, c), (g+8, c+1)
//   A             a[0] = (g, c..c+1)  a[1] = (g+8, c..c+1)  a[2] = (g, c+8..c+9)  a[3] = (g+8, c+8..c+9)
//   B             b[0] = (c..c+1, g)  b[1] = (c+8..c+9, g)
#pragma once

#include <cstdint>

#include "common/cuda/types.cuh"

namespace mlstm::kernels::cuda {

/// d (16 x 8, float32) += a (16 x 16) b (16 x 8), T = bfloat16 or float16.
template <class T>
__device__ inline void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, bfloat16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Four 8 x 8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8 of matrix l / 8;
/// r[i] are elements (g, c..c+1) of matrix i.
__device__ inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// The same, each matrix transposed: r[i] are elements (c..c+1, g) of matrix i.
__device__ inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// Starts copying 16 bytes from global to shared memory, or zeros if not `valid` (`global` is then not read).
/// Both addresses are multiples of 16.
__device__ inline void cp_async_16(void* shared, const void* global, bool valid) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
}
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `Pending` of this thread's latest groups are under way.
template <int Pending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// Two values as one 32-bit register of a fragment, `low` in the lower half; rounded to nearest even.
template <class T>
__device__ inline std::uint32_t pack2(float low, float high) {
  std::uint32_t bits;
  if constexpr (std::is_same_v<T, bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    __builtin_memcpy(&bits, &pair, sizeof bits);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    __builtin_memcpy(&bits, &pair, sizeof bits);
  }
  return bits;
}

}  // namespace mlstm::kernels::cuda
