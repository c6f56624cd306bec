// SPDX-License-Identifier: Apache-2.0
// Planning checks of properties beside verdicts on problems.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cases/problems.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {

/// What add_properties is to plan.
struct PropertySelection {
  std::vector<std::string> names = {};        ///< of properties
  Selection problems = {};                    ///< which of their own problems
  std::vector<ProblemSpec> cases = {};        ///< if not empty: these problems instead, exactly as they are
  std::optional<Convention> convention = {};  ///< the only gradient convention to check
  UnavailableFunction why_unavailable = static_cast<std::string (*)(const Kernel&)>(unavailable);
};

/// Appends one unit per variant, property and problem. A variant that a property does not apply to, or that takes none
/// of its problems, gets one unit for that property, which is SKIPPED with the reason. Own problems are adapted to what
/// the variant declares (adapted; states and cotangents that it does not take are left out). A property of which no
/// problem is selected goes to plan.unselected.
void add_properties(Plan& plan, const std::vector<const Kernel*>& kernels, const PropertySelection& selection);

}  // namespace mlstm::verify
