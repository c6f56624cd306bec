// SPDX-License-Identifier: Apache-2.0
// A chain of chunks of L steps between materialised states, every product a cuBLAS GEMM batched over all chunks of a
// group of heads. The parallel variant is one chunk, the chunkwise variant any number of them. With C, n the state
// before a chunk, s past_t the weight of that state at step t, and D_last the last row of D,
//
//   P = (s q kᵀ)∘D    l = Σ_j P_j + s past∘(q n)    h = (P v + s past∘(q C)) / d
//   C' = past_last C + (D_last∘k)ᵀ v    n' = past_last n + Σ_j (D_last∘k)_j
//
// The one idea: what is sequential, C' and n', is a scan over matrices that one GEMM makes for all chunks beforehand;
// everything else is GEMMs over all chunks and one pass over memory before or after each.
//
// Rounded to the dtype, as operands of a product: P, s dP∘D, g = dh/d, copies of the states C and dC, D_last∘k and
// s past∘q; all else, products included, is float32 (float64 for float64). The same as in common/block.hpp.
//
// Arrays of a group: rows (chunks, L, width) and matrices (chunks, L, leading), where widths and leading dimensions are
// multiples of 8 elements, so that cuBLAS finds 16-bit operands aligned. Padding is zero wherever a product reads it:
// columns beyond DHQK and DHV, and rows of the last chunk beyond S.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "mlstm/kernel.hpp"

namespace mlstm::kernels::cuda::blas_chunks {

/// Largest chunk: the backward pass keeps four L x L matrices per chunk, in float64 8 GiB.
constexpr std::int64_t kMaxChunk = 16384;

/// Why a problem is too large for chunks of L steps; empty if it is not.
std::string too_large(const Problem& problem, std::int64_t L);

/// Bytes of l and, if any step sees a state, of the states before all chunks.
std::size_t saved_size(const Problem& problem, std::int64_t L);
std::size_t forward_workspace(const Problem& problem, std::int64_t L);
std::size_t backward_workspace(const Problem& problem, std::int64_t L);

/// L >= 1; more than S is taken as S. Both check the pointers that they need. The first call of a host thread on a
/// device makes the cuBLAS handle (common/cuda/blas.hpp).
void forward(const Problem& problem, std::int64_t L, const ForwardArgs& args);
void backward(const Problem& problem, std::int64_t L, const BackwardArgs& args);

}  // namespace mlstm::kernels::cuda::blas_chunks
