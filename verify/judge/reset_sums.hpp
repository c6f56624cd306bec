// SPDX-License-Identifier: Apache-2.0
// A known mistake in packed sequences: sums of log sigmoid(f) in float32 that go on across a reset.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "cases/case.hpp"

namespace mlstm::verify {

/// How notes and explanations call it.
inline constexpr std::string_view kResetSums = "gate sums of float32 are carried across a reset";

/// In which order a kernel adds, and after how many steps it begins anew.
struct GateSums {
  bool by_doubling =
      false;  ///< as a parallel scan adds: each step what 1, 2, 4, ... steps before it have; else in order
  std::int64_t window = 0;
};

/// The ways to sum that a kernel of this formulation may have; empty if `c` has no reset (a forget gate below 2^-24),
/// if each is the last step of its window, or if the kernel's gates are not float32.
std::vector<GateSums> reset_sums_of(const Case& c);

/// What a kernel computes that takes the exponents of decays from differences F_t - F_j of sums F = Σ logσ(f) in
/// float32. At f = -1000, F has an absolute error of 2^-15 from then on, and with it, relatively, all that is behind
/// the reset. The differences telescope, so this is the right answer for other gates: logσ(f'_t) = F_t - F_{t-1}.
ReferenceData with_float32_gate_sums(const Case& c, const GateSums& sums, int threads);

/// Whether that is how `values` came about: nearly all elements that are out of bounds, at least `sample`, are far
/// nearer to `guess` than to `right`, and within the bounds of both problems; and the others fit as well.
bool is_answer(const Array& values, const Array& right, const Array& bound, const Array& guess,
               std::int64_t sample = 8);

}  // namespace mlstm::verify
