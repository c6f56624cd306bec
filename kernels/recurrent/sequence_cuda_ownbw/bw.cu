// SPDX-License-Identifier: Apache-2.0
// Backward of the recurrence. n is one more column of C here, with v = 1 and g = γ, the cotangent of l:
//
//   dC_t = s q_t g_tᵀ + F_{t+1} dC_{t+1}    dq_t = s C_t g_t    dk_t = I_t dC_t v_t    dv_t = I_t dC_tᵀ k_t
//   dlog_i_t = k_t.dk_t                     dlog_f_t = F_t <dC_t, C_{t-1}>             g = dh / d
//
// dC_t, with the part of step t itself, times C_{t-1} holds just the pairs j < t <= t' that straddle the gate of t.
//
// Grid: heads x parts. A part is a run of slabs of columns, which its block takes one after the other; there are as
// many parts as fill a GPU, because each keeps its own sums over columns (dq, dk, dlog_f) in scratch: the first slab
// writes them, later ones add, always by the same thread. A last kernel adds the parts in order. For each slab, and
// each row block if there are more than 1024 rows, the block goes from the last segment to the first, twice over each:
//   ahead  from the state that forward kept: writes C_{t-1} of every step to scratch, gives dq
//   back   with dC, which reads C_{t-1} again: gives dk, dv, dlog_f
// C and dC are in the registers of the thread that owns these rows and columns (Cut, step.cuh; 4 rows x 8 columns), one
// of them at a time: dC waits in scratch while the block runs ahead.
// Shared memory, at most 40 KiB: a tile of up to 16 steps of q, k, v, g, gates, and sums of warps and groups.
// Rounded: dq, dk, dv, di, df, once.
#include <cmath>
#include <stdexcept>

#include "common/cuda/launch.hpp"
#include "recurrent/sequence_cuda_ownbw/step.cuh"

namespace mlstm::kernels::recurrent_sequence_cuda {
namespace {

constexpr std::int64_t kEnoughBlocks = 264;  ///< two for each multiprocessor of the largest GPUs

Cut cut_of(const Problem& problem) { return Cut::of(problem.shape.DHQK, problem.shape.DHV + 1); }

std::int64_t parts_of(const Problem& problem) {
  const std::int64_t wanted = (kEnoughBlocks - 1) / problem.shape.heads() + 1;
  return std::min(wanted, cut_of(problem).slabs);
}

/// Scratch; all but the gates in RealOf the dtype.
struct Scratch {
  cuda::Gates gates;
  cuda::RowCotangents rows;
  cuda::GateCotangents totals;
  void *dq, *dk;   ///< (parts,B,NH,S,DHQK); dq d / s
  void* d_log_f;   ///< (parts,B,NH,S)
  void* products;  ///< (parts,B,NH,2): <dC, C> after the last step and before the first
  void* dv;        ///< (B,NH,S,DHV), only with several row blocks
  void* slots;     ///< (B,NH,parts,segment + 2) slots: C_{t-1} of each step of a segment, C, dC

  static Scratch take(cuda::Arena& arena, const Problem& problem) {
    const Shape& shape = problem.shape;
    const Cut cut = cut_of(problem);
    const std::int64_t heads = shape.heads(), steps = heads * shape.S, parts = parts_of(problem);
    Scratch scratch{};
    scratch.gates = cuda::Gates::take(arena, problem, 1);
    scratch.rows = cuda::RowCotangents::take(arena, problem);
    scratch.totals = {take_real(arena, problem, steps), take_real(arena, problem, steps),
                      take_real(arena, problem, heads), take_real(arena, problem, heads)};
    scratch.dq = take_real(arena, problem, parts * steps * shape.DHQK);
    scratch.dk = take_real(arena, problem, parts * steps * shape.DHQK);
    scratch.d_log_f = take_real(arena, problem, parts * steps);
    scratch.products = take_real(arena, problem, parts * heads * 2);
    if (cut.row_blocks > 1) scratch.dv = take_real(arena, problem, steps * shape.DHV);
    scratch.slots =
        take_real(arena, problem, parts * heads * (segment_length(problem) + 2) * cut.threads() * kRows * kColumns);
    return scratch;
  }
};

template <class T>
struct Sequence {
  using Real = RealOf<T>;
  const T *q, *k, *v, *dh;                                                      ///< dh null: zero
  const Real *c_initial, *n_initial, *dc_last, *dn_last;                        ///< null: zero
  const Real* states;                                                           ///< Saved::states
  const Real *inverse, *gamma;                                                  ///< RowCotangents
  Real *dq_parts, *dk_parts, *d_log_f_parts, *products, *carried_dv, *scratch;  ///< Scratch
  T* dv;
  Real *dc_initial, *dn_initial;  ///< null, like dv: not wanted
  cuda::Gates gates;
  std::int64_t heads, S, DHQK, DHV, segment, parts;
  Real scale;  ///< s
  Cut cut;
  int tile;
};

/// Shared memory of a tile of n steps.
template <class Real>
struct Tile {
  Real *query, *key;  ///< (n, rows): s q, k
  Real* row_sums;     ///< (n, groups, rows): sums over the columns of a group
  Real *v, *g;        ///< (n, columns)
  Real* column_sums;  ///< (n, warps, kColumns): sums over the rows of a warp
  Real* products;     ///< (n, warps): <dC, C> of a warp
  Real *F, *I;        ///< (n)

  static std::int64_t reals_per_step(const Cut& cut) {
    return (2 + cut.groups) * cut.rows() + 2 * cut.columns() + cut.warps() * (kColumns + 1) + 2;
  }
  __device__ Tile(unsigned char* memory, const Cut& cut, int n) {
    Real* next = reinterpret_cast<Real*>(memory);
    const auto take = [&](int count) { return (next += n * count) - n * count; };
    query = take(cut.rows());
    key = take(cut.rows());
    row_sums = take(cut.groups * cut.rows());
    v = take(cut.columns());
    g = take(cut.columns());
    column_sums = take(cut.warps() * kColumns);
    products = take(cut.warps());
    F = take(1);
    I = take(1);
  }
};

/// Where a block is, and which thread of it this is.
struct Where {
  int thread, group, row_thread;
  std::int64_t head, part;
  std::int64_t first_row, first_column;    ///< of the block
  bool first_slab, first_rows, last_rows;  ///< of the part's slabs, of the row blocks
};

/// Scratch of a block as slots, each a part of a state for every thread. Only its own thread reads what is in a part.
/// Within a slot warp by warp, so that quads lie at constant distances and the lanes of a warp side by side.
template <class Real>
struct Slots {
  static constexpr int kQuads = kRows * kColumns / 4;
  Real* first;  ///< of this thread in slot 0
  int size;     ///< of a slot

  __device__ Slots(Real* scratch, int threads, int thread)
      : first(scratch + thread / 32 * (32 * kRows * kColumns) + thread % 32 * 4), size(threads * kRows * kColumns) {}
  __device__ Real* quad(std::int64_t n, int quad) const { return first + n * size + quad * (32 * 4); }
  /// Element `index` of the part, row by row.
  __device__ Real& element(std::int64_t n, int index) const { return quad(n, index / 4)[index % 4]; }

  __device__ void put(std::int64_t n, const Real (&x)[kRows][kColumns]) const {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const Real* const from = &x[q * 4 / kColumns][q * 4 % kColumns];
      if constexpr (std::is_same_v<Real, double>) {
        __stcs(reinterpret_cast<double2*>(quad(n, q)), make_double2(from[0], from[1]));
        __stcs(reinterpret_cast<double2*>(quad(n, q)) + 1, make_double2(from[2], from[3]));
      } else {
        __stcs(reinterpret_cast<float4*>(quad(n, q)), make_float4(from[0], from[1], from[2], from[3]));
      }
    }
  }
  __device__ void get(std::int64_t n, Real (&x)[kRows][kColumns]) const {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      Real* const to = &x[q * 4 / kColumns][q * 4 % kColumns];
      if constexpr (std::is_same_v<Real, double>) {
        const double2 low = __ldcs(reinterpret_cast<const double2*>(quad(n, q)));
        const double2 high = __ldcs(reinterpret_cast<const double2*>(quad(n, q)) + 1);
        to[0] = low.x, to[1] = low.y, to[2] = high.x, to[3] = high.y;
      } else {
        const float4 four = __ldcs(reinterpret_cast<const float4*>(quad(n, q)));
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
      }
    }
  }
};

/// The element of a head's state, or its cotangent, given as C (DHQK,DHV) and n; null or outside: null.
template <class Real>
__device__ Real* element(Real* c, Real* n, std::int64_t DHQK, std::int64_t DHV, std::int64_t head, std::int64_t row,
                         std::int64_t column) {
  if (row >= DHQK || column > DHV) return nullptr;
  if (column == DHV) return n == nullptr ? nullptr : n + head * DHQK + row;
  return c == nullptr ? nullptr : c + (head * DHQK + row) * DHV + column;
}

/// What running ahead, or back, reads of n steps from `at` (an index over all heads). Ahead takes d g, and dq is
/// divided by d when its sum is complete; back takes g, as it adds steps with different d, and keeps it finite: two of
/// the cures for a huge 1/d (kernels/README.md).
template <bool kAhead, class T, class Real = RealOf<T>>
__device__ void stage(const Sequence<T>& p, const Tile<Real>& tile, const Where& where, std::int64_t at, int n) {
  const int columns = p.cut.columns();
  stage_gates(tile.F, tile.I, p.gates, at, n);
  if (!kAhead)
    stage_rows(tile.query, p.q + at * p.DHQK, p.cut, p.DHQK, where.first_row, where.row_thread, where.group, n,
               p.scale);
  stage_rows(tile.key, p.k + at * p.DHQK, p.cut, p.DHQK, where.first_row, where.row_thread, where.group, n, Real(1));
  const Real largest = std::is_same_v<Real, double> ? Real(1.7976931348623157e308) : Real(3.4028234663852886e38f);
  for (int index = where.thread; index < n * columns; index += p.cut.threads()) {
    const std::int64_t step = at + index / columns, column = where.first_column + index % columns;
    Real v = 0, g = 0;
    if (column < p.DHV) {
      v = cuda::to_real(p.v[step * p.DHV + column]);
      if (p.dh != nullptr) g = cuda::to_real(p.dh[step * p.DHV + column]) * (kAhead ? Real(1) : p.inverse[step]);
    } else if (column == p.DHV) {
      v = 1;
      g = p.gamma[step];
      if (kAhead && g != Real(0)) g /= p.inverse[step];
    }
    tile.v[index] = v;
    tile.g[index] = fmax(-largest, fmin(largest, g));
  }
}

/// Adds the groups' sums over columns, times factor(step), to those of the part.
template <class T, class Factor, class Real = RealOf<T>>
__device__ void add_row_sums(const Sequence<T>& p, const Tile<Real>& tile, const Where& where, Real* parts,
                             std::int64_t at, int n, const Factor& factor) {
  const int rows = p.cut.rows();
  for (int t = 0; t < n; ++t)
    for (int row = where.thread; row < rows; row += p.cut.threads()) {
      if (where.first_row + row >= p.DHQK) break;
      Real sum = 0;
      for (int group = 0; group < p.cut.groups; ++group) sum += tile.row_sums[(t * p.cut.groups + group) * rows + row];
      sum *= factor(t);
      Real& out = parts[((where.part * p.heads * p.S) + at + t) * p.DHQK + where.first_row + row];
      out = where.first_slab ? sum : out + sum;
    }
}

/// Steps begin, ..., end - 1 of a segment, from the C in slot p.segment on: keeps C_{t-1} in slot t - begin, gives dq.
/// Leaves the C after them in slot p.segment.
template <class T, class Real = RealOf<T>>
__device__ void run_ahead(const Sequence<T>& p, const Tile<Real>& tile, const Where& where, const Slots<Real>& slots,
                          std::int64_t begin, std::int64_t end) {
  const Cut& cut = p.cut;
  Real C[kRows][kColumns];
  slots.get(p.segment, C);
  for (std::int64_t first = begin; first < end; first += p.tile) {
    const int n = static_cast<int>(end - first < p.tile ? end - first : p.tile);
    const std::int64_t at = where.head * p.S + first;
    stage<true>(p, tile, where, at, n);
    __syncthreads();
#pragma unroll 1
    for (int t = 0; t < n; ++t) {
      slots.put(first - begin + t, C);
      const Real F = tile.F[t], I = tile.I[t];
      Real v[kColumns], g[kColumns];
      load_quads(v, tile.v + t * cut.columns() + where.group * kColumns);
      load_quads(g, tile.g + t * cut.columns() + where.group * kColumns);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int row = cut.row_of(where.row_thread, r);
        const Real key = I * tile.key[t * cut.rows() + row];
        Real row_sum = 0;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          C[r][c] = F * C[r][c] + key * v[c];
          row_sum += C[r][c] * g[c];
        }
        tile.row_sums[(t * cut.groups + where.group) * cut.rows() + row] = row_sum;
      }
    }
    __syncthreads();
    add_row_sums(p, tile, where, p.dq_parts, at, n, [](int) { return Real(1); });
  }
  slots.put(p.segment, C);
}

/// The same steps with the dC in slot p.segment + 1: the cotangent of the state after them that comes from later steps.
/// Leaves that of the state before them there.
template <class T, class Real = RealOf<T>>
__device__ void run_back(const Sequence<T>& p, const Tile<Real>& tile, const Where& where, const Slots<Real>& slots,
                         std::int64_t begin, std::int64_t end) {
  const Cut& cut = p.cut;
  const int row_warps = cut.row_warps(), columns = cut.columns();
  const int lane = where.thread % 32, warp = where.thread / 32;
  Real dC[kRows][kColumns];
  slots.get(p.segment + 1, dC);
  for (std::int64_t first = begin + (end - begin - 1) / p.tile * p.tile; first >= begin; first -= p.tile) {
    const int n = static_cast<int>(end - first < p.tile ? end - first : p.tile);
    const std::int64_t at = where.head * p.S + first;
    stage<false>(p, tile, where, at, n);
    __syncthreads();
#pragma unroll 1
    for (int t = n - 1; t >= 0; --t) {
      Real before[kRows][kColumns];
      slots.get(first - begin + t, before);
      const Real F = tile.F[t];
      Real v[kColumns], g[kColumns], column_sums[kColumns] = {}, product = 0;
      load_quads(v, tile.v + t * columns + where.group * kColumns);
      load_quads(g, tile.g + t * columns + where.group * kColumns);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int row = cut.row_of(where.row_thread, r);
        const Real key = tile.key[t * cut.rows() + row], query = tile.query[t * cut.rows() + row];
        Real row_sum = 0;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          dC[r][c] += query * g[c];
          column_sums[c] += key * dC[r][c];
          row_sum += dC[r][c] * v[c];
          product += dC[r][c] * before[r][c];
          dC[r][c] *= F;
        }
        tile.row_sums[(t * cut.groups + where.group) * cut.rows() + row] = row_sum;
      }
      const Real sum = sum_columns(column_sums, lane);
      if (lane % 4 == 0) tile.column_sums[(t * cut.warps() + warp) * kColumns + lane / 4] = sum;
      product = cuda::warp_sum(product);
      if (lane == 0) tile.products[t * cut.warps() + warp] = product;
    }
    __syncthreads();
    add_row_sums(p, tile, where, p.dk_parts, at, n, [&](int t) { return tile.I[t]; });
    for (int index = where.thread; index < n * columns; index += cut.threads()) {
      const int t = index / columns, column = index % columns;
      if (where.first_column + column >= p.DHV || p.dv == nullptr) continue;
      const Real* const sums = tile.column_sums + t * cut.warps() * kColumns + column % kColumns;
      Real sum = 0;
      for (int w = 0; w < row_warps; ++w) sum += sums[(column / kColumns * row_warps + w) * kColumns];
      sum *= tile.I[t];
      const std::int64_t out = (at + t) * p.DHV + where.first_column + column;
      if (!where.first_rows) sum += p.carried_dv[out];
      if (where.last_rows)
        p.dv[out] = cuda::from_real<T>(sum);
      else
        p.carried_dv[out] = sum;
    }
    for (int t = where.thread; t < n; t += cut.threads()) {
      Real sum = 0;
      for (int w = 0; w < cut.warps(); ++w) sum += tile.products[t * cut.warps() + w];
      sum *= tile.F[t];
      Real& out = p.d_log_f_parts[where.part * p.heads * p.S + at + t];
      out = where.first_slab && where.first_rows ? sum : out + sum;
    }
    __syncthreads();  // I and F are read until here
  }
  slots.put(p.segment + 1, dC);
}

template <class T>
__global__ void __launch_bounds__(kMaxThreads, std::is_same_v<T, double> ? 1 : 2) sequence_kernel(const Sequence<T> p) {
  using Real = RealOf<T>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  __shared__ Real totals[kMaxThreads / 32];
  const Cut& cut = p.cut;
  const Tile<Real> tile(shared_memory, cut, p.tile);
  Where where{};
  where.thread = static_cast<int>(threadIdx.x);
  where.group = where.thread / cut.row_threads;
  where.row_thread = where.thread % cut.row_threads;
  where.head = blockIdx.x / p.parts;
  where.part = blockIdx.x % p.parts;
  const Slots<Real> slots(p.scratch + blockIdx.x * (p.segment + 2) * cut.threads() * kRows * kColumns, cut.threads(),
                          where.thread);
  const std::int64_t segments = (p.S - 1) / p.segment + 1, C_slot = p.segment, dC_slot = p.segment + 1;
  Real after_product = 0, before_product = 0;

  const std::int64_t first_slab = where.part * cut.slabs / p.parts, end_slab = (where.part + 1) * cut.slabs / p.parts;
  for (std::int64_t slab = first_slab; slab < end_slab; ++slab)
    for (std::int64_t row_block = 0; row_block < cut.row_blocks; ++row_block) {
      where.first_slab = slab == first_slab;
      where.first_rows = row_block == 0;
      where.last_rows = row_block + 1 == cut.row_blocks;
      where.first_row = row_block * cut.rows();
      where.first_column = slab * cut.columns();
      // body(index, row, column) for each element of the thread's part
      const auto for_each_element = [&](const auto& body) {
#pragma unroll 1
        for (int index = 0; index < kRows * kColumns; ++index)
          body(index, where.first_row + cut.row_of(where.row_thread, index / kColumns),
               where.first_column + where.group * kColumns + index % kColumns);
      };
      for_each_element([&](int index, std::int64_t row, std::int64_t column) {
        const Real* const last = element(p.dc_last, p.dn_last, p.DHQK, p.DHV, where.head, row, column);
        slots.element(dC_slot, index) = last == nullptr ? Real(0) : *last;
      });
      for (std::int64_t segment = segments - 1; segment >= 0; --segment) {
        const std::int64_t begin = segment * p.segment, end = begin + p.segment < p.S ? begin + p.segment : p.S;
        const Real* const kept = p.states + (where.head * segments + segment) * p.DHQK * (p.DHV + 1);
        for_each_element([&](int index, std::int64_t row, std::int64_t column) {
          slots.element(C_slot, index) = row < p.DHQK && column <= p.DHV ? kept[row * (p.DHV + 1) + column] : Real(0);
        });
        run_ahead(p, tile, where, slots, begin, end);
        if (end == p.S)
          for_each_element([&](int index, std::int64_t, std::int64_t) {
            after_product += slots.element(dC_slot, index) * slots.element(C_slot, index);
          });
        run_back(p, tile, where, slots, begin, end);
      }
      for_each_element([&](int index, std::int64_t row, std::int64_t column) {
        const Real cotangent = slots.element(dC_slot, index);
        const Real* const initial = element(p.c_initial, p.n_initial, p.DHQK, p.DHV, where.head, row, column);
        if (initial != nullptr) before_product += cotangent * *initial;
        Real* const out = element(p.dc_initial, p.dn_initial, p.DHQK, p.DHV, where.head, row, column);
        if (out != nullptr) *out = cotangent;
      });
    }

  after_product = cuda::block_sum(after_product, totals);
  before_product = cuda::block_sum(before_product, totals);
  if (where.thread == 0) {
    Real* const out = p.products + (where.part * p.heads + where.head) * 2;
    out[0] = after_product;
    out[1] = before_product;
  }
}

/// Adds the parts and rounds. One warp per step.
template <class T>
struct Finish {
  using Real = RealOf<T>;
  const T* k;
  const Real *dq_parts, *dk_parts, *d_log_f_parts, *products;
  const Real* inverse;
  Real scale;
  T *dq, *dk;  ///< null: not wanted
  Real *d_log_i, *d_log_f, *after_product, *before_product;
  std::int64_t heads, S, DHQK, parts;
};

template <class T>
__global__ void __launch_bounds__(kMaxThreads) finish_kernel(const Finish<T> p) {
  using Real = RealOf<T>;
  const std::int64_t step = static_cast<std::int64_t>(blockIdx.x) * (kMaxThreads / 32) + threadIdx.x / 32;
  const std::int64_t steps = p.heads * p.S;
  if (step >= steps) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Real d_log_i = 0;
  for (std::int64_t row = lane; row < p.DHQK; row += 32) {
    const std::int64_t at = step * p.DHQK + row;
    Real dq = 0, dk = 0;
    for (std::int64_t part = 0; part < p.parts; ++part) {
      dq += p.dq_parts[part * steps * p.DHQK + at];
      dk += p.dk_parts[part * steps * p.DHQK + at];
    }
    d_log_i += cuda::to_real(p.k[at]) * dk;
    if (p.dq != nullptr) p.dq[at] = cuda::from_real<T>(p.scale * dq * p.inverse[step]);
    if (p.dk != nullptr) p.dk[at] = cuda::from_real<T>(dk);
  }
  d_log_i = cuda::warp_sum(d_log_i);
  if (lane != 0) return;
  Real d_log_f = 0;
  for (std::int64_t part = 0; part < p.parts; ++part) d_log_f += p.d_log_f_parts[part * steps + step];
  p.d_log_i[step] = d_log_i;
  p.d_log_f[step] = d_log_f;
  if (step % p.S != 0) return;
  const std::int64_t head = step / p.S;
  Real after = 0, before = 0;
  for (std::int64_t part = 0; part < p.parts; ++part) {
    after += p.products[(part * p.heads + head) * 2];
    before += p.products[(part * p.heads + head) * 2 + 1];
  }
  p.after_product[head] = after;
  p.before_product[head] = before;
}

template <class T>
void run(const Problem& problem, const BackwardArgs& args) {
  using Real = RealOf<T>;
  const Shape& shape = problem.shape;
  const bool given = problem.has_initial_state;
  const std::int64_t heads = shape.heads(), steps = heads * shape.S, parts = parts_of(problem);
  cuda::Arena workspace(args.workspace), kept(args.saved);
  const Scratch scratch = Scratch::take(workspace, problem);
  const Saved saved = Saved::take(kept, problem);
  const auto stream = static_cast<cudaStream_t>(args.stream);
  const auto real = [](void* pointer) { return static_cast<Real*>(pointer); };
  const auto constant = [](const void* pointer) { return static_cast<const Real*>(pointer); };
  const auto stored = [](const void* pointer) { return static_cast<const T*>(pointer); };

  cuda::scan_gates(problem, 1, args.i, args.f, args.m_initial, scratch.gates, nullptr, stream);
  cuda::row_cotangents(problem, args.convention, saved.l, scratch.gates, args.dh, args.h, scratch.rows, nullptr,
                       stream);

  const Cut cut = cut_of(problem);
  const std::int64_t reals = Tile<Real>::reals_per_step(cut);
  const std::int64_t segment = segment_length(problem);
  const int tile = tile_of(segment, reals, sizeof(Real));
  Sequence<T> p{};
  p.q = stored(args.q);
  p.k = stored(args.k);
  p.v = stored(args.v);
  p.dh = stored(args.dh);
  p.c_initial = constant(given ? args.c_initial : nullptr);
  p.n_initial = constant(given ? args.n_initial : nullptr);
  p.dc_last = constant(args.dc_last);
  p.dn_last = constant(args.dn_last);
  p.states = constant(saved.states);
  p.inverse = constant(scratch.rows.inverse);
  p.gamma = constant(scratch.rows.gamma);
  p.dq_parts = real(scratch.dq);
  p.dk_parts = real(scratch.dk);
  p.d_log_f_parts = real(scratch.d_log_f);
  p.products = real(scratch.products);
  p.carried_dv = real(scratch.dv);
  p.scratch = real(scratch.slots);
  p.dv = static_cast<T*>(args.dv);
  p.dc_initial = real(given ? args.dc_initial : nullptr);
  p.dn_initial = real(given ? args.dn_initial : nullptr);
  p.gates = scratch.gates;
  p.heads = heads;
  p.S = shape.S;
  p.DHQK = shape.DHQK;
  p.DHV = shape.DHV;
  p.segment = segment;
  p.parts = parts;
  p.scale = 1 / std::sqrt(static_cast<Real>(shape.DHQK));
  p.cut = cut;
  p.tile = tile;
  cuda::launch("sequence_cuda_ownbw backward", sequence_kernel<T>, cuda::grid_of(heads * parts), cut.threads(),
               static_cast<std::size_t>(reals) * tile * sizeof(Real), stream, p);

  Finish<T> finish{};
  finish.k = p.k;
  finish.dq_parts = p.dq_parts;
  finish.dk_parts = p.dk_parts;
  finish.d_log_f_parts = p.d_log_f_parts;
  finish.products = p.products;
  finish.inverse = p.inverse;
  finish.scale = p.scale;
  finish.dq = static_cast<T*>(args.dq);
  finish.dk = static_cast<T*>(args.dk);
  finish.d_log_i = real(scratch.totals.d_log_i);
  finish.d_log_f = real(scratch.totals.d_log_f);
  finish.after_product = real(scratch.totals.after_product);
  finish.before_product = real(scratch.totals.before_product);
  finish.heads = heads;
  finish.S = shape.S;
  finish.DHQK = shape.DHQK;
  finish.parts = parts;
  cuda::launch("sequence_cuda_ownbw sums of parts", finish_kernel<T>,
               cuda::grid_of((steps - 1) / (kMaxThreads / 32) + 1), kMaxThreads, 0, stream, finish);
  cuda::finish_gates(problem, args, scratch.gates, scratch.rows.dm, scratch.totals, stream);
}

}  // namespace

std::size_t backward_workspace_size(const Problem& problem) {
  cuda::Arena arena(nullptr);
  Scratch::take(arena, problem);
  return arena.size();
}

std::int64_t blocks_of(const Problem& problem) {
  const Shape& shape = problem.shape;
  return shape.heads() * std::max(shape.S, Cut::of(shape.DHQK, shape.DHV).slabs);  // gates: one block per step
}

void backward(const Problem& problem, const BackwardArgs& args) {
  if (args.saved == nullptr) throw std::invalid_argument("saved is null; expected what forward saved");
  if (args.workspace == nullptr) throw std::invalid_argument("workspace is null; expected a device pointer");
  if (args.dh != nullptr && args.h == nullptr) throw std::invalid_argument("h is null; expected what forward returned");
  cuda::dispatch<double, float, cuda::bfloat16, cuda::float16>(problem.dtype,
                                                               [&]<class T>(T) { run<T>(problem, args); });
}

}  // namespace mlstm::kernels::recurrent_sequence_cuda
