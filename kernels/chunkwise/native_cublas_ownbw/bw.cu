// SPDX-License-Identifier: Apache-2.0
// Backward pass of a chain of chunks with cuBLAS (variant.hpp). With C, n the state before a chunk and
// dC, dn the cotangent of the state after it, g = dh/d, gamma_t the cotangent of l_t:
//
//   scores = q kᵀ,  dA = dh vᵀ    GEMMs     dP = dA/d + gamma,  P = s scores∘D,  G = dP∘P,  dS = s dP∘D
//   added_c = (s past∘q)ᵀ g       GEMM      dC_{c-1} = past_last dC_c + added_c    scan over chunks, dn likewise
//   dq = s past∘(dh Cᵀ/d + gamma nᵀ) + dS k                                        two GEMMs and one pass each
//   dk = D_last∘(v dCᵀ + dn) + dSᵀ q
//   dv = D_last∘(k dC) + Pᵀ g
//
// d log_i sums columns of G. d logσ(f_r) sums only what straddles step r, never a difference: pairs j < r <= t of G
// within the chunk, q.dq of steps t >= r through the state before, k.dk of steps j < r through the state after, and
// past_last (<dC, C> + <dn, n>) for all steps. A row's prefix sums of G turn the first into a sum over a column.
//
// In all of these q_t is r_t q_t and d_t is r_t d_t, with r_t = 1 unless 1/d_t is very large (fill_weights); dq is then
// multiplied by r_t: one of the cures for a huge 1/d (kernels/README.md).
//
// G, its sums and all gate gradients are unrounded; P, dS, g, C, dC and s past∘q are rounded as operands of products.
// A warp owns a row of P, dS and G, and of dq, dk, dv; a block 32 columns of G; a thread an element of dC for all
// chunks; a warp the gates of a chunk.
#include "chunkwise/native_cublas_ownbw/chunks.cuh"

namespace mlstm::kernels::chunkwise_native_cublas {
namespace {

/// L x L matrices of all chunks. Real ones are read and then overwritten.
template <class T>
struct Squares {
  RealOf<T>* scores;  ///< in: q kᵀ, out: G
  RealOf<T>* dA;      ///< in: dh vᵀ, out: sums of the row of G to the left of each column
  T *P, *dS;          ///< 0 above the diagonal and in padding rows
};

template <class T>
__global__ void weigh_squares(Chunks shape, std::int64_t rows, Gates gates, RowWeights<RealOf<T>> weights,
                              Squares<T> squares) {
  using Real = RealOf<T>;
  const std::int64_t index = row_of_warp();
  if (index >= rows) return;
  const Row row = row_of(shape, index);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t first = row.source - row.step, offset = index * shape.leading;
  const Real scale = static_cast<Real>(shape.scale);
  const Real inverse = weights.lifted_inverse[index], gamma = weights.lifted_gamma[index];
  const std::int64_t end = row.valid ? row.step + 1 : 0;
  const Wide M = row.valid ? load_wide(gates.M, gates.M_low, row.source) : Wide{};
  Real left = 0;
  for (std::int64_t tile = 0; tile < shape.leading; tile += 32) {
    const std::int64_t j = tile + lane;
    Real p = 0, ds = 0, G = 0;
    if (j < end) {
      const Real D = exp(static_cast<Real>(difference(load_wide(gates.a, gates.a_low, first + j), M)));
      const Real dP = inverse * squares.dA[offset + j] + gamma;
      p = scale * (squares.scores[offset + j] * D);
      ds = scale * (dP * D);
      G = dP * p;
      squares.scores[offset + j] = G;
    }
    if (tile < end) {
      const Real upto = warp_prefix(G), before = __shfl_up_sync(kAllLanes, upto, 1);
      if (j < end) squares.dA[offset + j] = lane == 0 ? left : left + before;
      left += __shfl_sync(kAllLanes, upto, 31);
    }
    if (j < shape.leading) {
      squares.P[offset + j] = operand_of<T>(p);
      squares.dS[offset + j] = operand_of<T>(ds);
    }
  }
}

/// Column sums over t >= j of G and of the row sums to its left, to (B,NH,S). A block has 32 columns of a chunk, its
/// eight warps every eighth row.
template <class Real>
__global__ void sum_squares(Chunks shape, const Real* G, const Real* left, Real* d_log_i, Real* d_log_f) {
  __shared__ Real parts[2][kWarps][32];
  const std::int64_t chunk = blockIdx.x, tile = static_cast<std::int64_t>(blockIdx.y) * 32;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Row top = row_of(shape, chunk * shape.L);
  const std::int64_t j = tile + lane, steps = top.last - top.source + 1;
  const std::int64_t offset = chunk * shape.L * shape.leading + j;
  Real sum = 0, straddling = 0;
#pragma unroll 4
  for (std::int64_t t = tile + warp; t < steps; t += kWarps) {
    if (t < j) continue;
    sum += G[offset + t * shape.leading];
    straddling += left[offset + t * shape.leading];
  }
  parts[0][warp][lane] = sum;
  parts[1][warp][lane] = straddling;
  __syncthreads();
  if (warp != 0 || j >= steps) return;
  for (int other = 1; other < kWarps; ++other) {
    sum += parts[0][other][lane];
    straddling += parts[1][other][lane];
  }
  d_log_i[top.source + j] = sum;
  d_log_f[top.source + j] = straddling;
}

/// A gradient with one row per step: what comes through a state, weight (factor through + shift vector), plus `within`,
/// times lift.
template <class T>
struct RowGradient {
  using Real = RealOf<T>;
  std::int64_t d, D;             ///< columns of `out`, and of the padded arrays
  const Real *through, *within;  ///< (chunks, L, D), products; through null: nothing comes through a state
  const Real *weight, *factor;   ///< (chunks, L); factor null: 1
  const Real *shift, *vector;    ///< (chunks, L), null: 1; (chunks, D), null: zero
  const Real* lift;              ///< (chunks, L), null: 1
  const T* x;                    ///< (chunks, L, D)
  Real* dot;                     ///< (chunks, L): x times what comes through the state; null: not wanted
  T* out;                        ///< (B,NH,S,d); null: not wanted
};

template <class T>
__global__ void finish_rows(Chunks shape, std::int64_t rows, RowGradient<T> gradient) {
  using Real = RealOf<T>;
  const std::int64_t index = row_of_warp();
  if (index >= rows) return;
  const Row row = row_of(shape, index);
  const Real weight = gradient.weight[index];
  const Real factor = gradient.factor == nullptr ? Real(1) : gradient.factor[index];
  const Real shift = gradient.shift == nullptr ? Real(1) : gradient.shift[index];
  const Real lift = gradient.lift == nullptr ? Real(1) : gradient.lift[index];
  Real dot = 0;
  for (std::int64_t column = threadIdx.x % 32; column < gradient.d; column += 32) {
    const std::int64_t at = index * gradient.D + column;
    Real value = 0;
    if (gradient.through != nullptr) {
      value = factor * gradient.through[at];
      if (gradient.vector != nullptr) value += shift * gradient.vector[row.chunk * gradient.D + column];
      value *= weight;
      if (gradient.dot != nullptr) dot += to_real(gradient.x[at]) * value;
    }
    if (gradient.out != nullptr && row.valid)
      gradient.out[row.source * gradient.d + column] = from_real<T>(lift * (value + gradient.within[at]));
  }
  if (gradient.dot == nullptr) return;
  dot = warp_sum(dot);
  if (threadIdx.x % 32 == 0) gradient.dot[index] = dot;
}

/// past_last (<dC, C> + <dn, n>) of every chunk. A block per chunk.
template <class Real>
__global__ void dot_states(Chunks shape, const Real* past_last, const Real* C, const Real* n, const Real* dC,
                           const Real* dn, Real* out) {
  __shared__ Real totals[kWarps];
  const std::int64_t chunk = blockIdx.x, size = shape.state();
  Real sum = 0;
  for (std::int64_t at = threadIdx.x; at < size; at += kThreads) sum += dC[chunk * size + at] * C[chunk * size + at];
  for (std::int64_t d = threadIdx.x; d < shape.DQ; d += kThreads)
    sum += dn[chunk * shape.DQ + d] * n[chunk * shape.DQ + d];
  sum = block_sum(sum, totals);
  if (threadIdx.x == 0) out[chunk] = past_last[chunk] * sum;
}

/// Cotangents of the gates that come through states.
template <class Real>
struct StateGates {
  const Real *q_state, *k_state;  ///< (chunks, L)
  const Real* crossing;           ///< (chunks); null: zero
};

/// Adds them to d_log_i and d_log_f (B,NH,S); after_product (heads): <dc_last, c_last> + <dn_last, n_last>. A warp per
/// chunk, over its steps forwards and then backwards.
template <class Real>
__global__ void finish_chunk_gates(Chunks shape, std::int64_t chunks, StateGates<Real> states, Real* d_log_i,
                                   Real* d_log_f, Real* after_product) {
  const std::int64_t chunk = row_of_warp();
  if (chunk >= chunks) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Row top = row_of(shape, chunk * shape.L);
  const std::int64_t steps = top.last - top.source + 1;
  Real sum = states.crossing == nullptr ? Real(0) : states.crossing[chunk];
  for (std::int64_t tile = 0; tile < steps; tile += 32) {
    const std::int64_t t = tile + lane;
    const Real x = t < steps ? states.k_state[chunk * shape.L + t] : Real(0);
    const Real upto = warp_prefix(x), before = __shfl_up_sync(kAllLanes, upto, 1);
    if (t < steps) {
      d_log_i[top.source + t] += x;
      d_log_f[top.source + t] += lane == 0 ? sum : sum + before;
    }
    sum += __shfl_sync(kAllLanes, upto, 31);
  }
  if (lane == 0 && chunk % shape.NC == shape.NC - 1) after_product[chunk / shape.NC] = sum;
  __syncwarp();
  sum = 0;
  for (std::int64_t tile = steps - 1; tile >= 0; tile -= 32) {
    const std::int64_t t = tile - lane;
    const Real x = t >= 0 ? states.q_state[chunk * shape.L + t] : Real(0);
    const Real from_here = warp_prefix(x);
    if (t >= 0) d_log_f[top.source + t] += sum + from_here;
    sum += __shfl_sync(kAllLanes, from_here, 31);
  }
}

/// out = x, rounded.
template <class T>
__global__ void round_states(std::int64_t n, const RealOf<T>* x, T* out) {
  const std::int64_t index = index_of_thread();
  if (index < n) out[index] = operand_of<T>(x[index]);
}

/// Scratch of a group of heads.
template <class T>
struct Scratch {
  using Real = RealOf<T>;
  RowWeights<Real> weights;
  T *k, *v, *dh;        ///< padded copies, if padding is needed
  T *q, *g, *s_past_q;  ///< r∘q, dh/(r d), s past∘r∘q
  T *C, *dC;            ///< copies of states for products, if T is not Real
  Real *d_state, *dn;
  Squares<T> squares;
  Real *through, *within;  ///< of dq, dk, dv one after the other
  Real *q_state, *k_state, *crossing;

  static Scratch take(Arena& arena, const Chunks& shape, std::int64_t heads) {
    const std::int64_t chunks = heads * shape.NC, rows = chunks * shape.L;
    const bool pad_q = shape.padded(shape.DHQK, shape.DQ), pad_v = shape.padded(shape.DHV, shape.DV);
    const std::int64_t copies = std::is_same_v<T, Real> ? 0 : chunks * shape.state();
    Scratch out;
    out.weights = RowWeights<Real>::take(arena, shape, heads, true);
    out.q = arena.take<T>(rows * shape.DQ);
    out.k = arena.take<T>(pad_q ? rows * shape.DQ : 0);
    out.v = arena.take<T>(pad_v ? rows * shape.DV : 0);
    out.dh = arena.take<T>(pad_v ? rows * shape.DV : 0);
    out.g = arena.take<T>(rows * shape.DV);
    out.s_past_q = arena.take<T>(rows * shape.DQ);
    out.C = arena.take<T>(shape.has_past ? copies : 0);
    out.dC = arena.take<T>(copies);
    out.d_state = arena.take<Real>(chunks * shape.state());
    out.dn = arena.take<Real>(chunks * shape.DQ);
    out.squares.scores = arena.take<Real>(rows * shape.leading);
    out.squares.dA = arena.take<Real>(rows * shape.leading);
    out.squares.P = arena.take<T>(rows * shape.leading);
    out.squares.dS = arena.take<T>(rows * shape.leading);
    out.through = arena.take<Real>(rows * std::max(shape.DQ, shape.DV));
    out.within = arena.take<Real>(rows * std::max(shape.DQ, shape.DV));
    out.q_state = arena.take<Real>(rows);
    out.k_state = arena.take<Real>(rows);
    out.crossing = arena.take<Real>(chunks);
    return out;
  }
};

/// Workspace of a call.
template <class T>
struct Workspace {
  using Real = RealOf<T>;
  Gates gates;
  RowCotangents rows;
  Real *d_log_i, *d_log_f;               ///< (heads, S)
  Real *after_product, *before_product;  ///< (heads)
  Real *dc_initial, *dn_initial;         ///< for callers that do not want them, if there are initial states
  std::byte* blas;
  std::int64_t heads;  ///< per group
  Scratch<T> scratch;

  static Workspace take(Arena& arena, const Problem& problem, const Chunks& shape) {
    const std::int64_t initial = shape.has_initial ? shape.heads * shape.DHQK : 0;
    Workspace out;
    out.gates = Gates::take(arena, problem, shape.L);
    out.rows = RowCotangents::take(arena, problem);
    out.d_log_i = arena.take<Real>(shape.heads * shape.S);
    out.d_log_f = arena.take<Real>(shape.heads * shape.S);
    out.after_product = arena.take<Real>(shape.heads);
    out.before_product = arena.take<Real>(shape.heads);
    out.dc_initial = arena.take<Real>(initial * shape.DHV);
    out.dn_initial = arena.take<Real>(initial);
    out.blas = arena.take<std::byte>(Blas::kWorkspace);
    out.heads = heads_per_group<Scratch<T>>(shape);
    out.scratch = Scratch<T>::take(arena, shape, out.heads);
    return out;
  }
};

/// All of a group's backward pass but for the stabiliser. `ends`: of the scan of dC and dn.
template <class T>
void backward_group(const BackwardArgs& args, const Workspace<T>& workspace, const StateEnds& ends,
                    const Group<T>& group) {
  using Real = RealOf<T>;
  const Chunks& shape = group.shape;
  const Scratch<T>& scratch = workspace.scratch;
  const RowWeights<Real>& weights = scratch.weights;
  const Squares<T>& squares = scratch.squares;
  const std::int64_t L = shape.L, DQ = shape.DQ, DV = shape.DV;
  const bool has_future = shape.NC > 1 || ends.C_start != nullptr || ends.n_start != nullptr;
  const auto on_rows = [&](const char* name, auto kernel, auto... arguments) {
    launch(name, kernel, blocks_of_rows(group.rows()), kThreads, 0, group.stream, shape, group.rows(), arguments...);
  };

  const Gates gates = from_head(workspace.gates, shape, group.first);
  const States<Real> states = States<Real>::saved(Arena(args.saved), shape, group.first);
  const T* const q = scratch.q;
  const T* const k = group.rows_of(args.k, shape.DHQK, DQ, scratch.k);
  const T* const v = group.rows_of(args.v, shape.DHV, DV, scratch.v);
  group.weights(gates, &workspace.rows, weights);
  group.pack(args.q, shape.DHQK, DQ, weights.lift, scratch.q);
  group.pack(args.dh, shape.DHV, DV, weights.lifted_inverse, scratch.g);
  // Without dh, g is the zero that dh would be.
  const T* const dh = args.dh == nullptr ? scratch.g : group.rows_of(args.dh, shape.DHV, DV, scratch.dh);

  // Within the chunks.
  Real* const d_log_i = workspace.d_log_i + group.first * shape.S;
  Real* const d_log_f = workspace.d_log_f + group.first * shape.S;
  group.multiply(L, L, DQ, group.wide(q, DQ), group.wide(k, DQ).t(), group.square(squares.scores));
  group.multiply(L, L, DV, group.wide(dh, DV), group.wide(v, DV).t(), group.square(squares.dA));
  on_rows("weigh_squares", weigh_squares<T>, gates, weights, squares);
  launch("sum_squares", sum_squares<Real>, grid_of(group.chunks(), (L - 1) / 32 + 1), kThreads, 0, group.stream, shape,
         squares.scores, squares.dA, d_log_i, d_log_f);

  // Cotangents of the states after the chunks, and of the initial ones.
  const T* dC = nullptr;  // as an operand
  if (has_future || shape.has_initial) {
    group.pack(args.q, shape.DHQK, DQ, weights.lifted_s_past, scratch.s_past_q);
    group.multiply(DQ, DV, L, group.wide(scratch.s_past_q, DQ).t(), group.wide(scratch.g, DV),
                   group.state(scratch.d_state));
    group.sum(q, DQ, weights.s_past_gamma, scratch.dn);
    dC = group.scan(ends, scratch.d_state, scratch.dn, weights.past_last, true, scratch.dC);
  }

  // dq
  if (shape.has_past) {
    const T* C = scratch.C;
    if constexpr (std::is_same_v<T, Real>) {
      C = states.C;
    } else {
      const std::int64_t n = group.chunks() * shape.state();
      launch("round_states", round_states<T>, blocks_of_threads(n), kThreads, 0, group.stream, n, states.C, scratch.C);
    }
    group.multiply(L, DQ, DV, group.wide(dh, DV), group.state(C).t(), group.wide(scratch.through, DQ));
  }
  group.multiply(L, DQ, L, group.square(squares.dS), group.wide(k, DQ), group.wide(scratch.within, DQ));
  on_rows("finish_rows", finish_rows<T>,
          RowGradient<T>{shape.DHQK, DQ, shape.has_past ? scratch.through : nullptr, scratch.within, weights.s_past,
                         weights.lifted_inverse, weights.lifted_gamma, states.n, weights.lift, q, scratch.q_state,
                         from_head<T>(args.dq, group.first, shape.S * shape.DHQK)});

  // dk
  if (has_future) group.multiply(L, DQ, DV, group.wide(v, DV), group.state(dC).t(), group.wide(scratch.through, DQ));
  group.multiply(L, DQ, L, group.square(squares.dS).t(), group.wide(q, DQ), group.wide(scratch.within, DQ));
  on_rows("finish_rows", finish_rows<T>,
          RowGradient<T>{shape.DHQK, DQ, has_future ? scratch.through : nullptr, scratch.within, weights.D_last,
                         nullptr, nullptr, scratch.dn, nullptr, k, scratch.k_state,
                         from_head<T>(args.dk, group.first, shape.S * shape.DHQK)});

  // dv
  if (args.dv != nullptr) {
    if (has_future) group.multiply(L, DV, DQ, group.wide(k, DQ), group.state(dC), group.wide(scratch.through, DV));
    group.multiply(L, DV, L, group.square(squares.P).t(), group.wide(scratch.g, DV), group.wide(scratch.within, DV));
    on_rows("finish_rows", finish_rows<T>,
            RowGradient<T>{shape.DHV, DV, has_future ? scratch.through : nullptr, scratch.within, weights.D_last,
                           nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                           from_head<T>(args.dv, group.first, shape.S * shape.DHV)});
  }

  // Gates through states.
  const bool past_and_future = shape.has_past && has_future;
  if (past_and_future)
    launch("dot_states", dot_states<Real>, grid_of(group.chunks()), kThreads, 0, group.stream, shape, weights.past_last,
           states.C, states.n, scratch.d_state, scratch.dn, scratch.crossing);
  launch("finish_chunk_gates", finish_chunk_gates<Real>, blocks_of_rows(group.chunks()), kThreads, 0, group.stream,
         shape, group.chunks(),
         StateGates<Real>{scratch.q_state, scratch.k_state, past_and_future ? scratch.crossing : nullptr}, d_log_i,
         d_log_f, workspace.after_product + group.first);
}

template <class T>
void backward_as(const Problem& problem, const Chunks& shape, const BackwardArgs& args) {
  const auto stream = static_cast<cudaStream_t>(args.stream);
  Arena arena(args.workspace);
  const auto workspace = Workspace<T>::take(arena, problem, shape);
  const Blas blas(problem.dtype, stream, workspace.blas);
  scan_gates(problem, shape.L, args.i, args.f, args.m_initial, workspace.gates, nullptr, stream);
  const auto saved = States<RealOf<T>>::saved(Arena(args.saved), shape, 0);
  row_cotangents(problem, args.convention, saved.l, workspace.gates, args.dh, args.h, workspace.rows, nullptr, stream);

  StateEnds ends{args.dc_last, args.dn_last, nullptr, nullptr};
  if (shape.has_initial) {
    ends.C_end = args.dc_initial != nullptr ? args.dc_initial : workspace.dc_initial;
    ends.n_end = args.dn_initial != nullptr ? args.dn_initial : workspace.dn_initial;
  }
  for (std::int64_t first = 0; first < shape.heads; first += workspace.heads) {
    const Group<T> group{shape, blas, stream, first, std::min(workspace.heads, shape.heads - first)};
    backward_group(args, workspace, ends, group);
  }

  const bool stabilised_start = shape.has_initial && shape.has_m;
  if (stabilised_start)
    dot_per_head(problem, ends.C_end, args.c_initial, shape.DHQK * shape.DHV, ends.n_end, args.n_initial, shape.DHQK,
                 workspace.before_product, stream);
  finish_gates(problem, args, workspace.gates, workspace.rows.dm,
               {workspace.d_log_i, workspace.d_log_f, workspace.after_product,
                stabilised_start ? workspace.before_product : nullptr},
               stream);
}

}  // namespace

std::size_t backward_workspace(const Problem& problem, std::int64_t L) {
  Arena arena(nullptr);
  dispatch<double, float, bfloat16, float16>(
      problem.dtype, [&]<class T>(T) { Workspace<T>::take(arena, problem, Chunks::of(problem, L)); });
  return arena.size();
}

void backward(const Problem& problem, std::int64_t L, const BackwardArgs& args) {
  require_pointer("workspace", args.workspace);
  require_pointer("saved", args.saved);
  if (args.dh != nullptr && args.convention == Convention::exact) require_pointer("h", args.h);
  dispatch<double, float, bfloat16, float16>(
      problem.dtype, [&]<class T>(T) { backward_as<T>(problem, Chunks::of(problem, L), args); });
}

}  // namespace mlstm::kernels::chunkwise_native_cublas
