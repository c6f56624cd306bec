// SPDX-License-Identifier: Apache-2.0
// Runs of one kernel that have to give the same, whatever memory held before them.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cases/case.hpp"
#include "runner/runner.hpp"

namespace mlstm::verify {

// What fills all memory before a run. 0xff repeated is NaN in every dtype; 0x3c repeated is a finite number in every
// dtype (1.06 in float16, 0.011 in bfloat16 and float32), for code whose comparisons happen to drop NaN.
inline constexpr std::byte kNaN{0xff}, kFinite{0x3c};

using Bytes = std::vector<std::byte>;
/// What a run gave, as it is stored: outputs by name, gradients by "d" + name.
using Results = std::map<std::string, Bytes>;

/// "c_last" for itself, "dq" -> "q".
std::string tensor_of(const std::string& result);

/// What `run` gives, 2 + `options.repeats` times or more, with the poison that it is told or with none. Throws
/// CheckFailure for what was not written, what depends on the poison, and what differs from run to run. With
/// `options.accept_nondeterminism` the latter is written to `spread` instead (KernelData::spread): a kernel then
/// depends on the poison if each poison gives the same bits in several runs, and the two give different ones.
Results repeated_results(const std::function<Results(std::optional<std::byte>)>& run, const Problem& problem,
                         const RunOptions& options, TensorMap& spread);

}  // namespace mlstm::verify
