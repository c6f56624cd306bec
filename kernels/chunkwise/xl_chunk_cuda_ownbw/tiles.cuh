// SPDX-License-Identifier: Apache-2.0
// One kernel for h, dq, dk and dv: each is a product of weights between the steps of a chunk with rows of an input,
// plus what comes through the state at the chunk's border (contract §3; D, past, D_last from common/cuda/gates.hpp):
//
//          out_r = Σ_c W_rc X_c  +  weight_r (A_r State)         W_rc = s (A_r.B_c) D
//
//          rows r   A   B   X   columns c      State                    weight_r
//   h      t        q   k   v   j <= t         C before the chunk       s past_t      then divided by d_t
//   dq     t        dh  v   k   j <= t         Cᵀ, + γ_t n              s past_t      A_r.B_c / d_t + γ_t for A_r.B_c
//   dk     j        v   dh  q   t >= j         dCᵀ after it, + dn       D_last,j      A_r.B_c / d_t + γ_t for A_r.B_c
//   dv     j        k   q   g   t >= j         dC after it              D_last,j
//
// Rounded to the dtype: W as an operand, C and dC as operands (they are stored so), g = dh/d where a product sums over
// t (elsewhere dh enters as it is stored and 1/d scales the result), results. All else float32. In dq, 1/d is common to
// the row, so it multiplies the sums and W holds A_r.B_c + γ_t d_t: one of the cures for a huge 1/d
// (kernels/README.md).
//
// Who owns what: a block of 128 threads makes 64 rows x up to 128 columns of the result; it goes over the 64-column
// tiles of W of its rows, tile by tile as flash attention does: W is never in global memory. A and B are read in slabs
// of 64 columns, so that their width is not limited by shared memory, of which Shared is 65 KiB in 16 bits, 105 KiB in
// float32.
#pragma once

#include "common/cuda/chunks/pass.hpp"
#include "common/cuda/chunks/state_slab.cuh"
#include "common/cuda/launch.hpp"
#include "common/cuda/tile.cuh"

namespace mlstm::kernels::chunkwise_xl_chunk_cuda {

using namespace cuda;

enum class Result { h, dq, dk, dv };

/// What the kernel has to know of a result beside its tensors.
struct Role {
  bool rows_are_t;  ///< rows t, columns j <= t, the state before the chunk; else rows j, columns t >= j, the one after
  bool over_DHQK;   ///< A and B are as wide as q, the result as v; else the other way round
  bool makes_l;     ///< l_t on the way, and what follows from it: division by d_t
  bool row_gamma;   ///< 1/d_t and γ_t belong to the rows
  bool column_gamma;  ///< ... to the columns
};

__host__ __device__ constexpr Role role_of(Result result) {
  constexpr Role roles[] = {
      // rows_are_t  over_DHQK  makes_l  row_gamma  column_gamma
      {true, true, true, false, false},    // h
      {true, false, false, true, false},   // dq
      {false, false, false, false, true},  // dk
      {false, true, false, false, false},  // dv
  };
  return roles[static_cast<int>(result)];
}

template <class T>
struct TileArguments {
  ChunkSizes sizes;
  int across;  ///< blocks across the width of the result
  const T *A, *B, *X;
  const T* rows;         ///< dq: q, dk: k; for inner products with the result
  const T* state;        ///< C, dC
  const float* n_state;  ///< n, dn
  const float *inverse, *gamma;
  Gates gates;
  DenominatorRule rule;
  T* out;  ///< null: not wanted
  float* l;
  RowDots dots;
};

/// One block at work. The kernel below calls the phases in order.
template <class T, Result kResult, int NT>
struct TileBlock {
  static constexpr Role kRole = role_of(kResult);
  static constexpr int kColumns = 16 * NT;
  static constexpr int kStride = stride_of<T>(kTile), kWideStride = stride_of<T>(kColumns);
  static constexpr Layout kStateLayout = kRole.over_DHQK ? Layout::straight : Layout::transposed;
  static constexpr int kSlab = kTile * kStride, kX = kTile * kWideStride;
  static constexpr int kStateStride = kRole.over_DHQK ? kWideStride : kStride;
  static constexpr int kStateSlab = kRole.over_DHQK ? kTile * kWideStride : kColumns * kStride;

  struct alignas(16) Shared {
    T A[2][kSlab];
    union {
      T state[2][kStateSlab];  ///< while the state is multiplied
      struct {
        T B[2][kSlab], X[kX];
      } tile;        ///< while a tile of W is made and multiplied
      T result[kX];  ///< on its way out
    };
    T W[kSlab];
    GateTerm row_term[kTile], column_term[kTile];  ///< of D
    float inverse[kTile];                          ///< 1/d_t, of rows or columns
    union {
      float gamma[kTile];    ///< γ_t of columns
      float gamma_d[kTile];  ///< γ_t d_t of rows
    };
    float state_weight[kTile];  ///< s past_t or D_last,j of rows
    float sums[kTile], partial[2 * kTile], totals[2];
  };

  /// The tile of columns whose turn it is.
  struct Columns {
    int tile, first, valid;  ///< first: from the chunk's first step
    bool diagonal;           ///< the rows' own steps, of which only some count
  };

  const TileArguments<T>& args;
  Shared& shared;
  int thread, part, tile, chunk;
  unsigned head_chunk;                ///< of all chunks of all heads; 32 bits, as registers are scarce
  std::int64_t step0;                 ///< the chunk's first step among those of all heads
  int steps, row0, valid_rows;        ///< of the chunk; of the block, from the chunk's first step
  int width, column0, valid_columns;  ///< of the result
  double row_value = 0;               ///< M_t or a_j of row `thread`
  Accumulator<NT> acc;
  float l_state = 0;         ///< s n_t.q_t through the state, of row thread / 2, half of the columns
  float l_parts[2][2] = {};  ///< Σ_j W_tj of this lane's rows

  /// Blocks that read the same chunk stand side by side, so that it is in the L2 cache for all but the first; the tiles
  /// with the most columns of W first.
  __device__ TileBlock(const TileArguments<T>& arguments, Shared& memory) : args(arguments), shared(memory) {
    const ChunkSizes& sizes = args.sizes;
    thread = static_cast<int>(threadIdx.x), part = static_cast<int>(blockIdx.x % args.across);
    const int order = static_cast<int>(blockIdx.x / args.across % sizes.tiles);
    head_chunk = blockIdx.x / args.across / sizes.tiles;
    tile = kRole.rows_are_t ? sizes.tiles - 1 - order : order;
    chunk = static_cast<int>(head_chunk % static_cast<unsigned>(sizes.chunks));
    steps = min(sizes.L, sizes.S - chunk * sizes.L), row0 = tile * kTile;
    valid_rows = min(kTile, steps - row0);
    width = kRole.over_DHQK ? sizes.DHV : sizes.DHQK;
    column0 = part * kColumns, valid_columns = width - column0;
    step0 = static_cast<std::int64_t>(head_chunk / sizes.chunks) * sizes.S + chunk * sizes.L;
  }

  __device__ void load_A(int slab, T* to) const {
    load_tile(to, kTile, kTile, args.A + (step0 + row0) * depth() + slab * kTile, depth(), valid_rows,
              depth() - slab * kTile);
  }

  __device__ const double* a() const { return args.gates.a + step0; }
  __device__ const double* M() const { return args.gates.M + step0; }

  /// Width of A and B.
  __device__ int depth() const { return kRole.over_DHQK ? args.sizes.DHQK : args.sizes.DHV; }

  // Phase 1: scalars of the rows.
  __device__ void read_rows() {
    if (thread >= kTile) return;
    const bool valid = thread < valid_rows;
    const std::int64_t step = step0 + row0 + thread;
    row_value = valid ? (kRole.rows_are_t ? M() : a())[row0 + thread] : 0;
    shared.state_weight[thread] = !valid             ? 0.0f
                                  : kRole.rows_are_t ? args.sizes.scale * args.gates.past[step]
                                                     : args.gates.D_last[step];
    if constexpr (kRole.row_gamma) {
      const float inverse = valid ? args.inverse[step] : 0.0f;
      shared.inverse[thread] = inverse;
      shared.gamma_d[thread] = inverse > 0 ? args.gamma[step] / inverse : 0.0f;
    }
  }

  // Phase 2: weight_r (A_r State), with its vector.
  __device__ void through_state() {
    const bool nothing_there = kRole.rows_are_t ? args.sizes.starts_empty && chunk == 0
                                                : args.sizes.ends_unwanted && chunk == args.sizes.chunks - 1;
    if (nothing_there) return;
    const T* const state = args.state + std::int64_t{head_chunk} * args.sizes.DHQK * args.sizes.DHV;
    const float* const n_state = args.n_state + std::int64_t{head_chunk} * args.sizes.DHQK;
    multiply_slabs<T, kStateLayout, NT>(
        acc, depth(), shared.A[0], kSlab, shared.state[0], kStateSlab, kStateStride,
        [&](int slab, T* to) { load_A(slab, to); },
        [&](int slab, T* to) { load_state_slab<kRole.over_DHQK, kColumns>(to, args.sizes, state, slab, column0); },
        [&](int slab, const T* slab_of_A) {
          if constexpr (kRole.makes_l) add_l_state(n_state, slab, slab_of_A);
        });
    acc.for_each([&](float& x, int row, int column) {
      if constexpr (kRole.row_gamma)
        if (column < valid_columns) x += shared.gamma_d[row] * n_state[column0 + column];
      if constexpr (kRole.column_gamma)
        if (column < valid_columns) x += n_state[column0 + column];
      x *= shared.state_weight[row];
    });
  }
  __device__ void add_l_state(const float* n_state, int slab, const T* slab_of_q) {
    const T* const row = slab_of_q + thread / 2 * kStride;
    for (int at = thread % 2; at < kTile && slab * kTile + at < depth(); at += 2)
      l_state += to_real(row[at]) * n_state[slab * kTile + at];
  }

  // Phase 3, between the others: row dots of what has been added so far, for the gates.
  __device__ void dot_rows() {  // sums[row]
    row_dots(acc, args.rows + (step0 + row0) * width + column0, width, valid_rows, valid_columns, shared.partial,
             shared.sums);
  }
  __device__ float row_dot(int row) const {
    return kRole.row_gamma ? shared.sums[row] * shared.inverse[row] : shared.sums[row];
  }
  __device__ void write_dots(float* to) {
    dot_rows();
    if (thread < valid_rows) to[part * args.sizes.heads * args.sizes.S + step0 + row0 + thread] = row_dot(thread);
  }
  /// Their sum over the rows: pairs with everything before tile `other`.
  __device__ void write_dots_over(int other) {
    dot_rows();
    if (thread < kTile) {
      const float sum = warp_sum(row_dot(thread));
      if (thread % 32 == 0) shared.totals[thread / 32] = sum;
    }
    __syncthreads();
    const std::int64_t chunk_part = part * args.sizes.heads * args.sizes.chunks + head_chunk;
    if (thread == 0)
      args.dots.q_over[(chunk_part * args.sizes.tiles + other) * args.sizes.tiles + tile] =
          shared.totals[0] + shared.totals[1];
  }
  __device__ void note_state() {
    if constexpr (kResult == Result::dk) write_dots(args.dots.k_state);
  }
  __device__ void note_before(const Columns& columns) {
    if constexpr (kResult == Result::dk)
      if (columns.diagonal) write_dots(args.dots.k_beyond);
    if constexpr (kResult == Result::dq) {
      if (columns.diagonal)
        write_dots(args.dots.q_before);
      else
        write_dots_over(columns.tile);
    }
  }
  __device__ void note_all() {
    if constexpr (kResult == Result::dk) write_dots(args.dots.k_all);
  }

  /// The tile of columns that is so many tiles away.
  __device__ Columns columns_at(int apart) const {
    const int other = kRole.rows_are_t ? tile - apart : tile + apart;
    return {other, other * kTile, min(kTile, steps - other * kTile), apart == 0};
  }

  // Phase 4: scalars and X of the columns of a tile of columns. X is on its way when this returns.
  __device__ void read_columns(const Columns& columns) {
    const double origin = M()[kRole.rows_are_t ? row0 : columns.first];
    if (thread < kTile) {
      shared.row_term[thread] = GateTerm(row_value, origin);
    } else {
      const int column = thread - kTile;
      const bool valid = column < columns.valid;
      shared.column_term[column] =
          valid ? GateTerm((kRole.rows_are_t ? a() : M())[columns.first + column], origin) : GateTerm();
      if constexpr (kRole.column_gamma) {
        shared.inverse[column] = valid ? args.inverse[step0 + columns.first + column] : 0.0f;
        shared.gamma[column] = valid ? args.gamma[step0 + columns.first + column] : 0.0f;
      }
    }
    load_tile(shared.tile.X, kTile, kColumns, args.X + (step0 + columns.first) * width + column0, width, columns.valid,
              valid_columns);
  }

  // Phase 5: W of this tile, in shared memory, rounded.
  __device__ void make_weights(const Columns& columns) {
    const float scale = args.sizes.scale;
    Accumulator<4> products;
    multiply_slabs<T, Layout::transposed, 4>(
        products, depth(), shared.A[0], kSlab, shared.tile.B[0], kSlab, kStride,
        [&](int slab, T* to) { load_A(slab, to); },
        [&](int slab, T* to) {
          load_tile(to, kTile, kTile, args.B + (step0 + columns.first) * depth() + slab * kTile, depth(), columns.valid,
                    depth() - slab * kTile);
        },
        [](int, const T*) {});
#pragma unroll
    for (int mt = 0; mt < 2; ++mt)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = Lane::row(mt, half);
        const GateTerm row_term = shared.row_term[row];
        const float gamma_d = kRole.row_gamma ? shared.gamma_d[row] : 0.0f;
#pragma unroll
        for (int nt = 0; nt < 4; ++nt) {
          const int column = Accumulator<4>::column(nt);
          float pair[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            bool counts = row < valid_rows && column + e < columns.valid;
            if (columns.diagonal) counts = counts && (kRole.rows_are_t ? column + e <= row : column + e >= row);
            float x = products.x[mt][nt][2 * half + e];
            if constexpr (kRole.row_gamma) x += gamma_d;
            if constexpr (kRole.column_gamma)
              x = saturate<float>(x * shared.inverse[column + e] + shared.gamma[column + e]);
            const GateTerm column_term = shared.column_term[column + e];
            const float D = kRole.rows_are_t ? gate_weight(column_term, row_term) : gate_weight(row_term, column_term);
            x = counts ? scale * x * D : 0.0f;
            pair[e] = kRole.column_gamma ? saturate<T>(x) : x;
          }
          if constexpr (kRole.makes_l) l_parts[mt][half] += pair[0] + pair[1];
          store_pair(shared.W + row * kStride + column, pair[0], pair[1]);
        }
      }
    __syncthreads();
  }

  // Phase 6: W X.
  __device__ void add_weighted_rows() {
    multiply<T, Layout::straight, Layout::straight, NT>(acc, shared.W, kStride, shared.tile.X, kWideStride);
    __syncthreads();
  }

  // Phase 7: l_t and 1/d_t of the rows of h.
  __device__ void make_denominators() {
    sum_rows(l_parts, shared.partial, shared.sums);
    l_state += __shfl_xor_sync(kAllLanes, l_state, 1);
    if (thread % 2 == 0) {
      const int row = thread / 2;
      const std::int64_t at = step0 + row0 + row;
      float inverse = 0;
      if (row < valid_rows) {
        const float l = shared.sums[row] + shared.state_weight[row] * l_state;
        inverse = denominator(args.rule, l, static_cast<float>(args.gates.m[at])).inverse;
        if (column0 == 0) args.l[at] = l;
      }
      shared.inverse[row] = inverse;
    }
    __syncthreads();
  }

  // Phase 8: the rows are divided by d_t where they have to be, rounded and stored.
  __device__ void divide_rows() {
    if constexpr (kRole.makes_l || kRole.row_gamma)
      acc.for_each([&](float& x, int row, int) { x *= shared.inverse[row]; });
  }
  __device__ void store() {
    if (args.out == nullptr) return;
    store_tile(acc, shared.result, args.out + (step0 + row0) * width + column0, width, valid_rows, valid_columns);
  }
};

template <class T, Result kResult, int NT>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2) tiles_kernel(const TileArguments<T> args) {
  using Block = TileBlock<T, kResult, NT>;
  constexpr Role kRole = Block::kRole;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  Block block(args, *reinterpret_cast<typename Block::Shared*>(shared_memory));
  if (block.valid_rows <= 0) return;
  block.read_rows();
  block.through_state();
  block.note_state();
  // Within the chunk, the tile on the diagonal last.
  const int tiles = (block.steps - 1) / kTile + 1;
  for (int apart = kRole.rows_are_t ? block.tile : tiles - 1 - block.tile; apart >= 0; --apart) {
    const auto columns = block.columns_at(apart);
    block.note_before(columns);
    block.read_columns(columns);
    block.make_weights(columns);
    block.add_weighted_rows();
  }
  if constexpr (kRole.makes_l) block.make_denominators();
  block.divide_rows();
  block.note_all();
  block.store();
}

template <class T, Result kResult>
void launch_tiles(const char* name, TileArguments<T> args, cudaStream_t stream) {
  const ChunkSizes& sizes = args.sizes;
  const int width = role_of(kResult).over_DHQK ? sizes.DHV : sizes.DHQK;
  args.across = blocks_across<T>(width);
  const dim3 grid = grid_of(sizes.heads * sizes.chunks * sizes.tiles * args.across);
  const auto run = [&]<int NT>(std::integral_constant<int, NT>) {
    launch(name, tiles_kernel<T, kResult, NT>, grid, kThreads, sizeof(typename TileBlock<T, kResult, NT>::Shared),
           stream, args);
  };
  if constexpr (sizeof(T) == 2)
    if (columns_of_block<T>(width) == 128) return run(std::integral_constant<int, 8>{});
  run(std::integral_constant<int, 4>{});
}

}  // namespace mlstm::kernels::chunkwise_xl_chunk_cuda
