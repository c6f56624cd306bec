// SPDX-License-Identifier: Apache-2.0
// What the backward passes of all formulations begin and end with: cotangents and row scalars, the stabiliser's path
// and the slopes of the gates.
#pragma once

#include "studies/mutants/store.hpp"

namespace mlstm::verify::planted {

/// Gradients of one head with the queries lifted and every m and d a constant but for gamma.
template <class Real>
struct Gradients {
  Matrix<Real> dq, dk, dv;
  std::vector<Real> d_log_i, d_log_f;  ///< (S)
  State<Real> before{};                ///< cotangent of the initial state
  Real after_product = 0;              ///< <dC, C> + <dn, n> after the last step

  explicit Gradients(const Shape& shape)
      : dq(shape.S, shape.DHQK),
        dk(shape.S, shape.DHQK),
        dv(shape.S, shape.DHV),
        d_log_i(static_cast<std::size_t>(shape.S)),
        d_log_f(static_cast<std::size_t>(shape.S)) {}
};

template <class Real>
struct HeadCotangents {
  Matrix<Real> dh;
  RowScalars<Real> rows;
};

/// l and m as they were saved. Writes the cotangents of the last state to `last`, and lifts the queries of `in`.
template <class Real>
HeadCotangents<Real> load_cotangents(const Context& c, const BackwardArgs& args, Index head, Head<Real>& in,
                                     const Real* l, State<Real> last) {
  const Shape& shape = c.problem.shape;
  HeadCotangents<Real> out;
  out.dh = Matrix<Real>(shape.S, shape.DHV);
  std::vector<Real> dh_h(static_cast<std::size_t>(shape.S), 0);
  if (args.dh != nullptr) {
    out.dh = load_sequence<Real>(c, args.dh, "dh", head, shape.S, shape.DHV);
    const Matrix<Real> h = load_sequence<Real>(c, args.h, "h", head, shape.S, shape.DHV);
    for (Index t = 0; t < shape.S; ++t) dh_h[static_cast<std::size_t>(t)] = dot(out.dh[t], h[t], shape.DHV);
    if (c.operand != rounding_of(c.problem.dtype)) round_all(c.operand, out.dh.data(), out.dh.size());
  }
  std::fill_n(last.C, State<Real>::size(shape), Real(0));
  const bool ignored = c.has("short_sequence_dlast") && c.is_short();
  if (args.dc_last != nullptr && !c.has("dc_last_ignored") && !ignored) {
    const Matrix<Real> dC = load_state<Real>(c, args.dc_last, "dc_last", head, shape.DHQK, shape.DHV);
    std::copy_n(dC.data(), dC.size(), last.C);
  }
  if (args.dn_last != nullptr && !c.has("dn_last_ignored") && !ignored) {
    const Matrix<Real> dn = load_state<Real>(c, args.dn_last, "dn_last", head, shape.DHQK, 1);
    std::copy_n(dn.data(), dn.size(), last.n);
  }
  out.rows = row_scalars(c, args.convention, in.gates, l, dh_h);
  for (Index t = 0; t < shape.S; ++t)
    for (Index a = 0; a < shape.DHQK; ++a) in.q[t][a] *= out.rows.lift[static_cast<std::size_t>(t)];
  return out;
}

template <class Real>
Real dot(State<Real> a, State<Real> b, const Shape& shape) {
  return dot(a.C, b.C, shape.DHQK * shape.DHV) + dot(a.n, b.n, shape.DHQK);
}

/// As walk_stabilizer, by differences and a sum over them and over those of df.
template <class Real>
Real scatter_stabilizer(const Gates<Real>& gates, const std::vector<Real>& dm, Gradients<Real>& out) {
  std::vector<Real> differences = dm;  // +dm_t at t, -dm_t at its arg max; their sum from r on is what passes gate r
  Real sum = 0, initial = 0;
  Index arg_max = -1;
  for (std::size_t t = 0; t < dm.size(); ++t) {
    if (gates.newest[t]) arg_max = static_cast<Index>(t);
    if (arg_max < 0) {
      initial += dm[t];
      continue;
    }
    differences[static_cast<std::size_t>(arg_max)] -= dm[t];
    out.d_log_i[static_cast<std::size_t>(arg_max)] += dm[t];
  }
  Real after = 0;
  for (std::size_t t = dm.size(); t-- > 0;) {
    sum += (out.d_log_f[t] - after) + differences[t];
    after = std::exchange(out.d_log_f[t], sum);
  }
  return initial;
}

/// Sends the cotangents of m to what the maxima took; returns what is left for m_0.
template <class Real>
Real walk_stabilizer(const Context& c, const Gates<Real>& gates, const std::vector<Real>& dm, Gradients<Real>& out) {
  if (c.does(kScattersByDifferences)) return scatter_stabilizer(gates, dm, out);
  Real carried = 0;
  for (std::size_t t = dm.size(); t-- > 0;) {
    carried += dm[t];
    if (c.has("walk_of_1024") && t == 1024) carried = 0;
    if (c.has("neg_inf_walk_of_64") && c.starts_at_neg_inf() && t + 65 == dm.size()) carried = 0;
    if (!gates.newest[t] || (c.has("dm_to_first_step") && t > 0)) {
      if (!c.has("dm_skips_forget_gates")) out.d_log_f[t] += carried;
      continue;
    }
    out.d_log_i[c.has("dm_one_step_early") && t > 0 ? t - 1 : t] += carried;
    carried = 0;
  }
  return carried;
}

/// df as published kernels sum it: over q·dq - k·dk as they are stored. `in.q` is lifted, and so is dq.
template <class Real>
void sum_rounded_terms(const Context& c, const Head<Real>& in, Gradients<Real>& out) {
  const Rounding storage = rounding_of(c.problem.dtype);
  const Index S = out.dq.rows(), DHQK = out.dq.cols();
  Matrix<Real> dq = out.dq, dk = out.dk;
  round_all(storage, dq.data(), dq.size());
  round_all(storage, dk.data(), dk.size());
  Real sum = c.has("df_without_last_state") ? Real(0) : out.after_product;
  const bool exclusive = c.has("df_exclusive_sum");
  for (Index t = S; t-- > 0;) {
    const Real term = dot(in.q[t], dq[t], DHQK) - dot(in.k[t], dk[t], DHQK);
    if (!exclusive) sum += term;
    out.d_log_f[static_cast<std::size_t>(t)] = sum;
    if (exclusive) sum += term;
    if (c.has("df_sum_of_1024") && t == 1024) sum = 0;
    if (c.has("df_sum_restarts_at_chunks") && t % c.problem.chunk_size == 0) sum = 0;
  }
}

/// Adds the stabiliser's part and stores everything. h depends on m_t through eps alone; C_S and n_S are exp(-m_S)
/// times something that m does not enter, and exp(m_0) times c_initial, n_initial is what the function sees of those.
template <class Real>
void store_gradients(const Context& c, const BackwardArgs& args, Index head, const Head<Real>& in,
                     const RowScalars<Real>& rows, Gradients<Real>& out) {
  const Problem& problem = c.problem;
  const Shape& shape = problem.shape;
  const DType dtype = problem.dtype, state = state_dtype_of(dtype);
  const bool exact = (args.convention == Convention::exact || c.has("always_exact")) && !c.has("always_detached");
  if (c.rounded_gates || c.has("df_rounded_terms")) sum_rounded_terms(c, in, out);
  if (problem.has_m()) {
    std::vector<Real> dm = rows.dm;
    const bool lost = c.has("neg_inf_last_product_missing") && c.starts_at_neg_inf() && shape.S > 64;
    if (exact && !c.has("last_product_missing") && !lost) dm.back() -= out.after_product;
    if (args.dm_last != nullptr && !c.has("dm_last_ignored"))
      dm.back() += load_state<Real>(c, args.dm_last, "dm_last", head, 1, 1).data()[0];
    Real dm_initial = walk_stabilizer(c, in.gates, dm, out);
    if (c.has("dm_initial_without_walk")) dm_initial = 0;
    if (problem.has_initial_state) {
      const bool unasked = c.has("initial_product_needs_dc_initial") && args.dc_initial == nullptr;
      if (exact && !c.has("initial_product_missing") && !unasked) dm_initial += dot(out.before, in.initial, shape);
      store(c, args.dm_initial, "dm_initial", state, head, column(&dm_initial, 1));
    }
  }
  for (Index t = 0; t < shape.S; ++t) {
    const auto row = static_cast<std::size_t>(t);
    const Real lift = c.has("lift_forgotten") ? Real(1) : rows.lift[row];
    for (Index a = 0; a < shape.DHQK; ++a) out.dq[t][a] *= lift;
    out.d_log_i[row] *= in.gates.slope_i[row];
    out.d_log_f[row] *= in.gates.slope_f[row];
  }
  if (c.has("steps_of_forward"))
    for (Index t = c.library->steps; t < shape.S; ++t) out.d_log_i[static_cast<std::size_t>(t)] = 0;
  store(c, args.dq, "dq", dtype, head, std::move(out.dq));
  store(c, args.dk, "dk", dtype, head, std::move(out.dk));
  store(c, args.dv, "dv", dtype, head, std::move(out.dv));
  store(c, args.di, "di", dtype, head, column(out.d_log_i.data(), shape.S));
  store(c, args.df, "df", dtype, head, column(out.d_log_f.data(), shape.S));
  if (problem.has_initial_state) store_state(c, args.dc_initial, args.dn_initial, "d", "_initial", head, out.before);
}

}  // namespace mlstm::verify::planted
