// SPDX-License-Identifier: Apache-2.0
// One kernel for h, dq, dk and dv: each is a product of weights between the steps of a chunk with rows of an input,
// plus what comes through the state at the chunk's border (contract §3; D, past from common/cuda/gates.hpp):
//
//          out_r = Σ_c W_rc X_c  +  weight_r (A_r State)         W_rc = s (A_r.B_c) D
//
//          rows r   A   B   X   columns c      State                    weight_r
//   h      t        q   k   v   j <= t         C before the chunk       s past_t      then divided by d_t
//   dq     t        dh  v   k   j <= t         Cᵀ, + γ_t n              s past_t      A_r.B_c / d_t + γ_t for A_r.B_c
//   dk     j        v   dh  q   t >= j         dCᵀ after it, + dn       D_last,j      A_r.B_c / d_t + γ_t for A_r.B_c
//   dv     j        k   q   g   t >= j         dC after it              D_last,j
//
// A block of 128 threads makes 64 rows x up to 128 columns of the result; it goes over the 64-column tiles of W of its
// rows, tile by tile as flash attention does: W is never in global memory. A and B are read in slabs of 64 columns, so
// that their width is not limited by shared memory. Shared memory: 65 KiB in 16 bits, 105 KiB in float32.
// Rounded to the dtype: W as an operand, C and dC as operands (they are stored so), g = dh/d where a product sums over
// t (elsewhere dh enters as it is stored and 1/d scales the result), results. All else float32.
#pragma once

#include "common/cuda/chunk_sizes.hpp"
#include "common/cuda/types.cuh"

namespace mlstm::kernels::cuda {

/// Columns of the result that a block makes: 64 up to a width of 64 and for float32, else 128.
template <class T>
int columns_of_block(int width) {
  return sizeof(T) == 2 && width > 64 ? 128 : 64;
}
template <class T>
int blocks_across(int width) {
  return (width - 1) / columns_of_block<T>(width) + 1;
}

/// h (heads,S,DHV) and l (heads,S). `states` is not read where a chunk begins empty.
template <class T>
void tiles_h(const Problem& problem, const ChunkSizes& sizes, const T* q, const T* k, const T* v, const Gates& gates,
             const ChunkStates<T>& states, T* h, float* l, cudaStream_t stream);

/// Inner products of rows of q with dq, and of k with dk, as they grow while pairs of steps are added; one part for
/// each block across DHQK: (parts, heads, S).
struct TileDots {
  int parts;
  float* q_before;  ///< pairs of t with what lies before its tile, in its chunk or before that
  float* k_state;   ///< pairs of j with what comes after its chunk
  float* k_beyond;  ///< ... and with later tiles of its chunk
  float* k_all;     ///< ... and with later steps of its tile, and itself: di but for the stabiliser's part
  /// (parts, heads, NC, tiles, tiles): [I][i] for i > I: pairs of the steps of tile i with what lies before tile I. One
  /// number for every pair of tiles of a chunk: at DHQK = 128, less memory than q up to chunks of 262,144 steps.
  float* q_over;

  template <class T>
  static TileDots take(Arena& arena, const ChunkSizes& sizes) {
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
struct TileInputs {
  const T *q, *k, *v, *dh;
  const T* g;  ///< dh / d, rounded: only what sums over t reads it
  Gates gates;
  const float *inverse, *gamma;     ///< 1 / d and γ of each row
  ChunkStates<T> states, d_states;  ///< entering each chunk; cotangents of the states that leave it
};

template <class T>
void tiles_dq(const ChunkSizes& sizes, const TileInputs<T>& in, const TileDots& dots, T* dq, cudaStream_t stream);
template <class T>
void tiles_dk(const ChunkSizes& sizes, const TileInputs<T>& in, const TileDots& dots, T* dk, cudaStream_t stream);
template <class T>
void tiles_dv(const ChunkSizes& sizes, const TileInputs<T>& in, T* dv, cudaStream_t stream);

}  // namespace mlstm::kernels::cuda
