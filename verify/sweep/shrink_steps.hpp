// SPDX-License-Identifier: Apache-2.0
// The changes that make a problem simpler, and the order in which they are tried.
#pragma once

#include <functional>

#include "sweep/shrink.hpp"

namespace mlstm::verify {

/// What the changes work on.
struct ShrinkTarget {
  std::function<bool(const ProblemSpec&)> accept;     ///< true: it fails in the same way and is the current one now
  std::function<bool(const ProblemSpec&)> supported;  ///< by the variant, and valid
  std::function<const ProblemSpec&()> current;        ///< the simplest known problem that fails
};

/// Applies all changes again and again until none is accepted. Every accepted change makes one field simpler and none
/// less simple, so this ends.
void shrink_steps(const Kernel& kernel, const Failure& failure, const ShrinkTarget& target);

}  // namespace mlstm::verify
