// SPDX-License-Identifier: Apache-2.0
// What all parts of one call know: the problem, the bug, and what is rounded.
#pragma once

#include <string_view>

#include "mlstm/problem.hpp"
#include "studies/mutants/bugs.hpp"
#include "studies/mutants/habits.hpp"
#include "studies/mutants/library.hpp"
#include "studies/mutants/numeric.hpp"

namespace mlstm::verify::planted {

struct Context {
  const Problem& problem;
  Bug bug;
  std::string_view target;                ///< the tensor that the bug is about, if it may be one or another
  bool raced = false;                     ///< whether a race is lost in this call
  Library* library = nullptr;             ///< of the kernel
  bool rounded_gates = false;             ///< df from the sums of stored q·dq - k·dk, as published kernels do
  unsigned habits = 0;                    ///< of Habits
  Rounding operand = Rounding::none;      ///< operands of matrix products
  Rounding accumulator = Rounding::none;  ///< their sums
  Rounding state = Rounding::none;        ///< states, after every update
  Rounding gate = Rounding::none;         ///< logσ, m, sums of them, F and I
  Rounding product = Rounding::none;      ///< terms of sums

  /// What P is rounded to.
  Rounding weights() const { return has("P_truncated") ? truncated(operand) : operand; }
  bool has(Bug one) const { return bug == one; }
  /// Whether the last chunk is shorter than the others.
  bool is_ragged() const { return problem.chunk_size > 0 && problem.shape.S % problem.chunk_size != 0; }
  bool is_short() const { return problem.shape.S < problem.chunk_size; }
  bool starts_at_neg_inf() const {
    return problem.stabilizer_init == StabilizerInit::neg_inf && !problem.has_initial_state;
  }
  bool is_single_step_without_eps() const {
    return problem.shape.S == 1 && problem.has_initial_state && problem.eps == 0;
  }
  bool has(Bug one, std::string_view tensor) const { return bug == one && target == tensor; }
  bool does(Habits habit) const { return (habits & habit) != 0; }
  /// The same for another problem, which has to outlive what is returned.
  Context on(const Problem& other) const {
    return {other, bug, target, raced, library, rounded_gates, habits, operand, accumulator, state, gate, product};
  }
  /// Exponential, as kernels take it.
  template <class Real>
  Real exp(Real x) const {
    if (has("short_log2e")) return std::exp2(x * Real(1.4427));
    if (has("fast_exp")) return fast_exp(x);
    if (has("exponent_clamped")) return std::exp(std::max(x, Real(-8)));
    return std::exp(x);
  }

 private:
  /// 2^n (1 + f + ...) with too few terms: relative error 2e-4.
  template <class Real>
  static Real fast_exp(Real x) {
    const Real y = std::max(x * Real(1.4426950408889634), Real(-1000)), n = std::floor(y), f = y - n;
    return std::ldexp(1 + f * (Real(0.6957) + f * (Real(0.2262) + f * Real(0.0780))), static_cast<int>(n));
  }
};

/// The rounding that stands for a storage type: none where it is what everything is computed in.
inline Rounding rounding_of(DType dtype) {
  return dtype == DType::bfloat16 ? Rounding::bfloat16 : dtype == DType::float16 ? Rounding::float16 : Rounding::none;
}

inline Context context_of(const Problem& problem, Bug bug, std::string_view target, bool raced, Library& library,
                          bool rounded_gates, unsigned habits) {
  Context c{problem, bug, target, raced, &library, rounded_gates, habits};
  c.operand = rounding_of(problem.dtype);
  const bool is_float32 = problem.dtype == DType::float32, is_float64 = problem.dtype == DType::float64;
  if (bug == "no_lift" && problem.dtype == DType::float16) c.operand = Rounding::float16_overflowing;
  if (bug == "operands_truncated") c.operand = truncated(c.operand);
  if (bug == "tfloat32_operands" && is_float32) c.operand = Rounding::tfloat32;
  if (bug == "bfloat16_operands" && !is_float64) c.operand = Rounding::bfloat16;
  if (bug == "float32_operands" && is_float64) c.operand = Rounding::float32;
  if (bug == "float16_accumulation" && !is_float64) c.accumulator = Rounding::float16;
  if (bug == "bfloat16_accumulation" && !is_float64) c.accumulator = Rounding::bfloat16;
  if ((bug == "state_bfloat16" || c.does(kNarrowStates)) && !is_float64) c.state = Rounding::bfloat16;
  if (c.does(kNarrowGates) && !is_float64) c.gate = Rounding::bfloat16;
  if (c.does(kRoundsProducts) && !is_float64) c.product = Rounding::bfloat16;
  if (bug == "state_float32" && is_float64) c.state = Rounding::float32;
  if (bug == "state_bfloat16_like_operands" && problem.dtype == DType::bfloat16) c.state = Rounding::bfloat16;
  if (bug == "state_float16_like_operands" && problem.dtype == DType::float16) c.state = Rounding::float16;
  return c;
}

}  // namespace mlstm::verify::planted
