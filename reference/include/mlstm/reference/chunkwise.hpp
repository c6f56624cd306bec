// SPDX-License-Identifier: Apache-2.0
// Chunkwise formulation: chunks of L steps in parallel form, joined by the state between them. States entering the
// chunks are kept for the backward pass: memory O(S (DHQK + DHV) + S/L DHQK DHV), never S x S.
#pragma once

#include <algorithm>

#include "mlstm/reference/block.hpp"

namespace mlstm::reference {

template <class T>
Forward<T> chunkwise_forward(const Head<T>& head, const Frozen<T>* frozen, bool save, T* h) {
  const HeadProblem& p = head.problem;
  Forward<T> fw;
  start_forward(head, h, fw);
  scan_stabilizer(head, fw);
  finish_stabilizer(fw, frozen);
  Block<T> block;
  State<T> entering{head.C_0, head.n_0}, leaving;
  for (Index first = 0; first < p.S; first += p.L) {
    log_gates(fw, first, std::min(p.L, p.S - first), block);
    gate_products(head, fw, block);
    block_outputs(head, block, entering, frozen, fw);
    block_state(head, block, entering, leaving);
    std::swap(entering, leaving);
    if (save) fw.entering.push_back(std::move(leaving));
  }
  fw.last = std::move(entering);
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
