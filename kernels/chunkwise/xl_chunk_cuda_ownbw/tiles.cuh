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

#include "common/cuda/chunks/pass.hpp"
#include "common/cuda/chunks/state_slab.cuh"
#include "common/cuda/launch.hpp"
#include "common/cuda/tile.cuh"

namespace mlstm::kernels::chunkwise_xl_chunk_cuda {

using namespace cuda;

enum class Product { h, dq, dk, dv };

template <class T>
struct TileArguments {
  ChunkSizes sizes;
  int across;  ///< blocks across the width of the result
  const T *A, *B, *X;
  const T* rows;  ///< dq: q, dk: k; for inner products with the result
  const T* state;
  const float* n_state;
  const float *inverse, *gamma;
  Gates gates;
  DenominatorRule rule;
  T* out;
  float* l;
  RowDots dots;
};

template <class T, Product kProduct, int NT>
struct TileKernel {
  static constexpr bool kPast = kProduct == Product::h || kProduct == Product::dq;  ///< columns are earlier steps
  static constexpr bool kOverDHQK = kProduct == Product::h || kProduct == Product::dv;
  static constexpr int kColumns = 16 * NT;
  static constexpr int kStride = stride_of<T>(kTile), kWideStride = stride_of<T>(kColumns);
  static constexpr Layout kStateLayout = kOverDHQK ? Layout::straight : Layout::transposed;

  // Shared memory: two slabs of A | two slabs of B or of the state, X behind the slabs of B | W | scalars of rows.
  static constexpr int kSlab = kTile * kStride;
  static constexpr int kStateSlab = kOverDHQK ? kTile * kWideStride : kColumns * kStride;
  static constexpr int kX = kTile * kWideStride;
  static constexpr int kRegion = 2 * kStateSlab > 2 * kSlab + kX ? 2 * kStateSlab : 2 * kSlab + kX;
  static constexpr int kFloats = 11 * kTile + 2;
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
  GateTerm* const row_term = reinterpret_cast<GateTerm*>(W + K::kSlab);
  GateTerm* const column_term = row_term + kTile;
  float* const inverse = reinterpret_cast<float*>(column_term + kTile);  // 1/d of the rows of h and dq, columns of dk
  float* const gamma = inverse + kTile;                                  // dq: γ d of the rows; dk: γ of the columns
  float* const row_weight = gamma + kTile;
  float* const sums = row_weight + kTile;
  float* const partial = sums + kTile;  // 2 x 64
  float* const totals = partial + 2 * kTile;

  // Which rows and columns: blocks that read the same chunk stand side by side, so that it is in the L2 cache for all
  // but the first; the tiles with the most columns of W first.
  const ChunkSizes& sizes = args.sizes;
  const int thread = static_cast<int>(threadIdx.x), part = static_cast<int>(blockIdx.x % args.across);
  const int order = static_cast<int>(blockIdx.x / args.across % sizes.tiles);
  const std::int64_t head_chunk = blockIdx.x / args.across / sizes.tiles;
  const int tile = K::kPast ? sizes.tiles - 1 - order : order;
  const int chunk = static_cast<int>(head_chunk % sizes.chunks);
  const int n = min(sizes.L, sizes.S - chunk * sizes.L), row0 = tile * kTile;
  if (row0 >= n) return;
  const int valid_rows = min(kTile, n - row0);
  const int depth = K::kOverDHQK ? sizes.DHQK : sizes.DHV, width = K::kOverDHQK ? sizes.DHV : sizes.DHQK;
  const int column0 = part * K::kColumns, valid_columns = width - column0;
  // the chunk's first step among those of all heads
  const std::int64_t step0 = head_chunk / sizes.chunks * sizes.S + chunk * sizes.L;

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
    const std::int64_t step = step0 + row0 + thread;
    row_a_or_M = valid ? (K::kPast ? M : a)[row0 + thread] : 0;
    row_weight[thread] = !valid ? 0.0f : K::kPast ? sizes.scale * args.gates.past[step] : args.gates.to_end[step];
    if constexpr (kProduct == Product::dq) {
      // 1/d is common to the row and multiplies the sums: they stay finite also where it is very large
      const float row_inverse = valid ? args.inverse[step] : 0.0f;
      inverse[thread] = row_inverse;
      gamma[thread] = row_inverse > 0 ? args.gamma[step] / row_inverse : 0.0f;
    }
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
        if (column < valid_columns) x += gamma[row] * n_state[column0 + column];
      if constexpr (kProduct == Product::dk)
        if (column < valid_columns) x += n_state[column0 + column];
      x *= row_weight[row];
    });
  }

  const auto dot_rows = [&] {  // sums[row]
    row_dots(acc, args.rows + (step0 + row0) * width + column0, width, valid_rows, valid_columns, partial, sums);
  };
  const auto row_sum = [&](int row) { return kProduct == Product::dq ? sums[row] * inverse[row] : sums[row]; };
  const auto write_dots = [&](float* to) {
    dot_rows();
    if (thread < valid_rows) to[part * sizes.heads * sizes.S + step0 + row0 + thread] = row_sum(thread);
  };
  if constexpr (kProduct == Product::dk) write_dots(args.dots.k_state);

  // Within the chunk, the tile on the diagonal last.
  const int tiles = (n - 1) / kTile + 1;
  float l_parts[2][2] = {};
  for (int step = K::kPast ? tile : tiles - 1 - tile; step >= 0; --step) {
    const bool diagonal = step == 0;
    if constexpr (kProduct == Product::dk)
      if (diagonal) write_dots(args.dots.k_beyond);
    if constexpr (kProduct == Product::dq) {
      if (diagonal) {
        write_dots(args.dots.q_before);
      } else {  // everything before the tile that comes now
        dot_rows();
        if (thread < kTile) {
          const float sum = warp_sum(row_sum(thread));
          if (thread % 32 == 0) totals[thread / 32] = sum;
        }
        __syncthreads();
        const std::int64_t chunk_part = part * sizes.heads * sizes.chunks + head_chunk;
        if (thread == 0)
          args.dots.q_over[(chunk_part * sizes.tiles + tile - step) * sizes.tiles + tile] = totals[0] + totals[1];
      }
    }
    const int other0 = (K::kPast ? tile - step : tile + step) * kTile, valid_others = min(kTile, n - other0);
    const double origin = M[K::kPast ? row0 : other0];
    if (thread < kTile) {
      row_term[thread] = GateTerm(row_a_or_M, origin);
    } else {
      const int column = thread - kTile;
      const bool valid = column < valid_others;
      column_term[column] = valid ? GateTerm((K::kPast ? a : M)[other0 + column], origin) : GateTerm();
      if constexpr (kProduct == Product::dk) {
        inverse[column] = valid ? args.inverse[step0 + other0 + column] : 0.0f;
        gamma[column] = valid ? args.gamma[step0 + other0 + column] : 0.0f;
      }
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
      for (int half = 0; half < 2; ++half) {
        const int row = Lane::row(mt, half);
        const GateTerm own_term = row_term[row];
        const float own_gamma = kProduct == Product::dq ? gamma[row] : 0.0f;
#pragma unroll
        for (int nt = 0; nt < 4; ++nt) {
          const int column = Accumulator<4>::column(nt);
          float pair[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            bool counts = row < valid_rows && column + e < valid_others;
            if (diagonal) counts = counts && (K::kPast ? column + e <= row : column + e >= row);
            float x = weights.x[mt][nt][2 * half + e];
            if constexpr (kProduct == Product::dq) x += own_gamma;
            if constexpr (kProduct == Product::dk) x = saturate<float>(x * inverse[column + e] + gamma[column + e]);
            const GateTerm other_term = column_term[column + e];
            const float D = K::kPast ? gate_weight(other_term, own_term) : gate_weight(own_term, other_term);
            x = counts ? sizes.scale * x * D : 0.0f;
            pair[e] = kProduct == Product::dk ? saturate<T>(x) : x;
          }
          if constexpr (kProduct == Product::h) l_parts[mt][half] += pair[0] + pair[1];
          store_pair(W + row * K::kStride + column, pair[0], pair[1]);
        }
      }
    __syncthreads();
    multiply<T, Layout::straight, Layout::straight, NT>(acc, W, K::kStride, X, K::kWideStride);
    __syncthreads();
  }

  if constexpr (kProduct == Product::h) {
    sum_rows(l_parts, partial, sums);
    l_state += __shfl_xor_sync(kAllLanes, l_state, 1);
    if (thread % 2 == 0) {
      const int row = thread / 2;
      const std::int64_t at = step0 + row0 + row;
      float row_inverse = 0;
      if (row < valid_rows) {
        const float l = sums[row] + row_weight[row] * l_state;
        row_inverse = denominator(args.rule, l, static_cast<float>(args.gates.m[at])).inverse;
        if (part == 0) args.l[at] = l;
      }
      inverse[row] = row_inverse;
    }
    __syncthreads();
  }
  if constexpr (kProduct == Product::h || kProduct == Product::dq)
    acc.for_each([&](float& x, int row, int) { x *= inverse[row]; });
  if constexpr (kProduct == Product::dk) write_dots(args.dots.k_all);
  if (args.out == nullptr) return;
  store_tile(acc, B, args.out + (step0 + row0) * width + column0, width, valid_rows, valid_columns);
}

template <class T, Product kProduct>
void launch_tiles(const char* name, TileArguments<T> args, cudaStream_t stream) {
  const ChunkSizes& sizes = args.sizes;
  const int width = kProduct == Product::h || kProduct == Product::dv ? sizes.DHV : sizes.DHQK;
  args.across = blocks_across<T>(width);
  const dim3 grid = grid_of(sizes.heads * sizes.chunks * sizes.tiles * args.across);
  if constexpr (sizeof(T) == 2)
    if (columns_of_block<T>(width) == 128) {
      launch(name, tiles_kernel<T, kProduct, 8>, grid, kThreads, TileKernel<T, kProduct, 8>::kBytes, stream, args);
      return;
    }
  launch(name, tiles_kernel<T, kProduct, 4>, grid, kThreads, TileKernel<T, kProduct, 4>::kBytes, stream, args);
}

}  // namespace mlstm::kernels::chunkwise_xl_chunk_cuda
