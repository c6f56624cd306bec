// SPDX-License-Identifier: Apache-2.0
// One block of 128 threads per chunk: P once, as an operand in shared memory, then h in stretches of 128 columns (64
// for float32), each (s past∘(q C) + P v) / d. Rounded to the dtype: P, h; C is stored so. All else float32.
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

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2) chunk_h_kernel(const Arguments<T> args) {
  using K = ChunkKernel<T>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  T* const A = reinterpret_cast<T*>(shared_memory);
  T* const B = A + 2 * K::kSlab;
  T* const P = B + 2 * K::kStateSlab;
  GateTerm* const M_term = reinterpret_cast<GateTerm*>(P + K::kSlab);
  GateTerm* const a_term = M_term + kTile;
  float* const past = reinterpret_cast<float*>(a_term + kTile);
  float* const inverse = past + kTile;
  float* const sums = inverse + kTile;
  float* const partial = sums + kTile;  // 2 x 64

  const ChunkSizes& sizes = args.sizes;
  const int thread = static_cast<int>(threadIdx.x);
  const ChunkPlace at = ChunkPlace::of_block(sizes);
  const bool nothing_before = sizes.starts_empty && at.chunk == 0;
  const auto load_q = [&](int slab, T* to) { load_rows(to, kTile, args.q, at, sizes.DHQK, slab * kTile); };
  write_gate_terms(args.gates, at, M_term, a_term);

  // P and its row sums; s n.q on the way, two threads a row
  const float* const n = args.states.n + at.head_chunk * sizes.DHQK;
  float l_state = 0, l_parts[2][2] = {};
  Accumulator<4> weights;
  multiply_slabs<T, Layout::transposed, 4>(
      weights, sizes.DHQK, A, K::kSlab, B, K::kStateSlab, K::kStride, load_q,
      [&](int slab, T* to) { load_rows(to, kTile, args.k, at, sizes.DHQK, slab * kTile); },
      [&](int slab, const T* slab_of_q) {
        if (nothing_before) return;
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
        const float D = gate_weight(a_term[column], M_term[row]);
        const float x = column <= row && row < at.steps ? sizes.scale * weights.x[mt][nt][e] * D : 0.0f;
        l_parts[mt][e / 2] += x;
        P[row * K::kStride + column] = from_real<T>(x);
      }
  sum_rows(l_parts, partial, sums);
  l_state += __shfl_xor_sync(kAllLanes, l_state, 1);
  if (thread % 2 == 0) {
    const int row = thread / 2;
    const std::int64_t step = at.step0 + row;
    past[row] = inverse[row] = 0;
    if (row < at.steps) {
      past[row] = sizes.scale * args.gates.past[step];
      const float l = sums[row] + past[row] * l_state;
      inverse[row] = denominator(args.rule, l, static_cast<float>(args.gates.m[step])).inverse;
      args.l[step] = l;
    }
  }
  __syncthreads();

  const T* const C = args.states.C + at.head_chunk * sizes.DHQK * sizes.DHV;
  for (int column0 = 0; column0 < sizes.DHV; column0 += K::kColumns) {
    Accumulator<K::NT> acc;
    if (!nothing_before) {
      multiply_slabs<T, Layout::straight, K::NT>(
          acc, sizes.DHQK, A, K::kSlab, B, K::kStateSlab, K::kWideStride, load_q,
          [&](int slab, T* to) { load_state_slab<true, K::kColumns>(to, sizes, C, slab, column0); },
          [](int, const T*) {});
      acc.for_each([&](float& x, int row, int) { x *= past[row]; });
    }
    load_rows(B, K::kColumns, args.v, at, sizes.DHV, column0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    multiply<T, Layout::straight, Layout::straight, K::NT>(acc, P, K::kStride, B, K::kWideStride);
    acc.for_each([&](float& x, int row, int) { x *= inverse[row]; });
    __syncthreads();
    store_tile(acc, B, args.h + at.step0 * sizes.DHV + column0, sizes.DHV, at.steps, sizes.DHV - column0);
  }
}

}  // namespace

void forward(const Problem& problem, const ForwardArgs& args) {
  dispatch<float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    const ForwardPass<T> pass = begin_forward<T>(problem, problem.chunk_size, args);
    const Arguments<T> arguments{
        pass.sizes, pass.q, pass.k, pass.v, pass.gates, pass.states, DenominatorRule::of(problem), pass.h, pass.l};
    launch("chunk_h_kernel", chunk_h_kernel<T>, grid_of(pass.sizes.heads * pass.sizes.chunks), kThreads,
           ChunkKernel<T>::bytes(1), pass.stream, arguments);
  });
}

}  // namespace mlstm::kernels::chunkwise_limit_chunk_cuda
