// SPDX-License-Identifier: Apache-2.0
// A block of n consecutive steps of one head as matrix products: the steps see each other through P and the past
// through one state. The parallel variant is one block, the chunkwise variant a chain of blocks.
//
//   P = (s q kᵀ)∘D    l = Σ_j P_j + past∘(s q n)    numerator = P v + past∘(s q C)
//   C' = past_last C + (D_last∘k)ᵀ v,  n' = past_last n + (D_last∘k)ᵀ 1         (the last row of D, of past)
//
// Rounded to the storage type, as operands of a matrix product: P, s dP∘D, g = dh/d, the states C and dC, and the rows
// of k and q that are scaled on their way into a state. All else, products included, is `Real`. Products that give rows
// of t read dh as it is stored and are divided by d afterwards; only sums over t (dv, dC) read g. P and g are rounded
// apart, because with input gates far below 0, P/d underflows in float16 where neither of them does.
#pragma once

#include "common/head.hpp"

namespace mlstm::kernels {

/// Inputs of a block: q, k (n,DHQK), v (n,DHV), decays, and the state before it.
template <class Real>
struct Block {
  MatrixRef<Real> q, k, v;
  const Decays<Real>& decays;
  const State<Real>& before;
  Real scale;
};

template <class Real>
struct BlockOutput {
  Matrix<Real> numerator;  ///< (n,DHV): d_t h_t
  Vector<Real> l;          ///< (n)
};

template <class N>
BlockOutput<RealOf<N>> block_forward(const Block<RealOf<N>>& block);

/// The state after the block.
template <class N>
State<RealOf<N>> block_state(const Block<RealOf<N>>& block);

/// dh (n,DHV); inverse = 1/d, gamma (n), which belong to queries that may be lifted; after: cotangent of the state
/// after the block.
template <class N>
StepGradients<RealOf<N>> block_backward(const Block<RealOf<N>>& block, MatrixRef<RealOf<N>> dh,
                                        const Vector<RealOf<N>>& inverse, const Vector<RealOf<N>>& gamma,
                                        const State<RealOf<N>>& after);

}  // namespace mlstm::kernels
