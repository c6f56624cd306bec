// SPDX-License-Identifier: Apache-2.0
// Explanations of the failures of a sweep that take further runs.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sweep/sweep.hpp"

namespace mlstm::verify {

struct ExplainOptions {
  bool stages = false;                        ///< probe for the stage that goes wrong first, and try known mistakes
  std::optional<double> seconds;              ///< shrink, for so long per failure
  std::int64_t failures = 1;                  ///< how many failures of every variant, of different dtype or kind
  SweepOptions sweep;                         ///< how to run: run, runner, threads. The rest is ignored
  std::function<void(const Item&)> progress;  ///< called before a failure is looked into
};

/// The stage that goes wrong first and known mistakes that would give the same, as lines, for a run that fails.
std::string look_into(const Kernel& kernel, const ProblemSpec& spec, std::optional<Convention> convention,
                      const SweepOptions& sweep);

/// Adds to Item::explanation of the first failing item of the first failures of every variant, in the order of the
/// plan. Failures are of one kind if they have the dtype in common, and are of outputs, of gradients, or of runs that
/// stopped. `units` are those that `records` came from.
void explain_failures(std::vector<Record>& records, const std::vector<Unit>& units, const ExplainOptions& options);

}  // namespace mlstm::verify
