// SPDX-License-Identifier: Apache-2.0
// Forward pass of a chain of chunks with cuBLAS (formulas and roundings: variant.hpp):
//
//   added_c = (D_last∘k)ᵀ v          GEMM        C_{c+1} = past_last C_c + added_c    scan over chunks, n likewise
//   scores  = q kᵀ                   GEMM        P = s scores∘D,  l = Σ_j P_j + s past∘(q n)
//   inner = P v,  outer = q C        GEMMs       h = (inner + s past∘outer) / d
//
// P is summed before it is rounded. A warp owns a row of P and of h, a thread an element of C for all chunks.
#include <limits>
#include <string>

#include "chunkwise/native_cublas_ownbw/chunks.cuh"

namespace mlstm::kernels::chunkwise_native_cublas {
namespace {

/// P, rounded and 0 above the diagonal and in padding rows and columns (products read these too, if only for results
/// that nobody keeps), and l (B,NH,S). n null: no state before.
template <class T>
__global__ void weigh_scores(Chunks shape, std::int64_t rows, Gates gates, RowWeights<RealOf<T>> weights,
                             const RealOf<T>* scores, const T* q, const RealOf<T>* n, T* P, RealOf<T>* l) {
  using Real = RealOf<T>;
  const std::int64_t index = row_of_warp();
  if (index >= rows) return;
  const Row row = row_of(shape, index);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t first = row.source - row.step;
  const Real scale = static_cast<Real>(shape.scale);
  const Wide M = row.valid ? load_wide(gates.M, gates.M_low, row.source) : Wide{};
  Real sum = 0;
  for (std::int64_t j = lane; j < shape.leading; j += 32) {
    Real p = 0;
    if (row.valid && j <= row.step) {
      const Real D = exp(static_cast<Real>(difference(load_wide(gates.a, gates.a_low, first + j), M)));
      p = scale * (scores[index * shape.leading + j] * D);
    }
    sum += p;
    P[index * shape.leading + j] = operand_of<T>(p);
  }
  sum = warp_sum(sum);
  Real outer = 0;
  if (n != nullptr) {
    for (std::int64_t d = lane; d < shape.DQ; d += 32)
      outer += to_real(q[index * shape.DQ + d]) * n[row.chunk * shape.DQ + d];
    outer = weights.s_past[index] * warp_sum(outer);
  }
  if (lane == 0 && row.valid) l[row.source] = sum + outer;
}

/// h (B,NH,S,DHV). inner, outer: (chunks, L, DV); outer null: zero. A warp per row.
template <class T>
__global__ void store_h(Chunks shape, std::int64_t rows, DenominatorRule rule, Gates gates,
                        RowWeights<RealOf<T>> weights, const RealOf<T>* l, const RealOf<T>* inner,
                        const RealOf<T>* outer, T* h) {
  using Real = RealOf<T>;
  const std::int64_t index = row_of_warp();
  if (index >= rows) return;
  const Row row = row_of(shape, index);
  if (!row.valid) return;
  const Real inverse = denominator<Real>(rule, l[row.source], static_cast<Real>(gates.m[row.source])).inverse;
  const Real s_past = weights.s_past[index];
  for (std::int64_t e = threadIdx.x % 32; e < shape.DHV; e += 32) {
    Real numerator = inner[index * shape.DV + e];
    if (outer != nullptr) numerator += s_past * outer[index * shape.DV + e];
    h[row.source * shape.DHV + e] = from_real<T>(numerator * inverse);
  }
}

/// Scratch of a group of heads.
template <class T>
struct Scratch {
  using Real = RealOf<T>;
  States<Real> states;  ///< used where the caller does not save
  RowWeights<Real> weights;
  T *q, *k, *v;   ///< padded copies, if padding is needed
  T* weighted_k;  ///< D_last∘k
  T* C;           ///< copies of the states for products, if T is not Real
  T* P;
  Real *scores, *inner, *outer;

  static Scratch take(Arena& arena, const Chunks& shape, std::int64_t heads) {
    const std::int64_t chunks = heads * shape.NC, rows = chunks * shape.L;
    const bool pad_q = shape.padded(shape.DHQK, shape.DQ), pad_v = shape.padded(shape.DHV, shape.DV);
    Scratch out;
    out.states = States<Real>::take(arena, shape, heads);
    out.weights = RowWeights<Real>::take(arena, shape, heads, false);
    out.q = arena.take<T>(pad_q ? rows * shape.DQ : 0);
    out.k = arena.take<T>(pad_q ? rows * shape.DQ : 0);
    out.v = arena.take<T>(pad_v ? rows * shape.DV : 0);
    out.weighted_k = arena.take<T>(rows * shape.DQ);
    out.C = arena.take<T>(std::is_same_v<T, Real> ? 0 : chunks * shape.state());
    out.P = arena.take<T>(rows * shape.leading);
    out.scores = arena.take<Real>(rows * shape.leading);
    out.inner = arena.take<Real>(rows * shape.DV);
    out.outer = arena.take<Real>(rows * shape.DV);
    return out;
  }
};

/// Workspace of a call.
template <class T>
struct Workspace {
  Gates gates;
  std::byte* blas;
  std::int64_t heads;  ///< per group
  Scratch<T> scratch;

  static Workspace take(Arena& arena, const Problem& problem, const Chunks& shape) {
    Workspace out;
    out.gates = Gates::take(arena, problem, shape.L);
    out.blas = arena.take<std::byte>(Blas::kWorkspace);
    out.heads = heads_per_group<Scratch<T>>(shape);
    out.scratch = Scratch<T>::take(arena, shape, out.heads);
    return out;
  }
};

template <class T>
void forward_group(const Problem& problem, const ForwardArgs& args, const Gates& all_gates, const Group<T>& group,
                   const Scratch<T>& scratch) {
  using Real = RealOf<T>;
  const Chunks& shape = group.shape;
  const Gates gates = from_head(all_gates, shape, group.first);
  States<Real> states = scratch.states;
  if (args.saved != nullptr) {
    const States<Real> saved = States<Real>::saved(Arena(args.saved), shape, group.first);
    states = shape.has_past ? saved : States<Real>{saved.l, states.C, states.n};
  }
  const T* const q = group.rows_of(args.q, shape.DHQK, shape.DQ, scratch.q);
  const T* const k = group.rows_of(args.k, shape.DHQK, shape.DQ, scratch.k);
  const T* const v = group.rows_of(args.v, shape.DHV, shape.DV, scratch.v);
  const RowWeights<Real>& weights = scratch.weights;
  group.weights(gates, nullptr, weights);

  const T* C = nullptr;  // as an operand
  if (shape.has_past || args.c_last != nullptr || args.n_last != nullptr) {
    group.pack(args.k, shape.DHQK, shape.DQ, weights.D_last, scratch.weighted_k);
    group.multiply(shape.DQ, shape.DV, shape.L, group.wide(scratch.weighted_k, shape.DQ).t(), group.wide(v, shape.DV),
                   group.state(states.C));
    group.sum(k, shape.DQ, weights.D_last, states.n);
    const StateEnds ends{shape.has_initial ? args.c_initial : nullptr, shape.has_initial ? args.n_initial : nullptr,
                         args.c_last, args.n_last};
    C = group.scan(ends, states.C, states.n, weights.past_last, false, scratch.C);
  }

  group.multiply(shape.L, shape.L, shape.DQ, group.wide(q, shape.DQ), group.wide(k, shape.DQ).t(),
                 group.square(scratch.scores));
  launch("weigh_scores", weigh_scores<T>, blocks_of_rows(group.rows()), kThreads, 0, group.stream, shape, group.rows(),
         gates, weights, scratch.scores, q, shape.has_past ? states.n : nullptr, scratch.P, states.l);
  group.multiply(shape.L, shape.DV, shape.L, group.square(scratch.P), group.wide(v, shape.DV),
                 group.wide(scratch.inner, shape.DV));
  if (shape.has_past)
    group.multiply(shape.L, shape.DV, shape.DQ, group.wide(q, shape.DQ), group.state(C),
                   group.wide(scratch.outer, shape.DV));
  launch("store_h", store_h<T>, blocks_of_rows(group.rows()), kThreads, 0, group.stream, shape, group.rows(),
         DenominatorRule::of(problem), gates, weights, states.l, scratch.inner,
         shape.has_past ? scratch.outer : nullptr, from_head<T>(args.h, group.first, shape.S * shape.DHV));
}

}  // namespace

std::string too_large(const Problem& problem, std::int64_t L) {
  const Chunks shape = Chunks::of(problem, L);
  // In floating point, as products may go beyond 64 bits. All heads are counted, though only the gates take all at
  // once.
  const auto heads = static_cast<double>(shape.heads), chunks = heads * static_cast<double>(shape.NC);
  const auto DQ = static_cast<double>(shape.DQ), DV = static_cast<double>(shape.DV);
  const struct {
    const char* what;
    double size, limit;
  } needs[] = {{"chunks", chunks, kMaxGridX},
               {"steps", chunks * static_cast<double>(shape.L), static_cast<double>(kMaxGridX) * kWarps},
               {"elements of states", chunks * DQ * DV, static_cast<double>(kMaxGridX) * kThreads},
               {"columns of q and k", DQ, static_cast<double>(kMaxGridYZ) * 32},
               {"columns of v", DV, std::numeric_limits<int>::max()}};
  for (const auto& [what, size, limit] : needs)
    if (size > limit)
      return "it has " + std::to_string(static_cast<std::int64_t>(size)) + " " + what + "; launches take " +
             std::to_string(static_cast<std::int64_t>(limit));
  return {};
}

std::size_t saved_size(const Problem& problem, std::int64_t L) {
  const Chunks shape = Chunks::of(problem, L);
  Arena arena(nullptr);
  dispatch<double, float>(state_dtype_of(problem.dtype), [&]<class Real>(Real) {
    if (shape.has_past)
      States<Real>::take(arena, shape, shape.heads);
    else
      arena.take<Real>(shape.heads * shape.S);
  });
  return arena.size();
}

std::size_t forward_workspace(const Problem& problem, std::int64_t L) {
  Arena arena(nullptr);
  dispatch<double, float, bfloat16, float16>(
      problem.dtype, [&]<class T>(T) { Workspace<T>::take(arena, problem, Chunks::of(problem, L)); });
  return arena.size();
}

void forward(const Problem& problem, std::int64_t L, const ForwardArgs& args) {
  require_pointer("h", args.h);
  require_pointer("workspace", args.workspace);
  const Chunks shape = Chunks::of(problem, L);
  const auto stream = static_cast<cudaStream_t>(args.stream);
  dispatch<double, float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    Arena arena(args.workspace);
    const auto workspace = Workspace<T>::take(arena, problem, shape);
    const Blas blas(problem.dtype, stream, workspace.blas);
    scan_gates(problem, shape.L, args.i, args.f, args.m_initial, workspace.gates, args.m_last, stream);
    for (std::int64_t first = 0; first < shape.heads; first += workspace.heads) {
      const Group<T> group{shape, blas, stream, first, std::min(workspace.heads, shape.heads - first)};
      forward_group(problem, args, workspace.gates, group, workspace.scratch);
    }
  });
}

}  // namespace mlstm::kernels::chunkwise_native_cublas
