// SPDX-License-Identifier: Apache-2.0
// Forward of the fused decoding step.
//
//   C = F C_0 + I k vᵀ    n = F n_0 + I k    l = n.(s q)    h = Cᵀ (s q) / d
//
// Grid: heads x slabs of 128 bytes of a row of C. The size of a slab does not depend on the batch, so neither does any
// result; it is small because the heads of a batch of one have to fill a GPU (DHQK/DHV 256/512, 8 heads: 128 blocks).
// Block: 256 threads, kLanes of them side by side on one row of the slab, 16 bytes each (one element each if rows of C
// are not aligned to 16 bytes), and as many rows at a time as that leaves. A thread has kInFlight rows in flight (8, or
// 4 where that is all rows, which leaves room for more blocks) before it waits for anything: C is requested first, and
// the gates, q, k and n are fetched while it comes. Every block computes n and l for itself from n_0 and m_0. These are
// therefore written by a second launch, when no block reads them any more, or in-place updates would race. Shared
// memory: s q and I k of one tile of rows, sums of warps; at most 6 KiB. Rounded: h, once.
#include <cmath>
#include <stdexcept>
#include <type_traits>

#include "common/cuda/launch.hpp"
#include "common/cuda/scan.cuh"
#include "common/cuda/types.cuh"
#include "recurrent/step_fused_cuda/variant.hpp"

namespace mlstm::kernels::recurrent_step_fused_cuda {
namespace {

using cuda::RealOf;

constexpr int kThreads = 256, kWarps = kThreads / 32, kSlabBytes = 128;

/// Columns of C per block.
template <class Real>
constexpr int kColumns = kSlabBytes / static_cast<int>(sizeof(Real));

template <class T>
struct Step {
  using Real = RealOf<T>;
  const T *q, *k, *v, *i, *f;
  const Real *c_initial, *n_initial, *m_initial;  ///< null: none given
  T* h;
  Real *c_last, *n_last, *m_last;  ///< null: not wanted; else the same as the initial ones, or apart from them
  std::int64_t DHQK, DHV, slabs;
  Real scale;  ///< s
  double m_0;  ///< m_0 if no state is given
  bool has_m;  ///< exp gate
  cuda::DenominatorRule rule;
};

template <class Real>
struct Decay {
  Real F, I, m;
};

template <class T, class Real = RealOf<T>>
__device__ Decay<Real> decay_of(const Step<T>& step, std::int64_t head) {
  const Real i = cuda::to_real(step.i[head]), f = cuda::to_real(step.f[head]);
  if (!step.has_m) return {cuda::sigmoid(f), cuda::sigmoid(i), Real(0)};
  const Real m_0 = step.m_initial != nullptr ? step.m_initial[head] : static_cast<Real>(step.m_0);
  const Real past = cuda::log_sigmoid(f) + m_0, m = i >= past ? i : past;
  return {exp(past - m), exp(i - m), m};
}

/// Width elements of C in one access: one, or 16 bytes; marked as not needed again soon. The compiler would split plain
/// 16-byte stores.
template <int Width, class Real>
__device__ inline void load(Real (&x)[Width], const Real* from) {
  if constexpr (Width == 1) {
    x[0] = __ldcs(from);
  } else if constexpr (std::is_same_v<Real, double>) {
    const double2 two = __ldcs(reinterpret_cast<const double2*>(from));
    x[0] = two.x, x[1] = two.y;
  } else {
    const float4 four = __ldcs(reinterpret_cast<const float4*>(from));
    x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
  }
}
template <int Width, class Real>
__device__ inline void store(Real* to, const Real (&x)[Width]) {
  if constexpr (Width == 1)
    __stcs(to, x[0]);
  else if constexpr (std::is_same_v<Real, double>)
    __stcs(reinterpret_cast<double2*>(to), make_double2(x[0], x[1]));
  else
    __stcs(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
}

/// Blocks that a multiprocessor has registers for.
template <class Real, int kInFlight>
constexpr int kBlocksPerProcessor = sizeof(Real) == 8 ? 2
                                    : kInFlight == 4  ? 5
                                                      : 4;

template <class T, int Width, int kInFlight>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<RealOf<T>, kInFlight>) step_kernel(const Step<T> step) {
  using Real = RealOf<T>;
  constexpr int kLanes = kColumns<Real> / Width, kGroups = kThreads / kLanes, kTile = kGroups * kInFlight;
  static_assert(kLanes <= 32 && kTile <= kThreads);
  __shared__ Real query[kTile], key[kTile], numerators[kWarps][kColumns<Real>], l_sums[kWarps];

  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes, group = thread / kLanes;
  const std::int64_t head = blockIdx.x / step.slabs, first = (blockIdx.x % step.slabs) * kColumns<Real>;
  const std::int64_t column = first + lane * Width;
  const bool inside = column < step.DHV;  // a vector is inside or outside as a whole
  const std::int64_t rows = step.DHQK, origin = head * rows;
  const std::int64_t stride = kGroups * step.DHV;  // from one row of this thread to its next
  const bool reads = inside && step.c_initial != nullptr, writes = inside && step.c_last != nullptr;

  Real value[Width] = {}, numerator[Width] = {}, l = 0;
  Decay<Real> decay{};
  for (std::int64_t begin = 0; begin < rows; begin += kTile) {
    const int n = static_cast<int>(rows - begin < kTile ? rows - begin : kTile);
    const std::int64_t at = (origin + begin + group) * step.DHV + column;
    Real part[kInFlight][Width] = {};
#pragma unroll
    for (int u = 0; u < kInFlight; ++u)
      if (reads && u * kGroups + group < n) load(part[u], step.c_initial + at + u * stride);
    if (begin == 0) {
      decay = decay_of(step, head);
#pragma unroll
      for (int c = 0; c < Width; ++c)
        if (inside) value[c] = cuda::to_real(step.v[head * step.DHV + column + c]);
    } else {
      __syncthreads();
    }
    if (thread < kTile) {
      Real s_q = 0, i_k = 0;
      if (thread < n) {
        const std::int64_t row = origin + begin + thread;
        s_q = step.scale * cuda::to_real(step.q[row]);
        i_k = decay.I * cuda::to_real(step.k[row]);
        l += s_q * (decay.F * (step.n_initial != nullptr ? step.n_initial[row] : Real(0)) + i_k);
      }
      query[thread] = s_q;
      key[thread] = i_k;
    }
    __syncthreads();
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int row = u * kGroups + group;
#pragma unroll
      for (int c = 0; c < Width; ++c) {
        part[u][c] = decay.F * part[u][c] + key[row] * value[c];
        numerator[c] += query[row] * part[u][c];
      }
      if (writes && row < n) store(step.c_last + at + u * stride, part[u]);
    }
  }

#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    l += __shfl_xor_sync(cuda::kAllLanes, l, offset);
#pragma unroll
    for (int c = 0; c < Width; ++c)
      if (offset >= kLanes) numerator[c] += __shfl_xor_sync(cuda::kAllLanes, numerator[c], offset);
  }
  const int warp = thread / 32;
  if (thread % 32 < kLanes)
    for (int c = 0; c < Width; ++c) numerators[warp][lane * Width + c] = numerator[c];
  if (thread % 32 == 0) l_sums[warp] = l;
  __syncthreads();
  if (thread < kColumns<Real> && first + thread < step.DHV) {
    Real sum = 0, l_total = 0;
    for (int w = 0; w < kWarps; ++w) {
      sum += numerators[w][thread];
      l_total += l_sums[w];
    }
    step.h[head * step.DHV + first + thread] =
        cuda::from_real<T>(sum * cuda::denominator(step.rule, l_total, decay.m).inverse);
  }
}

/// n_last and m_last: one block per head, which reads m_0 before it writes m_last.
template <class T>
__global__ void __launch_bounds__(kThreads) step_vectors_kernel(const Step<T> step) {
  using Real = RealOf<T>;
  const std::int64_t head = blockIdx.x;
  const Decay<Real> decay = decay_of(step, head);
  __syncthreads();
  if (step.n_last != nullptr)
    for (std::int64_t at = head * step.DHQK + threadIdx.x; at < (head + 1) * step.DHQK; at += kThreads) {
      const Real n_0 = step.n_initial != nullptr ? step.n_initial[at] : Real(0);
      step.n_last[at] = decay.F * n_0 + decay.I * cuda::to_real(step.k[at]);
    }
  if (threadIdx.x == 0 && step.has_m && step.m_last != nullptr) step.m_last[head] = decay.m;
}

template <class Real>
std::int64_t slabs_of(const Shape& shape) {
  return (shape.DHV - 1) / kColumns<Real> + 1;
}

bool aligned_to_16(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

template <class T>
void run(const Problem& problem, const ForwardArgs& args) {
  using Real = RealOf<T>;
  const Shape& shape = problem.shape;
  const bool given = problem.has_initial_state;
  const auto real = [](const void* pointer) { return static_cast<const Real*>(pointer); };
  const auto storage = [](const void* pointer) { return static_cast<const T*>(pointer); };
  const Step<T> step{storage(args.q),
                     storage(args.k),
                     storage(args.v),
                     storage(args.i),
                     storage(args.f),
                     given ? real(args.c_initial) : nullptr,
                     given ? real(args.n_initial) : nullptr,
                     given ? real(args.m_initial) : nullptr,
                     static_cast<T*>(args.h),
                     static_cast<Real*>(args.c_last),
                     static_cast<Real*>(args.n_last),
                     static_cast<Real*>(args.m_last),
                     shape.DHQK,
                     shape.DHV,
                     slabs_of<Real>(shape),
                     1 / std::sqrt(static_cast<Real>(shape.DHQK)),
                     problem.stabilizer_init == StabilizerInit::neg_inf ? -HUGE_VAL : 0.0,
                     problem.has_m(),
                     cuda::DenominatorRule::of(problem)};
  constexpr int kWidth = 16 / sizeof(Real);
  const bool vectors = shape.DHV % kWidth == 0 && aligned_to_16(step.c_initial) && aligned_to_16(step.c_last);
  const auto stream = static_cast<cudaStream_t>(args.stream);
  constexpr int kRowsOfFour = 4 * kThreads * kWidth / kColumns<Real>;
  const auto launch = [&](auto kernel) {
    cuda::launch("step_fused_cuda step", kernel, cuda::grid_of(blocks_of(problem)), kThreads, 0, stream, step);
  };
  if (!vectors)
    launch(step_kernel<T, 1, 8>);
  else if (shape.DHQK <= kRowsOfFour)
    launch(step_kernel<T, kWidth, 4>);
  else
    launch(step_kernel<T, kWidth, 8>);
  if (step.n_last != nullptr || (step.has_m && step.m_last != nullptr))
    cuda::launch("step_fused_cuda vectors", step_vectors_kernel<T>, cuda::grid_of(shape.heads()), kThreads, 0, stream,
                 step);
}

}  // namespace

std::int64_t blocks_of(const Problem& problem) {
  const Shape& shape = problem.shape;
  return shape.heads() * (problem.dtype == DType::float64 ? slabs_of<double>(shape) : slabs_of<float>(shape));
}

void forward(const Problem& problem, const ForwardArgs& args) {
  if (args.h == nullptr) throw std::invalid_argument("h is null; expected a device pointer");
  cuda::dispatch<double, float, cuda::bfloat16, cuda::float16>(problem.dtype,
                                                               [&]<class T>(T) { run<T>(problem, args); });
}

}  // namespace mlstm::kernels::recurrent_step_fused_cuda
