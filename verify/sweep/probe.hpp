// SPDX-License-Identifier: Apache-2.0
// A part of a case, and what a kernel makes of it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "judge/locate.hpp"
#include "runner/runner.hpp"

namespace mlstm::verify {

/// Steps first ... end - 1 of a sequence tensor (B,NH,S,...).
Array steps_of(const Array& array, std::int64_t first, std::int64_t end);

/// The first `length` steps, without cotangents.
Case prefix_of(const Case& c, std::int64_t length);

/// The steps from `first` on, from the reference's states before them, rounded to what states are stored in; absent if
/// those are out of its range or, for first = 0, cannot be given as states (stabilizer_init = neg_inf).
std::optional<Case> suffix_of(const Case& c, std::int64_t first);

/// A kernel's result on a part: the failing elements of every tensor that it returned, or why it stopped.
struct Probe {
  std::string stopped;
  std::map<std::string, Location> tensors;  ///< h, c_last, ..., dq, ..., dm_initial
  KernelData data;

  bool wrong(const std::string& tensor) const {
    const auto found = tensors.find(tensor);
    return found != tensors.end() && found->second.failing > 0;
  }
  bool all_right() const;
};

Probe probe(const Kernel& kernel, const Case& part, std::optional<Convention> convention, const RunFunction& runner);

}  // namespace mlstm::verify
