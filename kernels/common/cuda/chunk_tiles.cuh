// SPDX-License-Identifier: Apache-2.0
// The kernel of common/cuda/chunk_tiles.hpp, included by the files that instantiate it.
#pragma once

#include "common/cuda/chunk_tiles.hpp"
#include "common/cuda/launch.hpp"
#include "common/cuda/tile.cuh"

namespace mlstm::kernels::cuda {

/// Starts copying 64 rows of the common dimension, and the result's columns from `column0` on, of a State (DHQK,DHV) as
/// the second operand of a product: State itself over DHQK (h, dv), or its transpose over DHV (dq, dk).
template <bool kOverDHQK, int kColumns, class T>
__device__ void load_state_slab(T* to, const ChunkSizes& sizes, const T* state, int slab, int column0) {
  if constexpr (kOverDHQK)
    load_tile(to, kTile, kColumns, state + static_cast<std::int64_t>(slab) * kTile * sizes.DHV + column0, sizes.DHV,
              sizes.DHQK - slab * kTile, sizes.DHV - column0);
  else
    load_tile(to, kColumns, kTile, state + static_cast<std::int64_t>(column0) * sizes.DHV + slab * kTile, sizes.DHV,
              sizes.DHQK - column0, sizes.DHV - slab * kTile);
}

enum class Product { h, dq, dk, dv };

template <class T>
struct TileArguments {
  ChunkSizes sizes;
  const T *A, *B, *X;
  const T* rows;  ///< dq: q, dk: k; for inner products with the result
  const T* state;
  const float* n_state;
  const float* gamma;
  Gates gates;
  DenominatorRule rule;
  T* out;
  float* l;
  float *dots_state, *dots_before, *dots_all;
};

template <class T, Product kProduct, int NT>
struct TileKernel {
  static constexpr bool kPast = kProduct == Product::h || kProduct == Product::dq;  ///< columns are earlier steps
  static constexpr bool kOverDHQK = kProduct == Product::h || kProduct == Product::dv;
  static constexpr bool kGamma = kProduct == Product::dq || kProduct == Product::dk;
  static constexpr int kColumns = 16 * NT;
  static constexpr int kStride = stride_of<T>(kTile), kWideStride = stride_of<T>(kColumns);
  static constexpr Layout kStateLayout = kOverDHQK ? Layout::straight : Layout::transposed;

  // Shared memory: two slabs of A | two slabs of B or of the state, X behind the slabs of B | W | scalars of rows.
  static constexpr int kSlab = kTile * kStride;
  static constexpr int kStateSlab = kOverDHQK ? kTile * kWideStride : kColumns * kStride;
  static constexpr int kX = kTile * kWideStride;
  static constexpr int kRegion = 2 * kStateSlab > 2 * kSlab + kX ? 2 * kStateSlab : 2 * kSlab + kX;
  static constexpr int kFloats = 8 * kTile;
  static constexpr std::size_t kBytes = (3 * kSlab + kRegion) * sizeof(T) + kFloats * sizeof(float);
};

template <class T, Product kProduct, int NT>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2) tiles_kernel(const TileArguments<T> args) {
  using K = TileKernel<T, kProduct, NT>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  T* const A = reinterpret_cast<T*>(shared_memory);
  T* const B = A + 2 * K::kSlab;
  T* const X = B + 2 * K::kSlab;
  T* const W = B + K::kRegion;
  float* const row_term = reinterpret_cast<float*>(W + K::kSlab);
  float* const column_term = row_term + kTile;
  float* const row_gamma = column_term + kTile;
  float* const column_gamma = row_gamma + kTile;
  float* const row_weight = column_gamma + kTile;
  float* const sums = row_weight + kTile;
  float* const partial = sums + kTile;  // 2 x 64

  // Which rows: the tiles with the most columns first.
  const ChunkSizes& sizes = args.sizes;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t all_chunks = sizes.heads * sizes.chunks;
  const std::int64_t order = blockIdx.x / all_chunks, head_chunk = blockIdx.x % all_chunks;
  const std::int64_t tile = K::kPast ? sizes.tiles - 1 - order : order;
  const std::int64_t head = head_chunk / sizes.chunks, chunk = head_chunk % sizes.chunks;
  const std::int64_t begin = chunk * sizes.L;
  const std::int64_t n = sizes.S - begin < sizes.L ? sizes.S - begin : sizes.L;
  const std::int64_t row0 = tile * kTile;
  if (row0 >= n) return;
  const int valid_rows = static_cast<int>(n - row0 < kTile ? n - row0 : kTile);
  const int depth = K::kOverDHQK ? sizes.DHQK : sizes.DHV, width = K::kOverDHQK ? sizes.DHV : sizes.DHQK;
  const int column0 = static_cast<int>(blockIdx.y) * K::kColumns, valid_columns = width - column0;
  const std::int64_t step0 = head * sizes.S + begin;  // the chunk's first step among those of all heads

  const T* const A_rows = args.A + (step0 + row0) * depth;
  const double* const a = args.gates.a + step0;
  const double* const M = args.gates.M + step0;
  const auto load_a = [&](int slab, T* to) {
    load_tile(to, kTile, kTile, A_rows + slab * kTile, depth, valid_rows, depth - slab * kTile);
  };

  // Through the state.
  const bool nothing_there =
      K::kPast ? sizes.starts_empty && chunk == 0 : sizes.ends_unwanted && chunk == sizes.chunks - 1;
  double row_a_or_M = 0;
  if (thread < kTile) {
    const bool valid = thread < valid_rows;
    row_a_or_M = valid ? (K::kPast ? M : a)[row0 + thread] : 0;
    const double exponent = K::kPast ? args.gates.entering[head_chunk] - row_a_or_M : row_a_or_M - M[n - 1];
    row_weight[thread] = valid ? expf(static_cast<float>(exponent)) * (K::kPast ? sizes.scale : 1.0f) : 0.0f;
    if constexpr (kProduct == Product::dq) row_gamma[thread] = valid ? args.gamma[step0 + row0 + thread] : 0.0f;
  }
  Accumulator<NT> acc;
  float l_state = 0;  // h: s n.q of row thread / 2, half of the columns
  if (!nothing_there) {
    const T* const state = args.state + head_chunk * sizes.DHQK * sizes.DHV;
    const float* const n_state = args.n_state + head_chunk * sizes.DHQK;
    const auto load_state = [&](int slab, T* to) {
      load_state_slab<K::kOverDHQK, K::kColumns>(to, sizes, state, slab, column0);
    };
    multiply_slabs<T, K::kStateLayout, NT>(
        acc, depth, A, K::kSlab, B, K::kStateSlab, K::kOverDHQK ? K::kWideStride : K::kStride, load_a, load_state,
        [&](int slab, const T* slab_of_A) {
          if constexpr (kProduct == Product::h) {
            const T* const row = slab_of_A + thread / 2 * K::kStride;
            for (int at = thread % 2; at < kTile && slab * kTile + at < depth; at += 2)
              l_state += to_real(row[at]) * n_state[slab * kTile + at];
          }
        });
    acc.for_each([&](float& x, int row, int column) {
      if constexpr (kProduct == Product::dq)
        if (column < valid_columns) x += row_gamma[row] * n_state[column0 + column];
      if constexpr (kProduct == Product::dk)
        if (column < valid_columns) x += n_state[column0 + column];
      x *= row_weight[row];
    });
  }

  const auto write_dots = [&](float* to) {
    row_dots(acc, args.rows + (step0 + row0) * width + column0, width, valid_rows, valid_columns, partial, sums);
    if (thread < valid_rows)
      to[static_cast<std::int64_t>(blockIdx.y) * sizes.heads * sizes.S + step0 + row0 + thread] = sums[thread];
  };
  if constexpr (K::kGamma) write_dots(args.dots_state);

  // Within the chunk, the tile on the diagonal last.
  const std::int64_t tiles = (n - 1) / kTile + 1;
  float l_parts[2][2] = {};
  for (std::int64_t step = K::kPast ? tile : tiles - 1 - tile; step >= 0; --step) {
    const bool diagonal = step == 0;
    if constexpr (K::kGamma)
      if (diagonal) write_dots(args.dots_before);
    const std::int64_t other = K::kPast ? tile - step : tile + step, other0 = other * kTile;
    const int valid_others = static_cast<int>(n - other0 < kTile ? n - other0 : kTile);
    // Exponents relative to the first M of the later tile, where both terms are small if the weight is not.
    const double origin = M[K::kPast ? row0 : other0];
    if (thread < kTile) {
      row_term[thread] = static_cast<float>((row_a_or_M - origin) * kLog2E);
    } else {
      const int column = thread - kTile;
      const bool valid = column < valid_others;
      column_term[column] = valid ? static_cast<float>(((K::kPast ? a : M)[other0 + column] - origin) * kLog2E) : 0.0f;
      if constexpr (kProduct == Product::dk) column_gamma[column] = valid ? args.gamma[step0 + other0 + column] : 0.0f;
    }
    load_tile(X, kTile, K::kColumns, args.X + (step0 + other0) * width + column0, width, valid_others, valid_columns);
    Accumulator<4> weights;
    const T* const B_rows = args.B + (step0 + other0) * depth;
    multiply_slabs<T, Layout::transposed, 4>(
        weights, depth, A, K::kSlab, B, K::kSlab, K::kStride, load_a,
        [&](int slab, T* to) {
          load_tile(to, kTile, kTile, B_rows + slab * kTile, depth, valid_others, depth - slab * kTile);
        },
        [](int, const T*) {});
#pragma unroll
    for (int mt = 0; mt < 2; ++mt)
#pragma unroll
      for (int nt = 0; nt < 4; ++nt)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = Lane::row(mt, e / 2), column = Accumulator<4>::column(nt) + e % 2;
          bool counts = row < valid_rows && column < valid_others;
          if (diagonal) counts = counts && (K::kPast ? column <= row : column >= row);
          float x = weights.x[mt][nt][e];
          if constexpr (kProduct == Product::dq) x += row_gamma[row];
          if constexpr (kProduct == Product::dk) x += column_gamma[column];
          const float exponent = K::kPast ? column_term[column] - row_term[row] : row_term[row] - column_term[column];
          x = counts ? sizes.scale * x * exp2f(exponent) : 0.0f;
          if constexpr (kProduct == Product::h) l_parts[mt][e / 2] += x;
          W[row * K::kStride + column] = from_real<T>(x);
        }
    __syncthreads();
    multiply<T, Layout::straight, Layout::straight, NT>(acc, W, K::kStride, X, K::kWideStride);
    __syncthreads();
  }

  if constexpr (kProduct == Product::h) {
    sum_rows(l_parts, partial, sums);
    l_state += __shfl_xor_sync(kAllLanes, l_state, 1);
    __syncthreads();
    if (thread % 2 == 0) {
      const int row = thread / 2;
      const std::int64_t at = step0 + row0 + row;
      float inverse = 0;
      if (row < valid_rows) {
        const float l = sums[row] + row_weight[row] * l_state;
        inverse = denominator(args.rule, l, static_cast<float>(args.gates.m[at])).inverse;
        if (blockIdx.y == 0) args.l[at] = l;
      }
      row_term[row] = inverse;
    }
    __syncthreads();
    acc.for_each([&](float& x, int row, int) { x *= row_term[row]; });
  }
  if constexpr (kProduct == Product::dk) write_dots(args.dots_all);
  if (args.out == nullptr) return;
  store_tile(acc, B, args.out + (step0 + row0) * width + column0, width, valid_rows, valid_columns);
}

template <class T, Product kProduct>
void launch_tiles(const char* name, const TileArguments<T>& args, cudaStream_t stream) {
  const ChunkSizes& sizes = args.sizes;
  const int width = kProduct == Product::h || kProduct == Product::dv ? sizes.DHV : sizes.DHQK;
  const dim3 grid = grid_of(sizes.heads * sizes.chunks * sizes.tiles, blocks_across<T>(width));
  if constexpr (sizeof(T) == 2)
    if (columns_of_block<T>(width) == 128) {
      launch(name, tiles_kernel<T, kProduct, 8>, grid, kThreads, TileKernel<T, kProduct, 8>::kBytes, stream, args);
      return;
    }
  launch(name, tiles_kernel<T, kProduct, 4>, grid, kThreads, TileKernel<T, kProduct, 4>::kBytes, stream, args);
}

}  // namespace mlstm::kernels::cuda
