// SPDX-License-Identifier: Apache-2.0
// Forward of the recurrence.
//
//   C_t = F_t C_{t-1} + I_t k_t v_tᵀ    n_t = F_t n_{t-1} + I_t k_t    l_t = n_t.(s q_t)    h_t = C_tᵀ (s q_t) / d_t
//
// Grid: heads x slabs of columns. Block: all rows of a slab (Cut, step.cuh; DHQK/DHV 256/512: 64 x 4 threads hold 256
// rows x 32 columns). It goes over the sequence in tiles of up to 16 steps: s q, k, v and the gates of a tile are put
// into shared memory; then the warps run through its steps, each for itself, and leave their sums over rows; then h is
// put together. n and l are needed for every column of h: the first group of each block carries them along.
// With more than 1024 rows the block goes over the sequence once for each row block, and the sums of the row blocks
// before are carried in scratch, by the thread that added them.
// Shared memory: at most 40 KiB. Rounded: h, once.
#include <cmath>
#include <stdexcept>

#include "common/cuda/launch.hpp"
#include "recurrent/sequence_cuda_ownbw/step.cuh"

namespace mlstm::kernels::recurrent_sequence_cuda {
namespace {

/// Scratch; the last two, in RealOf the dtype, only with several row blocks.
struct Scratch {
  cuda::Gates gates;
  void* numerators;  ///< (B,NH,S,DHV)
  void* l;           ///< (B,NH,slabs,S)

  static Scratch take(cuda::Arena& arena, const Problem& problem) {
    const Shape& shape = problem.shape;
    const Cut cut = Cut::of(shape.DHQK, shape.DHV);
    Scratch scratch{cuda::Gates::take(arena, problem, 1), nullptr, nullptr};
    if (cut.row_blocks == 1) return scratch;
    scratch.numerators = take_real(arena, problem, shape.heads() * shape.S * shape.DHV);
    scratch.l = take_real(arena, problem, shape.heads() * cut.slabs * shape.S);
    return scratch;
  }
};

template <class T>
struct Sequence {
  using Real = RealOf<T>;
  const T *q, *k, *v;
  const Real *c_initial, *n_initial;  ///< null: zero
  T* h;
  Real *c_last, *n_last;                 ///< null: not wanted
  Real *l, *states;                      ///< what backward needs; null: not wanted
  Real *carried_numerators, *carried_l;  ///< Scratch::numerators and l
  cuda::Gates gates;
  std::int64_t S, DHQK, DHV, segment;
  Real scale;  ///< s
  cuda::DenominatorRule rule;
  Cut cut;
  int tile;
};

/// Shared memory of a tile of n steps.
template <class Real>
struct Tile {
  Real *query, *key;      ///< (n, rows): s q, k
  Real* v;                ///< (n, columns)
  Real* numerators;       ///< (n, warps, kColumns): sums over the rows of a warp
  Real* l;                ///< (n, warps of rows), likewise
  Real *F, *I, *inverse;  ///< (n); 1 / d

  static std::int64_t reals_per_step(const Cut& cut) {
    return 2 * cut.rows() + cut.columns() + cut.warps() * kColumns + cut.row_warps() + 3;
  }
  __device__ Tile(unsigned char* memory, const Cut& cut, int n) {
    Real* next = reinterpret_cast<Real*>(memory);
    const auto take = [&](int count) { return (next += n * count) - n * count; };
    query = take(cut.rows());
    key = take(cut.rows());
    v = take(cut.columns());
    numerators = take(cut.warps() * kColumns);
    l = take(cut.row_warps());
    F = take(1);
    I = take(1);
    inverse = take(1);
  }
};

/// Where a thread's part of a state lies: row, row + row_step, ... and column, column + 1, ..., as many as are there.
struct Place {
  std::int64_t row, column;
  int row_step, rows, columns;

  __device__ Place(const Cut& cut, std::int64_t DHQK, std::int64_t DHV, std::int64_t first_row,
                   std::int64_t first_column)
      : row(first_row), column(first_column), row_step(cut.row_threads) {
    const std::int64_t rows_left = DHQK > row ? (DHQK - row - 1) / row_step + 1 : 0, columns_left = DHV - column;
    rows = static_cast<int>(rows_left < kRows ? rows_left : kRows);
    columns = static_cast<int>(columns_left < kColumns ? columns_left : kColumns);
  }
};

/// Null: zero. What is not there is 0.
template <class Real>
__device__ void load_state(const Real* c, const Real* n, std::int64_t c_stride, const Place& place,
                           Real (&C)[kRows][kColumns], Real (&N)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = place.row + r * place.row_step;
    N[r] = n != nullptr && r < place.rows ? n[row] : Real(0);
#pragma unroll
    for (int x = 0; x < kColumns; ++x)
      C[r][x] = c != nullptr && r < place.rows && x < place.columns ? c[row * c_stride + place.column + x] : Real(0);
  }
}

/// Null: not wanted.
template <class Real>
__device__ void store_state(Real* c, Real* n, std::int64_t c_stride, std::int64_t n_stride, const Place& place,
                            const Real (&C)[kRows][kColumns], const Real (&N)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = place.row + r * place.row_step;
    if (n != nullptr && r < place.rows) n[row * n_stride] = N[r];
#pragma unroll
    for (int x = 0; x < kColumns; ++x)
      if (c != nullptr && r < place.rows && x < place.columns) c[row * c_stride + place.column + x] = C[r][x];
  }
}

template <class T>
__global__ void __launch_bounds__(kMaxThreads) sequence_kernel(const Sequence<T> p) {
  using Real = RealOf<T>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  const Cut& cut = p.cut;
  const Tile<Real> tile(shared_memory, cut, p.tile);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int group = thread / cut.row_threads, row_thread = thread % cut.row_threads;
  const int rows = cut.rows(), columns = cut.columns(), row_warps = cut.row_warps();
  const std::int64_t head = blockIdx.x / cut.slabs, slab = blockIdx.x % cut.slabs, first_column = slab * columns;
  const std::int64_t state_size = p.DHQK * (p.DHV + 1), segments = (p.S - 1) / p.segment + 1;
  const bool carries_n = group == 0;  // the same for all of a warp
  const bool stores_n = carries_n && slab == 0;
  const auto of_head = [head](auto* x, std::int64_t size) { return x == nullptr ? nullptr : x + head * size; };

  for (std::int64_t row_block = 0; row_block < cut.row_blocks; ++row_block) {
    const bool first_rows = row_block == 0, last_rows = row_block + 1 == cut.row_blocks;
    const Place place(cut, p.DHQK, p.DHV, row_block * rows + row_thread, first_column + group * kColumns);
    Real C[kRows][kColumns], N[kRows];
    load_state(of_head(p.c_initial, p.DHQK * p.DHV), of_head(p.n_initial, p.DHQK), p.DHV, place, C, N);

    std::int64_t segment = 0, until = 0;  // the segment that begins after `until` steps
    for (std::int64_t begin = 0; begin < p.S; begin += p.tile) {
      const int n = static_cast<int>(p.S - begin < p.tile ? p.S - begin : p.tile);
      const std::int64_t at = head * p.S + begin;
      stage_gates(tile.F, tile.I, p.gates, at, n);
      stage_rows(tile.query, p.q + at * p.DHQK, cut, p.DHQK, row_block * rows, row_thread, group, n, p.scale);
      stage_rows(tile.key, p.k + at * p.DHQK, cut, p.DHQK, row_block * rows, row_thread, group, n, Real(1));
      for (int index = thread; index < n * columns; index += cut.threads()) {
        const std::int64_t column = first_column + index % columns;
        tile.v[index] = column < p.DHV ? cuda::to_real(p.v[(at + index / columns) * p.DHV + column]) : Real(0);
      }
      __syncthreads();

#pragma unroll 1
      for (int t = 0; t < n; ++t) {
        if (until == 0) {
          if (p.states != nullptr) {
            Real* const state = p.states + (head * segments + segment) * state_size;
            store_state(state, stores_n ? state + p.DHV : nullptr, p.DHV + 1, p.DHV + 1, place, C, N);
          }
          ++segment;
          until = p.segment;
        }
        --until;
        const Real F = tile.F[t], I = tile.I[t];
        Real key[kRows], query[kRows], v[kColumns], numerator[kColumns] = {};
        load_quads(v, tile.v + t * columns + group * kColumns);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          query[r] = tile.query[t * rows + cut.row_of(row_thread, r)];
          key[r] = I * tile.key[t * rows + cut.row_of(row_thread, r)];
#pragma unroll
          for (int x = 0; x < kColumns; ++x) {
            C[r][x] = F * C[r][x] + key[r] * v[x];
            numerator[x] += query[r] * C[r][x];
          }
        }
        const Real sum = sum_columns(numerator, lane);
        if (lane % 4 == 0) tile.numerators[(t * cut.warps() + warp) * kColumns + lane / 4] = sum;
        if (carries_n) {
          Real l = 0;
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            N[r] = F * N[r] + key[r];
            l += query[r] * N[r];
          }
          l = cuda::warp_sum(l);
          if (lane == 0) tile.l[t * row_warps + warp] = l;
        }
      }
      __syncthreads();

      for (int t = thread; t < n; t += cut.threads()) {
        Real l = 0;
        for (int w = 0; w < row_warps; ++w) l += tile.l[t * row_warps + w];
        const std::int64_t carried = (head * cut.slabs + slab) * p.S + begin + t;
        if (!first_rows) l += p.carried_l[carried];
        if (!last_rows) p.carried_l[carried] = l;
        tile.inverse[t] = cuda::denominator(p.rule, l, static_cast<Real>(p.gates.m[at + t])).inverse;
        if (p.l != nullptr && slab == 0) p.l[at + t] = l;
      }
      __syncthreads();
      for (int index = thread; index < n * columns; index += cut.threads()) {
        const int t = index / columns, column = index % columns;
        if (first_column + column >= p.DHV) continue;
        const Real* const sums = tile.numerators + t * cut.warps() * kColumns + column % kColumns;
        Real numerator = 0;
        for (int w = 0; w < row_warps; ++w) numerator += sums[(column / kColumns * row_warps + w) * kColumns];
        const std::int64_t out = (at + t) * p.DHV + first_column + column;
        if (!first_rows) numerator += p.carried_numerators[out];
        if (last_rows)
          p.h[out] = cuda::from_real<T>(numerator * tile.inverse[t]);
        else
          p.carried_numerators[out] = numerator;
      }
    }
    store_state(of_head(p.c_last, p.DHQK * p.DHV), stores_n ? of_head(p.n_last, p.DHQK) : nullptr, p.DHV, 1, place, C,
                N);
  }
}

template <class T>
void run(const Problem& problem, const ForwardArgs& args) {
  using Real = RealOf<T>;
  const Shape& shape = problem.shape;
  const bool given = problem.has_initial_state;
  cuda::Arena workspace(args.workspace), kept(args.saved);
  const Scratch scratch = Scratch::take(workspace, problem);
  const Saved saved = Saved::take(kept, problem);
  const auto stream = static_cast<cudaStream_t>(args.stream);
  cuda::scan_gates(problem, 1, args.i, args.f, args.m_initial, scratch.gates, args.m_last, stream);

  const Cut cut = Cut::of(shape.DHQK, shape.DHV);
  const std::int64_t reals = Tile<Real>::reals_per_step(cut);
  const int tile = tile_of(shape.S, reals, sizeof(Real));
  const Sequence<T> sequence{static_cast<const T*>(args.q),
                             static_cast<const T*>(args.k),
                             static_cast<const T*>(args.v),
                             static_cast<const Real*>(given ? args.c_initial : nullptr),
                             static_cast<const Real*>(given ? args.n_initial : nullptr),
                             static_cast<T*>(args.h),
                             static_cast<Real*>(args.c_last),
                             static_cast<Real*>(args.n_last),
                             static_cast<Real*>(saved.l),
                             static_cast<Real*>(saved.states),
                             static_cast<Real*>(scratch.numerators),
                             static_cast<Real*>(scratch.l),
                             scratch.gates,
                             shape.S,
                             shape.DHQK,
                             shape.DHV,
                             segment_length(problem),
                             1 / std::sqrt(static_cast<Real>(shape.DHQK)),
                             cuda::DenominatorRule::of(problem),
                             cut,
                             tile};
  cuda::launch("sequence_cuda_ownbw forward", sequence_kernel<T>, cuda::grid_of(shape.heads() * cut.slabs),
               cut.threads(), static_cast<std::size_t>(reals) * tile * sizeof(Real), stream, sequence);
}

}  // namespace

std::size_t saved_size(const Problem& problem) {
  cuda::Arena arena(nullptr);
  Saved::take(arena, problem);
  return arena.size();
}

std::size_t forward_workspace_size(const Problem& problem) {
  cuda::Arena arena(nullptr);
  Scratch::take(arena, problem);
  return arena.size();
}

void forward(const Problem& problem, const ForwardArgs& args) {
  if (args.h == nullptr) throw std::invalid_argument("h is null; expected a device pointer");
  if (args.workspace == nullptr) throw std::invalid_argument("workspace is null; expected a device pointer");
  cuda::dispatch<double, float, cuda::bfloat16, cuda::float16>(problem.dtype,
                                                               [&]<class T>(T) { run<T>(problem, args); });
}

}  // namespace mlstm::kernels::recurrent_sequence_cuda
