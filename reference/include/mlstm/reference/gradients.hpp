// SPDX-License-Identifier: Apache-2.0
// What the hand-written backward passes of all formulations share (contract §3; derivation in reference/README.md):
// the cotangents of numerator and l_t, and the path of dm_t back to the gate that m_t comes from.
#pragma once

#include "mlstm/reference/gates.hpp"

namespace mlstm::reference {

/// Gradients that are wanted in one convention.
template <class T>
struct Wanted {
  Convention convention{};
  Gradients<T> gradients;
};

/// Gradients that depend on the convention.
template <class T>
struct ConventionGradients {
  Wanted<T> wanted;
  Vector<T> gamma;    ///< cotangent of l_t (S)
  Result<T> dq, dk;   ///< S x DHQK
  Vector<T> di, dlf;  ///< with respect to li, lf (S); after finish_gradients di and df of the inputs
  Vector<T> dn;       ///< running cotangent of n; at the end dn_initial
  T dm_initial{};
};

/// Gradients of one head. dv and dC are the same in both conventions: d_t does not depend on v or C.
template <class T>
struct HeadGradients {
  Vector<T> dh_h;  ///< <dh_t, h_t> (S)
  Result<T> dv;    ///< S x DHV
  Matrix<T> dC;    ///< running cotangent of C; at the end dc_initial
  std::vector<ConventionGradients<T>> conventions;
};

template <class T>
T dot(const Vector<T>& a, const Vector<T>& b) {
  return a.cwiseProduct(b).sum();
}

/// g_t = dh_t / d_t of rows [first, first + n), the cotangent of the numerator.
template <class T>
void numerator_cotangent(const Head<T>& head, const Forward<T>& fw, const T* dh, Index first, Index n, Matrix<T>& g) {
  set_size(g, n, head.problem.DHV);
  if (!dh) {
    g.setZero();
    return;
  }
  const ConstMatrixMap<T> rows(dh + first * head.problem.DHV, n, head.problem.DHV);
  g = fw.inverse_d.segment(first, n).asDiagonal() * rows;
}

/// Sets gamma and the cotangents of the last state, and makes room for the rest; di and dlf are zero.
template <class T>
HeadGradients<T> start_gradients(const Head<T>& head, const Forward<T>& fw, const Cotangents<T>& cotangents,
                                 const std::vector<Wanted<T>>& wanted) {
  const HeadProblem& p = head.problem;
  HeadGradients<T> result;
  result.dh_h.setZero(p.S);
  if (cotangents.h) {
    result.dh_h = ConstMatrixMap<T>(cotangents.h, p.S, p.DHV).cwiseProduct(*fw.h).rowwise().sum();
  }
  T* dv = nullptr;
  for (const Wanted<T>& w : wanted) dv = dv ? dv : w.gradients.v;
  result.dv = Result<T>(dv, p.S, p.DHV);
  result.dC.setZero(p.DHQK, p.DHV);
  if (cotangents.c_last) result.dC = ConstMatrixMap<T>(cotangents.c_last, p.DHQK, p.DHV);

  for (const Wanted<T>& w : wanted) {
    ConventionGradients<T>& c = result.conventions.emplace_back();
    c.wanted = w;
    c.gamma.setZero(p.S);
    if (w.convention == Convention::exact && p.normalized) {
      for (Index t = 0; t < p.S; ++t) {
        const bool through_l = fw.l(t) != T(0.0) && DenominatorSides<T>(fw.l(t), fw.m(t + 1)).above_floor();
        if (!through_l) continue;
        c.gamma(t) = (fw.l(t) > T(0.0) ? T(-result.dh_h(t)) : T(result.dh_h(t))) * T(fw.inverse_d(t));
      }
    }
    c.dq = Result<T>(w.gradients.q, p.S, p.DHQK);
    c.dk = Result<T>(w.gradients.k, p.S, p.DHQK);
    c.di.setZero(p.S);
    c.dlf.setZero(p.S);
    c.dn.setZero(p.DHQK);
    if (cotangents.n_last) c.dn = ConstVectorMap<T>(cotangents.n_last, p.DHQK);
  }
  return result;
}

/// Sends dm_t along the maximum that defined m_t, and turns gradients of lf, li into those of f, i.
template <class T>
void finish_gradients(const Head<T>& head, const Forward<T>& fw, const Cotangents<T>& cotangents,
                      HeadGradients<T>& gradients) {
  const HeadProblem& p = head.problem;
  for (ConventionGradients<T>& c : gradients.conventions) {
    const bool exact = c.wanted.convention == Convention::exact;
    if (p.gate == Gate::exp) {
      T carry = cotangents.m_last ? *cotangents.m_last : T(0.0);
      if (exact && cotangents.c_last) {
        carry -= ConstMatrixMap<T>(cotangents.c_last, p.DHQK, p.DHV).cwiseProduct(fw.last.C).sum();
      }
      if (exact && cotangents.n_last) {
        carry -= ConstVectorMap<T>(cotangents.n_last, p.DHQK).cwiseProduct(fw.last.n).sum();
      }
      for (Index t = p.S - 1; t >= 0; --t) {
        if (exact) carry -= T(gradients.dh_h(t)) * T(p.eps) * T(fw.inverse_d(t));
        if (fw.newest[static_cast<std::size_t>(t)]) {
          c.di(t) += carry;
          carry = T(0.0);
        } else {
          c.dlf(t) += carry;
        }
      }
      c.dm_initial = carry;
      if (exact) c.dm_initial += gradients.dC.cwiseProduct(head.C_0).sum() + dot<T>(c.dn, head.n_0);
    } else {
      for (Index t = 0; t < p.S; ++t) c.di(t) *= sigmoid(T(-head.i(t)));
    }
    for (Index t = 0; t < p.S; ++t) c.dlf(t) *= sigmoid(T(-head.f(t)));
  }
}

}  // namespace mlstm::reference
