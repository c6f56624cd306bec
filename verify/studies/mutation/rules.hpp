// SPDX-License-Identifier: Apache-2.0
// How others decide that a kernel is right: acceptance rules of published test suites, to be compared with the error
// bounds of this one (mlstm mutate). They see what a kernel returned as plain arrays.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cases/case.hpp"

namespace mlstm::verify {

/// What one run of a kernel gave, and what a rule may compare it with.
struct RuleInput {
  const Problem* problem = nullptr;
  Module module = Module::recurrent;     ///< of the kernel: published tolerances differ by formulation
  std::optional<Convention> convention;  ///< of the gradients; absent: there are none
  const KernelData* got = nullptr;
  const ReferenceData* reference = nullptr;  ///< float64; of the problem's own cotangents
  const KernelData* plain = nullptr;         ///< the same problem and convention by a plain program in the same dtype
  /// Gradients of the loss of the published tests (layer_norm_cotangents) instead of those of random cotangents: the
  /// kernel's, and the reference's. Null for a forward-only run.
  const KernelData* loss_got = nullptr;
  const ReferenceData* loss_reference = nullptr;
};

struct Rule {
  std::string name;
  std::string description;  ///< one line: formula, and whose it is
  bool needs_plain = false, needs_loss = false;
  std::vector<DType> dtypes;  ///< in which its authors use it
  /// True if the rule would have let this run pass. Never throws for wrong numbers.
  bool (*accepts)(const RuleInput&) = nullptr;
};

/// All rules, in the order of reports.
const std::vector<Rule>& acceptance_rules();

/// The cotangents dh of the loss that the tests of mlstm_kernels use: sum((layer_norm(h) + offset)^2) over each row of
/// h (B,NH,S,DHV), layer norm with eps 1e-5 and no parameters, offset standard normal (of `seed`). Rounded to `dtype`.
/// dh is orthogonal to h up to that eps, so that exact and detached gradients are the same there.
Array layer_norm_cotangents(const Array& h, DType dtype, std::uint64_t seed = 0);

/// numpy.allclose with equal_nan false: |got - expected| <= atol + rtol |expected| in every element; equal infinities
/// are close.
bool all_close(const Array& got, const Array& expected, double atol, double rtol);

/// Relative root mean square error as fla's tests define it: rms(got - expected) / (rms(expected) + 1e-8).
double rms_ratio(const Array& got, const Array& expected);

}  // namespace mlstm::verify
