// SPDX-License-Identifier: Apache-2.0
// What both directions share: shapes, per-row weights, packing, and the scan of states.
//
// Arrays of a group: rows (chunks, L, width) and matrices (chunks, L, leading), where widths and leading dimensions are
// multiples of 8 elements, so that cuBLAS finds 16-bit operands aligned. Padding is zero wherever a product reads it:
// columns beyond DHQK and DHV, and rows of the last chunk beyond S.
//
// Kernels that go over rows give a row to a warp, eight rows to a block; lanes go along the row. Indices of heads and
// chunks count within the group of heads being computed: pointers are moved to its first head beforehand.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "chunkwise/native_cublas_ownbw/variant.hpp"
#include "common/cuda/arena.hpp"
#include "common/cuda/blas.hpp"
#include "common/cuda/gates.hpp"
#include "common/cuda/launch.hpp"
#include "common/cuda/scan.cuh"
#include "common/cuda/types.cuh"
#include "common/cuda/wide.cuh"

namespace mlstm::kernels::chunkwise_native_cublas {

using namespace cuda;

constexpr int kThreads = 256, kWarps = kThreads / 32;
/// Heads are computed in groups whose scratch stays below this (or one by one).
constexpr std::size_t kGroupBytes = std::size_t{2} << 30;

/// Sizes of a problem cut into chunks.
struct Chunks {
  std::int64_t heads, S, DHQK, DHV, L;
  std::int64_t NC;          ///< chunks per head
  std::int64_t leading;     ///< of L x L matrices
  std::int64_t DQ, DV;      ///< DHQK and DHV, padded
  double scale;             ///< s = DHQK^(-1/2)
  bool has_initial, has_m;  ///< an initial state is given; there is a stabiliser
  bool has_past;            ///< some step sees a state

  static Chunks of(const Problem& problem, std::int64_t L) {
    const Shape& shape = problem.shape;
    const auto pad = [](std::int64_t n) { return (n + 7) / 8 * 8; };
    L = std::min(L, shape.S);
    const std::int64_t NC = chunks_of(problem, L);
    return {shape.heads(),
            shape.S,
            shape.DHQK,
            shape.DHV,
            L,
            NC,
            pad(L),
            pad(shape.DHQK),
            pad(shape.DHV),
            1 / std::sqrt(static_cast<double>(shape.DHQK)),
            problem.has_initial_state,
            problem.has_m(),
            NC > 1 || problem.has_initial_state};
  }
  /// Whether rows of width d, padded to D, differ from the tensor they come from.
  bool padded(std::int64_t d, std::int64_t D) const { return d != D || S != NC * L; }
  /// Elements of a padded state.
  __host__ __device__ std::int64_t state() const { return DQ * DV; }
};

/// A row of a group's padded arrays.
struct Row {
  std::int64_t chunk, step;  ///< step within the chunk
  std::int64_t source;       ///< row of the (B,NH,S) tensor
  std::int64_t last;         ///< row of the chunk's last step in that tensor
  bool valid;                ///< false in the padding of a ragged chunk
};

__device__ inline Row row_of(const Chunks& shape, std::int64_t row) {
  const std::int64_t chunk = row / shape.L, step = row - chunk * shape.L;
  const std::int64_t head = chunk / shape.NC, begin = (chunk - head * shape.NC) * shape.L;
  const std::int64_t steps = min(shape.L, shape.S - begin), first = head * shape.S + begin;
  return {chunk, step, first + step, first + steps - 1, step < steps};
}

/// The row of this thread's warp.
__device__ inline std::int64_t row_of_warp() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
}
/// Number of this thread in the grid.
__device__ inline std::int64_t index_of_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

/// Sum of x over the lanes up to this one.
template <class Real>
__device__ inline Real warp_prefix(Real x) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int offset = 1; offset < 32; offset *= 2) {
    const Real other = __shfl_up_sync(kAllLanes, x, offset);
    if (lane >= offset) x += other;
  }
  return x;
}

/// What the numbers of a storage type are below: 2^E.
template <class T>
constexpr int kMaxExponent = std::is_same_v<T, float16>  ? 16
                             : std::is_same_v<T, double> ? 1024
                                                         : 128;

/// x rounded as an operand of a product. What is too large is the largest number of T: one of the cures for a huge 1/d
/// (kernels/README.md). A NaN stays one.
template <class T>
__device__ inline T operand_of(RealOf<T> x) {
  return from_real<T>(x > largest<T>() ? largest<T>() : x < -largest<T>() ? -largest<T>() : x);
}

inline dim3 blocks_of_rows(std::int64_t rows) { return grid_of((rows - 1) / kWarps + 1); }
inline dim3 blocks_of_threads(std::int64_t n) { return grid_of((n - 1) / kThreads + 1); }

/// Weights of a group's rows, each (chunks, L), 0 in padding.
template <class Real>
struct RowWeights {
  Real *D_last, *s_past;  ///< D_last,j of step j, s past_t of step t
  Real* past_last;        ///< (chunks): weight of the state before the chunk in the state after it
  // Backward only:
  Real* lift;                           ///< r_t, a power of 2: what q_t is multiplied by; then dq_t has to be, too
  Real *lifted_inverse, *lifted_gamma;  ///< 1 / (r_t d_t) and the cotangent of r_t l_t
  Real* lifted_s_past;                  ///< s past_t r_t
  Real* s_past_gamma;                   ///< s past_t times lifted_gamma

  static RowWeights take(Arena& arena, const Chunks& shape, std::int64_t heads, bool backward) {
    const std::int64_t chunks = heads * shape.NC, rows = chunks * shape.L, more = backward ? rows : 0;
    return {arena.take<Real>(rows), arena.take<Real>(rows), arena.take<Real>(chunks), arena.take<Real>(more),
            arena.take<Real>(more), arena.take<Real>(more), arena.take<Real>(more),   arena.take<Real>(more)};
  }
};

/// A thread per row. inverse, gamma (B,NH,S): 1 / d_t and the cotangent of l_t; null in the forward pass.
///
/// r_t = 2^n is 1 unless 1/d_t is 2^half_exponent or more, the root of where the storage type ends, and then just so
/// much that 1 / (r_t d_t) is below that: one of the cures for a huge 1/d (kernels/README.md).
template <class Real>
__global__ void fill_weights(Chunks shape, std::int64_t rows, Gates gates, const Real* inverse, const Real* gamma,
                             int half_exponent, RowWeights<Real> out) {
  const std::int64_t index = index_of_thread();
  if (index >= rows) return;
  const Row row = row_of(shape, index);
  Real D_last = 0, past = 0, lift = 1, lifted_inverse = 0, lifted_gamma = 0;
  if (row.valid) {
    const Wide M = load_wide(gates.M, gates.M_low, row.source), M_last = load_wide(gates.M, gates.M_low, row.last);
    past = exp(static_cast<Real>(difference({gates.m_entering[row.chunk], 0}, M)));
    D_last = exp(static_cast<Real>(difference(load_wide(gates.a, gates.a_low, row.source), M_last)));
    if (row.source == row.last) out.past_last[row.chunk] = past;
    if (inverse != nullptr) {
      if (inverse[row.source] >= ldexp(Real(1), half_exponent))
        lift = ldexp(Real(1), ilogb(inverse[row.source]) + 1 - half_exponent);
      lifted_inverse = inverse[row.source] / lift;
      lifted_gamma = gamma[row.source] / lift;
    }
  }
  const Real s_past = static_cast<Real>(shape.scale) * past;
  out.D_last[index] = D_last;
  out.s_past[index] = s_past;
  if (inverse == nullptr) return;
  out.lift[index] = lift;
  out.lifted_inverse[index] = lifted_inverse;
  out.lifted_gamma[index] = lifted_gamma;
  out.lifted_s_past[index] = s_past * lift;
  out.s_past_gamma[index] = s_past * lifted_gamma;
}

/// out (chunks, L, D) = weight∘x, rounded; x (B,NH,S,d), null: zero; weight null: 1. A warp per row.
template <class T>
__global__ void pack_rows(Chunks shape, std::int64_t rows, std::int64_t d, std::int64_t D, const T* x,
                          const RealOf<T>* weight, T* out) {
  using Real = RealOf<T>;
  const std::int64_t index = row_of_warp();
  if (index >= rows) return;
  const Row row = row_of(shape, index);
  const Real factor = weight == nullptr ? Real(1) : weight[index];
  for (std::int64_t column = threadIdx.x % 32; column < D; column += 32) {
    Real value = 0;
    if (row.valid && column < d && x != nullptr) value = factor * to_real(x[row.source * d + column]);
    out[index * D + column] = operand_of<T>(value);
  }
}

/// out (chunks, D) = Σ_t weight_t x_t over the rows of each chunk. A block has 32 columns of a chunk, its eight warps
/// every eighth row.
template <class T>
__global__ void sum_rows(Chunks shape, std::int64_t D, const T* x, const RealOf<T>* weight, RealOf<T>* out) {
  using Real = RealOf<T>;
  __shared__ Real parts[kWarps][32];
  const std::int64_t chunk = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * 32 + lane;
  Real sum = 0;
  if (column < D) {
    const T* const rows = x + chunk * shape.L * D + column;
#pragma unroll 4
    for (std::int64_t t = warp; t < shape.L; t += kWarps) sum += weight[chunk * shape.L + t] * to_real(rows[t * D]);
  }
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= D) return;
  for (int other = 1; other < kWarps; ++other) sum += parts[other][lane];
  out[chunk * D + column] = sum;
}

/// One array of states, (heads, NC, rows, columns) padded, and the unpadded tensors at its two ends.
template <class Real>
struct StateScan {
  std::int64_t rows, columns, padded_rows, padded_columns;
  const Real* start;  ///< (heads, rows, columns): the state that the scan starts from; null: zero
  Real* states;       ///< in: what each chunk adds; out: the state before each chunk (backwards: after each)
  Real* end;          ///< (heads, rows, columns): the state that the scan ends with; null: not wanted
};

/// x_{c+1} = past_last_c x_c + added_c for each element, over the chunks of its head; from the last chunk to the first
/// if `backwards`. operand: copies of the states as operands of products, null if not wanted. A thread per element.
template <class T>
__global__ void scan_states(Chunks shape, std::int64_t elements, StateScan<RealOf<T>> scan, const RealOf<T>* past_last,
                            bool backwards, T* operand) {
  using Real = RealOf<T>;
  const std::int64_t index = index_of_thread();
  if (index >= elements) return;
  const std::int64_t size = scan.padded_rows * scan.padded_columns, head = index / size, element = index - head * size;
  const std::int64_t row = element / scan.padded_columns, column = element - row * scan.padded_columns;
  const bool inside = row < scan.rows && column < scan.columns;
  const std::int64_t outer = (head * scan.rows + row) * scan.columns + column;
  Real value = inside && scan.start != nullptr ? scan.start[outer] : Real(0);
  for (std::int64_t step = 0; step < shape.NC; ++step) {
    const std::int64_t chunk = head * shape.NC + (backwards ? shape.NC - 1 - step : step);
    const std::int64_t here = chunk * size + element;
    const Real added = scan.states[here];
    scan.states[here] = value;
    if (operand != nullptr) operand[here] = operand_of<T>(value);
    value = past_last[chunk] * value + added;
  }
  if (inside && scan.end != nullptr) scan.end[outer] = value;
}

/// l and the states before all chunks of some heads: what forward leaves for backward, and room for it.
template <class Real>
struct States {
  Real* l;      ///< (heads, S)
  Real *C, *n;  ///< (heads, NC, DQ, DV), (heads, NC, DQ)

  static States take(Arena& arena, const Chunks& shape, std::int64_t heads) {
    const std::int64_t chunks = heads * shape.NC;
    return {arena.take<Real>(heads * shape.S), arena.take<Real>(chunks * shape.state()),
            arena.take<Real>(chunks * shape.DQ)};
  }
  /// The buffer that forward saves, at a head; C and n are null if no step sees a state.
  static States saved(Arena arena, const Chunks& shape, std::int64_t head) {
    if (!shape.has_past) return {arena.take<Real>(shape.heads * shape.S) + head * shape.S, nullptr, nullptr};
    const States all = take(arena, shape, shape.heads);
    const std::int64_t chunk = head * shape.NC;
    return {all.l + head * shape.S, all.C + chunk * shape.state(), all.n + chunk * shape.DQ};
  }
};

inline Gates from_head(const Gates& gates, const Chunks& shape, std::int64_t head) {
  const std::int64_t row = head * shape.S;
  const std::int64_t chunk = head * shape.NC;
  const auto low = [row](double* part) { return part == nullptr ? nullptr : part + row; };
  return {gates.a + row,    gates.M + row,      low(gates.a_low),
          low(gates.M_low), gates.m + row,      gates.m_entering + chunk,
          gates.past + row, gates.D_last + row, gates.past_last + chunk};
}

/// The part of a tensor with n elements per head that starts at `head`; null stays null.
template <class T, class Void>
auto from_head(Void* tensor, std::int64_t head, std::int64_t n) {
  using Pointer = std::conditional_t<std::is_const_v<Void>, const T*, T*>;
  return tensor == nullptr ? nullptr : static_cast<Pointer>(tensor) + head * n;
}

/// The (B,NH,...) tensors at the two ends of a scan of states; null: zero, or not wanted.
struct StateEnds {
  const void *C_start, *n_start;
  void *C_end, *n_end;
};

/// Launches of the kernels above, and GEMMs, for a group of heads.
template <class T>
struct Group {
  using Real = RealOf<T>;
  const Chunks& shape;
  const Blas& blas;
  cudaStream_t stream;
  std::int64_t first, heads;

  std::int64_t chunks() const { return heads * shape.NC; }
  std::int64_t rows() const { return chunks() * shape.L; }

  /// x (B,NH,S,d) as rows of width D; `buffer` is used if they differ, and is null if not.
  const T* rows_of(const void* x, std::int64_t d, std::int64_t D, T* buffer) const {
    if (!shape.padded(d, D)) return from_head<T>(x, first, shape.S * d);
    pack(x, d, D, nullptr, buffer);
    return buffer;
  }
  void pack(const void* x, std::int64_t d, std::int64_t D, const Real* weight, T* out) const {
    launch("pack_rows", pack_rows<T>, blocks_of_rows(rows()), kThreads, 0, stream, shape, rows(), d, D,
           from_head<T>(x, first, shape.S * d), weight, out);
  }
  /// gates: of the group. rows: of the problem; null in the forward pass.
  void weights(const Gates& gates, const RowCotangents* cotangents, const RowWeights<Real>& out) const {
    const auto part = [&](void* all) { return static_cast<const Real*>(from_head<Real>(all, first, shape.S)); };
    launch("fill_weights", fill_weights<Real>, blocks_of_threads(rows()), kThreads, 0, stream, shape, rows(), gates,
           cotangents == nullptr ? nullptr : part(cotangents->inverse),
           cotangents == nullptr ? nullptr : part(cotangents->gamma), kMaxExponent<T> / 2, out);
  }
  void sum(const T* x, std::int64_t D, const Real* weight, Real* out) const {
    launch("sum_rows", sum_rows<T>, grid_of(chunks(), (D - 1) / 32 + 1), kThreads, 0, stream, shape, D, x, weight, out);
  }
  /// Scans states of `columns` columns from `start` to `end`, (B,NH,...) tensors; see scan_states.
  void scan(std::int64_t columns, std::int64_t padded_columns, const void* start, Real* states, void* end,
            const Real* past_last, bool backwards, T* operand) const {
    const std::int64_t size = shape.DHQK * columns, elements = heads * shape.DQ * padded_columns;
    const StateScan<Real> scan{shape.DHQK,
                               columns,
                               shape.DQ,
                               padded_columns,
                               from_head<Real>(start, first, size),
                               states,
                               from_head<Real>(end, first, size)};
    launch("scan_states", scan_states<T>, blocks_of_threads(elements), kThreads, 0, stream, shape, elements, scan,
           past_last, backwards, operand);
  }
  /// The same for C and n (or their cotangents). Returns C as an operand of products, which is in `copy` if rounded.
  const T* scan(const StateEnds& ends, Real* C, Real* n, const Real* past_last, bool backwards, T* copy) const {
    scan(1, 1, ends.n_start, n, ends.n_end, past_last, backwards, nullptr);
    if constexpr (std::is_same_v<T, Real>) {
      scan(shape.DHV, shape.DV, ends.C_start, C, ends.C_end, past_last, backwards, nullptr);
      return C;
    } else {
      scan(shape.DHV, shape.DV, ends.C_start, C, ends.C_end, past_last, backwards, copy);
      return copy;
    }
  }

  /// Operands and results of products: rows of width D, L x L matrices, states.
  BlasMatrix wide(const void* x, std::int64_t D) const { return {x, D, shape.L * D}; }
  BlasMatrix square(const void* x) const { return {x, shape.leading, shape.L * shape.leading}; }
  BlasMatrix state(const void* x) const { return {x, shape.DV, shape.state()}; }
  void multiply(std::int64_t m, std::int64_t n, std::int64_t k, const BlasMatrix& a, const BlasMatrix& b,
                const BlasMatrix& result) const {
    blas.multiply(chunks(), m, n, k, a, b, result);
  }
};

/// Heads per group: `Scratch::take(arena, shape, heads)` is what a group needs.
template <class Scratch>
std::int64_t heads_per_group(const Chunks& shape) {
  Arena arena(nullptr);
  Scratch::take(arena, shape, 1);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(kGroupBytes / arena.size()), 1, shape.heads);
}

}  // namespace mlstm::kernels::chunkwise_native_cublas
