// SPDX-License-Identifier: Apache-2.0
// What a CPU variant computes in: the type tensors are stored in and the type everything is accumulated in.
#pragma once

#include <Eigen/Core>
#include <limits>
#include <stdexcept>
#include <string>

#include "mlstm/parallel_for.hpp"
#include "mlstm/problem.hpp"

namespace mlstm::kernels {

using Index = Eigen::Index;
template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
template <class T>
using MatrixRef = Eigen::Ref<const Matrix<T>>;

/// Tensors in `Storage`, accumulation, gates, stabiliser, states and reductions in `Real`.
template <class StorageT, class RealT>
struct Numeric {
  using Storage = StorageT;
  using Real = RealT;

  /// `x` as a tensor core would read it: rounded (to nearest even) to the storage type. What is too large for that is
  /// its largest number: one of the cures for a huge 1/d (kernels/README.md).
  template <class Derived>
  static Matrix<Real> operand(const Eigen::MatrixBase<Derived>& x) {
    const Real largest = static_cast<Real>(std::numeric_limits<Storage>::max());
    return x.unaryExpr([largest](Real a) { return a > largest    ? largest
                                                  : a < -largest ? -largest
                                                                 : a; })
        .template cast<Storage>()
        .template cast<Real>();
  }
};

template <class N>
using RealOf = typename N::Real;

using Float64 = Numeric<double, double>;
using Float32 = Numeric<float, float>;
using Float16 = Numeric<Eigen::half, float>;
using BFloat16 = Numeric<Eigen::bfloat16, float>;

/// One head of a contiguous tensor of `From` with `rows` x `cols` elements per head.
/// Throws std::invalid_argument if `tensor`, called `name`, is null.
template <class From, class To>
Matrix<To> load(const void* tensor, const char* name, std::int64_t head, Index rows, Index cols) {
  if (tensor == nullptr) throw std::invalid_argument(std::string(name) + " is null; the problem needs it");
  const From* first = static_cast<const From*>(tensor) + head * rows * cols;
  return Eigen::Map<const Matrix<From>>(first, rows, cols).template cast<To>();
}

/// Inverse of `load`: rounds `value` to `To`. Does nothing if `tensor` is null, which means: not wanted.
template <class To, class Derived>
void store(void* tensor, std::int64_t head, const Eigen::MatrixBase<Derived>& value) {
  if (tensor == nullptr) return;
  To* first = static_cast<To*>(tensor) + head * value.size();
  Eigen::Map<Matrix<To>>(first, value.rows(), value.cols()) = value.template cast<To>();
}

/// Calls body(numeric, head) for every head of the problem, threaded, with the Numeric of its dtype. A head is
/// computed by one thread, so results do not depend on the number of threads.
template <class Body>
void for_each_head(const Problem& problem, const Body& body) {
  const auto run = [&](auto numeric) {
    parallel_for(problem.shape.heads(), 0, [&](std::int64_t head) { body(numeric, head); });
  };
  switch (problem.dtype) {
    case DType::float64:
      return run(Float64{});
    case DType::float32:
      return run(Float32{});
    case DType::float16:
      return run(Float16{});
    case DType::bfloat16:
      return run(BFloat16{});
    case DType::tfloat32:
      break;
  }
  throw std::logic_error("for_each_head: " + std::string(to_string(problem.dtype)) + " is not a storage type");
}

}  // namespace mlstm::kernels
