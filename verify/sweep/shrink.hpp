// SPDX-License-Identifier: Apache-2.0
// Reducing a failing problem to a minimal one that fails in the same way.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cases/problems.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {

/// What has to happen again for a problem to fail in the same way: the same status, and one of the same tensors is
/// wrong or, if the run stopped, it stops for the same kind of reason.
struct Failure {
  Status status = Status::FAIL;
  std::set<std::string> tensors;  ///< that were judged and got this status; empty if the run stopped
  std::string reason;             ///< if the run stopped, without numbers and names of tensors

  /// Whether one of `items`, the verdicts on one problem, is this failure.
  bool occurs_in(const std::vector<Item>& items) const;
};

/// The failure of the verdicts on one run; absent if none of them is FAIL, ERROR or TIMEOUT. FAIL comes before ERROR
/// and ERROR before TIMEOUT if there are several.
std::optional<Failure> failure_of(const std::vector<Item>& items);

struct ShrinkOptions {
  double seconds = 30;  ///< no run begins later
  SweepOptions sweep;   ///< how to run: run, runner, threads. The rest is ignored
};

struct Shrunk {
  ProblemSpec original, spec;
  std::vector<Item> items;        ///< the verdicts on `spec`
  std::string repro;              ///< line that reproduces the failure of `spec`
  int failed = 0, tried = 0;      ///< how often the original failed when it was run again
  int attempts = 1;               ///< a problem is believed to pass after so many runs
  std::int64_t problems = 0;      ///< different problems that were run
  std::int64_t runs = 0;          ///< runs of all of them
  bool out_of_time = false;       ///< then a smaller problem may exist
  std::int64_t failed_again = 0;  ///< of 3 more runs of `spec`; fewer if time ran out
};

/// Tries simpler problems, one change at a time, and goes on from the first that fails in the same way, until no change
/// is left: cotangents and states off, B and NH 1, fewer steps and chunks, smaller dimensions, a simpler gate and eps,
/// a regime of plainer values, seed 0. Only problems that the variant supports are run, each once (`attempts` times if
/// the failure comes and goes). The result has failed, and is the same in every call unless time runs out.
Shrunk shrink(const Kernel& kernel, const ProblemSpec& spec, std::optional<Convention> convention,
              const Failure& failure, const ShrinkOptions& options);

/// What changed, how many runs it took, and the reproduction line, as lines.
std::string to_text(const Shrunk& shrunk);

/// Regimes from the plainest values on, those of the suites last.
const std::vector<std::string>& regimes_by_simplicity();

}  // namespace mlstm::verify
