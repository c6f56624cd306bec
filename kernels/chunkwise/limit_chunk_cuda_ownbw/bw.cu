// SPDX-License-Identifier: Apache-2.0
// Gradients of a chunk (contract §3), C, n the state before it, dC, dn the cotangent of the state after it:
//
//   P = (s q kᵀ)∘D    dP = (dh vᵀ)/d + γ    dS = s dP∘D    G = dP∘P
//   dv = Pᵀ g + D_last∘(k dC)    dq = dS k + s past∘((dh Cᵀ)/d + γ n)    dk = dSᵀ q + D_last∘(v dCᵀ + dn)
//
// Who owns what: one block of 128 threads per chunk: q kᵀ and dh vᵀ once; P and dS as operands in shared memory; G
// summed over the pairs that straddle each gate; then dv, dq and dk in stretches of 128 columns (64 for float32).
// Shared memory is GradientBlock::Shared: 75 KiB in 16 bits, 105 KiB in float32. Rounded to the dtype: P, dS, results;
// g, C and dC are stored so. All else float32.
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

/// Rows whose 1/d is above this, where q is nearly zero, are divided late: 1/d = early late, of which one is 1, and
/// late multiplies the sum over steps in dq and the row of q in dk. One of the cures for a huge 1/d
/// (kernels/README.md).
template <class T>
constexpr float kLate = std::is_same_v<T, float16> ? 0x1p8f : 0x1p60f;

/// One block at work. The kernel below calls the phases in order.
template <class T>
struct GradientBlock {
  using K = ChunkKernel<T>;

  struct alignas(16) Shared {
    T A[2][K::kSlab];
    union {
      T B[2][K::kStateSlab];  ///< the second operand in slabs
      T X[K::kX];             ///< rows that weights multiply; results on their way out
      float G[kTile * kGStride];
    };
    T P[K::kSlab], dS[K::kSlab];
    GateTerm M_term[kTile], a_term[kTile];  ///< of D
    float s_past[kTile];
    float gamma[kTile];               ///< γ / late
    float early[kTile], late[kTile];  ///< factors of 1/d
    float D_last[kTile];
    float sums[kTile], partial[2 * kTile];
  };

  const Arguments<T>& args;
  Shared& shared;
  const ChunkPlace at;
  const int thread = static_cast<int>(threadIdx.x);
  bool any_late = false;

  __device__ GradientBlock(const Arguments<T>& arguments, Shared& memory)
      : args(arguments), shared(memory), at(ChunkPlace::of_block(arguments.sizes)) {}

  __device__ bool nothing_before() const { return args.sizes.starts_empty && at.chunk == 0; }
  __device__ bool nothing_after() const { return args.sizes.ends_unwanted && at.chunk == args.sizes.chunks - 1; }
  /// Copies slabs of 64 columns of the chunk's rows.
  __device__ auto slabs_of(const T* from, int width) const {
    return [this, from, width](int slab, T* to) { load_rows(to, kTile, from, at, width, slab * kTile); };
  }
  struct Nothing {
    __device__ void operator()(int, const T*) const {}
  };

  // Phase 1: scalars of the rows.
  __device__ void read_rows() {
    const GradientInputs<T>& in = args.in;
    write_gate_terms(in.gates, at, shared.M_term, shared.a_term);
    if (thread < kTile) {
      const bool valid = thread < at.steps;
      const std::int64_t step = at.step0 + thread;
      shared.s_past[thread] = valid ? args.sizes.scale * in.gates.past[step] : 0.0f;
      shared.D_last[thread] = valid ? in.gates.D_last[step] : 0.0f;
      const float inverse = valid ? in.inverse[step] : 0.0f;
      const bool is_late = inverse > kLate<T>;
      shared.early[thread] = is_late ? 1.0f : inverse;
      shared.late[thread] = is_late ? inverse : 1.0f;
      shared.gamma[thread] = !valid ? 0.0f : is_late ? in.gamma[step] / inverse : in.gamma[step];
    }
    any_late = __syncthreads_or(thread < at.steps && in.inverse[at.step0 + thread] > kLate<T>) != 0;
  }

  // Phase 2: P, dS, and what G gives to the gates.
  __device__ void make_weights() {
    const GradientInputs<T>& in = args.in;
    const ChunkSizes& sizes = args.sizes;
    const float scale = sizes.scale;
    Accumulator<4> scores, dA;
    multiply_slabs<T, Layout::transposed, 4>(scores, sizes.DHQK, shared.A[0], K::kSlab, shared.B[0], K::kStateSlab,
                                             K::kStride, slabs_of(in.q, sizes.DHQK), slabs_of(in.k, sizes.DHQK),
                                             Nothing{});
    multiply_slabs<T, Layout::transposed, 4>(dA, sizes.DHV, shared.A[0], K::kSlab, shared.B[0], K::kStateSlab,
                                             K::kStride, slabs_of(in.dh, sizes.DHV), slabs_of(in.v, sizes.DHV),
                                             Nothing{});
#pragma unroll
    for (int mt = 0; mt < 2; ++mt)
#pragma unroll
      for (int nt = 0; nt < 4; ++nt)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = Lane::row(mt, e / 2), column = Accumulator<4>::column(nt) + e % 2;
          const bool counts = column <= row && row < at.steps;
          const float D = counts ? scale * gate_weight(shared.a_term[column], shared.M_term[row]) : 0.0f;
          const float P = counts ? scores.x[mt][nt][e] * D : 0.0f;
          const float dP = saturate<float>(dA.x[mt][nt][e] * shared.early[row] + shared.gamma[row]);
          shared.P[row * K::kStride + column] = from_real<T>(P);
          shared.dS[row * K::kStride + column] = from_real<T>(counts ? saturate<T>(dP * D) : 0.0f);
          shared.G[row * kGStride + column] = counts ? saturate<float>(dP * shared.late[row]) * P : 0.0f;
        }
    const float sum = straddling_sum(shared.G);
    if (thread < at.steps) args.diagonal[at.step0 + thread] = sum;
    __syncthreads();
  }

  /// acc += weights X, of a stretch of X's columns; each row of X times `late` first, if wanted.
  template <Layout kWeights>
  __device__ void multiply_weights(Accumulator<K::NT>& acc, const T* weights, const T* X, int width, int column0,
                                   bool scale_rows = false) {
    load_rows(shared.X, K::kColumns, X, at, width, column0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    if (scale_rows) {
      for (int e = thread; e < kTile * K::kColumns; e += kThreads) {
        T& x = shared.X[e / K::kColumns * K::kWideStride + e % K::kColumns];
        x = from_real<T>(saturate<T>(to_real(x) * shared.late[e / K::kColumns]));
      }
      __syncthreads();
    }
    multiply<T, kWeights, Layout::straight, K::NT>(acc, weights, K::kStride, shared.X, K::kWideStride);
    __syncthreads();
  }
  /// Inner products of acc with rows of q or k, to `to` and, unless null, `also_to`.
  __device__ void write_dots(Accumulator<K::NT>& acc, const T* rows, int column0, bool is_late, float* to,
                             float* also_to) {
    const ChunkSizes& sizes = args.sizes;
    row_dots(acc, rows + at.step0 * sizes.DHQK + column0, sizes.DHQK, at.steps, sizes.DHQK - column0, shared.partial,
             shared.sums);
    const std::int64_t part = column0 / K::kColumns * sizes.heads * sizes.S + at.step0 + thread;
    if (thread >= at.steps) return;
    const float sum = is_late ? shared.sums[thread] * shared.late[thread] : shared.sums[thread];
    to[part] = sum;
    if (also_to != nullptr) also_to[part] = sum;
  }
  __device__ void store(Accumulator<K::NT>& acc, T* to, int width, int column0) {
    store_tile(acc, shared.X, to + at.step0 * width + column0, width, at.steps, width - column0);
  }
  __device__ std::int64_t state_row0() const { return at.head_chunk * args.sizes.DHQK; }

  // Phases 3 to 5: a stretch of columns of each gradient, what comes through the state first.
  __device__ void make_dv(int column0) {
    const ChunkSizes& sizes = args.sizes;
    Accumulator<K::NT> acc;
    if (!nothing_after()) {
      const T* const dC = args.in.d_states.C + state_row0() * sizes.DHV;
      multiply_slabs<T, Layout::straight, K::NT>(
          acc, sizes.DHQK, shared.A[0], K::kSlab, shared.B[0], K::kStateSlab, K::kWideStride,
          slabs_of(args.in.k, sizes.DHQK),
          [&](int slab, T* to) { load_state_slab<true, K::kColumns>(to, sizes, dC, slab, column0); }, Nothing{});
      acc.for_each([&](float& x, int row, int) { x *= shared.D_last[row]; });
    }
    multiply_weights<Layout::transposed>(acc, shared.P, args.in.g, sizes.DHV, column0);
    store(acc, args.dv, sizes.DHV, column0);
  }

  __device__ void make_dq(int column0) {
    const ChunkSizes& sizes = args.sizes;
    const int valid_columns = sizes.DHQK - column0;
    Accumulator<K::NT> acc;
    if (!nothing_before()) {
      const T* const C = args.in.states.C + state_row0() * sizes.DHV;
      const float* const n = args.in.states.n + state_row0() + column0;
      multiply_slabs<T, Layout::transposed, K::NT>(
          acc, sizes.DHV, shared.A[0], K::kSlab, shared.B[0], K::kStateSlab, K::kStride,
          slabs_of(args.in.dh, sizes.DHV),
          [&](int slab, T* to) { load_state_slab<false, K::kColumns>(to, sizes, C, slab, column0); }, Nothing{});
      acc.for_each([&](float& x, int row, int column) {
        if (column < valid_columns) x = shared.s_past[row] * (x * shared.early[row] + shared.gamma[row] * n[column]);
      });
    }
    write_dots(acc, args.in.q, column0, true, args.dots.q_before, nullptr);
    multiply_weights<Layout::straight>(acc, shared.dS, args.in.k, sizes.DHQK, column0);
    acc.for_each([&](float& x, int row, int) { x *= shared.late[row]; });
    if (args.dq != nullptr) store(acc, args.dq, sizes.DHQK, column0);
  }

  __device__ void make_dk(int column0) {
    const ChunkSizes& sizes = args.sizes;
    const int valid_columns = sizes.DHQK - column0;
    Accumulator<K::NT> acc;
    if (!nothing_after()) {
      const T* const dC = args.in.d_states.C + state_row0() * sizes.DHV;
      const float* const dn = args.in.d_states.n + state_row0() + column0;
      multiply_slabs<T, Layout::transposed, K::NT>(
          acc, sizes.DHV, shared.A[0], K::kSlab, shared.B[0], K::kStateSlab, K::kStride, slabs_of(args.in.v, sizes.DHV),
          [&](int slab, T* to) { load_state_slab<false, K::kColumns>(to, sizes, dC, slab, column0); }, Nothing{});
      acc.for_each([&](float& x, int row, int column) {
        if (column < valid_columns) x = shared.D_last[row] * (x + dn[column]);
      });
    }
    write_dots(acc, args.in.k, column0, false, args.dots.k_state, args.dots.k_beyond);
    multiply_weights<Layout::transposed>(acc, shared.dS, args.in.q, sizes.DHQK, column0, any_late);
    write_dots(acc, args.in.k, column0, false, args.dots.k_all, nullptr);
    if (args.dk != nullptr) store(acc, args.dk, sizes.DHQK, column0);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 1) chunk_gradients_kernel(const Arguments<T> args) {
  constexpr int kColumns = ChunkKernel<T>::kColumns;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  GradientBlock<T> block(args, *reinterpret_cast<typename GradientBlock<T>::Shared*>(shared_memory));
  block.read_rows();
  block.make_weights();
  for (int column0 = 0; args.dv != nullptr && column0 < args.sizes.DHV; column0 += kColumns) block.make_dv(column0);
  for (int column0 = 0; column0 < args.sizes.DHQK; column0 += kColumns) block.make_dq(column0);
  for (int column0 = 0; column0 < args.sizes.DHQK; column0 += kColumns) block.make_dk(column0);
}

}  // namespace

void backward(const Problem& problem, const BackwardArgs& args) {
  dispatch<float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    const BackwardPass<T> pass = begin_backward<T>(problem, problem.chunk_size, args);
    const Arguments<T> arguments{pass.sizes, pass.in, pass.dots, pass.diagonal, pass.dq, pass.dk, pass.dv};
    launch("chunk_gradients_kernel", chunk_gradients_kernel<T>, grid_of(pass.sizes.heads * pass.sizes.chunks), kThreads,
           sizeof(typename GradientBlock<T>::Shared), pass.stream, arguments);
    finish_backward(problem, args, pass);
  });
}

}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
