// SPDX-License-Identifier: Apache-2.0
// Cotangents of log_i and logσ(f) when all m are held constant (contract §3). G_tj = dP_tj P_tj is what the pair of
// steps (t, j) contributes; it goes to log_i of j and to logσ(f) of every r with j < r <= t:
//
//   d_log_i_j = Σ_t G_tj = k_j.dk_j          d_log_f_r = Σ_{t>=r} Σ_{j<r} G_tj
//
// The second sum takes only pairs that straddle r (the difference of the cumulative sums of q.dq and k.dk is the same
// number, but cancels). For r in tile I of a chunk they are
//
//   t in I, j in I                 summed here from G of the tile on the diagonal
//   t in I, j before I             Σ_{t>=r} of q_t.dq_t without the diagonal tile    (RowDots::q_before)
//   t after I, j in I              Σ_{j<r} of k_j.dk_j without the diagonal tile     (RowDots::k_beyond)
//   t after I, j before I          one number a tile:
//     t after the chunk too, j before the chunk     <dC', C> + <dn', n>              (StateBackward::crossing)
//     t after the chunk too, j in an earlier tile   Σ_j k_j.dk_j from after the chunk  (RowDots::k_state)
//     t in a later tile, j before I                 Σ over later tiles               (RowDots::q_over)
//
// Who owns what: diagonal_kernel has one block of 128 threads per tile of 64 steps, G in shared memory.
// gate_sums_kernel has one block of 64 threads per chunk, which goes tile after tile; the parallel formulation has one
// chunk a head, so that this is one block a head, but only of numbers per step and per pair of tiles.
// Nothing is rounded.
#include "common/cuda/chunks/gate_sums.hpp"

#include "common/cuda/chunks/straddle.cuh"
#include "common/cuda/launch.hpp"

namespace mlstm::kernels::cuda {
namespace {

template <class T>
struct DiagonalKernel {
  static constexpr int kStride = stride_of<T>(kTile), kSlab = kTile * kStride;
  static constexpr std::size_t kBytes = 4 * kSlab * sizeof(T) + (kTile * kGStride + 6 * kTile) * sizeof(float);
};

// One block per tile: scores q kᵀ and dP = (dh vᵀ) / d + γ of the 64 x 64 pairs, G in shared memory.
template <class T>
__global__ void __launch_bounds__(kThreads) diagonal_kernel(ChunkSizes sizes, GradientInputs<T> in, float* diagonal) {
  using K = DiagonalKernel<T>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  T* const A = reinterpret_cast<T*>(shared_memory);
  T* const B = A + 2 * K::kSlab;
  float* const G = reinterpret_cast<float*>(B + 2 * K::kSlab);
  GateTerm* const row_term = reinterpret_cast<GateTerm*>(G + kTile * kGStride);
  GateTerm* const column_term = row_term + kTile;
  float* const inverse = reinterpret_cast<float*>(column_term + kTile);
  float* const gamma = inverse + kTile;

  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t head_chunk = blockIdx.x / sizes.tiles;
  const int tile = static_cast<int>(blockIdx.x % sizes.tiles), chunk = static_cast<int>(head_chunk % sizes.chunks);
  const int steps = min(kTile, min(sizes.L, sizes.S - chunk * sizes.L) - tile * kTile);
  if (steps <= 0) return;
  const std::int64_t step0 = head_chunk / sizes.chunks * sizes.S + chunk * sizes.L + tile * kTile;

  if (thread < kTile) {
    const bool valid = thread < steps;
    const double origin = in.gates.M[step0];
    row_term[thread] = valid ? GateTerm(in.gates.M[step0 + thread], origin) : GateTerm();
    column_term[thread] = valid ? GateTerm(in.gates.a[step0 + thread], origin) : GateTerm();
    inverse[thread] = valid ? in.inverse[step0 + thread] : 0.0f;
    gamma[thread] = valid ? in.gamma[step0 + thread] : 0.0f;
  }
  const auto product = [&](Accumulator<4>& acc, const T* rows, const T* columns, int depth) {
    const auto load = [&](const T* from) {
      return [&, from](int slab, T* to) {
        load_tile(to, kTile, kTile, from + step0 * depth + slab * kTile, depth, steps, depth - slab * kTile);
      };
    };
    multiply_slabs<T, Layout::transposed, 4>(acc, depth, A, K::kSlab, B, K::kSlab, K::kStride, load(rows),
                                             load(columns), [](int, const T*) {});
  };
  Accumulator<4> scores, dP;
  product(scores, in.q, in.k, sizes.DHQK);
  product(dP, in.dh, in.v, sizes.DHV);
#pragma unroll
  for (int mt = 0; mt < 2; ++mt)
#pragma unroll
    for (int nt = 0; nt < 4; ++nt)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = Lane::row(mt, e / 2), column = Accumulator<4>::column(nt) + e % 2;
        const float weight = gate_weight(column_term[column], row_term[row]);
        const float P = sizes.scale * scores.x[mt][nt][e] * weight;
        G[row * kGStride + column] =
            column <= row && row < steps ? P * saturate<float>(dP.x[mt][nt][e] * inverse[row] + gamma[row]) : 0.0f;
      }
  const float sum = straddling_sum(G);
  if (thread < steps) diagonal[step0 + thread] = sum;
}

// One block of 64 threads per chunk goes over its tiles.
__global__ void gate_sums_kernel(ChunkSizes sizes, GateSums in, float* d_log_i, float* d_log_f) {
  __shared__ double totals[2];
  __shared__ float q_before[kTile], k_beyond[kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t head_chunk = blockIdx.x, all_chunks = sizes.heads * sizes.chunks;
  const int chunk = static_cast<int>(head_chunk % sizes.chunks);
  const std::int64_t step0 = head_chunk / sizes.chunks * sizes.S + chunk * sizes.L, all_steps = sizes.heads * sizes.S;
  const int n = min(sizes.L, sizes.S - chunk * sizes.L), tiles = (n - 1) / kTile + 1;
  const auto sum_parts = [&](const float* parts, int t) {
    float sum = 0;
    if (t < n)
      for (int part = 0; part < in.dots.parts; ++part) sum += parts[part * all_steps + step0 + t];
    return sum;
  };
  double outside = 0;  // pairs with t after the chunk, j before this tile
  for (std::int64_t part = 0; part < in.crossing_parts; ++part)
    outside += static_cast<double>(in.crossing[head_chunk * in.crossing_parts + part]);

  for (int tile = 0; tile < tiles; ++tile) {
    double over = 0;  // pairs with t in a later tile, j before this one
    for (int part = 0; part < in.dots.parts; ++part) {
      const float* const row = in.dots.q_over + ((part * all_chunks + head_chunk) * sizes.tiles + tile) * sizes.tiles;
      for (int later = tile + 1 + thread; later < tiles; later += kTile) over += static_cast<double>(row[later]);
    }
    over = block_sum(over, totals);
    const int t = tile * kTile + thread;
    q_before[thread] = sum_parts(in.dots.q_before, t);
    k_beyond[thread] = sum_parts(in.dots.k_beyond, t);
    __syncthreads();
    if (t < n) {
      float later = 0;
      for (int other = kTile - 1; other >= thread; --other) later += q_before[other];
      float earlier = 0;
      for (int other = 0; other < thread; ++other) earlier += k_beyond[other];
      d_log_f[step0 + t] = static_cast<float>(outside + over) + later + earlier + in.diagonal[step0 + t];
      d_log_i[step0 + t] = sum_parts(in.dots.k_all, t);
    }
    outside += block_sum(static_cast<double>(sum_parts(in.dots.k_state, t)), totals);
  }
}

}  // namespace

template <class T>
void diagonal_gate_sums(const ChunkSizes& sizes, const GradientInputs<T>& in, float* diagonal, cudaStream_t stream) {
  launch("diagonal_kernel", diagonal_kernel<T>, grid_of(sizes.heads * sizes.chunks * sizes.tiles), kThreads,
         DiagonalKernel<T>::kBytes, stream, sizes, in, diagonal);
}

void gate_sums(const ChunkSizes& sizes, const GateSums& in, float* d_log_i, float* d_log_f, cudaStream_t stream) {
  launch("gate_sums_kernel", gate_sums_kernel, grid_of(sizes.heads * sizes.chunks), kTile, 0, stream, sizes, in,
         d_log_i, d_log_f);
}

template void diagonal_gate_sums(const ChunkSizes&, const GradientInputs<float>&, float*, cudaStream_t);
template void diagonal_gate_sums(const ChunkSizes&, const GradientInputs<bfloat16>&, float*, cudaStream_t);
template void diagonal_gate_sums(const ChunkSizes&, const GradientInputs<float16>&, float*, cudaStream_t);

}  // namespace mlstm::kernels::cuda
