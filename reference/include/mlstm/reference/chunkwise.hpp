// SPDX-License-Identifier: Apache-2.0
// Chunkwise formulation: chunks of L steps in parallel form, joined by the state between them. States entering the
// chunks are kept for the backward pass: memory O(S (DHQK + DHV) + S/L DHQK DHV), never S x S.
#pragma once

#include <algorithm>

#include "mlstm/reference/block.hpp"

namespace mlstm::reference {

/// Memory for the states of a head, kept by the thread for its next head: new pages would cost a tenth of a head's
/// time.
template <class T>
std::vector<State<T>>& spare_states() {
  thread_local std::vector<State<T>> spare;
  return spare;
}

template <class T>
Forward<T> chunkwise_forward(const Head<T>& head, const Frozen<T>* frozen, bool save, T* h) {
  const HeadProblem& p = head.problem;
  Forward<T> fw;
  start_forward(head, h, fw);
  scan_stabilizer(head, fw);
  finish_stabilizer(fw, frozen);
  const Index chunks = (p.S + p.L - 1) / p.L;
  // all states at once, before the scratch memory of the products: they are large, and live as long as fw
  const std::size_t slots = save ? static_cast<std::size_t>(chunks) + 1 : 2;
  std::vector<State<T>> states = std::move(spare_states<T>());
  states.resize(slots);
  for (State<T>& state : states) set_size(state.C, p.DHQK, p.DHV);
  states[0] = {head.C_0, head.n_0};
  Block<T> block;
  for (Index chunk = 0; chunk < chunks; ++chunk) {
    const std::size_t at = static_cast<std::size_t>(chunk);
    const State<T>& entering = states[at % slots];
    const Index first = chunk * p.L;
    log_gates(fw, first, std::min(p.L, p.S - first), block);
    gate_products(head, fw, block);
    block_outputs(head, block, entering, frozen, fw);
    block_state(head, block, entering, states[(at + 1) % slots]);
  }
  fw.last = std::move(states[static_cast<std::size_t>(chunks) % slots]);
  if (save) fw.entering = std::move(states);
  return fw;
}

template <class T>
HeadGradients<T> chunkwise_backward(const Head<T>& head, const Forward<T>& fw, const Cotangents<T>& cotangents,
                                    const std::vector<Wanted<T>>& wanted) {
  const HeadProblem& p = head.problem;
  HeadGradients<T> result = start_gradients(head, fw, cotangents, wanted);
  Block<T> block;
  for (Index chunk = (p.S - 1) / p.L; chunk >= 0; --chunk) {
    const Index first = chunk * p.L;
    log_gates(fw, first, std::min(p.L, p.S - first), block);
    gate_products(head, fw, block);
    block_backward(head, fw, cotangents.h, fw.entering[static_cast<std::size_t>(chunk)], block, result);
  }
  finish_gradients(head, fw, cotangents, result);
  return result;
}

}  // namespace mlstm::reference
