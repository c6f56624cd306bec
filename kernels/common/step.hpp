// SPDX-License-Identifier: Apache-2.0
// One step of the recurrence (contract §2), fused: the state is read and written once.
#pragma once

#include "common/head.hpp"

namespace mlstm::kernels {

/// In place C <- F C + I k vᵀ, n <- F n + I k, row by row of C; on the way numerator (1,DHV) <- Cᵀ (s q).
/// Returns l = n.(s q).
template <class Real>
Real fused_step(const HeadInputs<Real>& in, Index t, State<Real>& state, Matrix<Real>& numerator) {
  const Real F = in.gates.F(t), I = in.gates.I(t);
  Real l = 0;
  numerator.setZero(1, state.C.cols());
  for (Index a = 0; a < state.n.size(); ++a) {
    const Real key = I * in.k(t, a), query = in.scale * in.q(t, a);
    state.C.row(a) = F * state.C.row(a) + key * in.v.row(t);
    state.n[a] = F * state.n[a] + key;
    numerator += query * state.C.row(a);
    l += query * state.n[a];
  }
  return l;
}

}  // namespace mlstm::kernels
