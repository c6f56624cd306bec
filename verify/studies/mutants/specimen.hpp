// SPDX-License-Identifier: Apache-2.0
// The specimens as variants: one class, honest or with a bug.
#pragma once

#include <atomic>
#include <string>

#include "mlstm/kernel.hpp"
#include "studies/mutants/bugs.hpp"
#include "studies/mutants/formulations.hpp"

namespace mlstm::verify::planted {

/// What the kernels are made of, and what they are called.
struct Kind {
  Specimens set;
  std::string_view label;  ///< in the names of mutants
  Formulation formulation;
  bool rounded_gates;
  VariantInfo info;
  unsigned habits = 0;  ///< of Habits
};

/// All kinds, one per member of Specimens.
const std::vector<Kind>& kinds();

/// The same with habits of other kernels; no bugs are planted in them.
const std::vector<Kind>& other_kinds();

class Specimen final : public Kernel {
 public:
  /// Honest. `kind` has to outlive this.
  explicit Specimen(const Kind& kind);
  /// With a bug: a row of kBugs, in one of its places.
  Specimen(const Kind& kind, const BugInfo& bug, const Place& place);

  const VariantInfo& info() const override { return info_; }
  std::size_t saved_size(const Problem& problem) const override;
  std::size_t workspace_size(const Problem& problem, bool backward) const override;
  void forward(const Problem& problem, const ForwardArgs& args) const override;
  void backward(const Problem& problem, const BackwardArgs& args) const override;

 private:
  Context context(const Problem& problem, bool backward) const;
  void require_supported(const Problem& problem) const;
  void begin_call(const Problem& problem) const;
  void backward_once(const Problem& problem, const BackwardArgs& args) const;
  void after_forward(const Problem& problem, const ForwardArgs& args) const;
  /// The arguments as the bug takes them. `memory` is for what it reads in place of the saved data.
  ForwardArgs bent(const ForwardArgs& args) const;
  BackwardArgs bent(const Problem& problem, const BackwardArgs& args, Library::Bytes& memory) const;

  const Kind& kind_;
  Bug bug_;
  std::string_view target_;
  bool is_race_ = false;
  VariantInfo info_;
  mutable Library library_;                      ///< what bugs keep between calls
  mutable std::atomic<std::uint64_t> calls_{0};  ///< of the direction that a race is in
};

/// Name of a bug within its specimen: "<target>_<name>", or the name alone.
std::string bug_name(const BugInfo& bug, const Place& place);

}  // namespace mlstm::verify::planted
