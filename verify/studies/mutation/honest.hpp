// SPDX-License-Identifier: Apache-2.0
// False alarms: kernels that are known to be right, on random problems.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "cases/problems.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {

/// The problem that `seed` draws, without its dtype: regime, gate, eps, states, cotangents, start of the stabiliser,
/// ragged S, L and dimensions, small enough to run thousands of. The same on every machine.
ProblemSpec random_problem(std::uint64_t seed);

struct HonestOptions {
  std::vector<const Kernel*> kernels;
  std::vector<DType> dtypes{DType::float64, DType::float32, DType::bfloat16, DType::float16};
  std::uint64_t first_seed = 0;
  std::int64_t seeds = 1;
  int threads = 0;
  RunFunction runner = run_kernel;
  std::function<void(std::int64_t)> on_total;  ///< number of problems, before the first
  std::function<void()> on_unit_done;          ///< one call at a time
};

/// The largest error_ratio (or bias_ratio) of honest kernels in a tensor, and the run that had it.
struct LargestRatio {
  double ratio = 0;
  std::string variant, repro;
};

struct HonestReport {
  std::int64_t seeds = 0, problems = 0;
  std::int64_t runs = 0;           ///< (seed, dtype, variant, convention)
  std::int64_t verdicts = 0;       ///< one per tensor
  std::vector<Item> alarms;        ///< verdicts other than PASS and SKIPPED, MISTRUSTED included
  std::vector<std::string> unrun;  ///< "<key>: <reason>"
  /// By operand dtype and tensor ("h", "dq", ...): what constants of the bounds can be calibrated with.
  std::map<std::pair<DType, std::string>, LargestRatio> largest;
  std::map<std::pair<DType, std::string>, LargestRatio> largest_bias;  ///< the same of bias_ratio

  int exit_status() const;  ///< 1 with an alarm, 3 if nothing was judged, else 0
};

/// Runs every kernel on the problem of every seed in every dtype, judged as in a sweep (poison, red zones, one repeat).
HonestReport run_honest(const HonestOptions& options);

/// The table of largest ratios beside the constants of the bounds, what was no PASS, and the count.
std::string to_text(const HonestReport& report);

/// {"seeds", "problems", "runs", "verdicts", "not_passed", "items": [as in report.json],
/// "largest": [{"dtype", "tensor", "constant", "error_ratio", "variant", "repro"}],
/// "largest_bias": [{"dtype", "tensor", "constant", "bias_ratio", "variant", "repro"}]}.
std::string to_json(const HonestReport& report);

}  // namespace mlstm::verify
