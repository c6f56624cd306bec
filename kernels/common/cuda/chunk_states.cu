// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/chunk_states.hpp"

#include "common/cuda/launch.hpp"
#include "common/cuda/tile.cuh"

namespace mlstm::kernels::cuda {
namespace {

/// What both directions read and write, under one name: `rows` x `columns` is k x v or q x g.
template <class T>
struct StateArguments {
  ChunkSizes sizes;
  Gates gates;
  const T *rows, *columns;
  const float* gamma;              ///< backward
  const float *C_begin, *n_begin;  ///< initial state, or cotangent of the last one; null: zero
  ChunkStates<T> borders;          ///< written
  ChunkStates<T> states;           ///< backward: entering states, read
  float *C_end, *n_end, *C_copy, *n_copy;
  float* crossing;
};

template <class T, int NT>
struct StateKernel {
  static constexpr int kColumns = 16 * NT;
  static constexpr int kStride = stride_of<T>(kTile), kWideStride = stride_of<T>(kColumns);
  static constexpr int kA = kTile * kStride, kB = kTile * kWideStride;
  static constexpr std::size_t kBytes = 2 * (kA + kB) * sizeof(T) + 6 * kTile * sizeof(float);
};

/// A stretch of at most 64 steps of a chunk; the next one in the order in which the recurrence goes.
template <bool kForward>
struct Position {
  std::int64_t chunk, tile;

  static __device__ std::int64_t length(const ChunkSizes& sizes, std::int64_t chunk) {
    const std::int64_t rest = sizes.S - chunk * sizes.L;
    return rest < sizes.L ? rest : sizes.L;
  }
  __device__ std::int64_t tiles(const ChunkSizes& sizes) const { return (length(sizes, chunk) - 1) / kTile + 1; }
  __device__ bool exists(const ChunkSizes& sizes) const { return chunk >= 0 && chunk < sizes.chunks; }
  __device__ Position next(const ChunkSizes& sizes) const {
    if (tile + 1 < tiles(sizes)) return {chunk, tile + 1};
    return {kForward ? chunk + 1 : chunk - 1, 0};
  }
  __device__ std::int64_t begin(const ChunkSizes& sizes) const { return chunk * sizes.L + tile * kTile; }
  __device__ int steps(const ChunkSizes& sizes) const {
    const std::int64_t rest = length(sizes, chunk) - tile * kTile;
    return static_cast<int>(rest < kTile ? rest : kTile);
  }
};

template <class T, bool kForward, int NT>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2) state_kernel(const StateArguments<T> args) {
  using K = StateKernel<T, NT>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  T* const A = reinterpret_cast<T*>(shared_memory);
  T* const B = A + 2 * K::kA;
  float* const weight = reinterpret_cast<float*>(B + 2 * K::kB);
  float* const n_weight = weight + kTile;
  float* const n = n_weight + kTile;
  float* const n_parts = n + kTile;  // 2 x 64
  float* const totals = n_parts + 2 * kTile;

  const ChunkSizes& sizes = args.sizes;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t head = blockIdx.x;
  const int across = (sizes.DHV - 1) / K::kColumns + 1;
  const int row0 = static_cast<int>(blockIdx.y) / across * kTile, valid_rows = sizes.DHQK - row0;
  const int column0 = static_cast<int>(blockIdx.y) % across * K::kColumns, valid_columns = sizes.DHV - column0;
  const bool owns_n = column0 == 0;
  const auto inside = [&](int row, int column) { return row < valid_rows && column < valid_columns; };
  const auto in_state = [&](int row, int column) {
    return static_cast<std::int64_t>(row0 + row) * sizes.DHV + column0 + column;
  };
  const std::int64_t state_size = static_cast<std::int64_t>(sizes.DHQK) * sizes.DHV;

  Accumulator<NT> C;
  if (args.C_begin != nullptr)
    C.for_each([&](float& x, int row, int column) {
      if (inside(row, column)) x = args.C_begin[head * state_size + in_state(row, column)];
    });
  if (thread < kTile)
    n[thread] = args.n_begin != nullptr && thread < valid_rows ? args.n_begin[head * sizes.DHQK + row0 + thread] : 0.0f;
  __syncthreads();

  Position<kForward> at{kForward ? 0 : sizes.chunks - 1, 0};
  const auto load = [&](const Position<kForward>& where, int buffer) {
    const std::int64_t step = head * sizes.S + where.begin(sizes);
    const int steps = where.steps(sizes);
    load_tile(A + buffer * K::kA, kTile, kTile, args.rows + step * sizes.DHQK + row0, sizes.DHQK, steps, valid_rows);
    load_tile(B + buffer * K::kB, kTile, K::kColumns, args.columns + step * sizes.DHV + column0, sizes.DHV, steps,
              valid_columns);
    cp_async_commit();
  };
  load(at, 0);
  for (int buffer = 0; at.exists(sizes); buffer = 1 - buffer) {
    const std::int64_t border = head * sizes.chunks + at.chunk;
    const std::int64_t first = head * sizes.S + at.chunk * sizes.L;
    const double M_last = args.gates.M[first + Position<kForward>::length(sizes, at.chunk) - 1];
    const double entering = args.gates.entering[border];
    if (at.tile == 0) {
      const float decay = expf(static_cast<float>(entering - M_last));
      if (!kForward && args.crossing != nullptr) {
        float sum = 0;
        if (!(sizes.starts_empty && at.chunk == 0)) {
          const T* const before = args.states.C + border * state_size;
          C.for_each([&](float& x, int row, int column) {
            if (inside(row, column)) sum += x * to_real(before[in_state(row, column)]);
          });
          if (owns_n && thread < kTile && thread < valid_rows)
            sum += n[thread] * args.states.n[border * sizes.DHQK + row0 + thread];
        }
        sum = block_sum(sum, totals);
        if (thread == 0) args.crossing[border * gridDim.y + blockIdx.y] = decay * sum;
      }
      if (args.borders.C != nullptr) {
        T* const copy = args.borders.C + border * state_size;
        C.for_each([&](float& x, int row, int column) {
          if (inside(row, column)) copy[in_state(row, column)] = from_real<T>(x);
        });
        if (owns_n && thread < kTile && thread < valid_rows)
          args.borders.n[border * sizes.DHQK + row0 + thread] = n[thread];
      }
      C.for_each([&](float& x, int, int) { x *= decay; });
      if (thread < kTile) n[thread] *= decay;
    }

    const int steps = at.steps(sizes);
    const Position<kForward> next = at.next(sizes);
    if (thread < kTile) {
      float w = 0, w_n = 0;
      if (thread < steps) {
        const std::int64_t step = head * sizes.S + at.begin(sizes) + thread;
        if (kForward) {
          w = w_n = expf(static_cast<float>(args.gates.a[step] - M_last));
        } else {
          w = sizes.scale * expf(static_cast<float>(entering - args.gates.M[step]));
          w_n = w * args.gamma[step];
        }
      }
      weight[thread] = w;
      n_weight[thread] = w_n;
    }
    if (next.exists(sizes)) {
      load(next, 1 - buffer);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();

    T* const rows = A + buffer * K::kA;
    {  // n from unrounded terms
      const int column = thread % kTile, half = thread / kTile;
      float sum = 0;
      for (int t = half * (kTile / 2); t < (half + 1) * (kTile / 2); ++t)
        sum += n_weight[t] * to_real(rows[t * K::kStride + column]);
      n_parts[thread] = sum;
    }
    __syncthreads();
    if (thread < kTile) n[thread] += n_parts[thread] + n_parts[kTile + thread];
    constexpr int kPiece = 16 / sizeof(T);
    for (int piece = thread; piece < kTile * kTile / kPiece; piece += kThreads) {
      const int t = piece / (kTile / kPiece);
      T* const values = rows + t * K::kStride + piece % (kTile / kPiece) * kPiece;
      const float w = weight[t];
#pragma unroll
      for (int e = 0; e < kPiece; ++e) values[e] = from_real<T>(w * to_real(values[e]));
    }
    __syncthreads();
    multiply<T, Layout::transposed, Layout::straight, NT>(C, rows, K::kStride, B + buffer * K::kB, K::kWideStride);
    __syncthreads();
    at = next;
  }

  for (float* const end : {args.C_end, args.C_copy})
    if (end != nullptr)
      C.for_each([&](float& x, int row, int column) {
        if (inside(row, column)) end[head * state_size + in_state(row, column)] = x;
      });
  if (owns_n && thread < kTile && thread < valid_rows)
    for (float* const end : {args.n_end, args.n_copy})
      if (end != nullptr) end[head * sizes.DHQK + row0 + thread] = n[thread];
}

template <class T>
int columns_of_state_block(const ChunkSizes& sizes) {
  return sizeof(T) == 2 && sizes.DHV > 64 ? 128 : 64;
}

template <class T, bool kForward>
void launch_states(const char* name, const StateArguments<T>& args, cudaStream_t stream) {
  const dim3 grid = grid_of(args.sizes.heads, state_blocks<T>(args.sizes));
  if constexpr (sizeof(T) == 2)
    if (columns_of_state_block<T>(args.sizes) == 128) {
      launch(name, state_kernel<T, kForward, 8>, grid, kThreads, StateKernel<T, 8>::kBytes, stream, args);
      return;
    }
  launch(name, state_kernel<T, kForward, 4>, grid, kThreads, StateKernel<T, 4>::kBytes, stream, args);
}

}  // namespace

template <class T>
std::int64_t state_blocks(const ChunkSizes& sizes) {
  return static_cast<std::int64_t>((sizes.DHQK - 1) / kTile + 1) *
         ((sizes.DHV - 1) / columns_of_state_block<T>(sizes) + 1);
}

template <class T>
void states_forward(const ChunkSizes& sizes, const Gates& gates, const StateForward<T>& in, cudaStream_t stream) {
  StateArguments<T> args{};
  args.sizes = sizes;
  args.gates = gates;
  args.rows = in.k;
  args.columns = in.v;
  args.C_begin = in.c_initial;
  args.n_begin = in.n_initial;
  args.borders = in.states;
  args.C_end = in.c_last;
  args.n_end = in.n_last;
  args.C_copy = in.c_end;
  args.n_copy = in.n_end;
  launch_states<T, true>("state_kernel forward", args, stream);
}

template <class T>
void states_backward(const ChunkSizes& sizes, const Gates& gates, const StateBackward<T>& in, cudaStream_t stream) {
  StateArguments<T> args{};
  args.sizes = sizes;
  args.gates = gates;
  args.rows = in.q;
  args.columns = in.g;
  args.gamma = in.gamma;
  args.C_begin = in.dc_last;
  args.n_begin = in.dn_last;
  args.borders = in.d_states;
  args.states = in.states;
  args.C_end = in.dc_initial;
  args.n_end = in.dn_initial;
  args.crossing = in.crossing;
  launch_states<T, false>("state_kernel backward", args, stream);
}

#define MLSTM_INSTANTIATE(T)                                                                              \
  template std::int64_t state_blocks<T>(const ChunkSizes&);                                               \
  template void states_forward<T>(const ChunkSizes&, const Gates&, const StateForward<T>&, cudaStream_t); \
  template void states_backward<T>(const ChunkSizes&, const Gates&, const StateBackward<T>&, cudaStream_t);
MLSTM_INSTANTIATE(float)
MLSTM_INSTANTIATE(bfloat16)
MLSTM_INSTANTIATE(float16)
#undef MLSTM_INSTANTIATE

}  // namespace mlstm::kernels::cuda
