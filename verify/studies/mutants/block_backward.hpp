// SPDX-License-Identifier: Apache-2.0
// A block of n steps, backward, with m and d constant but for gamma, the cotangent of l:
//
//   dP_tj = dh_t.v_j / d_t + gamma_t     dS = s dP∘D     G = dP∘P
//   dq = dS k + past s (C dh/d + gamma n)     dk = dSᵀ q + D_n (dC' v + dn')     dv = Pᵀ (dh/d) + D_n dC'ᵀ k
//   dC = past dC' + Σ_t past_t s q_t (dh_t/d_t)ᵀ     dn = past dn' + Σ_t past_t s gamma_t q_t
//
// A tile of query rows at a time, which adds to dk and dv of the block. Rounded, as operands: P, dS, dh/d where it is
// summed over t, C, dC, and the scaled rows of q. The gates' gradients sum only pairs that straddle the gate.
#pragma once

#include "studies/mutants/block_forward.hpp"
#include "studies/mutants/gradients.hpp"

namespace mlstm::verify::planted {

/// dh_t / d_t as an operand (n,DHV).
template <class Real>
Matrix<Real> scaled_cotangents(const Context& c, const HeadCotangents<Real>& given, Index begin, Index n) {
  const Index DHV = given.dh.cols();
  Matrix<Real> g(n, DHV);
  for (Index t = 0; t < n; ++t)
    for (Index e = 0; e < DHV; ++e)
      g[t][e] = given.rows.inverse[static_cast<std::size_t>(begin + t)] * given.dh[begin + t][e];
  round_all(c.operand, g.data(), g.size());
  return g;
}

/// The cotangent of the state before the block from that of the state after it, which may not be in the same memory.
template <class Real>
void block_dstate(const Context& c, const Head<Real>& in, const HeadCotangents<Real>& given, Index begin, Index n,
                  State<Real> after, State<Real> before) {
  const Index DHQK = in.q.cols(), DHV = in.v.cols();
  Matrix<Real> g = scaled_cotangents(c, given, begin, n), queries(n, DHQK);
  if (c.has("dstate_without_inverse"))
    for (Index t = 0; t < n; ++t) std::copy_n(given.dh[begin + t], DHV, g[t]);
  std::vector<Real> dn(static_cast<std::size_t>(DHQK), 0);
  DecayRows<Real> decays(c, in.gates, begin, n, true);
  for (Index t = 0; t < n; ++t) {
    decays.advance();
    if (c.has("rows_beyond_256_unseen") && t >= 256) continue;
    const Real weight = decays.past() * (c.has("dstate_query_unscaled") ? Real(1) : in.scale);
    for (Index a = 0; a < DHQK; ++a) queries[t][a] = weight * in.q[begin + t][a];
    if (!c.has("dn_without_gamma"))
      add_scaled(dn.data(), given.rows.gamma[static_cast<std::size_t>(begin + t)], queries[t], DHQK);
  }
  round_all(c.operand, queries.data(), queries.size());
  Real past = decays.past();
  if (c.has("dstate_not_decayed") || (c.has("dstate_crosses_reset") && is_reset(decays.log_decay()))) past = 1;
  if (c.has("dstate_decayed_twice")) past *= past;
  for (Index at = 0; at < DHQK * DHV; ++at) before.C[at] = past * after.C[at];
  for (Index a = 0; a < DHQK; ++a)
    before.n[a] = (c.has("dn_not_decayed") ? Real(1) : past) * after.n[a] + dn[static_cast<std::size_t>(a)];
  add_transposed_product(c.accumulator, View<Real>{before.C, DHV}, std::as_const(queries).from(0),
                         std::as_const(g).from(0), n, DHQK, DHV);
  round_all(c.state, before.C, State<Real>::size(c.problem.shape));
}

/// For every step r of the block: Σ_{t≥r} Σ_{j<r} G_tj, one row of G at a time.
template <class Real>
void add_straddling(const Context& c, const Real* G, Index t, Real* sums) {
  const bool inclusive = c.has("df_inclusive");
  Real left = inclusive ? G[0] : Real(0);
  for (Index r = 0; r <= t; ++r) {
    sums[r] += left;
    if (!inclusive)
      left += G[r];
    else if (r < t)
      left += G[r + 1];
  }
}

/// Memory that a block's pass needs: accumulators of dk and dv.
inline Index block_scratch(const Shape& shape, Index n) { return n * (shape.DHQK + shape.DHV); }

template <class Real>
class BlockGradients {
 public:
  BlockGradients(const Context& c, const Head<Real>& in, const HeadCotangents<Real>& given, Index begin, Index n,
                 State<Real> before, State<Real> after)
      : c_(c),
        in_(in),
        given_(given),
        begin_(begin),
        n_(n),
        DHQK_(in.q.cols()),
        DHV_(in.v.cols()),
        before_(before),
        after_(after),
        q_past_(static_cast<std::size_t>(n)),
        k_future_(static_cast<std::size_t>(n)) {}

  /// `scratch`: block_scratch() numbers.
  void add_to(Gradients<Real>& out, Real* scratch) {
    dk_ = {scratch, DHQK_};
    dv_ = {scratch + n_ * DHQK_, DHV_};
    if (!c_.has("accumulators_not_cleared")) std::fill_n(scratch, n_ * (DHQK_ + DHV_), Real(0));
    std::fill_n(&out.d_log_f[static_cast<std::size_t>(begin_)], n_, Real(0));
    std::fill_n(&out.d_log_i[static_cast<std::size_t>(begin_)], n_, Real(0));
    within_and_past(out);
    future(out);
    gates(out);
  }

 private:
  std::size_t at(Index t) const { return static_cast<std::size_t>(begin_ + t); }

  /// Pairs within the block, and dq through the state before it.
  void within_and_past(Gradients<Real>& out) {
    const Matrix<Real> keys = transposed(in_.k.from(begin_), n_, DHQK_),
                       values = transposed(in_.v.from(begin_), n_, DHV_), g = scaled_cotangents(c_, given_, begin_, n_),
                       C = operand(c_, before_.C, DHQK_, DHV_), C_transposed = transposed(C.from(0), DHQK_, DHV_);
    Matrix<Real> D(kQueries, n_), P(kQueries, n_), dP(kQueries, n_), dS(kQueries, n_);
    std::vector<Real> past(kQueries);
    DecayRows<Real> decays(c_, in_.gates, begin_, n_, true);
    for (Index tile = 0; tile < n_; tile += kQueries) {
      const Index rows = std::min(kQueries, n_ - tile), cols = columns_seen(tile, rows, n_), first = begin_ + tile;
      next_weights(c_, in_, decays, first, rows, cols, keys, D, P, past);
      for (Index r = 0; r < rows; ++r) std::fill_n(dP[r], cols, Real(0));
      add_product(c_.accumulator, dP.from(0), given_.dh.from(first), values.from(0), rows, DHV_, cols);
      for (Index r = 0; r < rows; ++r) row_of_G(tile + r, cols, D[r], P[r], dP[r], dS[r], out);
      for (Index r = 0; r < rows; ++r) {
        round_all(c_.operand, P[r], cols);
        round_all(c_.operand, dS[r], cols);
        dq_through_state(tile + r, past[static_cast<std::size_t>(r)], C_transposed, out.dq[first + r]);
      }
      const auto& right = c_.has("dq_from_queries") ? in_.q : in_.k;
      const auto& left = c_.has("dk_from_keys") ? in_.k : in_.q;
      add_product(c_.accumulator, out.dq.from(first), std::as_const(dS).from(0), right.from(begin_), rows, cols, DHQK_);
      if (c_.has("dk_tile_race") && c_.raced && tile == 0) continue;  // its sum is overwritten by another block's
      add_transposed_product(c_.accumulator, dk_, std::as_const(dS).from(0), left.from(first), rows, cols, DHQK_);
      const bool unscaled = c_.has("dv_without_inverse");
      add_transposed_product(c_.accumulator, dv_, std::as_const(P).from(0),
                             unscaled ? given_.dh.from(first) : g.from(tile), rows, cols, DHV_);
    }
  }

  /// dP becomes complete; dS and the gates' sums follow from it.
  void row_of_G(Index t, Index cols, const Real* D, const Real* P, Real* dP, Real* dS, Gradients<Real>& out) {
    const Real inverse = c_.has("dP_without_inverse") ? Real(1) : given_.rows.inverse[at(t)];
    const Real gamma = given_.rows.gamma[at(t)], scale = c_.has("dS_unscaled") ? Real(1) : in_.scale;
    for (Index j = 0; j < cols; ++j) {
      dP[j] = inverse * dP[j] + gamma;
      dS[j] = scale * dP[j] * D[j];
      dP[j] *= P[j];  // G
    }
    add_scaled(&out.d_log_i[at(0)], Real(1), dP, cols);
    if (!c_.has("df_without_block")) add_straddling(c_, dP, t, &out.d_log_f[at(0)]);
  }

  void dq_through_state(Index t, Real past, const Matrix<Real>& C_transposed, Real* dq) {
    const Real* const dh = given_.dh[begin_ + t];
    std::fill_n(dq, DHQK_, Real(0));
    add_rows(
        c_.accumulator, dq, [dh](Index e) { return dh[e]; }, C_transposed.from(0), DHV_, DHQK_);
    const Real inverse = given_.rows.inverse[at(t)];
    const Real gamma = c_.has("dq_without_n") ? Real(0) : given_.rows.gamma[at(t)];
    for (Index a = 0; a < DHQK_; ++a) dq[a] = past * in_.scale * (inverse * dq[a] + gamma * before_.n[a]);
    if (c_.has("dq_without_state")) std::fill_n(dq, DHQK_, Real(0));
    q_past_[static_cast<std::size_t>(t)] = dot(in_.q[begin_ + t], dq, DHQK_);
  }

  /// dk and dv through the state after the block.
  void future(Gradients<Real>& out) {
    std::vector<Real> input(static_cast<std::size_t>(n_));
    DecayRows<Real> decays(c_, in_.gates, begin_, n_, true);
    for (Index t = 0; t < n_; ++t) decays.advance();
    decays.inputs(input.data());
    past_last_ = decays.past();
    Matrix<Real> dC = operand(c_, after_.C, DHQK_, DHV_);
    if (c_.has("dstate_transposed") && DHQK_ == DHV_) dC = transposed(std::as_const(dC).from(0), DHQK_, DHV_);
    const Matrix<Real> dC_transposed = transposed(std::as_const(dC).from(0), DHQK_, DHV_);
    std::vector<Real> dk(static_cast<std::size_t>(DHQK_)), dv(static_cast<std::size_t>(DHV_));
    for (Index j = 0; j < n_; ++j) {
      const Real weight = input[static_cast<std::size_t>(j)];
      const Real *const k = in_.k[begin_ + j], *const v = in_.v[begin_ + j];
      std::fill(dk.begin(), dk.end(), Real(0));
      std::fill(dv.begin(), dv.end(), Real(0));
      add_rows(
          c_.accumulator, dk.data(), [v](Index e) { return v[e]; }, dC_transposed.from(0), DHV_, DHQK_);
      add_rows(
          c_.accumulator, dv.data(), [k](Index a) { return k[a]; }, std::as_const(dC).from(0), DHQK_, DHV_);
      if (!c_.has("dk_without_dn")) add_scaled(dk.data(), Real(1), after_.n, DHQK_);
      for (Real& value : dk) value *= c_.has("dk_without_state") ? Real(0) : weight;
      for (Real& value : dv) value *= c_.has("dv_without_state") ? Real(0) : weight;
      k_future_[static_cast<std::size_t>(j)] = dot(k, dk.data(), DHQK_);
      for (Index a = 0; a < DHQK_; ++a) out.dk[begin_ + j][a] = dk_[j][a] + dk[static_cast<std::size_t>(a)];
      for (Index e = 0; e < DHV_; ++e) out.dv[begin_ + j][e] = dv_[j][e] + dv[static_cast<std::size_t>(e)];
    }
  }

  /// The gates' pairs with one end, or both, outside the block.
  void gates(Gradients<Real>& out) {
    Real before_r = past_last_ * dot(after_, before_, c_.problem.shape), from_r_on = 0;
    if (c_.has("df_without_far_pairs")) before_r = 0;
    for (Index r = 0; r < n_; ++r) {
      if (!c_.has("df_without_future")) out.d_log_f[at(r)] += before_r;
      before_r += k_future_[static_cast<std::size_t>(r)];
      if (!c_.has("di_without_future")) out.d_log_i[at(r)] += k_future_[static_cast<std::size_t>(r)];
    }
    for (Index r = n_; r-- > 0;) {
      from_r_on += q_past_[static_cast<std::size_t>(r)];
      if (!c_.has("df_without_past")) out.d_log_f[at(r)] += from_r_on;
    }
    if (c_.has("df_chunk_start_lost")) out.d_log_f[at(0)] = 0;
    out.after_product = before_r;
  }

  const Context& c_;
  const Head<Real>& in_;
  const HeadCotangents<Real>& given_;
  Index begin_, n_, DHQK_, DHV_;
  State<Real> before_, after_;
  View<Real> dk_{}, dv_{};
  std::vector<Real> q_past_, k_future_;
  Real past_last_ = 0;
};

}  // namespace mlstm::verify::planted
