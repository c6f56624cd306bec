// SPDX-License-Identifier: Apache-2.0
// Trying the acceptance rules of others on the runs of a mutation test.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "studies/mutation/mutate.hpp"
#include "studies/mutation/rules.hpp"

namespace mlstm::verify {

/// What the rules need of one problem beside its reference, computed when it is first needed. For one thread.
class RuleProblem {
 public:
  RuleProblem(const Case& c, const ReferenceData& reference, const Kernel* plain, int threads)
      : case_(c), reference_(reference), plain_kernel_(plain), threads_(threads) {}

  const Case& problem_case() const { return case_; }
  const ReferenceData& reference() const { return reference_; }
  /// What the plain program gives; null if it does not take the problem.
  const KernelData* plain(std::optional<Convention> convention);
  /// The problem with the cotangents of the published loss at the reference's h, and its solution.
  const ReferenceData& loss_reference();
  /// The gradients of `kernel` under that loss, which it has at its own h. Empty if h is not finite; throws as the
  /// kernel.
  std::optional<KernelData> loss_run(const Kernel& kernel, const Array& h, Convention convention) const;

 private:
  Case with_loss(const Array& h) const;

  const Case& case_;
  const ReferenceData& reference_;
  const Kernel* plain_kernel_;
  int threads_;
  std::map<std::optional<Convention>, std::optional<KernelData>> plain_;
  std::optional<ReferenceData> loss_reference_;
};

/// Which rules have rejected which kernels. The methods may be called from several threads.
class RuleBoard {
 public:
  /// `kernels` are numbered by the caller; those from `first_specimen` on are honest.
  RuleBoard(std::size_t kernels, std::size_t first_specimen);

  /// Whether a run in this dtype could tell anything new.
  bool open(std::size_t kernel, RuleScope scope, DType dtype) const;
  /// Tries every rule that may still learn something on one run: `data` is what the kernel gave unchecked (null if it
  /// threw), `h` its output (null if it gave none). A rule that rejects the honest kernel in this run (`useless`, by
  /// the position of the rule; may be empty) is not tried: its verdict would say nothing. Returns which rules reject.
  std::vector<bool> add(std::size_t kernel, const Run& run, RuleScope scope, const KernelData* data, const Array* h,
                        RuleProblem& problem, const std::vector<bool>& useless);
  /// What the verifier itself said of the same run.
  void add_verdict(std::size_t kernel, RuleScope scope, bool rejected);

  /// Results, the verifier itself first; `counted` says which of the mutants take part.
  std::vector<RuleResult> results(const std::vector<bool>& counted) const;

 private:
  bool needed(std::size_t kernel, std::size_t rule, RuleScope scope, DType dtype) const;
  void record(std::size_t kernel, std::size_t rule, RuleScope scope, bool rejected);
  std::size_t place(std::size_t kernel, std::size_t rule, RuleScope scope) const;

  std::size_t kernels_, first_specimen_, rules_;  // rule 0 is the verifier
  std::vector<std::atomic<bool>> rejected_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::size_t, RuleScope>, Tally> specimens_;
};

}  // namespace mlstm::verify
