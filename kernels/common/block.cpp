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
  const Vector<Real> s_past = block.scale * block.decays.past;
  BlockOutput<Real> out;
  out.l = P.rowwise().sum() + s_past.cwiseProduct(block.q * block.before.n);
  out.numerator = block.q * N::operand(block.before.C);
  out.numerator = s_past.asDiagonal() * out.numerator;
  out.numerator += N::operand(P) * block.v;
  return out;
}

template <class N>
State<RealOf<N>> block_state(const Block<RealOf<N>>& block) {
  using Real = RealOf<N>;
  const Index last = block.q.rows() - 1;
  const Matrix<Real> weighted_k = block.decays.D.row(last).asDiagonal() * block.k;
  const Real past_last = block.decays.past[last];
  State<Real> after{past_last * block.before.C, past_last * block.before.n + weighted_k.colwise().sum().transpose()};
  after.C += N::operand(weighted_k).transpose() * block.v;
  return after;
}

template <class N>
StepGradients<RealOf<N>> block_backward(const Block<RealOf<N>>& block, MatrixRef<RealOf<N>> dh,
                                        const Vector<RealOf<N>>& inverse, const Vector<RealOf<N>>& gamma,
                                        const State<RealOf<N>>& after) {
  using Real = RealOf<N>;
  const auto& [q, k, v, decays, before, scale] = block;
  const Index last = q.rows() - 1;
  const auto D_last = decays.D.row(last).transpose();
  const Real past_last = decays.past[last];
  const Vector<Real> s_past = scale * decays.past;
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
  Matrix<Real> dq_state = dh * C.transpose();
  dq_state = inverse.asDiagonal() * dq_state;
  dq_state.noalias() += gamma * before.n.transpose();
  dq_state = s_past.asDiagonal() * dq_state;
  Matrix<Real> dk_state = v * dC.transpose();
  dk_state.rowwise() += after.n.transpose();
  dk_state = D_last.asDiagonal() * dk_state;
  Matrix<Real> dv_state = k * dC;
  dv_state = D_last.asDiagonal() * dv_state;

  StepGradients<Real> out;
  out.dq = dq_state + dS * k;
  out.dk = dk_state + dS.transpose() * q;
  out.dv = dv_state + N::operand(P).transpose() * g;

  // Gates: pairs within the block, pairs (past, t ≥ r), pairs (j < r, future), and pairs (past, future).
  const Vector<Real> q_state = q.cwiseProduct(dq_state).rowwise().sum();
  const Vector<Real> k_state = k.cwiseProduct(dk_state).rowwise().sum();
  const Real crossing = past_last * after.dot(before);
  out.d_log_i = G.colwise().sum().transpose() + k_state;
  out.d_log_f = straddling_sums(G);
  Real from_r_on = 0, before_r = crossing;
  for (Index r = last; r >= 0; --r) {
    from_r_on += q_state[r];
    out.d_log_f[r] += from_r_on;
  }
  for (Index r = 0; r <= last; ++r) {
    out.d_log_f[r] += before_r;
    before_r += k_state[r];
  }
  out.after_product = before_r;

  out.before.C = past_last * after.C;
  out.before.C += N::operand(s_past.asDiagonal() * q).transpose() * g;
  out.before.n = past_last * after.n + q.transpose() * s_past.cwiseProduct(gamma);
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
