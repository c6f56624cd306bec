// SPDX-License-Identifier: Apache-2.0
// Preloaded under compute-sanitizer's initcheck (tests/sanitizer/run): writes every float32 result of a cuBLAS product
// once more, with a kernel that the tool sees. It does not see what cuBLAS's 16-bit kernels for sm_90 write, and would
// report each read of it. tmp <- C by rewrite_read, which has to be excluded from the check; C <- tmp by rewrite_write.
// Columns of padding are not touched: reads of those are reported still.
#include <cublas_v2.h>
#include <dlfcn.h>

#include <cstddef>
#include <cstdio>

namespace {

/// Elements of column-major m x n matrices, `stride` apart.
struct Matrices {
  int m, n;
  long long leading, stride;

  __device__ void for_each(float* to, const float* from) const {
    const long long size = static_cast<long long>(m) * n;
    for (long long e = blockIdx.x * blockDim.x + threadIdx.x; e < size; e += gridDim.x * blockDim.x) {
      const long long at = e % m + e / m * leading + blockIdx.y * stride;
      to[at] = from[at];
    }
  }
};

}  // namespace

// Outside the namespace: initcheck excludes kernels by parts of their names.
__global__ void rewrite_read(Matrices matrices, float* tmp, const float* c) { matrices.for_each(tmp, c); }
__global__ void rewrite_write(Matrices matrices, float* c, const float* tmp) { matrices.for_each(c, tmp); }

extern "C" cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t trans_a,
                                                     cublasOperation_t trans_b, int m, int n, int k, const void* alpha,
                                                     const void* a, cudaDataType a_type, int lda, long long stride_a,
                                                     const void* b, cudaDataType b_type, int ldb, long long stride_b,
                                                     const void* beta, void* c, cudaDataType c_type, int ldc,
                                                     long long stride_c, int batch, cublasComputeType_t compute,
                                                     cublasGemmAlgo_t algorithm) {
  using Function =
      cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*, const void*,
                         cudaDataType, int, long long, const void*, cudaDataType, int, long long, const void*, void*,
                         cudaDataType, int, long long, int, cublasComputeType_t, cublasGemmAlgo_t);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "cublasGemmStridedBatchedEx"));
  const cublasStatus_t status = real(handle, trans_a, trans_b, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb,
                                     stride_b, beta, c, c_type, ldc, stride_c, batch, compute, algorithm);
  if (status != CUBLAS_STATUS_SUCCESS || c_type != CUDA_R_32F) return status;
  cudaStream_t stream;
  cublasGetStream(handle, &stream);
  const Matrices matrices{m, n, ldc, stride_c};
  const std::size_t bytes = sizeof(float) * ((batch - 1) * stride_c + (n - 1) * static_cast<long long>(ldc) + m);
  float* tmp = nullptr;
  if (cudaMalloc(&tmp, bytes) != cudaSuccess) {
    std::fprintf(stderr, "rewrite_products: no memory for %zu bytes\n", bytes);
    return CUBLAS_STATUS_ALLOC_FAILED;
  }
  cudaMemsetAsync(tmp, 0, bytes, stream);
  const dim3 grid(16, batch);
  rewrite_read<<<grid, 128, 0, stream>>>(matrices, tmp, static_cast<const float*>(c));
  rewrite_write<<<grid, 128, 0, stream>>>(matrices, static_cast<float*>(c), tmp);
  const cudaError_t error = cudaStreamSynchronize(stream);
  cudaFree(tmp);
  if (error == cudaSuccess) return status;
  std::fprintf(stderr, "rewrite_products: %s\n", cudaGetErrorString(error));
  return CUBLAS_STATUS_EXECUTION_FAILED;
}
