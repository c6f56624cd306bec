// SPDX-License-Identifier: Apache-2.0
// Everything that depends on the gates alone, for all heads at once, and the way of a stabiliser's cotangent back.
//
// Within a chunk of L steps (the parallel formulation is one chunk) let b_t = Σ logσ(f_r) from the chunk's first step
// to t, and a_j = log_i_j - b_j with log_i = i (exp gate) or logσ(i). Then, with m_t - b_t = M_t = max(m_entering,
// max_{j≤t} a_j) (sigmoid gate: m = 0, M_t = -b_t),
//
//   D_tj   = exp(Σ_{r=j+1..t} logσ(f_r) + log_i_j - m_t) = exp(a_j - M_t)          weight of step j at step t
//   past_t = exp(b_t + m_entering - m_t)                 = exp(m_entering - M_t)   weight of the state before the chunk
//
// so that kernels see no gate, no sum and no maximum: two numbers per step. They are float64 whatever the dtype, and
// twice as wide for float64: a and M may be large while their difference is small. Exponents are never positive, and
// the one of the arg max is exactly 0: i_t was the maximum of step t just where M_t == a_t.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "common/cuda/arena.hpp"
#include "mlstm/kernel.hpp"

namespace mlstm::kernels::cuda {

/// Chunks of a sequence: ceil(S / L).
inline std::int64_t chunks_of(const Problem& problem, std::int64_t L) { return (problem.shape.S - 1) / L + 1; }

/// Device arrays; shapes (B,NH,S), `m_entering` (B,NH,NC).
struct Gates {
  double *a, *M;
  double *a_low, *M_low;  ///< what a and M are short of (wide.cuh); null unless the dtype is float64
  double* m;              ///< m_t; 0 with the sigmoid gate
  double* m_entering;     ///< m of the step before each chunk (m_0 for the first, -inf if there is no past)
  // The weights that products with states take, in float32:
  float* past;       ///< (B,NH,S): exp(m_entering - M_t)
  float* D_last;     ///< (B,NH,S): D_last,j = exp(a_j - M_last), last: the last step of j's chunk
  float* past_last;  ///< (B,NH,NC): past of the last step of each chunk

  static Gates take(Arena& arena, const Problem& problem, std::int64_t L) {
    const std::int64_t steps = problem.shape.heads() * problem.shape.S;
    const std::int64_t chunks = problem.shape.heads() * chunks_of(problem, L);
    const auto take_low = [&]() -> double* {
      return problem.dtype == DType::float64 ? arena.take<double>(steps) : nullptr;
    };
    return {arena.take<double>(steps),
            arena.take<double>(steps),
            take_low(),
            take_low(),
            arena.take<double>(steps),
            arena.take<double>(chunks),
            arena.take<float>(steps),
            arena.take<float>(steps),
            arena.take<float>(chunks)};
  }
};

/// Fills `gates` for chunks of L steps from i, f (B,NH,S) in the problem's dtype and m_initial (B,NH), null if none;
/// m_last (B,NH) is written unless null (or without meaning). Two launches.
void scan_gates(const Problem& problem, std::int64_t L, const void* i, const void* f, const void* m_initial,
                const Gates& gates, void* m_last, cudaStream_t stream);

/// Per-row scalars of a backward pass, each (B,NH,S), in RealOf the dtype.
struct RowCotangents {
  void* inverse;  ///< 1 / d_t
  void* gamma;    ///< cotangent of l_t (0 in the detached convention and where the floor is the denominator)
  void* dm;       ///< cotangent of m_t that comes from h: -(dh_t.h_t) eps / d_t (exact, exp gate; else 0)

  static RowCotangents take(Arena& arena, const Problem& problem);
};

/// rows, and g = dh / d (B,NH,S,DHV) rounded to the dtype unless `g` is null. l: (B,NH,S) in RealOf the dtype, as
/// forward saved it. dh null: zero. dh.h uses the h that was stored, as FlashAttention does. One launch.
void row_cotangents(const Problem& problem, Convention convention, const void* l, const Gates& gates, const void* dh,
                    const void* h, const RowCotangents& rows, void* g, cudaStream_t stream);

/// What a backward pass knows of the gates when all m are held constant; RealOf the dtype. Inputs of finish_gates.
struct GateCotangents {
  void *d_log_i, *d_log_f;  ///< (B,NH,S); complete but for the stabiliser's part
  void* after_product;      ///< (B,NH): <dc_last, c_last> + <dn_last, n_last>; null: zero
  void* before_product;     ///< (B,NH): <dc_initial, c_initial> + <dn_initial, n_initial>; null: zero
};

/// Adds the stabiliser's part and stores di, df (B,NH,S) in the dtype and, if there are initial states, dm_initial.
/// h depends on m_t through eps alone, whichever branch the denominator took; c_last and n_last are exp(-m_S) times
/// something that m does not enter, and exp(m_0) times the initial state is what the function sees of it (exact
/// convention). A cotangent of m_t goes to what the maximum took: to i_t, or to logσ(f_t) and on to m_{t-1}. One
/// launch.
void finish_gates(const Problem& problem, const BackwardArgs& args, const Gates& gates, const void* dm,
                  const GateCotangents& cotangents, cudaStream_t stream);

/// out (B,NH) = <x, y> + <x2, y2> per head, all in RealOf the dtype, n and n2 elements a head; null x or x2: zero.
/// Deterministic. One launch.
void dot_per_head(const Problem& problem, const void* x, const void* y, std::int64_t n, const void* x2, const void* y2,
                  std::int64_t n2, void* out, cudaStream_t stream);

}  // namespace mlstm::kernels::cuda
