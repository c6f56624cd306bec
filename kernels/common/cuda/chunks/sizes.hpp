// SPDX-License-Identifier: Apache-2.0
// Sizes that the tensor-core kernels pass around, and the arrays that they leave for each other.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/cuda/gates.hpp"

namespace mlstm::kernels::cuda {

/// A problem cut into chunks of L steps, and chunks into tiles of 64. S < 2^31 (heads x S may be more).
struct ChunkSizes {
  std::int64_t heads;
  int S, L, chunks, tiles;  ///< tiles: of a full chunk
  int DHQK, DHV;
  float scale;         ///< DHQK^(-1/2)
  bool starts_empty;   ///< no initial state
  bool ends_unwanted;  ///< no cotangent of the last state (backward)

  static ChunkSizes of(const Problem& problem, std::int64_t L) {
    const Shape& shape = problem.shape;
    L = L < shape.S ? L : shape.S;
    const std::int64_t chunks = chunks_of(problem, L);
    const auto size = [](std::int64_t n) { return static_cast<int>(n); };
    return {shape.heads(),
            size(shape.S),
            size(L),
            size(chunks),
            size((L - 1) / 64 + 1),
            size(shape.DHQK),
            size(shape.DHV),
            1 / std::sqrt(static_cast<float>(shape.DHQK)),
            !problem.has_initial_state,
            false};
  }
};

/// States at the borders of chunks, stabilised as the recurrence has them there.
template <class T>
struct ChunkStates {
  T* C;      ///< (heads,NC,DHQK,DHV): entering each chunk, as an operand of products
  float* n;  ///< (heads,NC,DHQK)

  static ChunkStates take(Arena& arena, const ChunkSizes& sizes) {
    const std::int64_t states = sizes.heads * sizes.chunks * sizes.DHQK;
    return {arena.take<T>(states * sizes.DHV), arena.take<float>(states)};
  }
};

/// Columns of the result that a block makes: 64 up to a width of 64 and for float32, else 128.
template <class T>
int columns_of_block(int width) {
  return sizeof(T) == 2 && width > 64 ? 128 : 64;
}
template <class T>
int blocks_across(int width) {
  return (width - 1) / columns_of_block<T>(width) + 1;
}

/// Inner products of rows of q with dq, and of k with dk, as they grow while pairs of steps are added; one part for
/// each block across DHQK: (parts, heads, S).
struct RowDots {
  int parts;
  float* q_before;  ///< pairs of t with what lies before its tile, in its chunk or before that
  float* k_state;   ///< pairs of j with what comes after its chunk
  float* k_beyond;  ///< ... and with later tiles of its chunk
  float* k_all;     ///< ... and with later steps of its tile, and itself: di but for the stabiliser's part
  /// (parts, heads, NC, tiles, tiles): [I][i] for i > I: pairs of the steps of tile i with what lies before tile I. One
  /// number for every pair of tiles of a chunk: at DHQK = 128, less memory than q up to chunks of 262,144 steps.
  float* q_over;

  template <class T>
  static RowDots take(Arena& arena, const ChunkSizes& sizes) {
    const int parts = blocks_across<T>(sizes.DHQK);
    const std::int64_t n = parts * sizes.heads * sizes.S;
    return {parts,
            arena.take<float>(n),
            arena.take<float>(n),
            arena.take<float>(n),
            arena.take<float>(n),
            arena.take<float>(parts * sizes.heads * sizes.chunks * sizes.tiles * sizes.tiles)};
  }
};

/// What dq, dk and dv read.
template <class T>
struct GradientInputs {
  const T *q, *k, *v, *dh;
  const T* g;  ///< dh / d, rounded: only what sums over t reads it
  Gates gates;
  const float *inverse, *gamma;     ///< 1 / d and γ of each row
  ChunkStates<T> states, d_states;  ///< entering each chunk; cotangents of the states that leave it
};

}  // namespace mlstm::kernels::cuda
