// SPDX-License-Identifier: Apache-2.0
// One block of 128 threads per chunk: scores and dP once; P and dS as operands in shared memory; G summed over the
// pairs that straddle each gate; then dv, dq and dk in stretches of 128 columns (64 for float32). Rounded to the dtype:
// P, dS, results; g, C and dC are stored so. All else float32.
#include "chunkwise/limit_chunk_cuda_ownbw/chunk.cuh"
#include "common/cuda/chunks/straddle.cuh"

namespace mlstm::kernels::chunkwise_limit_chunk_cuda {
namespace {

template <class T>
struct Arguments {
  ChunkSizes sizes;
  GradientInputs<T> in;
  RowDots dots;
  float* diagonal;
  T *dq, *dk, *dv;
};

/// Rows whose 1/d is above this, where q is nearly zero, are divided late: 1/d multiplies the sum over steps in dq and
/// the row of q in dk, since dh/d may overflow and an infinity would meet that zero.
template <class T>
constexpr float kLate = std::is_same_v<T, float16> ? 0x1p8f : 0x1p60f;

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 1) chunk_gradients_kernel(const Arguments<T> args) {
  using K = ChunkKernel<T>;
  static_assert(kTile * kGStride * sizeof(float) <= 2 * K::kStateSlab * sizeof(T));
  extern __shared__ __align__(128) unsigned char shared_memory[];
  T* const A = reinterpret_cast<T*>(shared_memory);
  T* const B = A + 2 * K::kSlab;
  T* const P = B + 2 * K::kStateSlab;
  T* const dS = P + K::kSlab;
  float* const G = reinterpret_cast<float*>(B);
  GateTerm* const M_term = reinterpret_cast<GateTerm*>(dS + K::kSlab);
  GateTerm* const a_term = M_term + kTile;
  float* const past = reinterpret_cast<float*>(a_term + kTile);
  float* const gamma = past + kTile;
  float* const early = gamma + kTile;
  float* const late = early + kTile;
  float* const D_last = late + kTile;
  float* const sums = D_last + kTile;
  float* const partial = sums + kTile;  // 2 x 64

  const ChunkSizes& sizes = args.sizes;
  const GradientInputs<T>& in = args.in;
  const int thread = static_cast<int>(threadIdx.x);
  const ChunkPlace at = ChunkPlace::of_block(sizes);
  const bool nothing_before = sizes.starts_empty && at.chunk == 0;
  const bool nothing_after = sizes.ends_unwanted && at.chunk == sizes.chunks - 1;
  write_gate_terms(in.gates, at, M_term, a_term);
  if (thread < kTile) {
    const bool valid = thread < at.steps;
    const std::int64_t step = at.step0 + thread;
    past[thread] = valid ? sizes.scale * in.gates.past[step] : 0.0f;
    D_last[thread] = valid ? in.gates.to_end[step] : 0.0f;
    const float inverse = valid ? in.inverse[step] : 0.0f;
    const bool is_late = inverse > kLate<T>;
    early[thread] = is_late ? 1.0f : inverse;
    late[thread] = is_late ? inverse : 1.0f;
    gamma[thread] = !valid ? 0.0f : is_late ? in.gamma[step] / inverse : in.gamma[step];
  }
  const bool any_late = __syncthreads_or(thread < at.steps && in.inverse[at.step0 + thread] > kLate<T>) != 0;
  const auto slabs_of = [&](const T* from, int width) {
    return [&, from, width](int slab, T* to) { load_rows(to, kTile, from, at, width, slab * kTile); };
  };
  const auto nothing = [](int, const T*) {};

  {  // P, dS, and what G gives to the gates
    Accumulator<4> scores, dP;
    multiply_slabs<T, Layout::transposed, 4>(scores, sizes.DHQK, A, K::kSlab, B, K::kStateSlab, K::kStride,
                                             slabs_of(in.q, sizes.DHQK), slabs_of(in.k, sizes.DHQK), nothing);
    multiply_slabs<T, Layout::transposed, 4>(dP, sizes.DHV, A, K::kSlab, B, K::kStateSlab, K::kStride,
                                             slabs_of(in.dh, sizes.DHV), slabs_of(in.v, sizes.DHV), nothing);
#pragma unroll
    for (int mt = 0; mt < 2; ++mt)
#pragma unroll
      for (int nt = 0; nt < 4; ++nt)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = Lane::row(mt, e / 2), column = Accumulator<4>::column(nt) + e % 2;
          const bool counts = column <= row && row < at.steps;
          const float D = counts ? sizes.scale * gate_weight(a_term[column], M_term[row]) : 0.0f;
          const float weight = counts ? scores.x[mt][nt][e] * D : 0.0f;
          const float cotangent = saturate<float>(dP.x[mt][nt][e] * early[row] + gamma[row]);
          P[row * K::kStride + column] = from_real<T>(weight);
          dS[row * K::kStride + column] = from_real<T>(counts ? saturate<T>(cotangent * D) : 0.0f);
          G[row * kGStride + column] = counts ? saturate<float>(cotangent * late[row]) * weight : 0.0f;
        }
    const float sum = straddling_sum(G);
    if (thread < at.steps) args.diagonal[at.step0 + thread] = sum;
    __syncthreads();
  }

  /// One stretch of columns of a result: (A State + add) scaled by rows, then + weights X.
  const std::int64_t border = at.head_chunk * sizes.DHQK;
  const auto multiply_weights = [&]<Layout kWeights>(Accumulator<K::NT>& acc, const T* weights, const T* X, int width,
                                                     int column0, bool scale_rows = false) {
    load_rows(B, K::kColumns, X, at, width, column0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    if (scale_rows) {
      for (int e = thread; e < kTile * K::kColumns; e += kThreads) {
        T& x = B[e / K::kColumns * K::kWideStride + e % K::kColumns];
        x = from_real<T>(saturate<T>(to_real(x) * late[e / K::kColumns]));
      }
      __syncthreads();
    }
    multiply<T, kWeights, Layout::straight, K::NT>(acc, weights, K::kStride, B, K::kWideStride);
    __syncthreads();
  };
  const auto write_dots = [&](Accumulator<K::NT>& acc, const T* rows, int column0, bool is_late, float* to,
                              float* also_to) {
    row_dots(acc, rows + at.step0 * sizes.DHQK + column0, sizes.DHQK, at.steps, sizes.DHQK - column0, partial, sums);
    const std::int64_t part = column0 / K::kColumns * sizes.heads * sizes.S + at.step0 + thread;
    if (thread >= at.steps) return;
    const float sum = is_late ? sums[thread] * late[thread] : sums[thread];
    to[part] = sum;
    if (also_to != nullptr) also_to[part] = sum;
  };

  for (int column0 = 0; args.dv != nullptr && column0 < sizes.DHV; column0 += K::kColumns) {
    Accumulator<K::NT> acc;
    if (!nothing_after) {
      const T* const dC = in.d_states.C + border * sizes.DHV;
      multiply_slabs<T, Layout::straight, K::NT>(
          acc, sizes.DHQK, A, K::kSlab, B, K::kStateSlab, K::kWideStride, slabs_of(in.k, sizes.DHQK),
          [&](int slab, T* to) { load_state_slab<true, K::kColumns>(to, sizes, dC, slab, column0); }, nothing);
      acc.for_each([&](float& x, int row, int) { x *= D_last[row]; });
    }
    multiply_weights.template operator()<Layout::transposed>(acc, P, in.g, sizes.DHV, column0);
    store_tile(acc, B, args.dv + at.step0 * sizes.DHV + column0, sizes.DHV, at.steps, sizes.DHV - column0);
  }

  for (int column0 = 0; column0 < sizes.DHQK; column0 += K::kColumns) {
    const int valid_columns = sizes.DHQK - column0;
    Accumulator<K::NT> acc;
    if (!nothing_before) {
      const T* const C = in.states.C + border * sizes.DHV;
      const float* const n = in.states.n + border + column0;
      multiply_slabs<T, Layout::transposed, K::NT>(
          acc, sizes.DHV, A, K::kSlab, B, K::kStateSlab, K::kStride, slabs_of(in.dh, sizes.DHV),
          [&](int slab, T* to) { load_state_slab<false, K::kColumns>(to, sizes, C, slab, column0); }, nothing);
      acc.for_each([&](float& x, int row, int column) {
        if (column < valid_columns) x = past[row] * (x * early[row] + gamma[row] * n[column]);
      });
    }
    write_dots(acc, in.q, column0, true, args.dots.q_before, nullptr);
    multiply_weights.template operator()<Layout::straight>(acc, dS, in.k, sizes.DHQK, column0);
    acc.for_each([&](float& x, int row, int) { x *= late[row]; });
    if (args.dq != nullptr)
      store_tile(acc, B, args.dq + at.step0 * sizes.DHQK + column0, sizes.DHQK, at.steps, valid_columns);
  }

  for (int column0 = 0; column0 < sizes.DHQK; column0 += K::kColumns) {
    const int valid_columns = sizes.DHQK - column0;
    Accumulator<K::NT> acc;
    if (!nothing_after) {
      const T* const dC = in.d_states.C + border * sizes.DHV;
      const float* const dn = in.d_states.n + border + column0;
      multiply_slabs<T, Layout::transposed, K::NT>(
          acc, sizes.DHV, A, K::kSlab, B, K::kStateSlab, K::kStride, slabs_of(in.v, sizes.DHV),
          [&](int slab, T* to) { load_state_slab<false, K::kColumns>(to, sizes, dC, slab, column0); }, nothing);
      acc.for_each([&](float& x, int row, int column) {
        if (column < valid_columns) x = D_last[row] * (x + dn[column]);
      });
    }
    write_dots(acc, in.k, column0, false, args.dots.k_state, args.dots.k_beyond);
    multiply_weights.template operator()<Layout::transposed>(acc, dS, in.q, sizes.DHQK, column0, any_late);
    write_dots(acc, in.k, column0, false, args.dots.k_all, nullptr);
    if (args.dk != nullptr)
      store_tile(acc, B, args.dk + at.step0 * sizes.DHQK + column0, sizes.DHQK, at.steps, valid_columns);
  }
}

}  // namespace

void backward(const Problem& problem, const BackwardArgs& args) {
  dispatch<float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    const BackwardPass<T> pass = begin_backward<T>(problem, problem.chunk_size, args);
    const Arguments<T> arguments{pass.sizes, pass.in, pass.dots, pass.diagonal, pass.dq, pass.dk, pass.dv};
    launch("chunk_gradients_kernel", chunk_gradients_kernel<T>, grid_of(pass.sizes.heads * pass.sizes.chunks), kThreads,
           ChunkKernel<T>::bytes(2), pass.stream, arguments);
    finish_backward(problem, args, pass);
  });
}

}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
