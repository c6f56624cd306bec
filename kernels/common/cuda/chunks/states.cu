// SPDX-License-Identifier: Apache-2.0
// The recurrence over chunks, forward for the states and backward for their cotangents (contract §2, §3; D, past from
// common/cuda/gates.hpp; sums over the steps of a chunk):
//
//   C' = past_last C + Σ_j (D_last,j k_j) v_jᵀ            dC = past_last dC' + Σ_t (s past_t q_t) g_tᵀ
//   n' = past_last n + Σ_j  D_last,j k_j                  dn = past_last dn' + Σ_t  s past_t γ_t q_t
//
// Who owns what: a block of 128 threads has 64 rows x 64 or 128 columns of one head's C in registers (float32) and goes
// over the sequence in steps of 64: an inter-chunk state is written once a chunk, however many steps of 64 it has. All
// weights are relative to the chunk's last step (forward) or first (backward), so that the accumulators are scaled once
// a chunk. Threads below 64 of the blocks with the first columns own n too. Shared memory: two tiles of each input,
// 54 KiB in 16 bits.
// Rounded to the dtype: the scaled rows of k and q, as operands; the copies of C and dC that are written, since they
// are read as operands. n, dn and their sums are float32 of unrounded terms.
#include "common/cuda/chunks/states.hpp"

#include "common/cuda/launch.hpp"
#include "common/cuda/tile.cuh"

namespace mlstm::kernels::cuda {
namespace {

/// What both directions read and write, under one name: `rows` x `columns` is k x v or q x g.
template <class T>
struct StateArguments {
  ChunkSizes sizes;
  std::int64_t blocks;  ///< of one head
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
  int chunk, tile;

  __device__ int length(const ChunkSizes& sizes) const { return min(sizes.L, sizes.S - chunk * sizes.L); }
  __device__ bool exists(const ChunkSizes& sizes) const { return chunk >= 0 && chunk < sizes.chunks; }
  __device__ Position next(const ChunkSizes& sizes) const {
    if ((tile + 1) * kTile < length(sizes)) return {chunk, tile + 1};
    return {kForward ? chunk + 1 : chunk - 1, 0};
  }
  __device__ int begin(const ChunkSizes& sizes) const { return chunk * sizes.L + tile * kTile; }
  __device__ int steps(const ChunkSizes& sizes) const { return min(kTile, length(sizes) - tile * kTile); }
};

/// What a thread knows of the gates at a position; loaded one position ahead, since the loads take as long as the rest.
struct StepGates {
  float past_last;  ///< of the chunk
  float weight;     ///< threads below 64: of the thread's step, 0 beyond the last one
  float gamma;
};

template <class T, bool kForward, int NT>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 4 : 2) state_kernel(const StateArguments<T> args) {
  using K = StateKernel<T, NT>;
  using Place = Position<kForward>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  T* const A = reinterpret_cast<T*>(shared_memory);
  T* const B = A + 2 * K::kA;
  float* const weight = reinterpret_cast<float*>(B + 2 * K::kB);
  float* const n_weight = weight + kTile;
  float* const n = n_weight + kTile;
  float* const n_parts = n + kTile;  // 2 x 64
  float* const totals = n_parts + 2 * kTile;

  // Blocks of the same head stand side by side: they read the same rows.
  const ChunkSizes& sizes = args.sizes;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t head = blockIdx.x / args.blocks;
  const int block = static_cast<int>(blockIdx.x % args.blocks);
  const int across = (sizes.DHV - 1) / K::kColumns + 1;
  const int row0 = block / across * kTile, valid_rows = sizes.DHQK - row0;
  const int column0 = block % across * K::kColumns, valid_columns = sizes.DHV - column0;
  const bool owns_n = column0 == 0, owns_row = owns_n && thread < kTile && thread < valid_rows;
  const std::int64_t state_size = static_cast<std::int64_t>(sizes.DHQK) * sizes.DHV;
  const std::int64_t corner = static_cast<std::int64_t>(row0) * sizes.DHV + column0;
  /// body(x0, x1, offset in the state) for the pairs of this lane that are inside of the state.
  Accumulator<NT> C;
  const auto for_each_inside = [&](const auto& body) {
    C.for_each_pair([&](float& x0, float& x1, int row, int column) {
      if (row < valid_rows && column < valid_columns)
        body(x0, x1, corner + static_cast<std::int64_t>(row) * sizes.DHV + column);
    });
  };

  if (args.C_begin != nullptr)
    for_each_inside([&](float& x0, float& x1, std::int64_t at) {
      const float2 pair = load_pair(args.C_begin + head * state_size + at);
      x0 = pair.x;
      x1 = pair.y;
    });
  if (thread < kTile)
    n[thread] = args.n_begin != nullptr && owns_row ? args.n_begin[head * sizes.DHQK + row0 + thread] : 0.0f;
  __syncthreads();

  const auto load = [&](const Place& where, int buffer) {
    const std::int64_t step = head * sizes.S + where.begin(sizes);
    const int steps = where.steps(sizes);
    load_tile(A + buffer * K::kA, kTile, kTile, args.rows + step * sizes.DHQK + row0, sizes.DHQK, steps, valid_rows);
    load_tile(B + buffer * K::kB, kTile, K::kColumns, args.columns + step * sizes.DHV + column0, sizes.DHV, steps,
              valid_columns);
    cp_async_commit();
  };
  const auto load_gates = [&](const Place& where) {
    StepGates gates{args.gates.past_last[head * sizes.chunks + where.chunk], 0, 0};
    if (thread < where.steps(sizes) && thread < kTile) {
      const std::int64_t step = head * sizes.S + where.begin(sizes) + thread;
      gates.weight = kForward ? args.gates.D_last[step] : sizes.scale * args.gates.past[step];
      if (!kForward) gates.gamma = args.gamma[step];
    }
    return gates;
  };
  Place at{kForward ? 0 : sizes.chunks - 1, 0};
  load(at, 0);
  StepGates gates = load_gates(at);
  for (int buffer = 0; at.exists(sizes); buffer = 1 - buffer) {
    const Place next = at.next(sizes);
    const StepGates next_gates = next.exists(sizes) ? load_gates(next) : StepGates{};
    const std::int64_t border = head * sizes.chunks + at.chunk;
    if (at.tile == 0) {
      const float past_last = gates.past_last;
      if (!kForward && args.crossing != nullptr) {
        float sum = 0;
        if (!(sizes.starts_empty && at.chunk == 0)) {
          const T* const before = args.states.C + border * state_size;
          for_each_inside([&](float x0, float x1, std::int64_t offset) {
            const float2 pair = load_pair(before + offset);
            sum += x0 * pair.x + x1 * pair.y;
          });
          if (owns_row) sum += n[thread] * args.states.n[border * sizes.DHQK + row0 + thread];
        }
        sum = block_sum(sum, totals);
        if (thread == 0) args.crossing[border * args.blocks + block] = past_last * sum;
      }
      if (args.borders.C != nullptr) {
        // through the buffer that is free until the next tile is loaded
        store_tile(C, B + (1 - buffer) * K::kB, args.borders.C + border * state_size + corner, sizes.DHV, valid_rows,
                   valid_columns);
        if (owns_row) args.borders.n[border * sizes.DHQK + row0 + thread] = n[thread];
      }
      C.for_each([&](float& x, int, int) { x *= past_last; });
      if (thread < kTile) n[thread] *= past_last;
    }
    if (next.exists(sizes)) load(next, 1 - buffer);

    if (thread < kTile) {
      weight[thread] = gates.weight;
      n_weight[thread] = kForward ? gates.weight : gates.weight * gates.gamma;
    }
    if (next.exists(sizes))
      cp_async_wait<1>();
    else
      cp_async_wait<0>();
    __syncthreads();

    T* const rows = A + buffer * K::kA;
    if (owns_n) {  // n from unrounded terms
      const int column = thread % kTile, half = thread / kTile;
      float sum = 0;
#pragma unroll 8
      for (int t = half * (kTile / 2); t < (half + 1) * (kTile / 2); ++t)
        sum += n_weight[t] * to_real(rows[t * K::kStride + column]);
      n_parts[thread] = sum;
      __syncthreads();
      if (thread < kTile) n[thread] += n_parts[thread] + n_parts[kTile + thread];
    }
    constexpr int kPiece = 16 / sizeof(T);
    for (int piece = thread; piece < kTile * kTile / kPiece; piece += kThreads) {
      const int t = piece / (kTile / kPiece);
      T* const values = rows + t * K::kStride + piece % (kTile / kPiece) * kPiece;
      const float w = weight[t];
#pragma unroll
      for (int e = 0; e < kPiece; e += 2) {
        const float2 pair = load_pair(values + e);
        store_pair(values + e, w * pair.x, w * pair.y);
      }
    }
    __syncthreads();
    multiply<T, Layout::transposed, Layout::straight, NT>(C, rows, K::kStride, B + buffer * K::kB, K::kWideStride);
    __syncthreads();
    at = next;
    gates = next_gates;
  }

  const auto write_end = [&](float* C_end, float* n_end) {
    if (C_end != nullptr)
      for_each_inside(
          [&](float x0, float x1, std::int64_t offset) { store_pair(C_end + head * state_size + offset, x0, x1); });
    if (n_end != nullptr && owns_row) n_end[head * sizes.DHQK + row0 + thread] = n[thread];
  };
  write_end(args.C_end, args.n_end);
  write_end(args.C_copy, args.n_copy);
}

template <class T>
int columns_of_state_block(const ChunkSizes& sizes) {
  return sizeof(T) == 2 && sizes.DHV > 64 ? 128 : 64;
}

template <class T, bool kForward>
void launch_states(const char* name, StateArguments<T> args, cudaStream_t stream) {
  args.blocks = state_blocks<T>(args.sizes);
  const dim3 grid = grid_of(args.sizes.heads * args.blocks);
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
