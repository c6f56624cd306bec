// SPDX-License-Identifier: Apache-2.0
// A block of n steps, forward: what its steps see of each other and of the state before it, and the state after it.
//
//   P_tj = s q_t.k_j D_tj     h_t = (Σ_j P_tj v_j + past_t s C.q_t) / d_t      C' = past C + Σ_j D_nj k_j v_jᵀ
//
// A tile of query rows at a time, as GPU kernels go. Operands of products are rounded to the storage type: P, C, and
// the rows of k on their way into a state.
#pragma once

#include "studies/mutants/store.hpp"

namespace mlstm::verify::planted {

/// Rows of a tile of queries.
inline constexpr Index kQueries = 32;

/// Row after row of D_tj = exp(Σ_{r=j+1..t} logσ(f_r) + log_i_j - m_t), and how much is left of the state before.
template <class Real>
class DecayRows {
 public:
  DecayRows(const Context& c, const Gates<Real>& gates, Index begin, Index n, bool backward)
      : c_(c),
        gates_(gates),
        begin_(begin),
        n_(n),
        backward_(backward),
        log_D_(static_cast<std::size_t>(n)),
        log_past_(c.has("m_one_chunk_late") && begin >= n ? gates.m_before(begin - n) : gates.m_before(begin)) {}

  /// Goes on to the next step.
  void advance() {
    const auto row = static_cast<std::size_t>(begin_ + ++t_);
    Real log_f = gates_.log_f[row];
    if (c_.has("one_step_document_lost") && row > 0 && is_reset(log_f) && is_reset(gates_.log_f[row - 1])) log_f = 0;
    restart_scan();
    for (Index j = 0; j < t_; ++j) log_D_[static_cast<std::size_t>(j)] += log_f;
    round_all(c_.gate, log_D_.data(), t_);
    log_D_[static_cast<std::size_t>(t_)] = gates_.log_i[row] + (c_.has("decay_inclusive") ? log_f : 0);
    if (c_.has("gates_summed_over_resets")) difference_of_sums(log_f);
    if (c_.has("past_decay_short") && t_ == 0) return;
    if (c_.has("reset_missed_at_chunk_start") && t_ == 0 && is_reset(log_f)) return;
    log_past_ = rounded(c_.gate, log_past_ + log_f);
    log_decay_ += log_f;
  }

  /// Σ logσ(f) over the block so far.
  Real log_decay() const { return log_decay_; }

  Real m() const { return gates_.m[static_cast<std::size_t>(begin_ + t_)]; }

  Real past() const {
    const auto row = static_cast<std::size_t>(begin_), end = static_cast<std::size_t>(begin_ + n_);
    if (c_.has("reset_of_whole_chunk") && std::any_of(gates_.log_f.begin() + static_cast<std::ptrdiff_t>(row),
                                                      gates_.log_f.begin() + static_cast<std::ptrdiff_t>(end),
                                                      [](Real log_f) { return is_reset(log_f); }))
      return 0;
    return rounded(c_.gate, c_.exp(c_.has("m_not_rescaled") ? log_decay_ : log_past_ - m()));
  }

  /// D_t0 ... D_tt.
  void inputs(Real* D) const {
    const Real shift = m();
    for (Index j = 0; j <= t_; ++j) D[j] = c_.exp(log_D_[static_cast<std::size_t>(j)] - shift);
    round_all(c_.gate, D, t_ + 1);
  }

  /// D_t0 ... D_t,cols-1: 0 beyond t.
  void weights(Real* D, Index cols) const {
    inputs(D);
    const Real shift = m();
    const Index seen = t_ + 1;
    std::fill(D + seen, D + cols, Real(0));
    const bool backward_next = c_.has("mask_includes_next_backward") && backward_;
    if ((c_.has("mask_includes_next") || backward_next) && t_ + 1 < cols)
      D[t_ + 1] = c_.exp(gates_.log_i[static_cast<std::size_t>(begin_ + t_ + 1)] - shift);
    if (c_.has("mask_excludes_diagonal") || (c_.has("mask_excludes_diagonal_backward") && backward_)) D[t_] = 0;
    if (c_.has("first_key_lost")) D[0] = 0;
    if (c_.has("ragged_keys_lost") && n_ > kTile)
      for (Index j = n_ / kTile * kTile; j < seen; ++j) D[j] = 0;
    if (c_.has("key_tile_lost") && t_ >= kTile && t_ < 2 * kTile) std::fill_n(D, kTile, Real(0));
    if (c_.has("keys_beyond_window_lost")) std::fill_n(D, std::max<Index>(0, t_ - 63), Real(0));
    if (c_.has("keys_beyond_1024_lost")) std::fill_n(D, std::max<Index>(0, t_ - 1023), Real(0));
    if (c_.has("keys_beyond_256_lost") && cols > 256) std::fill(D + 256, D + cols, Real(0));
  }

 private:
  /// Exponents from F_t - F_j with sums F since the block's first step, which drown what is behind a reset.
  void difference_of_sums(Real log_f) {
    sum_ += log_f;
    sums_.push_back(sum_);
    for (std::size_t j = 0; j < sums_.size(); ++j)
      log_D_[j] = sum_ - sums_[j] + gates_.log_i[static_cast<std::size_t>(begin_) + j];
  }
  /// What the sums over the steps before would be if a scan of so many threads began anew.
  void restart_scan() {
    const Index threads = c_.has("scan_of_1024") ? 1024 : c_.has("scan_of_256") ? 256 : 0;
    if (threads == 0 || t_ != threads) return;
    for (Index j = 0; j < t_; ++j) log_D_[static_cast<std::size_t>(j)] -= log_decay_;
    log_past_ -= log_decay_;
  }

  const Context& c_;
  const Gates<Real>& gates_;
  Index begin_, n_, t_ = -1;
  Real sum_ = 0;
  std::vector<Real> sums_;
  bool backward_;
  std::vector<Real> log_D_;
  Real log_past_, log_decay_ = 0;
};

template <class Real>
Matrix<Real> operand(const Context& c, const Real* values, Index rows, Index cols) {
  Matrix<Real> out(rows, cols);
  std::copy_n(values, out.size(), out.data());
  round_all(c.operand, out.data(), out.size());
  return out;
}

/// P (rows, cols) of the next tile of rows: `decays` goes on by `rows` steps and fills D and past (rows).
template <class Real>
void next_weights(const Context& c, const Head<Real>& in, DecayRows<Real>& decays, Index first, Index rows, Index cols,
                  const Matrix<Real>& keys_transposed, Matrix<Real>& D, Matrix<Real>& P, std::vector<Real>& past) {
  for (Index r = 0; r < rows; ++r) {
    decays.advance();
    past[static_cast<std::size_t>(r)] = decays.past();
    decays.weights(D[r], cols);
    std::fill_n(P[r], cols, Real(0));
  }
  const Index DHQK = in.q.cols(), multiplied = c.has("key_remainder_lost") && DHQK > 64 ? DHQK / 64 * 64 : DHQK;
  add_product(c.accumulator, P.from(0), in.q.from(first), keys_transposed.from(0), rows, multiplied, cols);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < cols; ++j) P[r][j] *= in.scale * D[r][j];
}

/// Columns of the tile of rows that begins with row `tile` of a block: up to the diagonal.
inline Index columns_seen(Index tile, Index rows, Index n) { return std::min(n, tile + rows + 1); }

/// h (S,DHV) and l (S) of the steps begin ... begin+n-1.
template <class Real>
void block_h(const Context& c, const Head<Real>& in, Index begin, Index n, State<Real> before, Real* l,
             Matrix<Real>& h) {
  const Index DHQK = in.q.cols(), DHV = in.v.cols();
  const Matrix<Real> keys = transposed(in.k.from(begin), n, DHQK);
  Matrix<Real> C = operand(c, before.C, DHQK, DHV);
  if (c.has("state_read_transposed") && DHQK == DHV) C = transposed(std::as_const(C).from(0), DHQK, DHV);
  Matrix<Real> D(kQueries, n), P(kQueries, n);
  std::vector<Real> past(kQueries);
  Real inverse_before = 1;
  DecayRows<Real> decays(c, in.gates, begin, n, false);
  for (Index tile = 0; tile < n; tile += kQueries) {
    const Index rows = std::min(kQueries, n - tile), cols = columns_seen(tile, rows, n), first = begin + tile;
    next_weights(c, in, decays, first, rows, cols, keys, D, P, past);
    for (Index r = 0; r < rows; ++r) {
      const Index t = first + r;
      Real* const out = h[t];
      Real seen = past[static_cast<std::size_t>(r)] * (c.has("state_query_unscaled") ? Real(1) : in.scale);
      if (c.has("state_seen_undecayed")) seen = in.scale;
      if (c.has("state_dropped")) seen = 0;
      const Real* const query = in.q[t];
      Real sum = 0;
      for (Index j = 0; j < cols; ++j) sum += P[r][j];
      if (c.has("row_sum_float16")) sum = rounded(Rounding::float16, sum);
      const Index multiplied = c.has("normaliser_keys_beyond_128") ? std::min<Index>(DHQK, 128) : DHQK;
      l[t] = sum + (c.has("state_n_dropped") ? Real(0) : seen * dot(query, before.n, multiplied));
      std::fill_n(out, DHV, Real(0));
      add_rows(
          c.accumulator, out, [query](Index a) { return query[a]; }, std::as_const(C).from(0), DHQK, DHV);
      for (Index e = 0; e < DHV; ++e) out[e] *= seen;
      round_all(c.weights(), P[r], cols);
      add_rows(
          c.accumulator, out, [&](Index j) { return P[r][j]; }, in.v.from(begin), cols, DHV);
      const Real inverse = denominator(c, l[t], floor_m(c, in.gates, t)).inverse;
      const Real used = c.has("denominator_of_row_before") && r > 0 ? inverse_before : inverse;
      for (Index e = 0; e < DHV; ++e) out[e] *= used;
      inverse_before = inverse;
    }
  }
}

/// The state after n steps: `after` may not be `before`.
template <class Real>
void block_state(const Context& c, const Head<Real>& in, Index begin, Index n, State<Real> before, State<Real> after) {
  const Index DHQK = in.k.cols(), DHV = in.v.cols();
  DecayRows<Real> decays(c, in.gates, begin, n, false);
  for (Index t = 0; t < n; ++t) decays.advance();
  std::vector<Real> input(static_cast<std::size_t>(n));
  decays.inputs(input.data());
  if (c.has("state_without_last_step") && n > 1) input.back() = 0;
  Real past = decays.past();
  if (c.has("state_decayed_twice")) past *= past;
  if (c.has("state_not_decayed")) past = 1;
  const Real past_n = c.has("n_not_decayed") ? Real(1) : past;
  for (Index at = 0; at < DHQK * DHV; ++at) after.C[at] = past * before.C[at];
  for (Index a = 0; a < DHQK; ++a) after.n[a] = past_n * before.n[a];
  Matrix<Real> keys(n, DHQK);
  for (Index j = 0; j < n; ++j) {
    const Real weight = input[static_cast<std::size_t>(j)];
    const Index kept = c.has("state_key_remainder_lost") && DHQK > 64 ? DHQK / 64 * 64 : DHQK;
    for (Index a = 0; a < kept; ++a) keys[j][a] = weight * in.k[begin + j][a];
    const auto L = static_cast<std::uint64_t>(c.problem.chunk_size), all = static_cast<std::uint64_t>(n);
    if (c.has("tree_sum_of_n") && !std::has_single_bit(L) && static_cast<std::uint64_t>(j) >= std::bit_floor(all))
      continue;
    add_scaled(after.n, Real(1), keys[j], DHQK);
  }
  round_all(c.operand, keys.data(), keys.size());
  add_transposed_product(c.accumulator, View<Real>{after.C, DHV}, std::as_const(keys).from(0), in.v.from(begin), n,
                         DHQK, DHV);
  round_all(c.state, after.C, State<Real>::size(c.problem.shape));
  const bool rounds_n = c.has("n_bfloat16_like_operands") && c.problem.dtype == DType::bfloat16;
  if (c.has("n_bfloat16") || rounds_n) round_all(Rounding::bfloat16, after.n, DHQK);
}

}  // namespace mlstm::verify::planted
