// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/blas.hpp"

#include <algorithm>
#include <limits>
#include <map>

namespace mlstm::kernels::cuda {
namespace {

/// The handles of one host thread, by device.
class Handles {
 public:
  Handles() = default;
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    for (const auto& [device, handle] : handles_) cublasDestroy(handle);
  }

  cublasHandle_t of_current_device() {
    int device = 0;
    MLSTM_CUDA_CALL(cudaGetDevice(&device));
    if (const auto found = handles_.find(device); found != handles_.end()) return found->second;
    cublasHandle_t handle = nullptr;
    MLSTM_CUBLAS_CALL(cublasCreate(&handle));
    handles_.emplace(device, handle);
    return handle;
  }

 private:
  std::map<int, cublasHandle_t> handles_;
};

/// What a dtype is called in cuBLAS.
struct Types {
  cudaDataType operand, result;
  cublasComputeType_t compute;
  std::int64_t operand_bytes, result_bytes;
};

Types types_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F, 8, 8};
    case DType::float32:
      // Pedantic, or an environment variable could turn float32 into TF32 or into sums of bfloat16 products.
      return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC, 4, 4};
    case DType::bfloat16:
      return {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F, 2, 4};
    case DType::float16:
      return {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F, 2, 4};
    case DType::tfloat32:
      break;
  }
  throw std::logic_error("no matrix product for " + std::string(to_string(dtype)));
}

int to_int(std::int64_t size) {
  if (size > std::numeric_limits<int>::max())
    throw std::invalid_argument("a matrix extent of " + std::to_string(size) +
                                " is too large for cuBLAS; expected at most 2147483647");
  return static_cast<int>(size);
}

const void* advance(const void* data, std::int64_t bytes) { return static_cast<const std::byte*>(data) + bytes; }

}  // namespace

Blas::Blas(DType dtype, cudaStream_t stream, void* workspace) : dtype_(dtype) {
  thread_local Handles handles;
  handle_ = handles.of_current_device();
  // In this order: setting the stream gives the handle its own workspace back.
  MLSTM_CUBLAS_CALL(cublasSetStream(handle_, stream));
  MLSTM_CUBLAS_CALL(cublasSetWorkspace(handle_, workspace, kWorkspace));
  MLSTM_CUBLAS_CALL(cublasSetMathMode(
      handle_, static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)));
}

void Blas::multiply(std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t inner,
                    const BlasMatrix& a, const BlasMatrix& b, const BlasMatrix& result) const {
  // A grid's y and z end at 65535, and kernels put the batch there.
  constexpr std::int64_t kMaxBatch = 65535;
  const Types types = types_of(dtype_);
  const double one = 1, zero = 0;
  const float one_float = 1, zero_float = 0;
  const bool is_double = dtype_ == DType::float64;
  const void* const alpha = is_double ? static_cast<const void*>(&one) : &one_float;
  const void* const beta = is_double ? static_cast<const void*>(&zero) : &zero_float;
  for (std::int64_t first = 0; first < batch; first += kMaxBatch) {
    const auto part = [&](const BlasMatrix& m, std::int64_t bytes) {
      return advance(m.data, first * m.stride * bytes);
    };
    // cuBLAS is column-major and takes a row-major matrix for its transpose: (a b)ᵀ = bᵀ aᵀ.
    MLSTM_CUBLAS_CALL(cublasGemmStridedBatchedEx(
        handle_, b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, to_int(columns),
        to_int(rows), to_int(inner), alpha, part(b, types.operand_bytes), types.operand, to_int(b.leading), b.stride,
        part(a, types.operand_bytes), types.operand, to_int(a.leading), a.stride, beta,
        const_cast<void*>(part(result, types.result_bytes)), types.result, to_int(result.leading), result.stride,
        to_int(std::min(kMaxBatch, batch - first)), types.compute, CUBLAS_GEMM_DEFAULT));
  }
}

}  // namespace mlstm::kernels::cuda
