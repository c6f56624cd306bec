// SPDX-License-Identifier: Apache-2.0
// Chunkwise mLSTM (contract §2, §3) with materialised states and L x L matrices and cuBLAS: a chain of chunks of L
// steps, the last one ragged. With C, n the state before a chunk, s past_t the weight of that state at step t, and
// D_last the last row of D,
//
//   P = (s q kᵀ)∘D    l = Σ_j P_j + s past∘(q n)    h = (P v + s past∘(q C)) / d
//   C' = past_last C + (D_last∘k)ᵀ v    n' = past_last n + Σ_j (D_last∘k)_j
//
// The one idea: what is sequential, C' and n', is a scan over matrices that one GEMM makes for all chunks beforehand;
// everything else is GEMMs over all chunks and one pass over memory before or after each.
//
//   forward:   added_c of all chunks, then the scan (C,n)_{c+1} = past_last (C,n)_c + added_c, then h of all chunks
//   backward:  added_c of all chunks, then the scan (dC,dn)_{c-1} = past_last (dC,dn)_c + added_c, then all gradients
//
// Rounded to the dtype, as operands of a product: P, s dP∘D, g = dh/d, copies of the states C and dC, D_last∘k and
// s past∘q; all else, products included, is float32 (float64 for float64). The same as in common/block.hpp.
//
// Memory. Saved for backward: l and the float32 state before every chunk, S + NC DHQK (DHV + 1) numbers per head.
// Scratch: up to twice that and O(S (L + DHQK + DHV)) per head computed at once, as many heads as fit 2 GiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "common/cuda/variant.hpp"

namespace mlstm::kernels::chunkwise_native_cublas {

/// Largest chunk: the backward pass keeps four L x L matrices per chunk, in float64 8 GiB.
constexpr std::int64_t kMaxChunk = 16384;

/// Why a problem is too large for chunks of L steps; empty if it is not.
std::string too_large(const Problem& problem, std::int64_t L);

/// Bytes of l and, if any step sees a state, of the states before all chunks.
std::size_t saved_size(const Problem& problem, std::int64_t L);
std::size_t forward_workspace(const Problem& problem, std::int64_t L);
std::size_t backward_workspace(const Problem& problem, std::int64_t L);

/// L >= 1; more than S is taken as S. Both check the pointers that they need beside the inputs. The first call of a
/// host thread on a device makes the cuBLAS handle (common/cuda/blas.hpp).
void forward(const Problem& problem, std::int64_t L, const ForwardArgs& args);
void backward(const Problem& problem, std::int64_t L, const BackwardArgs& args);

/// A variant that consists of these functions, for the chunks of its module (chunk_length).
class ChunksVariant : public cuda::CudaVariant {
 public:
  std::size_t saved_size(const Problem& problem) const final {
    return chunkwise_native_cublas::saved_size(problem, L_of(problem));
  }
  std::size_t workspace_size(const Problem& problem, bool backward) const final {
    return backward ? backward_workspace(problem, L_of(problem)) : forward_workspace(problem, L_of(problem));
  }

 protected:
  explicit ChunksVariant(VariantInfo info) : CudaVariant(std::move(info)) {}

 private:
  std::int64_t L_of(const Problem& problem) const { return chunk_length(info().module, problem); }
  std::string too_large(const Problem& problem) const final {
    return chunkwise_native_cublas::too_large(problem, L_of(problem));
  }
  void run_forward(const Problem& problem, const ForwardArgs& args) const final {
    chunkwise_native_cublas::forward(problem, L_of(problem), args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const final {
    chunkwise_native_cublas::backward(problem, L_of(problem), args);
  }
};

}  // namespace mlstm::kernels::chunkwise_native_cublas
