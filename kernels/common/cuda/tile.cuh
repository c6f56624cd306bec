// SPDX-License-Identifier: Apache-2.0
// Products of 64-row tiles by a block of four warps: 16-bit operands on tensor cores, float32 operands by FMA, both
// with float32 accumulators in the same registers.
//
// The warps stand 2 x 2: warp w owns rows 32 (w / 2) ... + 31 and one half of the columns (w % 2) of a result of 64 x
// 16 NT elements. Tiles in shared memory are row-major with 16 bytes between rows, so that the eight rows of an
// ldmatrix (and the eight rows that a float32 fragment reads) lie in different banks.
#pragma once

#include "common/cuda/mma.cuh"
#include "common/cuda/scan.cuh"

namespace mlstm::kernels::cuda {

constexpr int kTile = 64;      ///< rows and columns of a weight tile, depth of one product
constexpr int kThreads = 128;  ///< of every block that works on tiles

/// Elements between two rows of a tile of `columns` columns.
template <class T>
__host__ __device__ constexpr int stride_of(int columns) {
  return columns + static_cast<int>(16 / sizeof(T));
}

/// Two neighbours, aligned to their common size, in one access.
template <class T>
__device__ inline void store_pair(T* to, float x0, float x1) {
  if constexpr (sizeof(T) == 2)
    *reinterpret_cast<std::uint32_t*>(to) = pack2<T>(x0, x1);
  else
    *reinterpret_cast<float2*>(to) = make_float2(x0, x1);
}
template <class T>
__device__ inline float2 load_pair(const T* from) {
  if constexpr (sizeof(T) == 2) {
    const std::uint32_t bits = *reinterpret_cast<const std::uint32_t*>(from);
    T pair[2];
    __builtin_memcpy(pair, &bits, sizeof bits);
    return make_float2(to_real(pair[0]), to_real(pair[1]));
  } else {
    return *reinterpret_cast<const float2*>(from);
  }
}

/// Where this lane stands in a result. Lanes hold, for mt < 2 and half < 2, parts of the rows row(mt, half).
struct Lane {
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int warp() { return static_cast<int>(threadIdx.x) / 32; }
  static __device__ int first_row() { return 32 * (warp() / 2); }
  static __device__ int row(int mt, int half) { return first_row() + 16 * mt + 8 * half + lane() / 4; }
};

/// One lane's part of a result of 64 x 16 NT elements.
template <int NT>
struct Accumulator {
  float x[2][NT][4] = {};

  static __device__ int first_column() { return 8 * NT * (Lane::warp() % 2); }
  /// Column of x[.][nt][0] and x[.][nt][2]; the next one of x[.][nt][1] and x[.][nt][3].
  static __device__ int column(int nt) { return first_column() + 8 * nt + 2 * (Lane::lane() % 4); }

  /// body(x of column, x of column + 1, row, column) for every pair of neighbours of this lane; `column` is even.
  template <class Body>
  __device__ void for_each_pair(const Body& body) {
#pragma unroll
    for (int mt = 0; mt < 2; ++mt)
#pragma unroll
      for (int nt = 0; nt < NT; ++nt)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          body(x[mt][nt][2 * half], x[mt][nt][2 * half + 1], Lane::row(mt, half), column(nt));
  }

  /// body(x, row, column) for every element of this lane.
  template <class Body>
  __device__ void for_each(const Body& body) {
#pragma unroll
    for (int mt = 0; mt < 2; ++mt)
#pragma unroll
      for (int nt = 0; nt < NT; ++nt)
#pragma unroll
        for (int e = 0; e < 4; ++e) body(x[mt][nt][e], Lane::row(mt, e / 2), column(nt) + e % 2);
  }
};

/// Starts copying a tile of `rows` x `columns` elements to shared memory; elements beyond `valid_rows` or
/// `valid_columns` (a multiple of 8) become zero. `global` has `leading` elements a row, a multiple of 8, and is
/// aligned to 16 bytes.
template <class T>
__device__ inline void load_tile(T* shared, int rows, int columns, const T* global, std::int64_t leading,
                                 int valid_rows, int valid_columns) {
  constexpr int kPiece = 16 / sizeof(T);
  const int pieces = columns / kPiece, stride = stride_of<T>(columns);  // pieces divides kThreads
  const int rows_at_once = kThreads / pieces, column = static_cast<int>(threadIdx.x) % pieces * kPiece;
  int row = static_cast<int>(threadIdx.x) / pieces;
  const T* from = global + row * leading + column;
  T* to = shared + row * stride + column;
  if (column >= valid_columns) valid_rows = 0;
#pragma unroll
  for (int copied = 0; copied < rows; copied += rows_at_once) {
    const bool valid = row < valid_rows;
    cp_async_16(to, valid ? from : global, valid);
    row += rows_at_once;
    from += rows_at_once * leading;
    to += rows_at_once * stride;
  }
}

/// How an operand lies in shared memory.
enum class Layout {
  straight,   ///< A as [m][k], B as [k][n]
  transposed  ///< A as [k][m], B as [n][k]
};

/// acc (64 x 16 NT) += A (64 x 64) B (64 x 16 NT). a_stride, b_stride: elements between the rows that are stored.
template <class T, Layout kA, Layout kB, int NT>
__device__ void multiply(Accumulator<NT>& acc, const T* A, int a_stride, const T* B, int b_stride) {
  const int m0 = Lane::first_row(), n0 = Accumulator<NT>::first_column(), lane = Lane::lane();
  if constexpr (sizeof(T) == 2) {
    const int row8 = lane % 8, low = lane / 8 % 2, high = lane / 16;
#pragma unroll
    for (int k = 0; k < kTile; k += 16) {
      std::uint32_t a[2][4];
#pragma unroll
      for (int mt = 0; mt < 2; ++mt) {
        const int m = m0 + 16 * mt;
        if constexpr (kA == Layout::straight)
          ldmatrix_x4(a[mt], A + (m + row8 + 8 * low) * a_stride + k + 8 * high);
        else
          ldmatrix_x4_trans(a[mt], A + (k + row8 + 8 * high) * a_stride + m + 8 * low);
      }
#pragma unroll
      for (int nt = 0; nt < NT; nt += 2) {
        const int n = n0 + 8 * nt;
        std::uint32_t b[4];
        if constexpr (kB == Layout::straight)
          ldmatrix_x4_trans(b, B + (k + row8 + 8 * low) * b_stride + n + 8 * high);
        else
          ldmatrix_x4(b, B + (n + row8 + 8 * high) * b_stride + k + 8 * low);
        const std::uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
        for (int mt = 0; mt < 2; ++mt) {
          mma_m16n8k16<T>(acc.x[mt][nt], a[mt], first);
          mma_m16n8k16<T>(acc.x[mt][nt + 1], a[mt], second);
        }
      }
    }
  } else {
    const int g = lane / 4, c = 2 * (lane % 4);
#pragma unroll 4
    for (int k = 0; k < kTile; ++k) {
      float a[2][2], b[NT][2];
#pragma unroll
      for (int mt = 0; mt < 2; ++mt)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int m = m0 + 16 * mt + 8 * half + g;
          a[mt][half] = kA == Layout::straight ? A[m * a_stride + k] : A[k * a_stride + m];
        }
#pragma unroll
      for (int nt = 0; nt < NT; ++nt)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int n = n0 + 8 * nt + c + e;
          b[nt][e] = kB == Layout::straight ? B[k * b_stride + n] : B[n * b_stride + k];
        }
#pragma unroll
      for (int mt = 0; mt < 2; ++mt)
#pragma unroll
        for (int nt = 0; nt < NT; ++nt)
#pragma unroll
          for (int e = 0; e < 4; ++e) acc.x[mt][nt][e] = fmaf(a[mt][e / 2], b[nt][e % 2], acc.x[mt][nt][e]);
    }
  }
}

/// acc += Σ_slabs A_slab B_slab over the common dimension `depth` in slabs of 64, double-buffered. load_a(slab, A) and
/// load_b(slab, B) start the copies of one slab; each_slab(slab, A) is called while A lies in shared memory. All copies
/// started before are complete when this returns, and the block is synchronised.
template <class T, Layout kB, int NT, class LoadA, class LoadB, class EachSlab>
__device__ void multiply_slabs(Accumulator<NT>& acc, int depth, T* A, int a_elements, T* B, int b_elements,
                               int b_stride, const LoadA& load_a, const LoadB& load_b, const EachSlab& each_slab) {
  const int slabs = (depth + kTile - 1) / kTile;
  load_a(0, A);
  load_b(0, B);
  cp_async_commit();
  for (int slab = 0; slab < slabs; ++slab) {
    const int now = slab % 2, next = 1 - now;
    if (slab + 1 < slabs) {
      load_a(slab + 1, A + next * a_elements);
      load_b(slab + 1, B + next * b_elements);
      cp_async_commit();
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    multiply<T, Layout::straight, kB, NT>(acc, A + now * a_elements, stride_of<T>(kTile), B + now * b_elements,
                                          b_stride);
    each_slab(slab, A + now * a_elements);
    __syncthreads();
  }
}

/// What each lane has summed up for its rows (mt, half), by row: sums[row] = the sum over all lanes. `partial` is
/// shared memory for 2 x 64 floats. The block is synchronised before this returns.
__device__ inline void sum_rows(const float (&parts)[2][2], float* partial, float* sums) {
#pragma unroll
  for (int mt = 0; mt < 2; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = parts[mt][half];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      if (Lane::lane() % 4 == 0) partial[kTile * (Lane::warp() % 2) + Lane::row(mt, half)] = sum;
    }
  __syncthreads();
  if (threadIdx.x < kTile) sums[threadIdx.x] = partial[threadIdx.x] + partial[kTile + threadIdx.x];
  __syncthreads();
}

/// sums[row] = Σ_columns acc * other, where `other` (row-major, in global memory) starts at the result's first element.
template <int NT, class T>
__device__ void row_dots(Accumulator<NT>& acc, const T* other, std::int64_t leading, int valid_rows, int valid_columns,
                         float* partial, float* sums) {
  float parts[2][2] = {};
#pragma unroll
  for (int mt = 0; mt < 2; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Lane::row(mt, half);
      if (row >= valid_rows) continue;
#pragma unroll
      for (int nt = 0; nt < NT; ++nt) {
        const int column = Accumulator<NT>::column(nt);
        if (column >= valid_columns) continue;
        const float2 pair = load_pair(other + row * leading + column);
        parts[mt][half] += acc.x[mt][nt][2 * half] * pair.x + acc.x[mt][nt][2 * half + 1] * pair.y;
      }
    }
  sum_rows(parts, partial, sums);
}

/// Writes the accumulators, rounded to T, through shared memory (64 x (16 NT + padding) elements) to global memory in
/// pieces of 16 bytes. Synchronises the block before it returns and expects `shared` to be free.
template <class T, int NT>
__device__ void store_tile(Accumulator<NT>& acc, T* shared, T* global, std::int64_t leading, int valid_rows,
                           int valid_columns) {
  constexpr int kColumns = 16 * NT, kPiece = 16 / sizeof(T), kStride = stride_of<T>(kColumns);
  acc.for_each_pair(
      [&](float x0, float x1, int row, int column) { store_pair(shared + row * kStride + column, x0, x1); });
  __syncthreads();
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kColumns / kPiece; at += kThreads) {
    const int row = at / (kColumns / kPiece), column = at % (kColumns / kPiece) * kPiece;
    if (row < valid_rows && column < valid_columns)
      *reinterpret_cast<uint4*>(global + row * leading + column) =
          *reinterpret_cast<const uint4*>(shared + row * kStride + column);
  }
  __syncthreads();
}

constexpr double kLog2E = 1.4426950408889634;

/// a_j or M_t in units of log(2), relative to some origin, as a float32 and what is missing from it: a and M may both
/// be large where their difference is small.
struct GateTerm {
  float high = 0, low = 0;
  GateTerm() = default;
  __device__ GateTerm(double value, double origin) {
    const double x = (value - origin) * kLog2E;
    high = static_cast<float>(x);
    low = static_cast<float>(x - static_cast<double>(high));
  }
};

/// D_tj = exp(a_j - M_t).
__device__ inline float gate_weight(const GateTerm& a, const GateTerm& M) {
  return exp2f((a.high - M.high) + (a.low - M.low));
}

}  // namespace mlstm::kernels::cuda
