// SPDX-License-Identifier: Apache-2.0
// What forward leaves for backward: per head l_t = s n_t.q_t (S), then a number of states.
#pragma once

#include "common/head.hpp"

namespace mlstm::kernels {

/// View of the buffer `saved`; m and d are cheap to compute again from the gates and l.
template <class Real>
class Saved {
 public:
  static std::size_t bytes(const Shape& shape, Index states) {
    return static_cast<std::size_t>(shape.heads() * head_size(shape, states)) * sizeof(Real);
  }

  Saved(const void* saved, const Shape& shape, Index states, std::int64_t head)
      : l_(static_cast<Real*>(const_cast<void*>(saved)) + head * head_size(shape, states)), shape_(shape) {}

  Eigen::Map<Vector<Real>> l() const { return {l_, shape_.S}; }

  void put(Index index, const State<Real>& state) const {
    auto both = at(index);
    both.leftCols(shape_.DHV) = state.C;
    both.col(shape_.DHV) = state.n;
  }
  State<Real> get(Index index) const { return {at(index).leftCols(shape_.DHV), at(index).col(shape_.DHV)}; }

 private:
  static Index state_size(const Shape& shape) { return shape.DHQK * (shape.DHV + 1); }
  static Index head_size(const Shape& shape, Index states) { return shape.S + states * state_size(shape); }
  /// C with n as one more column.
  Eigen::Map<Matrix<Real>> at(Index index) const {
    return {l_ + shape_.S + index * state_size(shape_), shape_.DHQK, shape_.DHV + 1};
  }

  Real* l_;
  Shape shape_;
};

/// Saved::bytes for the Real of this dtype.
inline std::size_t saved_bytes(const Problem& problem, Index states) {
  return problem.dtype == DType::float64 ? Saved<double>::bytes(problem.shape, states)
                                         : Saved<float>::bytes(problem.shape, states);
}

}  // namespace mlstm::kernels
