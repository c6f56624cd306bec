// SPDX-License-Identifier: Apache-2.0
// Recurrent formulation: one step after another, C_t = F_t C_{t-1} + I_t k_t v_t^T (contract §2).
#pragma once

#include <algorithm>

#include "mlstm/reference/gradients.hpp"

namespace mlstm::reference {

/// F_t of 0-based step t; fw.m is shifted by one, so m(t) is the past and m(t + 1) the present.
template <class T>
T forget_factor(const Forward<T>& fw, Index t) {
  using std::exp;
  return exp(T(fw.lf(t) + fw.m(t) - fw.m(t + 1)));
}

/// I_t.
template <class T>
T input_factor(const Forward<T>& fw, Index t) {
  using std::exp;
  return exp(T(fw.li(t) - fw.m(t + 1)));
}

template <class T>
void recurrent_step(const Head<T>& head, const Forward<T>& fw, Index t, State<T>& state) {
  const T F = forget_factor(fw, t), I = input_factor(fw, t);
  const Vector<T> Ik = I * head.k.row(t).transpose();
  state.C *= F;
  state.C += Ik.lazyProduct(head.v.row(t));
  state.n *= F;
  state.n += Ik;
}

/// Steps between two saved states; the backward pass computes those in between again.
inline Index checkpoint_interval(Index S) {
  return std::max<Index>(1, static_cast<Index>(std::ceil(std::sqrt(static_cast<double>(S)))));
}

template <class T>
Forward<T> recurrent_forward(const Head<T>& head, const Frozen<T>* frozen, bool save, T* h) {
  const HeadProblem& p = head.problem;
  Forward<T> fw;
  start_forward(head, h, fw);
  scan_stabilizer(head, fw);
  finish_stabilizer(fw, frozen);
  const Index interval = checkpoint_interval(p.S);
  State<T> state{head.C_0, head.n_0};
  for (Index t = 0; t < p.S; ++t) {
    if (save && t % interval == 0) fw.entering.push_back(state);
    recurrent_step(head, fw, t, state);
    const Vector<T> sq = head.s * head.q.row(t).transpose();
    fw.l(t) = dot<T>(state.n, sq);
    set_product((*fw.h).row(t), sq.transpose(), state.C);
    normalize_rows(head, fw, frozen, t, 1);
  }
  fw.last = std::move(state);
  return fw;
}

/// dC_t = s q_t g_t^T + F_{t+1} dC_{t+1}, and everything else from it.
template <class T>
HeadGradients<T> recurrent_backward(const Head<T>& head, const Forward<T>& fw, const Cotangents<T>& cotangents,
                                    const std::vector<Wanted<T>>& wanted) {
  const HeadProblem& p = head.problem;
  HeadGradients<T> result = start_gradients(head, fw, cotangents, wanted);
  Matrix<T>& dC = result.dC;
  const Index interval = checkpoint_interval(p.S);
  std::vector<State<T>> states;
  Vector<T> Cg(p.DHQK), dCv(p.DHQK);
  Matrix<T> g;
  for (Index segment = static_cast<Index>(fw.entering.size()) - 1; segment >= 0; --segment) {
    const Index first = segment * interval, end = std::min(first + interval, p.S);
    states.assign(1, fw.entering[static_cast<std::size_t>(segment)]);
    for (Index t = first; t < end; ++t) {
      states.push_back(states.back());
      recurrent_step(head, fw, t, states.back());
    }
    for (Index t = end - 1; t >= first; --t) {
      const State<T>&before = states[static_cast<std::size_t>(t - first)],
            &now = states[static_cast<std::size_t>(t - first + 1)];
      const T F = forget_factor(fw, t), I = input_factor(fw, t);
      const Vector<T> sq = head.s * head.q.row(t).transpose(), k = head.k.row(t).transpose();
      numerator_cotangent(head, fw, cotangents.h, t, 1, g);
      dC += sq.lazyProduct(g.row(0));
      set_product(Cg, now.C, g.row(0).transpose());
      set_product(dCv, dC, head.v.row(t).transpose());
      set_product((*result.dv).row(t), Vector<T>(I * k).transpose(), dC);
      const T through_C = dC.cwiseProduct(before.C).sum();
      for (ConventionGradients<T>& c : result.conventions) {
        c.dn += c.gamma(t) * sq;
        auto dk = (*c.dk).row(t);
        (*c.dq).row(t) = head.s * (Cg + c.gamma(t) * now.n).transpose();
        dk = I * (dCv + c.dn).transpose();
        c.di(t) = dk.transpose().cwiseProduct(k).sum();
        c.dlf(t) = F * (through_C + dot<T>(c.dn, before.n));
        c.dn *= F;
      }
      dC *= F;
    }
  }
  finish_gradients(head, fw, cotangents, result);
  return result;
}

}  // namespace mlstm::reference
