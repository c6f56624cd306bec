// SPDX-License-Identifier: Apache-2.0
// Forward and hand-written backward of one head: computes what a HeadRequest asks for.
#pragma once

#include <initializer_list>

#include "mlstm/reference/forward.hpp"

namespace mlstm::reference {

template <class T>
bool any_wanted(const Gradients<T>& g) {
  return g.q || g.k || g.v || g.i || g.f || g.c_initial || g.n_initial || g.m_initial;
}

template <class T>
HeadGradients<T> backward(const Head<T>& head, const Forward<T>& fw, const Cotangents<T>& cotangents,
                          const std::vector<Wanted<T>>& wanted) {
  switch (head.problem.formulation) {
    case Module::recurrent:
      return recurrent_backward(head, fw, cotangents, wanted);
    case Module::parallel:
      return parallel_backward(head, fw, cotangents, wanted);
    case Module::chunkwise:
      break;
  }
  return chunkwise_backward(head, fw, cotangents, wanted);
}

/// True without NaN and infinity: either times zero is NaN, and a sum is vectorised where a test per element is not.
template <class Derived>
bool is_finite(const Eigen::MatrixBase<Derived>& values) {
  return (values.array() * 0.0).sum() == 0.0;
}

/// True if the range of float64 was enough: nothing overflowed, no denominator fell below the normal numbers.
inline bool in_range(const Forward<double>& fw) {
  return is_finite(*fw.h) && is_finite(fw.l) && is_finite(fw.last.C) && is_finite(fw.last.n) &&
         is_finite(fw.m.tail(fw.m.size() - 1)) && (fw.inverse_d.array() < 1e300).all();
}

inline bool in_range(const HeadGradients<double>& gradients) {
  if (!is_finite(*gradients.dv) || !is_finite(gradients.dC)) return false;
  for (const ConventionGradients<double>& c : gradients.conventions) {
    const bool finite = is_finite(*c.dq) && is_finite(*c.dk) && is_finite(c.di) && is_finite(c.dlf) &&
                        is_finite(c.dn) && std::isfinite(c.dm_initial);
    if (!finite) return false;
  }
  return true;
}

template <class T, class Derived>
void copy_to(T* destination, const Eigen::MatrixBase<Derived>& source) {
  if (destination && destination != source.derived().data())
    Eigen::Map<Matrix<T>>(destination, source.rows(), source.cols()) = source;
}

template <class T>
void copy_outputs(const Head<T>& head, const Forward<T>& fw, const HeadRequest<T>& request) {
  const HeadProblem& p = head.problem;
  copy_to(request.outputs.c_last, fw.last.C);
  copy_to(request.outputs.n_last, fw.last.n);
  if (request.outputs.m_last) *request.outputs.m_last = fw.m_last;
  copy_to(request.intermediates.m, fw.m.tail(p.S));
  copy_to(request.intermediates.l, fw.l);
  if (request.intermediates.d) {
    for (Index t = 0; t < p.S; ++t) request.intermediates.d[t] = denominator(head, fw, t);
  }
}

template <class T>
void copy_gradients(const HeadGradients<T>& gradients, const ConventionGradients<T>& c) {
  const Gradients<T>& wanted = c.wanted.gradients;
  copy_to(wanted.v, *gradients.dv);
  copy_to(wanted.i, c.di);
  copy_to(wanted.f, c.dlf);
  copy_to(wanted.c_initial, gradients.dC);
  copy_to(wanted.n_initial, c.dn);
  if (wanted.m_initial) *wanted.m_initial = c.dm_initial;
}

/// Returns false, with the results undefined, if T is double and its range was not enough.
template <class T>
bool evaluate_head(const HeadProblem& problem, const Inputs<T>& inputs, const HeadRequest<T>& request) {
  const Head<T> head(problem, inputs);
  std::vector<Wanted<T>> wanted;
  if (any_wanted(request.exact)) wanted.push_back({Convention::exact, request.exact});
  if (any_wanted(request.detached)) wanted.push_back({Convention::detached, request.detached});

  Forward<T> fw = forward<T>(head, nullptr, !wanted.empty(), request.outputs.h);
  if constexpr (std::is_same_v<T, double>) {
    if (!in_range(fw)) return false;
  }
  copy_outputs(head, fw, request);
  if (wanted.empty()) return true;

  const HeadGradients<T> gradients = backward(head, fw, request.cotangents, wanted);
  if constexpr (std::is_same_v<T, double>) {
    if (!in_range(gradients)) return false;
  }
  for (const ConventionGradients<T>& c : gradients.conventions) copy_gradients(gradients, c);
  if (problem.formulation == Module::chunkwise) spare_states<T>() = std::move(fw.entering);
  return true;
}

}  // namespace mlstm::reference
