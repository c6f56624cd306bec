// SPDX-License-Identifier: Apache-2.0
// Forward and backward pass of the tensor-core variants, which differ in how a chunk becomes h, dq, dk and dv:
//
//   forward   gates -> states entering each chunk -> h of every chunk
//   backward  rows (1/d, γ, g = dh/d) -> cotangents of the states leaving each chunk -> dq, dk, dv of every chunk
//             -> d_log_i, d_log_f -> stabiliser, di, df
//
// Every step is one or two launches over all heads and chunks; only the states go from chunk to chunk.
#pragma once

#include <string>

#include "common/cuda/chunk_gate_sums.hpp"
#include "common/cuda/chunk_states.hpp"
#include "common/cuda/chunk_tiles.hpp"
#include "common/cuda/gates.hpp"

namespace mlstm::kernels::cuda {

/// Head dimensions of the tiled variants: rows are copied in pieces of 16 bytes.
constexpr SizeLimit kTiledDimension{8, 512, 8};
/// Steps: counted in 32 bits within a head.
constexpr SizeLimit kTiledLength{1, 2147483584, 1};
/// Fewest columns of a result that a block makes.
constexpr int kTileColumns = 64;

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
  TileDots dots;
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
    scratch.dots = TileDots::take<T>(arena, sizes);
    scratch.dc_initial = arena.take<float>(problem.has_initial_state ? rows * sizes.DHV : 0);
    scratch.dn_initial = arena.take<float>(problem.has_initial_state ? rows : 0);
    scratch.after_product = arena.take<float>(sizes.heads);
    scratch.before_product = arena.take<float>(sizes.heads);
    return scratch;
  }
};

/// How one variant computes a chunk. Results that are null are not wanted.
template <class T>
struct ChunkKernels {
  void (*h)(const Problem&, const ChunkSizes&, const T* q, const T* k, const T* v, const Gates&, const ChunkStates<T>&,
            T* h, float* l, cudaStream_t);
  /// Fills dots and diagonal too.
  void (*gradients)(const ChunkSizes&, const TileInputs<T>&, const TileDots& dots, float* diagonal, T* dq, T* dk, T* dv,
                    cudaStream_t);
};

/// Bytes of SavedChunks, and of ChunkScratch; chunks of L steps.
std::size_t chunk_saved_size(const Problem& problem, std::int64_t L);
std::size_t chunk_workspace_size(const Problem& problem, std::int64_t L, bool backward);

/// Why a launch would have too many blocks; empty if none has. Chunks of L steps.
std::string too_many_blocks(const Problem& problem, std::int64_t L);

/// Throw std::invalid_argument for null or unaligned tensors.
template <class T>
void chunk_forward(const Problem& problem, std::int64_t L, const ForwardArgs& args, const ChunkKernels<T>& kernels);
template <class T>
void chunk_backward(const Problem& problem, std::int64_t L, const BackwardArgs& args, const ChunkKernels<T>& kernels);

/// h and gradients tile by tile (common/cuda/chunk_tiles.hpp), for chunks of any length.
template <class T>
ChunkKernels<T> tiled_kernels();

}  // namespace mlstm::kernels::cuda
