// SPDX-License-Identifier: Apache-2.0
// What the variants read and write for one head, whatever their formulation.
#pragma once

#include <cmath>

#include "common/denominator.hpp"
#include "common/gates.hpp"
#include "mlstm/kernel.hpp"

namespace mlstm::kernels {

/// Stabilised state, or its cotangent: C (DHQK,DHV), n (DHQK).
template <class Real>
struct State {
  Matrix<Real> C;
  Vector<Real> n;

  Real dot(const State& other) const { return C.cwiseProduct(other.C).sum() + n.dot(other.n); }
};

/// Loads a state given by two tensors; zero if `given` is false.
template <class Real>
State<Real> load_state(const Shape& shape, bool given, const void* c, const void* n, std::int64_t head) {
  if (!given) return {Matrix<Real>::Zero(shape.DHQK, shape.DHV), Vector<Real>::Zero(shape.DHQK)};
  return {load<Real, Real>(c, "c_initial", head, shape.DHQK, shape.DHV),
          load<Real, Real>(n, "n_initial", head, shape.DHQK, 1)};
}

/// Inputs of one head, in `Real`; the values are those of the storage type.
template <class Real>
struct HeadInputs {
  Matrix<Real> q, k, v;
  Gates<Real> gates;
  State<Real> initial;  ///< zero if none is given
  Real scale;           ///< s = DHQK^(-1/2)
};

/// `Args` is ForwardArgs or BackwardArgs.
template <class N, class Args, class Real = RealOf<N>>
HeadInputs<Real> load_inputs(const Problem& problem, const Args& args, std::int64_t head) {
  using T = typename N::Storage;
  const Shape& shape = problem.shape;
  return {load<T, Real>(args.q, "q", head, shape.S, shape.DHQK),
          load<T, Real>(args.k, "k", head, shape.S, shape.DHQK),
          load<T, Real>(args.v, "v", head, shape.S, shape.DHV),
          scan_gates<N>(problem, args, head),
          load_state<Real>(shape, problem.has_initial_state, args.c_initial, args.n_initial, head),
          1 / std::sqrt(static_cast<Real>(shape.DHQK))};
}

template <class N, class Real = RealOf<N>>
void store_last_state(const Problem& problem, const ForwardArgs& args, std::int64_t head, const State<Real>& last,
                      const Gates<Real>& gates) {
  store<Real>(args.c_last, head, last.C);
  store<Real>(args.n_last, head, last.n);
  if (problem.has_m()) store<Real>(args.m_last, head, gates.m.template tail<1>());
}

/// Cotangents of one head and what follows from them row by row.
template <class Real>
struct HeadCotangents {
  Matrix<Real> dh;
  State<Real> last;
  RowCotangents<Real> rows;
};

/// l (S) is what forward saved. dh.h uses the h that was stored, as FlashAttention does: in 16 bits its rounding is one
/// error per row, shared by all gradients of the row.
template <class N, class Real = RealOf<N>>
HeadCotangents<Real> load_cotangents(const Problem& problem, const BackwardArgs& args, std::int64_t head,
                                     const Vector<Real>& l, const Vector<Real>& m) {
  using T = typename N::Storage;
  const Shape& shape = problem.shape;
  HeadCotangents<Real> out;
  out.dh = Matrix<Real>::Zero(shape.S, shape.DHV);
  Vector<Real> dh_h = Vector<Real>::Zero(shape.S);
  if (args.dh != nullptr) {
    out.dh = load<T, Real>(args.dh, "dh", head, shape.S, shape.DHV);
    if (args.convention == Convention::exact)
      dh_h = out.dh.cwiseProduct(load<T, Real>(args.h, "h", head, shape.S, shape.DHV)).rowwise().sum();
  }
  out.last = load_state<Real>(shape, false, nullptr, nullptr, head);
  if (args.dc_last != nullptr) out.last.C = load<Real, Real>(args.dc_last, "dc_last", head, shape.DHQK, shape.DHV);
  if (args.dn_last != nullptr) out.last.n = load<Real, Real>(args.dn_last, "dn_last", head, shape.DHQK, 1);
  out.rows = row_cotangents<T>(problem, args.convention, l, m, dh_h);
  return out;
}

/// Gradients of n consecutive steps, all m and d held constant but for the cotangent gamma of l. With queries that are
/// lifted (RowCotangents), dq is that of those.
template <class Real>
struct StepGradients {
  Matrix<Real> dq, dk, dv;
  Vector<Real> d_log_i, d_log_f;  ///< (n)
  State<Real> before;             ///< cotangent of the state before the first step
  Real after_product = 0;         ///< <dC, C> + <dn, n> after the last step

  /// Room for the gradients of all steps of a head.
  static StepGradients of(const Shape& shape) {
    return {Matrix<Real>(shape.S, shape.DHQK),
            Matrix<Real>(shape.S, shape.DHQK),
            Matrix<Real>(shape.S, shape.DHV),
            Vector<Real>(shape.S),
            Vector<Real>(shape.S),
            {},
            0};
  }
};

/// Adds the stabiliser's part to the gradients of all S steps and stores everything.
///
/// h depends on m_t through eps alone, whichever branch the denominator took; C_S and n_S are exp(-m_S) times something
/// that m does not enter, and exp(m_0) times c_initial, n_initial is what the function sees of them.
template <class N, class Real = RealOf<N>>
void store_gradients(const Problem& problem, const BackwardArgs& args, std::int64_t head, const Gates<Real>& gates,
                     const RowCotangents<Real>& rows, StepGradients<Real>& gradients) {
  using T = typename N::Storage;
  const bool exact = args.convention == Convention::exact;
  if (problem.has_m()) {
    Vector<Real> dm = rows.dm;
    Real& dm_last = dm[dm.size() - 1];
    if (exact) dm_last -= gradients.after_product;
    if (args.dm_last != nullptr) dm_last += load<Real, Real>(args.dm_last, "dm_last", head, 1, 1)(0, 0);
    Vector<Real> dm_initial(1);
    dm_initial[0] = walk_stabilizer(gates, dm, gradients.d_log_i, gradients.d_log_f);
    if (problem.has_initial_state) {
      if (exact)
        dm_initial[0] +=
            gradients.before.dot(load_state<Real>(problem.shape, true, args.c_initial, args.n_initial, head));
      store<Real>(args.dm_initial, head, dm_initial);
    }
  }
  store<T>(args.dq, head, rows.lift.asDiagonal() * gradients.dq);
  store<T>(args.dk, head, gradients.dk);
  store<T>(args.dv, head, gradients.dv);
  store<T>(args.di, head, gradients.d_log_i.cwiseProduct(gates.slope_i));
  store<T>(args.df, head, gradients.d_log_f.cwiseProduct(gates.slope_f));
  if (problem.has_initial_state) {
    store<Real>(args.dc_initial, head, gradients.before.C);
    store<Real>(args.dn_initial, head, gradients.before.n);
  }
}

}  // namespace mlstm::kernels
