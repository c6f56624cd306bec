// SPDX-License-Identifier: Apache-2.0
// The bugs in words: what each is called, what goes wrong, and which specimens get it.
#pragma once

#include <string_view>
#include <vector>

#include "studies/mutants/bug.hpp"

namespace mlstm::verify::planted {

/// Sets of specimens.
enum Specimens : unsigned {
  kStep = 1,       ///< one decoding step
  kRecurrent = 2,  ///< the whole recurrence
  kParallel = 4,   ///< one block of queries and keys
  kChunkwise = 8,  ///< chunks between states
  kRounded = 16,   ///< the same, df from stored dq and dk
  kSequence = kRecurrent | kParallel | kChunkwise,
  kBlocks = kParallel | kChunkwise,
  kStates = kRecurrent | kChunkwise,
};

struct BugInfo {
  Bug bug;
  std::string_view name;  ///< without the target
  std::string_view family, description;
  unsigned specimens;             ///< of Specimens
  std::string_view target{};      ///< tensor or buffer; in the name, if there is one
  int repeats = 1;                ///< Mutant::repeats
  std::string_view equivalent{};  ///< Mutant::equivalent
};

std::vector<BugInfo> forward_bugs();   ///< gates, denominator, masks, states
std::vector<BugInfo> backward_bugs();  ///< gradients and conventions
std::vector<BugInfo> general_bugs();   ///< addresses, precision, single elements, memory, races

}  // namespace mlstm::verify::planted
