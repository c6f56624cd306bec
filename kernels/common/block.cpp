// SPDX-License-Identifier: Apache-2.0
#include "common/block.hpp"

namespace mlstm::kernels {
namespace {

template <class Real>
Matrix<Real> weights_of(const Block<Real>& block) {
  const Matrix<Real> scores = block.q * block.k.transpose();
  return block.scale * scores.cwiseProduct(block.decays.D);
}

/// For every step r: Σ_{t≥r} Σ_{j<r} G_tj, the pairs whose decay holds f_r. Only those are ever added: the same number
/// as Σ_{t≥r} (row sum - column sum) of G, but that difference cancels.
template <class Real>
Vector<Real> straddling_sums(const Matrix<Real>& G) {
  Vector<Real> sums = Vector<Real>::Zero(G.rows());
  for (Index t = 0; t < G.rows(); ++t) {
    Real left_of_r = 0;
    for (Index r = 0; r <= t; ++r) {
      sums[r] += left_of_r;
      left_of_r += G(t, r);
    }
  }
  return sums;
}

}  // namespace

template <class N>
BlockOutput<RealOf<N>> block_forward(const Block<RealOf<N>>& block) {
  using Real = RealOf<N>;
  const Matrix<Real> P = weights_of(block);
  const Vector<Real> past = block.scale * block.decays.past;
  BlockOutput<Real> out;
  out.l = P.rowwise().sum() + past.cwiseProduct(block.q * block.before.n);
  out.numerator = block.q * N::operand(block.before.C);
  out.numerator = past.asDiagonal() * out.numerator;
  out.numerator += N::operand(P) * block.v;
  return out;
}

template <class N>
State<RealOf<N>> block_state(const Block<RealOf<N>>& block) {
  using Real = RealOf<N>;
  const Index last = block.q.rows() - 1;
  const Matrix<Real> inputs = block.decays.D.row(last).asDiagonal() * block.k;
  const Real past = block.decays.past[last];
  State<Real> after{past * block.before.C, past * block.before.n + inputs.colwise().sum().transpose()};
  after.C += N::operand(inputs).transpose() * block.v;
  return after;
}

template <class N>
StepGradients<RealOf<N>> block_backward(const Block<RealOf<N>>& block, MatrixRef<RealOf<N>> dh,
                                        const Vector<RealOf<N>>& inverse, const Vector<RealOf<N>>& gamma,
                                        const State<RealOf<N>>& after) {
  using Real = RealOf<N>;
  const auto& [q, k, v, decays, before, scale] = block;
  const Index last = q.rows() - 1;
  const auto input = decays.D.row(last).transpose();
  const Real past_last = decays.past[last];
  const Vector<Real> past = scale * decays.past;
  const Matrix<Real> g = N::operand(inverse.asDiagonal() * dh);

  // Within the block.
  const Matrix<Real> P = weights_of(block);
  Matrix<Real> dP = dh * v.transpose();
  dP = inverse.asDiagonal() * dP;
  dP.colwise() += gamma;
  const Matrix<Real> G = dP.cwiseProduct(P);
  const Matrix<Real> dS = N::operand(scale * dP.cwiseProduct(decays.D));

  // Through the state before the block (q) and the state after it (k, v).
  const Matrix<Real> C = N::operand(before.C), dC = N::operand(after.C);
  Matrix<Real> dq_past = dh * C.transpose();
  dq_past = inverse.asDiagonal() * dq_past;
  dq_past.noalias() += gamma * before.n.transpose();
  dq_past = past.asDiagonal() * dq_past;
  Matrix<Real> dk_future = v * dC.transpose();
  dk_future.rowwise() += after.n.transpose();
  dk_future = input.asDiagonal() * dk_future;
  Matrix<Real> dv_future = k * dC;
  dv_future = input.asDiagonal() * dv_future;

  StepGradients<Real> out;
  out.dq = dq_past + dS * k;
  out.dk = dk_future + dS.transpose() * q;
  out.dv = dv_future + N::operand(P).transpose() * g;

  // Gates: pairs within the block, pairs (past, t ≥ r), pairs (j < r, future), and pairs (past, future).
  const Vector<Real> q_past = q.cwiseProduct(dq_past).rowwise().sum();
  const Vector<Real> k_future = k.cwiseProduct(dk_future).rowwise().sum();
  const Real past_future = past_last * after.dot(before);
  out.d_log_i = G.colwise().sum().transpose() + k_future;
  out.d_log_f = straddling_sums(G);
  Real from_r_on = 0, before_r = past_future;
  for (Index r = last; r >= 0; --r) {
    from_r_on += q_past[r];
    out.d_log_f[r] += from_r_on;
  }
  for (Index r = 0; r <= last; ++r) {
    out.d_log_f[r] += before_r;
    before_r += k_future[r];
  }
  out.after_product = before_r;

  out.before.C = past_last * after.C;
  out.before.C += N::operand(past.asDiagonal() * q).transpose() * g;
  out.before.n = past_last * after.n + q.transpose() * past.cwiseProduct(gamma);
  return out;
}

#define MLSTM_INSTANTIATE(N)                                                                                           \
  template BlockOutput<N::Real> block_forward<N>(const Block<N::Real>&);                                               \
  template State<N::Real> block_state<N>(const Block<N::Real>&);                                                       \
  template StepGradients<N::Real> block_backward<N>(const Block<N::Real>&, MatrixRef<N::Real>, const Vector<N::Real>&, \
                                                    const Vector<N::Real>&, const State<N::Real>&);
MLSTM_INSTANTIATE(Float64)
MLSTM_INSTANTIATE(Float32)
MLSTM_INSTANTIATE(Float16)
MLSTM_INSTANTIATE(BFloat16)
#undef MLSTM_INSTANTIATE

}  // namespace mlstm::kernels
