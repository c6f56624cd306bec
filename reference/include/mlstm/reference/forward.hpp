// SPDX-License-Identifier: Apache-2.0
// The forward pass of one head in any formulation.
#pragma once

#include "mlstm/reference/chunkwise.hpp"
#include "mlstm/reference/parallel.hpp"
#include "mlstm/reference/recurrent.hpp"

namespace mlstm::reference {

/// `frozen` (or null): m and 1/d taken as constants inside h, c_last and n_last; `save`: keep what backward needs;
/// `h` (or null): where the caller wants h.
template <class T>
Forward<T> forward(const Head<T>& head, const Frozen<T>* frozen = nullptr, bool save = false, T* h = nullptr) {
  switch (head.problem.formulation) {
    case Module::recurrent:
      return recurrent_forward(head, frozen, save, h);
    case Module::parallel:
      return parallel_forward(head, frozen, h);
    case Module::chunkwise:
      break;
  }
  return chunkwise_forward(head, frozen, save, h);
}

}  // namespace mlstm::reference
