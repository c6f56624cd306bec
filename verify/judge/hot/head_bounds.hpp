// SPDX-License-Identifier: Apache-2.0
// Error bounds of one head. The model is derived in verify/BOUNDS.md; names here are the names there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "mlstm/problem.hpp"
#include "mlstm/tensors.hpp"

namespace mlstm::verify {

/// Unit roundoffs of the computation that is judged.
struct Roundoffs {
  double operand;      ///< u: operands of matrix products
  double output;       ///< u_o: stored outputs and gradients
  double saved;        ///< u_s: m and d as saved for the backward pass
  double state;        ///< u_state: chunk states and last states
  double accumulator;  ///< u_a: sums, exponents
  double gate;         ///< u_g: logσ, m, F and I as they are kept; u_a unless declared
  double step;         ///< eta: smallest step of an operand near 0
  double flush;        ///< eta_0: smallest normal number of sums and gates; what is below may become 0
};

/// Raw (c = 1) bounds of the gradients of one convention; row-major, shapes of the inputs. Null: not wanted.
struct GradientBounds : Gradients<double> {
  double* f_straddling = nullptr;  ///< (S): df from unrounded terms, summed over straddling pairs only
  double* open_rows = nullptr;     ///< rows whose arg max or denominator branch is closer than the forward error
};

/// One head: sizes, conventions, values. States and cotangents may be null.
struct HeadProblem {
  std::int64_t S, DHQK, DHV;
  Gate gate;
  bool normalize;
  double eps;
  StabilizerInit stabilizer_init;
  std::int64_t window;   ///< W: steps after which sums of gates restart
  bool sums_every_step;  ///< a state gains its terms one by one, and is rounded each time
  std::int64_t chunk;    ///< rows between two uses of a rounded state
  Roundoffs u;
  Inputs<double> in;
  Outputs<double> out;  ///< reference values, read only
  Cotangents<double> cotangents;
  Gradients<double> exact, detached;  ///< reference values, read only
};

/// Relative error of a weight D_tj whose exponent is summed in a narrow format of unit roundoff u_g. A sum of many
/// small terms, or one that starts at i or m, loses those that are below half a step, all with one sign, and no more
/// than all of them. `memory`: steps that are remembered; `all`, `window`: Σ|logσ(f)| over what is remembered, and over
/// the part of it after which sums restart; `largest_m`: of |m| so far.
inline double lost_in_gate_sums(double u_g, double memory, double all, double window, double largest_m) {
  constexpr double far = 10;  // an exponent that is off by that much says nothing any more
  return std::expm1(std::min({all, u_g * (1 + memory) * (window / 2 + largest_m), far}));
}

struct HeadBounds {
  Outputs<double> out;
  GradientBounds exact, detached;
};

/// Writes the raw bounds of one head. O(S (DHQK + DHV)^2) work, O(S (DHQK + DHV + chunk) + S / chunk * (DHQK + DHV)^2)
/// memory. Gradients are bounded if cotangents.h is given.
void head_bounds(const HeadProblem& problem, const HeadBounds& bounds);

}  // namespace mlstm::verify
