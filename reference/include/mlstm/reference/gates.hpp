// SPDX-License-Identifier: Apache-2.0
// Elementwise parts that all formulations share: gates, stabiliser, denominator (contract §2).
#pragma once

#include "mlstm/reference/head.hpp"

namespace mlstm::reference {

/// log(sigmoid(x)) without overflow or cancellation.
template <class T>
T log_sigmoid(const T& x) {
  using std::exp, std::log1p;
  return x < T(0.0) ? T(x - log1p(T(exp(x)))) : T(-log1p(T(exp(T(-x)))));
}

/// 1 / (1 + exp(-x)), relatively accurate down to where it underflows.
template <class T>
T sigmoid(const T& x) {
  using std::exp;
  if (x < T(0.0)) {
    const T e = exp(x);
    return e / (T(1.0) + e);
  }
  return T(1.0) / (T(1.0) + T(exp(T(-x))));
}

/// Sets lf and li, and makes room for the rest; h goes to `h` unless null.
template <class T>
void start_forward(const Head<T>& head, T* h, Forward<T>& fw) {
  const HeadProblem& p = head.problem;
  fw.lf.resize(p.S);
  fw.li.resize(p.S);
  fw.m.resize(p.S + 1);
  fw.l.resize(p.S);
  fw.inverse_d.resize(p.S);
  fw.newest.assign(static_cast<std::size_t>(p.S), 0);
  fw.h = Result<T>(h, p.S, p.DHV);
  for (Index t = 0; t < p.S; ++t) {
    fw.lf(t) = log_sigmoid(T(head.f(t)));
    fw.li(t) = p.gate == Gate::exp ? T(head.i(t)) : log_sigmoid(T(head.i(t)));
  }
}

/// m_t = max(lf_t + m_{t-1}, li_t), the newest candidate winning ties; m = 0 with the sigmoid gate.
template <class T>
void scan_stabilizer(const Head<T>& head, Forward<T>& fw) {
  fw.m(0) = head.m_0;
  for (Index t = 0; t < head.problem.S; ++t) {
    if (head.problem.gate == Gate::sigmoid) {
      fw.m(t + 1) = T(0.0);
      continue;
    }
    const T past = fw.lf(t) + fw.m(t);
    fw.newest[static_cast<std::size_t>(t)] = fw.li(t) >= past;
    fw.m(t + 1) = fw.li(t) >= past ? T(fw.li(t)) : past;
  }
}

/// To be called once m is known: keeps m_S as the output and, if frozen, replaces m by the constants.
template <class T>
void finish_stabilizer(Forward<T>& fw, const Frozen<T>* frozen) {
  fw.m_last = fw.m(fw.m.size() - 1);
  if (frozen) fw.m = frozen->m;
}

/// The two sides of |l_t| >= exp(-m_t), both times exp(min(m_t, 0)), so that neither overflows.
template <class T>
struct DenominatorSides {
  DenominatorSides(const T& l, const T& m) {
    using std::abs, std::exp;
    const bool negative = m < T(0.0);
    factor = negative ? T(exp(m)) : T(1.0);
    floor = negative ? T(1.0) : T(exp(T(-m)));
    size = T(abs(l)) * factor;
  }
  bool above_floor() const { return size >= floor; }
  T factor, floor, size;
};

/// 1/d_t of rows [first, first + n) from l and m, and h = u/d, where h holds the numerators u on entry.
template <class T>
void normalize_rows(const Head<T>& head, Forward<T>& fw, const Frozen<T>* frozen, Index first, Index n) {
  for (Index t = first; t < first + n; ++t) {
    if (!head.problem.normalized) {
      fw.inverse_d(t) = T(1.0);
      continue;
    }
    if (frozen) {
      fw.inverse_d(t) = frozen->inverse_d(t);
    } else {
      const DenominatorSides<T> d(fw.l(t), fw.m(t + 1));
      fw.inverse_d(t) = d.factor / ((d.above_floor() ? d.size : d.floor) + T(head.problem.eps) * d.factor);
    }
    (*fw.h).row(t) *= T(fw.inverse_d(t));
  }
}

/// d_t itself; +inf where exp(-m_t) overflows.
template <class T>
T denominator(const Head<T>& head, const Forward<T>& fw, Index t) {
  using std::abs, std::exp;
  if (!head.problem.normalized) return T(1.0);
  const T size = abs(fw.l(t)), floor = exp(T(-fw.m(t + 1)));
  return (size >= floor ? size : floor) + T(head.problem.eps);
}

}  // namespace mlstm::reference
