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
// of them at a time: dC waits in scratch while the block runs ahead. Nobody else reads what a thread writes there.
// Shared memory, at most 40 KiB: a tile of up to 16 steps of q, k, v, g, gates, and sums of warps and groups.
// Rounded: dq, dk, dv, di, df, once.
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
  void *dq, *dk;   ///< (parts,B,NH,S,DHQK)
  void* d_log_f;   ///< (parts,B,NH,S)
  void* products;  ///< (parts,B,NH,2): <dC, C> after the last step and before the first
  void* dv;        ///< (B,NH,S,DHV), only with several row blocks
  void* states;    ///< (parts,B,NH,segment + 1) parts of a state of all threads: C_{t-1} of a segment, then dC

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
    scratch.states =
        take_real(arena, problem, parts * heads * (segment_length(problem) + 1) * cut.threads() * kRows * kColumns);
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

/// What a block knows of its place.
struct Where {
  int thread, lane, warp, group, row_thread;
  std::int64_t head, part;
  std::int64_t first_row, first_column;  ///< of the block
  bool first_of_part;                    ///< nothing is there yet to add sums over columns to
  bool first_rows, last_rows;            ///< whether this is the first, last row block
  Place place;                           ///< of the thread
};

/// Of a head's state, or its cotangent, given as C (DHQK,DHV) and n; null or outside: zero.
template <class Real>
__device__ Real element(const Real* c, const Real* n, std::int64_t DHQK, std::int64_t DHV, std::int64_t row,
                        std::int64_t column) {
  if (row >= DHQK || column > DHV) return Real(0);
  if (column == DHV) return n == nullptr ? Real(0) : n[row];
  return c == nullptr ? Real(0) : c[row * DHV + column];
}

/// The scratch of one thread: slot n of the block's scratch.
template <class Real>
__device__ Real* slot(Real* scratch, const Cut& cut, std::int64_t n, int quad, int thread) {
  return scratch + ((n * (kRows * kColumns / 4) + quad) * cut.threads() + thread) * 4;
}

template <class Real>
__device__ void put(Real* scratch, const Cut& cut, std::int64_t n, int thread, const Real (&x)[kRows][kColumns]) {
#pragma unroll
  for (int quad = 0; quad < kRows * kColumns / 4; ++quad) {
    const int r = quad / (kColumns / 4), c = quad % (kColumns / 4) * 4;
    *reinterpret_cast<Quad<Real>*>(slot(scratch, cut, n, quad, thread)) = {x[r][c], x[r][c + 1], x[r][c + 2],
                                                                           x[r][c + 3]};
  }
}

template <class Real>
__device__ void get(Real* scratch, const Cut& cut, std::int64_t n, int thread, Real (&x)[kRows][kColumns]) {
#pragma unroll
  for (int quad = 0; quad < kRows * kColumns / 4; ++quad) {
    const auto four = *reinterpret_cast<const Quad<Real>*>(slot(scratch, cut, n, quad, thread));
#pragma unroll
    for (int c = 0; c < 4; ++c) x[quad / (kColumns / 4)][quad % (kColumns / 4) * 4 + c] = four.x[c];
  }
}

/// k, v, g and gates of n steps from `at` (an index over all heads); q too if `with_q`. g = dh / d is kept finite: it
/// may meet zeros.
template <class T, class Real = RealOf<T>>
__device__ void stage(const Sequence<T>& p, const Tile<Real>& tile, const Where& where, std::int64_t at, int n,
                      bool with_q) {
  const int rows = p.cut.rows(), columns = p.cut.columns();
  stage_gates(tile.F, tile.I, p.gates, at, n);
  if (with_q) stage_rows(tile.query, p.q + at * p.DHQK, p.DHQK, where.first_row, rows, n, p.scale);
  stage_rows(tile.key, p.k + at * p.DHQK, p.DHQK, where.first_row, rows, n, Real(1));
  const Real largest = std::is_same_v<Real, double> ? Real(1.7976931348623157e308) : Real(3.4028234663852886e38f);
  for (int index = where.thread; index < n * columns; index += p.cut.threads()) {
    const std::int64_t step = at + index / columns, column = where.first_column + index % columns;
    Real v = 0, g = 0;
    if (column < p.DHV) {
      v = cuda::to_real(p.v[step * p.DHV + column]);
      if (p.dh != nullptr) g = cuda::to_real(p.dh[step * p.DHV + column]) * p.inverse[step];
    } else if (column == p.DHV) {
      v = 1;
      g = p.gamma[step];
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
      out = where.first_of_part ? sum : out + sum;
    }
}

/// Steps begin, ..., end - 1 of a segment with C, the state before them: keeps C_{t-1}, gives dq.
template <class T, class Real = RealOf<T>>
__device__ void run_ahead(const Sequence<T>& p, const Tile<Real>& tile, const Where& where, Real* scratch,
                          std::int64_t begin, std::int64_t end, Real (&C)[kRows][kColumns]) {
  const Cut& cut = p.cut;
  for (std::int64_t first = begin; first < end; first += p.tile) {
    const int n = static_cast<int>(end - first < p.tile ? end - first : p.tile);
    const std::int64_t at = where.head * p.S + first;
    stage(p, tile, where, at, n, false);
    __syncthreads();
    for (int t = 0; t < n; ++t) {
      put(scratch, cut, first - begin + t, where.thread, C);
      const Real F = tile.F[t], I = tile.I[t];
      Real key[kRows], v[kColumns], g[kColumns];
      load_quads(key, tile.key + t * cut.rows() + where.row_thread * kRows);
      load_quads(v, tile.v + t * cut.columns() + where.group * kColumns);
      load_quads(g, tile.g + t * cut.columns() + where.group * kColumns);
      Quad<Real> sums{};
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        key[r] *= I;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          C[r][c] = F * C[r][c] + key[r] * v[c];
          sums.x[r] += C[r][c] * g[c];
        }
      }
      *reinterpret_cast<Quad<Real>*>(tile.row_sums + (t * cut.groups + where.group) * cut.rows() +
                                     where.row_thread * kRows) = sums;
    }
    __syncthreads();
    add_row_sums(p, tile, where, p.dq_parts, at, n, [&](int) { return p.scale; });
  }
}

/// The same steps with dC, the cotangent of the state after them from later steps; leaves that of the state before
/// them.
template <class T, class Real = RealOf<T>>
__device__ void run_back(const Sequence<T>& p, const Tile<Real>& tile, const Where& where, Real* scratch,
                         std::int64_t begin, std::int64_t end, Real (&dC)[kRows][kColumns]) {
  const Cut& cut = p.cut;
  const int row_warps = cut.row_warps(), columns = cut.columns();
  for (std::int64_t first = begin + (end - begin - 1) / p.tile * p.tile; first >= begin; first -= p.tile) {
    const int n = static_cast<int>(end - first < p.tile ? end - first : p.tile);
    const std::int64_t at = where.head * p.S + first;
    stage(p, tile, where, at, n, true);
    __syncthreads();
    for (int t = n - 1; t >= 0; --t) {
      Real before[kRows][kColumns];
      get(scratch, cut, first - begin + t, where.thread, before);
      const Real F = tile.F[t];
      Real key[kRows], query[kRows], v[kColumns], g[kColumns], column_sums[kColumns] = {}, product = 0;
      load_quads(key, tile.key + t * cut.rows() + where.row_thread * kRows);
      load_quads(query, tile.query + t * cut.rows() + where.row_thread * kRows);
      load_quads(v, tile.v + t * columns + where.group * kColumns);
      load_quads(g, tile.g + t * columns + where.group * kColumns);
      Quad<Real> sums{};
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          dC[r][c] += query[r] * g[c];
          column_sums[c] += key[r] * dC[r][c];
          sums.x[r] += dC[r][c] * v[c];
          product += dC[r][c] * before[r][c];
          dC[r][c] *= F;
        }
      *reinterpret_cast<Quad<Real>*>(tile.row_sums + (t * cut.groups + where.group) * cut.rows() +
                                     where.row_thread * kRows) = sums;
      const Real sum = sum_columns(column_sums, where.lane);
      if (where.lane % 4 == 0) tile.column_sums[(t * cut.warps() + where.warp) * kColumns + where.lane / 4] = sum;
      product = cuda::warp_sum(product);
      if (where.lane == 0) tile.products[t * cut.warps() + where.warp] = product;
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
      out = where.first_of_part && where.first_rows ? sum : out + sum;
    }
    __syncthreads();  // I and F are read until here
  }
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
  where.lane = where.thread % 32;
  where.warp = where.thread / 32;
  where.group = where.thread / cut.row_threads;
  where.row_thread = where.thread % cut.row_threads;
  where.head = blockIdx.x / p.parts;
  where.part = blockIdx.x % p.parts;
  const std::int64_t segments = (p.S - 1) / p.segment + 1, C_size = p.DHQK * p.DHV;
  const auto of_head = [&](auto* x, std::int64_t size) { return x == nullptr ? nullptr : x + where.head * size; };
  Real* const scratch = p.scratch + blockIdx.x * (p.segment + 1) * cut.threads() * kRows * kColumns;
  Real after_product = 0, before_product = 0;

  const std::int64_t first_slab = where.part * cut.slabs / p.parts, end_slab = (where.part + 1) * cut.slabs / p.parts;
  for (std::int64_t slab = first_slab; slab < end_slab; ++slab)
    for (std::int64_t row_block = 0; row_block < cut.row_blocks; ++row_block) {
      where.first_of_part = slab == first_slab;
      where.first_rows = row_block == 0;
      where.last_rows = row_block + 1 == cut.row_blocks;
      where.first_row = row_block * cut.rows();
      where.first_column = slab * cut.columns();
      where.place = {where.first_row + where.row_thread * kRows, where.first_column + where.group * kColumns};
      const auto part_of = [&](const Real* c, const Real* n, int r, int x) {
        return element(of_head(c, C_size), of_head(n, p.DHQK), p.DHQK, p.DHV, where.place.row + r,
                       where.place.column + x);
      };
      Real part[kRows][kColumns];  // C or dC
      for (std::int64_t segment = segments - 1; segment >= 0; --segment) {
        const std::int64_t begin = segment * p.segment, end = begin + p.segment < p.S ? begin + p.segment : p.S;
        const Real* const state = p.states + (where.head * segments + segment) * p.DHQK * (p.DHV + 1);
#pragma unroll
        for (int r = 0; r < kRows; ++r)
#pragma unroll
          for (int x = 0; x < kColumns; ++x) {
            const std::int64_t row = where.place.row + r, column = where.place.column + x;
            part[r][x] = row < p.DHQK && column <= p.DHV ? state[row * (p.DHV + 1) + column] : Real(0);
          }
        run_ahead(p, tile, where, scratch, begin, end, part);
        if (end == p.S) {
#pragma unroll
          for (int r = 0; r < kRows; ++r)
#pragma unroll
            for (int x = 0; x < kColumns; ++x) {
              const Real last = part_of(p.dc_last, p.dn_last, r, x);
              after_product += last * part[r][x];
              part[r][x] = last;
            }
        } else {
          get(scratch, cut, p.segment, where.thread, part);
        }
        run_back(p, tile, where, scratch, begin, end, part);
        if (begin > 0) put(scratch, cut, p.segment, where.thread, part);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int x = 0; x < kColumns; ++x) {
          const std::int64_t row = where.place.row + r, column = where.place.column + x;
          before_product += part[r][x] * part_of(p.c_initial, p.n_initial, r, x);
          if (row >= p.DHQK) continue;
          if (column < p.DHV && p.dc_initial != nullptr)
            p.dc_initial[where.head * C_size + row * p.DHV + column] = part[r][x];
          if (column == p.DHV && p.dn_initial != nullptr) p.dn_initial[where.head * p.DHQK + row] = part[r][x];
        }
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
    if (p.dq != nullptr) p.dq[at] = cuda::from_real<T>(dq);
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
  p.scratch = real(scratch.states);
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
