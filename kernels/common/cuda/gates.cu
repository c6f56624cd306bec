// SPDX-License-Identifier: Apache-2.0
// Formulas: the header. Scans are one block per head (m at the borders of chunks; the walk back) or per chunk (a, M);
// rows are one warp each. All sums over gates are float64; g, di and df are rounded when they are stored.
#include "common/cuda/gates.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "common/cuda/launch.hpp"
#include "common/cuda/scan.cuh"
#include "common/cuda/types.cuh"
#include "common/cuda/wide.cuh"

namespace mlstm::kernels::cuda {
namespace {

constexpr int kMaxWarps = 32;

/// The gates of a stretch of steps: m after it is max(m before + F, m).
struct Stretch {
  double F, m;
  static __device__ Stretch shuffle_up(Stretch x, int lanes) {
    return {__shfl_up_sync(kAllLanes, x.F, lanes), __shfl_up_sync(kAllLanes, x.m, lanes)};
  }
  struct Join {
    __device__ Stretch operator()(Stretch first, Stretch second) const {
      return {first.F + second.F, fmax(first.m + second.F, second.m)};
    }
  };
};

// One block per head goes over the sequence and notes m at the borders of chunks.
template <class T>
__global__ void entering_kernel(std::int64_t S, std::int64_t L, const T* i, const T* f, const RealOf<T>* m_initial,
                                double m_0, double* m_entering) {
  __shared__ Stretch totals[kMaxWarps];
  const std::int64_t head = blockIdx.x, chunks = (S - 1) / L + 1;
  double m = m_initial != nullptr ? static_cast<double>(m_initial[head]) : m_0;
  if (threadIdx.x == 0) m_entering[head * chunks] = m;
  for (std::int64_t first = 0; first < S; first += blockDim.x) {
    const std::int64_t t = first + threadIdx.x;
    Stretch step{0, -INFINITY};
    if (t < S)
      step = {log_sigmoid(static_cast<double>(to_real(f[head * S + t]))),
              static_cast<double>(to_real(i[head * S + t]))};
    Stretch total;
    const Stretch upto = block_scan(step, Stretch::Join{}, totals, total);
    if (t + 1 < S && (t + 1) % L == 0) m_entering[head * chunks + (t + 1) / L] = fmax(m + upto.F, upto.m);
    m = fmax(m + total.F, total.m);
  }
}

/// Number: double or Wide.
template <class Number>
struct Sum {
  Number x;
  static __device__ Sum shuffle_up(Sum a, int lanes) { return {shuffled_up(kAllLanes, a.x, lanes)}; }
  struct Join {
    __device__ Sum operator()(Sum a, Sum b) const { return {plus(a.x, b.x)}; }
  };
};

template <class Number>
struct Max {
  Number x;
  static __device__ Max shuffle_up(Max a, int lanes) { return {shuffled_up(kAllLanes, a.x, lanes)}; }
  struct Join {
    __device__ Max operator()(Max a, Max b) const { return {larger(a.x, b.x)}; }
  };
};

// One block per chunk. `m_entering` is given (exp gate, several chunks) or written here.
template <class T>
__global__ void chunk_gates_kernel(std::int64_t S, std::int64_t L, bool exp_gate, const T* i, const T* f,
                                   const RealOf<T>* m_initial, double m_0, bool m_entering_given, Gates gates,
                                   RealOf<T>* m_last) {
  using Number = std::conditional_t<std::is_same_v<T, double>, Wide, double>;
  using Adding = Sum<Number>;
  using Comparing = Max<Number>;
  __shared__ Adding sums[kMaxWarps];
  __shared__ Comparing maxima[kMaxWarps];
  const std::int64_t chunks = (S - 1) / L + 1, head = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  double m_entering = 0;
  if (exp_gate) {
    if (m_entering_given)
      m_entering = gates.m_entering[blockIdx.x];
    else
      m_entering = m_initial != nullptr ? static_cast<double>(m_initial[head]) : m_0;
  }
  if (!m_entering_given && threadIdx.x == 0) gates.m_entering[blockIdx.x] = m_entering;
  const std::int64_t begin = chunk * L, end = begin + L < S ? begin + L : S;
  Number b_before{}, M_before{m_entering};
  for (std::int64_t first = begin; first < end; first += blockDim.x) {
    const std::int64_t t = first + threadIdx.x, at = head * S + t;
    Adding step{};
    double log_i = -INFINITY;
    if (t < end) {
      step.x = Number{log_sigmoid(static_cast<double>(to_real(f[at])))};
      log_i = static_cast<double>(to_real(i[at]));
      if (!exp_gate) log_i = log_sigmoid(log_i);
    }
    Adding sum;
    const Number b = plus(b_before, block_scan(step, typename Adding::Join{}, sums, sum).x);
    const Number a = plus(Number{log_i}, negated(b));
    Comparing max;
    const Number largest = block_scan(Comparing{a}, typename Comparing::Join{}, maxima, max).x;
    const Number M = exp_gate ? larger(M_before, largest) : negated(b);
    if (t < end) {
      const double m = exp_gate ? high(plus(b, M)) : 0;
      store(gates.a, gates.a_low, at, a);
      store(gates.M, gates.M_low, at, M);
      gates.m[at] = m;
      gates.past[at] = expf(static_cast<float>(m_entering - high(M)));
      if (t == S - 1 && m_last != nullptr && exp_gate) m_last[head] = static_cast<RealOf<T>>(m);
    }
    b_before = plus(b_before, sum.x);
    M_before = larger(M_before, max.x);
  }
  const double M_last = high(exp_gate ? M_before : negated(b_before));
  for (std::int64_t t = begin + threadIdx.x; t < end; t += blockDim.x)  // the steps that this thread has written
    gates.D_last[head * S + t] = expf(static_cast<float>(gates.a[head * S + t] - M_last));
  if (threadIdx.x == 0) gates.past_last[blockIdx.x] = expf(static_cast<float>(m_entering - M_last));
}

/// Up to 16 bytes of a row, read and written at once.
template <class T, int kElements>
struct alignas(kElements * sizeof(T)) Piece {
  T x[kElements];
};

// One warp per row: dh.h, the scalars of the row, and g = dh / d; kElements elements a lane at a time.
template <class T, bool kExact, int kElements>
__global__ void rows_kernel(std::int64_t rows, std::int64_t DHV, DenominatorRule rule, bool exp_gate,
                            const RealOf<T>* l, const double* m, const T* dh, const T* h, RealOf<T>* inverse,
                            RealOf<T>* gamma, RealOf<T>* dm, T* g) {
  using Real = RealOf<T>;
  using P = Piece<T, kElements>;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32;
  const Denominator<Real> d = denominator(rule, l[row], static_cast<Real>(m[row]));
  Real product = 0;
  for (std::int64_t column = lane * kElements; column < DHV; column += 32 * kElements) {
    const std::int64_t at = row * DHV + column;
    P cotangents{}, outputs{};
    if (dh != nullptr) {
      cotangents = *reinterpret_cast<const P*>(dh + at);
      if (kExact) outputs = *reinterpret_cast<const P*>(h + at);
    }
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const Real cotangent = dh != nullptr ? to_real(cotangents.x[e]) : Real(0);
      if (kExact) product += cotangent * (dh != nullptr ? to_real(outputs.x[e]) : Real(0));
      cotangents.x[e] = from_real<T>(saturate<T>(cotangent * d.inverse));
    }
    if (g != nullptr) *reinterpret_cast<P*>(g + at) = cotangents;
  }
  if (kExact) product = warp_sum(product);
  if (lane != 0) return;
  const Real dd = rule.normalized ? saturate<Real>(-product * d.inverse) : Real(0);
  inverse[row] = d.inverse;
  gamma[row] = kExact ? d.sign * dd : Real(0);
  dm[row] = kExact && exp_gate ? dd * static_cast<Real>(rule.eps) : Real(0);
}

/// A sum that starts anew after every step whose maximum was its own input gate.
struct Carried {
  double x;
  int fresh;  ///< nothing from before is added
  static __device__ Carried shuffle_up(Carried a, int lanes) {
    return {__shfl_up_sync(kAllLanes, a.x, lanes), __shfl_up_sync(kAllLanes, a.fresh, lanes)};
  }
  struct Join {
    __device__ Carried operator()(Carried a, Carried b) const {
      return {b.fresh != 0 ? b.x : a.x + b.x, a.fresh | b.fresh};
    }
  };
};

/// Scalars of one head that enter or leave the walk of the stabiliser's cotangent.
template <class Real>
struct WalkEnds {
  const Real *dm_last, *after_product, *before_product;
  Real* dm_initial;
};

// One block per head goes over the sequence backwards.
template <class T>
__global__ void finish_gates_kernel(std::int64_t S, bool exp_gate, bool exact, const T* i, const T* f, Gates gates,
                                    const RealOf<T>* dm, const RealOf<T>* d_log_i, const RealOf<T>* d_log_f,
                                    WalkEnds<RealOf<T>> ends, T* di, T* df) {
  using Real = RealOf<T>;
  __shared__ Carried totals[kMaxWarps];
  const std::int64_t head = blockIdx.x, offset = head * S;
  const auto is_newest = [&](std::int64_t at) {
    return equal(load_wide(gates.a, gates.a_low, at), load_wide(gates.M, gates.M_low, at));
  };
  double carried_before = 0;  // of the step after this tile's last one, if it is passed on
  for (std::int64_t last = S - 1; last >= 0; last -= blockDim.x) {
    const std::int64_t t = last - threadIdx.x, at = offset + t;
    Carried step{0, 0};
    bool newest = false;
    if (t >= 0 && exp_gate) {
      newest = is_newest(at);
      step.x = dm != nullptr ? static_cast<double>(dm[at]) : 0.0;
      step.fresh = t + 1 < S && is_newest(at + 1);
      if (t == S - 1) {
        if (exact && ends.after_product != nullptr) step.x -= static_cast<double>(ends.after_product[head]);
        if (ends.dm_last != nullptr) step.x += static_cast<double>(ends.dm_last[head]);
      }
    }
    Carried total;
    Carried upto = block_scan(step, Carried::Join{}, totals, total);
    if (upto.fresh == 0) upto.x += carried_before;
    carried_before = total.fresh != 0 ? total.x : carried_before + total.x;
    if (t < 0) continue;
    const double carried = exp_gate ? upto.x : 0.0;
    const Real gate_i = to_real(i[at]), gate_f = to_real(f[at]);
    const double log_i = static_cast<double>(d_log_i[at]) + (newest ? carried : 0.0);
    const double log_f = static_cast<double>(d_log_f[at]) + (newest ? 0.0 : carried);
    const Real slope_i = exp_gate ? Real(1) : sigmoid(-gate_i);
    if (di != nullptr) di[at] = from_real<T>(static_cast<Real>(log_i) * slope_i);
    if (df != nullptr) df[at] = from_real<T>(static_cast<Real>(log_f) * sigmoid(-gate_f));
    if (t == 0 && exp_gate && ends.dm_initial != nullptr) {
      double rest = newest ? 0.0 : carried;
      if (exact && ends.before_product != nullptr) rest += static_cast<double>(ends.before_product[head]);
      ends.dm_initial[head] = static_cast<Real>(rest);
    }
  }
}

template <class Real>
__global__ void dot_kernel(const Real* x, const Real* y, std::int64_t n, const Real* x2, const Real* y2,
                           std::int64_t n2, Real* out) {
  __shared__ double totals[kMaxWarps];
  const std::int64_t head = blockIdx.x;
  double sum = 0;
  if (x != nullptr)
    for (std::int64_t at = threadIdx.x; at < n; at += blockDim.x)
      sum += static_cast<double>(x[head * n + at]) * static_cast<double>(y[head * n + at]);
  if (x2 != nullptr)
    for (std::int64_t at = threadIdx.x; at < n2; at += blockDim.x)
      sum += static_cast<double>(x2[head * n2 + at]) * static_cast<double>(y2[head * n2 + at]);
  sum = block_sum(sum, totals);
  if (threadIdx.x == 0) out[head] = static_cast<Real>(sum);
}

/// m_0 where no initial state is given.
double m_0_of(const Problem& problem) {
  return problem.stabilizer_init == StabilizerInit::neg_inf ? -std::numeric_limits<double>::infinity() : 0.0;
}

/// The smallest number of whole warps for n elements, at most 1024 threads.
int threads_for(std::int64_t n) { return static_cast<int>(std::min<std::int64_t>(1024, (n + 31) / 32 * 32)); }

}  // namespace

void scan_gates(const Problem& problem, std::int64_t L, const void* i, const void* f, const void* m_initial,
                const Gates& gates, void* m_last, cudaStream_t stream) {
  const std::int64_t S = problem.shape.S, heads = problem.shape.heads(), chunks = chunks_of(problem, L);
  dispatch<double, float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    using Real = RealOf<T>;
    const auto* gate_i = static_cast<const T*>(i);
    const auto* gate_f = static_cast<const T*>(f);
    const auto* m = problem.has_initial_state ? static_cast<const Real*>(m_initial) : nullptr;
    const double m_0 = m_0_of(problem);
    const bool several = problem.has_m() && chunks > 1;
    if (several)
      launch("entering_kernel", entering_kernel<T>, grid_of(heads), threads_for(S), 0, stream, S, L, gate_i, gate_f, m,
             m_0, gates.m_entering);
    launch("chunk_gates_kernel", chunk_gates_kernel<T>, grid_of(heads * chunks), threads_for(std::min(L, S)), 0, stream,
           S, L, problem.has_m(), gate_i, gate_f, m, m_0, several, gates, static_cast<Real*>(m_last));
  });
}

RowCotangents RowCotangents::take(Arena& arena, const Problem& problem) {
  const std::int64_t steps = problem.shape.heads() * problem.shape.S;
  if (problem.dtype == DType::float64)
    return {arena.take<double>(steps), arena.take<double>(steps), arena.take<double>(steps)};
  return {arena.take<float>(steps), arena.take<float>(steps), arena.take<float>(steps)};
}

void row_cotangents(const Problem& problem, Convention convention, const void* l, const Gates& gates, const void* dh,
                    const void* h, const RowCotangents& rows, void* g, cudaStream_t stream) {
  const std::int64_t steps = problem.shape.heads() * problem.shape.S;
  constexpr int kThreads = 256;
  dispatch<double, float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    using Real = RealOf<T>;
    constexpr int kMost = 16 / sizeof(T);
    bool in_pieces = problem.shape.DHV % kMost == 0;
    for (const void* tensor : {dh, h, static_cast<const void*>(g)})
      in_pieces = in_pieces && reinterpret_cast<std::uintptr_t>(tensor) % 16 == 0;
    const auto run = [&](auto kernel) {
      launch("rows_kernel", kernel, grid_of((steps - 1) / (kThreads / 32) + 1), kThreads, 0, stream, steps,
             problem.shape.DHV, DenominatorRule::of(problem), problem.has_m(), static_cast<const Real*>(l), gates.m,
             static_cast<const T*>(dh), static_cast<const T*>(h), static_cast<Real*>(rows.inverse),
             static_cast<Real*>(rows.gamma), static_cast<Real*>(rows.dm), static_cast<T*>(g));
    };
    if (convention == Convention::exact)
      run(in_pieces ? rows_kernel<T, true, kMost> : rows_kernel<T, true, 1>);
    else
      run(in_pieces ? rows_kernel<T, false, kMost> : rows_kernel<T, false, 1>);
  });
}

void finish_gates(const Problem& problem, const BackwardArgs& args, const Gates& gates, const void* dm,
                  const GateCotangents& cotangents, cudaStream_t stream) {
  const std::int64_t S = problem.shape.S;
  dispatch<double, float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    using Real = RealOf<T>;
    const WalkEnds<Real> ends{static_cast<const Real*>(problem.has_m() ? args.dm_last : nullptr),
                              static_cast<const Real*>(cotangents.after_product),
                              static_cast<const Real*>(cotangents.before_product),
                              static_cast<Real*>(problem.has_initial_state ? args.dm_initial : nullptr)};
    launch("finish_gates_kernel", finish_gates_kernel<T>, grid_of(problem.shape.heads()), threads_for(S), 0, stream, S,
           problem.has_m(), args.convention == Convention::exact, static_cast<const T*>(args.i),
           static_cast<const T*>(args.f), gates, static_cast<const Real*>(dm),
           static_cast<const Real*>(cotangents.d_log_i), static_cast<const Real*>(cotangents.d_log_f), ends,
           static_cast<T*>(args.di), static_cast<T*>(args.df));
  });
}

void dot_per_head(const Problem& problem, const void* x, const void* y, std::int64_t n, const void* x2, const void* y2,
                  std::int64_t n2, void* out, cudaStream_t stream) {
  const auto run = [&]<class Real>(Real) {
    launch("dot_kernel", dot_kernel<Real>, grid_of(problem.shape.heads()), 256, 0, stream, static_cast<const Real*>(x),
           static_cast<const Real*>(y), n, static_cast<const Real*>(x2), static_cast<const Real*>(y2), n2,
           static_cast<Real*>(out));
  };
  if (problem.dtype == DType::float64)
    run(double{});
  else
    run(float{});
}

}  // namespace mlstm::kernels::cuda
