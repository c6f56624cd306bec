// SPDX-License-Identifier: Apache-2.0
// Parallel formulation: the whole sequence as S x S matrices, m_t as the maximum of a row (contract §3).
#pragma once

#include "mlstm/reference/block.hpp"

namespace mlstm::reference {

/// m_t = max_j logD_tj, the newest j winning ties, m_0 being the oldest candidate.
template <class T>
void stabilizer_from_rows(const Head<T>& head, const Block<T>& block, Forward<T>& fw) {
  fw.m(0) = head.m_0;
  for (Index t = 0; t < block.n; ++t) {
    if (head.problem.gate == Gate::sigmoid) {
      fw.m(t + 1) = T(0.0);
      continue;
    }
    T m = block.carried(t) + head.m_0;
    for (Index j = 0; j <= t; ++j) {
      const T candidate = block.D(t, j);
      if (candidate >= m) {
        m = candidate;
        fw.newest[static_cast<std::size_t>(t)] = j == t;
      }
    }
    fw.m(t + 1) = m;
  }
}

template <class T>
Block<T> whole_sequence(const Head<T>& head, const Forward<T>& fw) {
  Block<T> block;
  log_gates(fw, 0, head.problem.S, block);
  return block;
}

template <class T>
Forward<T> parallel_forward(const Head<T>& head, const Frozen<T>* frozen, T* h) {
  Forward<T> fw;
  start_forward(head, h, fw);
  Block<T> block = whole_sequence(head, fw);
  stabilizer_from_rows(head, block, fw);
  finish_stabilizer(fw, frozen);
  gate_products(head, fw, block);
  const State<T> initial{head.C_0, head.n_0};
  block_outputs(head, block, initial, frozen, fw);
  block_state(head, block, initial, fw.last);
  return fw;
}

template <class T>
HeadGradients<T> parallel_backward(const Head<T>& head, const Forward<T>& fw, const Cotangents<T>& cotangents,
                                   const std::vector<Wanted<T>>& wanted) {
  HeadGradients<T> result = start_gradients(head, fw, cotangents, wanted);
  Block<T> block = whole_sequence(head, fw);
  gate_products(head, fw, block);
  block_backward(head, fw, cotangents.h, State<T>{head.C_0, head.n_0}, block, result);
  finish_gradients(head, fw, cotangents, result);
  return result;
}

}  // namespace mlstm::reference
