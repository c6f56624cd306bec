// SPDX-License-Identifier: Apache-2.0
// Properties that every correct mLSTM kernel has. They compare runs of one kernel with each other.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "mlstm/kernel.hpp"
#include "runner/runner.hpp"

namespace mlstm::verify {

/// A property as users see it.
struct PropertyInfo {
  std::string_view name;         ///< "split_state"
  std::string_view description;  ///< one line: what has to hold, and how closely
};

/// All properties, in a fixed order.
const std::vector<PropertyInfo>& properties();

/// Names of the properties that match one of the globs, in order; all for no globs. Throws std::invalid_argument that
/// names `argument` for a glob that matches none.
std::vector<std::string> select_properties(const std::vector<std::string>& globs,
                                           std::string_view argument = "property");

/// The problems that a property is checked on by default, in every dtype it is checked in.
std::vector<ProblemSpec> property_problems(std::string_view property);

/// Why the property cannot be checked on this variant with this problem; empty if it can.
std::string property_refusal(std::string_view property, const Kernel& kernel, const ProblemSpec& spec);

struct PropertyOptions {
  std::optional<Convention> convention = {};  ///< the only one to check; absent: all that the variant declares
  int threads = 1;                            ///< for the reference and the bounds
  bool guarded = true;                        ///< RunOptions::guarded
  /// RunOptions::accept_nondeterminism: where the same bits are required, results may differ by twice their bound, and
  /// the item says so (Item::nondeterminism).
  bool accept_nondeterminism = false;
  RunFunction runner = run_kernel;
};

/// Checks one property of one variant on one problem: one item per tensor, with the largest deviation over what is
/// allowed (0 or infinite where the same bits are required). `case_name` is "property:<name>/<case_name(spec)>";
/// `trivial` in the note means that zeros would have passed. Throws what the runner throws, and std::invalid_argument
/// if property_refusal is not empty.
std::vector<Item> check_property(std::string_view property, const Kernel& kernel, const ProblemSpec& spec,
                                 const PropertyOptions& options = {});

}  // namespace mlstm::verify
