// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/chunk_gate_sums.hpp"

#include "common/cuda/launch.hpp"
#include "common/cuda/straddle.cuh"

namespace mlstm::kernels::cuda {
namespace {

template <class T>
struct DiagonalKernel {
  static constexpr int kStride = stride_of<T>(kTile), kSlab = kTile * kStride;
  static constexpr std::size_t kBytes = 4 * kSlab * sizeof(T) + (kTile * kGStride + 3 * kTile) * sizeof(float);
};

// One block per tile: scores q kᵀ and dP = g vᵀ + γ of the 64 x 64 pairs, G in shared memory.
template <class T>
__global__ void __launch_bounds__(kThreads) diagonal_kernel(ChunkSizes sizes, TileInputs<T> in, float* diagonal) {
  using K = DiagonalKernel<T>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  T* const A = reinterpret_cast<T*>(shared_memory);
  T* const B = A + 2 * K::kSlab;
  float* const G = reinterpret_cast<float*>(B + 2 * K::kSlab);
  float* const row_term = G + kTile * kGStride;
  float* const column_term = row_term + kTile;
  float* const row_gamma = column_term + kTile;

  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t head_chunk = blockIdx.x / sizes.tiles, tile = blockIdx.x % sizes.tiles;
  const std::int64_t begin = head_chunk % sizes.chunks * sizes.L + tile * kTile;
  const std::int64_t chunk_end =
      (head_chunk % sizes.chunks + 1) * sizes.L < sizes.S ? (head_chunk % sizes.chunks + 1) * sizes.L : sizes.S;
  if (begin >= chunk_end) return;
  const int steps = static_cast<int>(chunk_end - begin < kTile ? chunk_end - begin : kTile);
  const std::int64_t step0 = head_chunk / sizes.chunks * sizes.S + begin;

  if (thread < kTile) {
    const bool valid = thread < steps;
    const double origin = in.gates.M[step0];
    row_term[thread] = valid ? static_cast<float>((in.gates.M[step0 + thread] - origin) * kLog2E) : 0.0f;
    column_term[thread] = valid ? static_cast<float>((in.gates.a[step0 + thread] - origin) * kLog2E) : 0.0f;
    row_gamma[thread] = valid ? in.gamma[step0 + thread] : 0.0f;
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
  product(dP, in.g, in.v, sizes.DHV);
#pragma unroll
  for (int mt = 0; mt < 2; ++mt)
#pragma unroll
    for (int nt = 0; nt < 4; ++nt)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = Lane::row(mt, e / 2), column = Accumulator<4>::column(nt) + e % 2;
        const float weight = exp2f(column_term[column] - row_term[row]);
        const float P = sizes.scale * scores.x[mt][nt][e] * weight;
        G[row * kGStride + column] = column <= row && row < steps ? P * (dP.x[mt][nt][e] + row_gamma[row]) : 0.0f;
      }
  const float sum = straddling_sum(G);
  if (thread < steps) diagonal[step0 + thread] = sum;
}

// One block of 64 threads per chunk goes over its tiles twice: backwards for the sums over later tiles, then forwards.
__global__ void gate_sums_kernel(ChunkSizes sizes, GateSums in, float* d_log_i, float* d_log_f) {
  __shared__ double totals[2];
  __shared__ float q_before[kTile], k_beyond[kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t chunk = blockIdx.x % sizes.chunks, all_steps = sizes.heads * sizes.S;
  const std::int64_t step0 = blockIdx.x / sizes.chunks * sizes.S + chunk * sizes.L;
  const std::int64_t rest = sizes.S - chunk * sizes.L, n = rest < sizes.L ? rest : sizes.L;
  const std::int64_t tiles = (n - 1) / kTile + 1;
  double* const later = in.later + blockIdx.x * sizes.tiles;
  const auto sum_parts = [&](const float* parts, std::int64_t t) {
    float sum = 0;
    if (t < n)
      for (int part = 0; part < in.parts; ++part) sum += parts[part * all_steps + step0 + t];
    return sum;
  };

  double sum_later = 0;
  for (std::int64_t tile = tiles - 1; tile >= 0; --tile) {
    if (thread == 0) later[tile] = sum_later;
    sum_later += block_sum(static_cast<double>(sum_parts(in.dots.q_state, tile * kTile + thread)), totals);
  }
  double crossing = 0;
  for (std::int64_t part = 0; part < in.crossing_parts; ++part)
    crossing += static_cast<double>(in.crossing[blockIdx.x * in.crossing_parts + part]);

  double k_earlier = 0, inside = 0;  // sums of k_state over earlier tiles; X of this tile
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    const std::int64_t t = tile * kTile + thread;
    const float q = sum_parts(in.dots.q_before, t), k = sum_parts(in.dots.k_beyond, t);
    const float q_state = sum_parts(in.dots.q_state, t), k_state = sum_parts(in.dots.k_state, t);
    inside -= block_sum(static_cast<double>(q) - static_cast<double>(q_state), totals);
    // what the first tile subtracts is zero but for rounding
    if (tile == 0) inside = 0;
    q_before[thread] = q;
    k_beyond[thread] = k;
    __syncthreads();
    if (t < n) {
      float sum = 0;
      for (int other = kTile - 1; other >= thread; --other) sum += q_before[other];
      float earlier = 0;
      for (int other = 0; other < thread; ++other) earlier += k_beyond[other];
      const double outside = crossing + later[tile] + k_earlier + inside;
      d_log_f[step0 + t] = static_cast<float>(outside + sum + earlier) + in.diagonal[step0 + t];
      d_log_i[step0 + t] = sum_parts(in.dots.k_all, t);
    }
    k_earlier += block_sum(static_cast<double>(k_state), totals);
    inside += block_sum(static_cast<double>(k) - static_cast<double>(k_state), totals);
  }
}

}  // namespace

template <class T>
void diagonal_gate_sums(const ChunkSizes& sizes, const TileInputs<T>& in, float* diagonal, cudaStream_t stream) {
  launch("diagonal_kernel", diagonal_kernel<T>, grid_of(sizes.heads * sizes.chunks * sizes.tiles), kThreads,
         DiagonalKernel<T>::kBytes, stream, sizes, in, diagonal);
}

void gate_sums(const ChunkSizes& sizes, const GateSums& in, float* d_log_i, float* d_log_f, cudaStream_t stream) {
  launch("gate_sums_kernel", gate_sums_kernel, grid_of(sizes.heads * sizes.chunks), kTile, 0, stream, sizes, in,
         d_log_i, d_log_f);
}

template void diagonal_gate_sums(const ChunkSizes&, const TileInputs<float>&, float*, cudaStream_t);
template void diagonal_gate_sums(const ChunkSizes&, const TileInputs<bfloat16>&, float*, cudaStream_t);
template void diagonal_gate_sums(const ChunkSizes&, const TileInputs<float16>&, float*, cudaStream_t);

}  // namespace mlstm::kernels::cuda
