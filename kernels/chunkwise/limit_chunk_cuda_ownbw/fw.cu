// SPDX-License-Identifier: Apache-2.0
// h of a chunk (contract §2), C, n the state before it:
//
//   P = (s q kᵀ)∘D    l = Σ_j P_j + s past∘(q n)    h = (P v + s past∘(q C)) / d
//
// Who owns what: one block of 128 threads per chunk: P once, as an operand in shared memory, then h in stretches of 128
// columns (64 for float32). Shared memory is OutputBlock::Shared: 65 KiB in 16 bits, 87 KiB in float32.
// Rounded to the dtype: P, h; C is stored so. All else float32.
#include "chunkwise/limit_chunk_cuda_ownbw/chunk.cuh"

namespace mlstm::kernels::chunkwise_limit_chunk_cuda {
namespace {

template <class T>
struct Arguments {
  ChunkSizes sizes;
  const T *q, *k, *v;
  Gates gates;
  ChunkStates<T> states;
  DenominatorRule rule;
  T* h;
  float* l;
};

/// One block at work. The kernel below calls the phases in order.
template <class T>
struct OutputBlock {
  using K = ChunkKernel<T>;

  struct alignas(16) Shared {
    T A[2][K::kSlab];
    union {
      T B[2][K::kStateSlab];  ///< the second operand in slabs
      T X[K::kX];             ///< rows that P multiplies; results on their way out
    };
    T P[K::kSlab];
    GateTerm M_term[kTile], a_term[kTile];  ///< of D
    float s_past[kTile];
    float inverse[kTile];  ///< 1/d_t
    float sums[kTile], partial[2 * kTile];
  };

  const Arguments<T>& args;
  Shared& shared;
  const ChunkPlace at;
  const int thread = static_cast<int>(threadIdx.x);
  float l_state = 0;         ///< s n_t.q_t through the state, of row thread / 2, half of the columns
  float l_parts[2][2] = {};  ///< Σ_j P_tj of this lane's rows

  __device__ OutputBlock(const Arguments<T>& arguments, Shared& memory)
      : args(arguments), shared(memory), at(ChunkPlace::of_block(arguments.sizes)) {}

  __device__ bool nothing_before() const { return args.sizes.starts_empty && at.chunk == 0; }
  __device__ auto slabs_of(const T* from) const {
    return [this, from](int slab, T* to) { load_rows(to, kTile, from, at, args.sizes.DHQK, slab * kTile); };
  }

  // Phase 1: P, its row sums, and n.q on the way, two threads a row.
  __device__ void make_weights() {
    const ChunkSizes& sizes = args.sizes;
    const float scale = sizes.scale;
    const float* const n = args.states.n + at.head_chunk * sizes.DHQK;
    write_gate_terms(args.gates, at, shared.M_term, shared.a_term);
    Accumulator<4> scores;
    multiply_slabs<T, Layout::transposed, 4>(
        scores, sizes.DHQK, shared.A[0], K::kSlab, shared.B[0], K::kStateSlab, K::kStride, slabs_of(args.q),
        slabs_of(args.k), [&](int slab, const T* slab_of_q) {
          if (nothing_before()) return;
          const T* const row = slab_of_q + thread / 2 * K::kStride;
          for (int a = thread % 2; a < kTile && slab * kTile + a < sizes.DHQK; a += 2)
            l_state += to_real(row[a]) * n[slab * kTile + a];
        });
#pragma unroll
    for (int mt = 0; mt < 2; ++mt)
#pragma unroll
      for (int nt = 0; nt < 4; ++nt)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = Lane::row(mt, e / 2), column = Accumulator<4>::column(nt) + e % 2;
          const float D = gate_weight(shared.a_term[column], shared.M_term[row]);
          const float P = column <= row && row < at.steps ? scale * scores.x[mt][nt][e] * D : 0.0f;
          l_parts[mt][e / 2] += P;
          shared.P[row * K::kStride + column] = from_real<T>(P);
        }
  }

  // Phase 2: l_t and 1/d_t.
  __device__ void make_denominators() {
    sum_rows(l_parts, shared.partial, shared.sums);
    l_state += __shfl_xor_sync(kAllLanes, l_state, 1);
    if (thread % 2 == 0) {
      const int row = thread / 2;
      const std::int64_t step = at.step0 + row;
      shared.s_past[row] = shared.inverse[row] = 0;
      if (row < at.steps) {
        shared.s_past[row] = args.sizes.scale * args.gates.past[step];
        const float l = shared.sums[row] + shared.s_past[row] * l_state;
        shared.inverse[row] = denominator(args.rule, l, static_cast<float>(args.gates.m[step])).inverse;
        args.l[step] = l;
      }
    }
    __syncthreads();
  }

  // Phase 3: a stretch of columns of h.
  __device__ void make_h(int column0) {
    const ChunkSizes& sizes = args.sizes;
    const T* const C = args.states.C + at.head_chunk * sizes.DHQK * sizes.DHV;
    Accumulator<K::NT> acc;
    if (!nothing_before()) {
      multiply_slabs<T, Layout::straight, K::NT>(
          acc, sizes.DHQK, shared.A[0], K::kSlab, shared.B[0], K::kStateSlab, K::kWideStride, slabs_of(args.q),
          [&](int slab, T* to) { load_state_slab<true, K::kColumns>(to, sizes, C, slab, column0); },
          [](int, const T*) {});
      acc.for_each([&](float& x, int row, int) { x *= shared.s_past[row]; });
    }
    load_rows(shared.X, K::kColumns, args.v, at, sizes.DHV, column0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    multiply<T, Layout::straight, Layout::straight, K::NT>(acc, shared.P, K::kStride, shared.X, K::kWideStride);
    acc.for_each([&](float& x, int row, int) { x *= shared.inverse[row]; });
    __syncthreads();
    store_tile(acc, shared.X, args.h + at.step0 * sizes.DHV + column0, sizes.DHV, at.steps, sizes.DHV - column0);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2) chunk_h_kernel(const Arguments<T> args) {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  OutputBlock<T> block(args, *reinterpret_cast<typename OutputBlock<T>::Shared*>(shared_memory));
  block.make_weights();
  block.make_denominators();
  for (int column0 = 0; column0 < args.sizes.DHV; column0 += ChunkKernel<T>::kColumns) block.make_h(column0);
}

}  // namespace

void forward(const Problem& problem, const ForwardArgs& args) {
  dispatch<float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    const ForwardPass<T> pass = begin_forward<T>(problem, problem.chunk_size, args);
    const Arguments<T> arguments{
        pass.sizes, pass.q, pass.k, pass.v, pass.gates, pass.states, DenominatorRule::of(problem), pass.h, pass.l};
    launch("chunk_h_kernel", chunk_h_kernel<T>, grid_of(pass.sizes.heads * pass.sizes.chunks), kThreads,
           sizeof(typename OutputBlock<T>::Shared), pass.stream, arguments);
  });
}

}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
