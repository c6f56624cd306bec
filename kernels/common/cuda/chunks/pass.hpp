// SPDX-License-Identifier: Apache-2.0
// What the tensor-core variants do before and after their own kernels. A variant's forward and backward read
//
//   forward   begin_forward: gates -> states entering each chunk       then the variant: h and l of every chunk
//   backward  begin_backward: rows (1/d, γ, g = dh/d) -> cotangents of the states leaving each chunk
//             then the variant: dq, dk, dv, row dots and diagonal gate sums of every chunk
//             finish_backward: d_log_i, d_log_f -> stabiliser, di, df
//
// Every step is one or two launches over all heads and chunks; only the states go from chunk to chunk.
#pragma once

#include <cstddef>
#include <string>

#include "common/cuda/chunks/gate_sums.hpp"
#include "common/cuda/chunks/sizes.hpp"
#include "common/cuda/chunks/states.hpp"
#include "common/cuda/gates.hpp"

namespace mlstm::kernels::cuda {

/// What forward leaves for backward: O(S) and one state a chunk.
template <class T>
struct SavedChunks {
  Gates gates;
  float* l;               ///< (heads,S): s n_t.q_t
  ChunkStates<T> states;  ///< entering each chunk
  float *c_end, *n_end;   ///< the last state, for the cotangent of its stabiliser

  static SavedChunks take(Arena& arena, const Problem& problem, const ChunkSizes& sizes) {
    const std::int64_t rows = sizes.heads * sizes.DHQK;
    SavedChunks saved;
    saved.gates = Gates::take(arena, problem, sizes.L);
    saved.l = arena.take<float>(sizes.heads * sizes.S);
    saved.states = ChunkStates<T>::take(arena, sizes);
    saved.c_end = arena.take<float>(rows * sizes.DHV);
    saved.n_end = arena.take<float>(rows);
    return saved;
  }
};

/// Scratch of a backward pass.
template <class T>
struct ChunkScratch {
  RowCotangents rows;
  T* g;  ///< (heads,S,DHV)
  ChunkStates<T> d_states;
  float *crossing, *diagonal, *d_log_i, *d_log_f;
  RowDots dots;
  float *dc_initial, *dn_initial, *after_product, *before_product;

  static ChunkScratch take(Arena& arena, const Problem& problem, const ChunkSizes& sizes) {
    const std::int64_t steps = sizes.heads * sizes.S, rows = sizes.heads * sizes.DHQK;
    ChunkScratch scratch;
    scratch.rows = RowCotangents::take(arena, problem);
    scratch.g = arena.take<T>(steps * sizes.DHV);
    scratch.d_states = ChunkStates<T>::take(arena, sizes);
    scratch.crossing = arena.take<float>(sizes.heads * sizes.chunks * state_blocks<T>(sizes));
    scratch.diagonal = arena.take<float>(steps);
    scratch.d_log_i = arena.take<float>(steps);
    scratch.d_log_f = arena.take<float>(steps);
    scratch.dots = RowDots::take<T>(arena, sizes);
    scratch.dc_initial = arena.take<float>(problem.has_initial_state ? rows * sizes.DHV : 0);
    scratch.dn_initial = arena.take<float>(problem.has_initial_state ? rows : 0);
    scratch.after_product = arena.take<float>(sizes.heads);
    scratch.before_product = arena.take<float>(sizes.heads);
    return scratch;
  }
};

/// Bytes of SavedChunks, and of ChunkScratch; chunks of L steps.
std::size_t chunk_saved_size(const Problem& problem, std::int64_t L);
std::size_t chunk_workspace_size(const Problem& problem, std::int64_t L, bool backward);

/// Why a launch would have too many blocks; empty if none has. Chunks of L steps.
std::string too_many_blocks(const Problem& problem, std::int64_t L);

/// What h is made from, and where it goes.
template <class T>
struct ForwardPass {
  ChunkSizes sizes;
  const T *q, *k, *v;
  Gates gates;
  ChunkStates<T> states;  ///< entering each chunk; not to be read where a chunk begins empty
  T* h;
  float* l;  ///< (heads,S): s n_t.q_t, for backward
  cudaStream_t stream;
};

/// What dq, dk and dv are made from, and where they go.
template <class T>
struct BackwardPass {
  ChunkSizes sizes;
  GradientInputs<T> in;
  // To be filled:
  RowDots dots;
  float* diagonal;  ///< (heads,S): see gate_sums.hpp
  T *dq, *dk, *dv;  ///< null: not wanted
  cudaStream_t stream;
  // For finish_backward:
  SavedChunks<T> saved;
  ChunkScratch<T> scratch;
  std::int64_t crossing_parts;
  const float *dc_initial, *dn_initial;  ///< null without initial states
};

/// L >= 1 steps a chunk. Throw std::invalid_argument for null or unaligned tensors.
template <class T>
ForwardPass<T> begin_forward(const Problem& problem, std::int64_t L, const ForwardArgs& args);
template <class T>
BackwardPass<T> begin_backward(const Problem& problem, std::int64_t L, const BackwardArgs& args);
template <class T>
void finish_backward(const Problem& problem, const BackwardArgs& args, const BackwardPass<T>& pass);

}  // namespace mlstm::kernels::cuda
