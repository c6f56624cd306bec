// SPDX-License-Identifier: Apache-2.0
// Everything that depends on the gates alone: stabiliser, decays, and the way of a stabiliser's cotangent.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "common/numeric.hpp"

namespace mlstm::kernels {

/// log(sigmoid(x)); neither overflows nor underflows.
template <class Real>
Real log_sigmoid(Real x) {
  return std::min(x, Real(0)) - std::log1p(std::exp(-std::abs(x)));
}

template <class Real>
Real sigmoid(Real x) {
  const Real e = std::exp(-std::abs(x));
  return (x < 0 ? e : Real(1)) / (1 + e);
}

/// The gates of one head, each vector of length S.
template <class Real>
struct Gates {
  Vector<Real> log_f, log_i;          ///< logσ(f_t), and i_t or logσ(i_t)
  Vector<Real> slope_f, slope_i;      ///< their derivatives by f_t and i_t
  Vector<Real> m;                     ///< m_t = max(logσ(f_t) + m_{t-1}, i_t); 0 with the sigmoid gate
  std::vector<unsigned char> newest;  ///< whether that maximum is i_t (which wins a tie)
  Real m_initial = 0;                 ///< m_0

  Real m_before(Index t) const { return t == 0 ? m_initial : m[t - 1]; }
  /// F_t and I_t of the recurrence.
  Real F(Index t) const { return std::exp(log_f[t] + m_before(t) - m[t]); }
  Real I(Index t) const { return std::exp(log_i[t] - m[t]); }
};

/// Scans the gates of one head. `Args` is ForwardArgs or BackwardArgs.
template <class N, class Args, class Real = RealOf<N>>
Gates<Real> scan_gates(const Problem& problem, const Args& args, std::int64_t head) {
  const Index S = problem.shape.S;
  const Vector<Real> i = load<typename N::Storage, Real>(args.i, "i", head, S, 1);
  const Vector<Real> f = load<typename N::Storage, Real>(args.f, "f", head, S, 1);
  Gates<Real> gates;
  gates.log_f = f.unaryExpr([](Real x) { return log_sigmoid(x); });
  gates.slope_f = f.unaryExpr([](Real x) { return sigmoid(-x); });
  gates.m = Vector<Real>::Zero(S);
  gates.newest.assign(static_cast<std::size_t>(S), 0);
  if (problem.gate == Gate::sigmoid) {
    gates.log_i = i.unaryExpr([](Real x) { return log_sigmoid(x); });
    gates.slope_i = i.unaryExpr([](Real x) { return sigmoid(-x); });
    return gates;
  }
  gates.log_i = i;
  gates.slope_i = Vector<Real>::Ones(S);
  if (problem.has_initial_state)
    gates.m_initial = load<Real, Real>(args.m_initial, "m_initial", head, 1, 1)(0, 0);
  else if (problem.stabilizer_init == StabilizerInit::neg_inf)
    gates.m_initial = -std::numeric_limits<Real>::infinity();
  for (Index t = 0; t < S; ++t) {
    const Real past = gates.log_f[t] + gates.m_before(t);
    const bool newest = gates.log_i[t] >= past;
    gates.newest[static_cast<std::size_t>(t)] = newest;
    gates.m[t] = newest ? gates.log_i[t] : past;
  }
  return gates;
}

/// How much of each input, and of the state before the block, is left at each step of a block of n steps.
template <class Real>
struct Decays {
  Matrix<Real> D;     ///< (n,n), lower triangle: D_tj = exp(Σ_{r=j+1..t} logσ(f_r) + log_i_j - m_t), 0 above
  Vector<Real> past;  ///< (n): exp(Σ_{r≤t} logσ(f_r) + m_before - m_t), sums within the block
};

/// Every sum starts at its own j and grows with t: no difference of long cumulative sums, in which small forget gates
/// would drown. It rounds as the scan of m does, so no exponent is above 0 and the one of the arg max is 0.
template <class Real>
Decays<Real> decays_of_block(const Gates<Real>& gates, Index begin, Index n) {
  Decays<Real> out{Matrix<Real>::Zero(n, n), Vector<Real>(n)};
  Eigen::Matrix<Real, 1, Eigen::Dynamic> log_D(n);
  Real log_past = gates.m_before(begin);
  for (Index t = 0; t < n; ++t) {
    const Real log_f = gates.log_f[begin + t], m = gates.m[begin + t];
    log_D.head(t).array() += log_f;
    log_D[t] = gates.log_i[begin + t];
    log_past += log_f;
    out.D.row(t).head(t + 1) = log_D.head(t + 1).unaryExpr([m](Real x) { return std::exp(x - m); });
    out.past[t] = std::exp(log_past - m);
  }
  return out;
}

/// Sends the cotangents dm (S) of the stabiliser to what each maximum took, adding to the cotangents of log_i and
/// log_f; returns what is left for m_0.
template <class Real>
Real walk_stabilizer(const Gates<Real>& gates, const Vector<Real>& dm, Vector<Real>& d_log_i, Vector<Real>& d_log_f) {
  Real carried = 0;
  for (Index t = dm.size(); t-- > 0;) {
    carried += dm[t];
    if (gates.newest[static_cast<std::size_t>(t)]) {
      d_log_i[t] += carried;
      carried = 0;
    } else {
      d_log_f[t] += carried;
    }
  }
  return carried;
}

}  // namespace mlstm::kernels
