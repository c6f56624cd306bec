// SPDX-License-Identifier: Apache-2.0
// cuBLAS as the variants use it: batches of row-major matrix products with float32 (float64) results. Accumulation is
// in the type of the result and the math modes are explicit, so that float32 is never computed in TF32.
#pragma once

#include <cublas_v2.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/cuda/check.hpp"
#include "mlstm/dtype.hpp"

namespace mlstm::kernels::cuda {

/// Throws std::runtime_error: "<call> failed: <reason> (<file>:<line>)".
inline void check(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string(call) + " failed: " + cublasGetStatusString(status) + " (" + file + ":" +
                           std::to_string(line) + ")");
}

#define MLSTM_CUBLAS_CALL(call) ::mlstm::kernels::cuda::check((call), #call, __FILE__, __LINE__)

/// A batch of row-major matrices, `leading` elements from row to row and `stride` from matrix to matrix.
struct BlasMatrix {
  const void* data = nullptr;
  std::int64_t leading = 0, stride = 0;
  bool transposed = false;  ///< the product reads its transpose

  BlasMatrix t() const { return {data, leading, stride, !transposed}; }
};

/// cuBLAS on one stream with a caller-owned workspace. The handle behind it is made once per host thread and device, by
/// the first call there: making it allocates on the device, and may synchronise. Later calls allocate nothing.
class Blas {
 public:
  /// Bytes of workspace; what cuBLAS asks for on sm_90.
  static constexpr std::int64_t kWorkspace = std::int64_t{32} << 20;

  Blas(DType dtype, cudaStream_t stream, void* workspace);

  /// result (rows x columns) = a (rows x inner) b (inner x columns) for each of `batch` matrices. a and b are in the
  /// dtype, the result in float64 for float64 and float32 for all others.
  void multiply(std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t inner, const BlasMatrix& a,
                const BlasMatrix& b, const BlasMatrix& result) const;

 private:
  cublasHandle_t handle_;
  DType dtype_;
};

}  // namespace mlstm::kernels::cuda
