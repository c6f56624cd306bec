// SPDX-License-Identifier: Apache-2.0
// Whether what is said about failures is true: planted bugs, whose cause is known, beside the explanations that
// `mlstm verify --explain` gives of them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cases/problems.hpp"
#include "studies/mutants/mutants.hpp"

namespace mlstm::verify {

enum class Explained { right, wrong, none };
std::string_view to_string(Explained);

/// What is claimed about the failures of one mutant.
struct Explanation {
  const Mutant* mutant = nullptr;
  std::vector<std::string> problems;  ///< in which it was looked at, as --case takes them
  std::vector<std::string> claims;    ///< "as if: eps is 0", "dq looks like: zero", "stage: n", "check: red zone", ...
  std::vector<std::string> wrong;     ///< those that are not true of the bug
  Explained verdict = Explained::none;
  bool is_named = false;  ///< right by more than the stage that goes wrong first
};

/// Globs (fnmatch) of claims that are true of a mutant's bug; by the name of the bug, as planted::kBugs has it.
std::span<const std::string_view> true_claims(std::string_view bug);

struct ExplanationOptions {
  std::vector<const Mutant*> mutants;
  int threads = 0;
  std::function<void(std::int64_t)> on_total;  ///< number of units, before the first
  std::function<void()> on_unit_done;          ///< one call at a time
};

/// Explains each mutant that is found in `specs`, in the problem that shows it best (MutationReport::evidence) and in
/// the two largest others that do, each under the first convention in which it fails. Mutants that fail in none of
/// these when they run by themselves, but did while others ran, are left out. A claim is wrong unless true_claims has
/// it; a mutant is explained wrongly if any claim is, rightly if there is one and none is.
std::vector<Explanation> explain_mutants(const std::vector<ProblemSpec>& specs, const ExplanationOptions& options);

/// A table in Markdown, by family, with the counts.
std::string to_markdown(const std::vector<Explanation>& explanations);

/// 1 if any is wrong or less than 70 % are right, 3 if there are none, else 0.
int exit_status(const std::vector<Explanation>& explanations);

}  // namespace mlstm::verify
