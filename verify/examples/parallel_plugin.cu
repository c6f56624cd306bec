// SPDX-License-Identifier: Apache-2.0
//
// A plugin of one CUDA kernel: the parallel mLSTM, forward only, float32 and bfloat16, exponential gate.
//
//     nvcc -std=c++20 -O2 -shared -Xcompiler -fPIC -I verify/include verify/examples/parallel_plugin.cu -o
//     libparallel.so mlstm verify --plugin ./libparallel.so
//
//     h_t = sum_{j <= t} exp(a_tj - m_t) (s q_t . k_j) v_j / d_t,   a_tj = i_j + sum_{j < r <= t} log sigmoid(f_r)
//     m_t = max_j a_tj,   d_t = max(|sum_{j <= t} exp(a_tj - m_t) (s q_t . k_j)|, exp(-m_t)) + eps
//
// A block has one row t. Each thread goes through the keys backwards, from j = t, and rescales its sums whenever the
// maximum grows. Every thread forms all products q . k by itself: this shows the interface, not how to be fast.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>

#include "mlstm_kernel.h"

namespace {

__device__ float log_sigmoid(float x) { return fminf(x, 0) - log1pf(expf(-fabsf(x))); }

template <class T>
__global__ void parallel_forward(const T* q, const T* k, const T* v, const T* i, const T* f, T* h, mlstm_problem p) {
  const int64_t row = blockIdx.x, first = row / p.S * p.S;  // in all heads' rows: this one, and its head's first
  const float scale = 1 / sqrtf(static_cast<float>(p.DHQK));
  for (int64_t y = threadIdx.x; y < p.DHV; y += blockDim.x) {
    float a = 0, m = -INFINITY, sum = 0, l = 0;
    for (int64_t j = row; j >= first; --j) {
      float product = 0;
      for (int64_t x = 0; x < p.DHQK; ++x)
        product += static_cast<float>(q[row * p.DHQK + x]) * static_cast<float>(k[j * p.DHQK + x]);
      const float larger = fmaxf(m, a + static_cast<float>(i[j]));
      const float term = expf(a + static_cast<float>(i[j]) - larger) * scale * product, rescale = expf(m - larger);
      sum = rescale * sum + term * static_cast<float>(v[j * p.DHV + y]);
      l = rescale * l + term;
      m = larger;
      a += log_sigmoid(static_cast<float>(f[j]));
    }
    const float d = fmaxf(fabsf(l), expf(-m)) + static_cast<float>(p.eps);
    h[row * p.DHV + y] = T(sum == 0 ? 0.f : sum / d);  // where d is 0 too
  }
}

template <class T>
void launch(const mlstm_problem& p, const mlstm_forward_args& a) {
  parallel_forward<<<static_cast<unsigned>(p.B * p.NH * p.S), 128, 0, static_cast<cudaStream_t>(a.stream)>>>(
      static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v), static_cast<const T*>(a.i),
      static_cast<const T*>(a.f), static_cast<T*>(a.h), p);
}

int forward(const mlstm_kernel*, const mlstm_problem* p, const mlstm_forward_args* a, char* message,
            size_t message_size) {
  if (p->dtype == MLSTM_FLOAT32)
    launch<float>(*p, *a);
  else
    launch<__nv_bfloat16>(*p, *a);
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return 0;
  std::snprintf(message, message_size, "%s", cudaGetErrorString(error));
  return 1;
}

int supports(const mlstm_kernel*, const mlstm_problem* p, char* message, size_t message_size) {
  if (p->B * p->NH * p->S <= INT32_MAX) return 0;  // as many blocks as a grid may have
  std::snprintf(message, message_size, "B * NH * S is %lld; expected at most 2^31 - 1",
                static_cast<long long>(p->B * p->NH * p->S));
  return 1;
}

mlstm_kernel describe() {
  mlstm_kernel kernel{};
  kernel.struct_size = sizeof kernel;
  kernel.module = MLSTM_PARALLEL;
  kernel.name = "rows_cuda";
  kernel.description = "example of a plugin: row by row, in CUDA";
  kernel.device = MLSTM_DEVICE_CUDA;
  kernel.dtypes = MLSTM_FLOAT32 | MLSTM_BFLOAT16;
  kernel.gates = MLSTM_GATE_EXP;
  kernel.stabilizer_inits = MLSTM_STABILIZER_NEG_INF;
  kernel.supports = supports;
  kernel.forward = forward;
  return kernel;
}

const mlstm_kernel kernel = describe();
const mlstm_kernel* const kernels[] = {&kernel};
const mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, kernels};

}  // namespace

const mlstm_kernel_library* mlstm_kernels(uint32_t abi_version) {
  return abi_version == MLSTM_KERNEL_ABI_VERSION ? &library : nullptr;
}
