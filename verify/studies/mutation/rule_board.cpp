// SPDX-License-Identifier: Apache-2.0
#include "studies/mutation/rule_board.hpp"

#include <algorithm>
#include <cmath>

namespace mlstm::verify {
namespace {

constexpr std::string_view kVerifier = "mlstm verify";

}  // namespace

const KernelData* RuleProblem::plain(std::optional<Convention> convention) {
  const auto [place, is_new] = plain_.try_emplace(convention);
  if (is_new && plain_kernel_ != nullptr && plain_kernel_->unsupported(case_.problem).empty())
    place->second = run_unchecked(*plain_kernel_, case_, convention);
  return place->second ? &*place->second : nullptr;
}

Case RuleProblem::with_loss(const Array& h) const {
  Case c;
  c.name = case_.name;
  c.problem = case_.problem;
  c.inputs = case_.inputs;
  c.cotangents["h"] = layer_norm_cotangents(h, case_.problem.dtype);
  return c;
}

const ReferenceData& RuleProblem::loss_reference() {
  if (!loss_reference_) {
    reference::Options options;
    options.threads = threads_;
    loss_reference_ = evaluate_reference(with_loss(reference_.outputs.at("h")), options);
  }
  return *loss_reference_;
}

std::optional<KernelData> RuleProblem::loss_run(const Kernel& kernel, const Array& h, Convention convention) const {
  const Case c = with_loss(h);
  const Array& dh = c.cotangents.at("h");
  if (!std::all_of(dh.begin(), dh.end(), [](double x) { return std::isfinite(x); })) return {};
  return run_unchecked(kernel, c, convention);
}

RuleBoard::RuleBoard(std::size_t kernels, std::size_t first_specimen)
    : kernels_(kernels),
      first_specimen_(first_specimen),
      rules_(1 + acceptance_rules().size()),
      rejected_(kernels_ * rules_ * kRuleScopes.size()) {}

std::size_t RuleBoard::place(std::size_t kernel, std::size_t rule, RuleScope scope) const {
  return (kernel * rules_ + rule) * kRuleScopes.size() + static_cast<std::size_t>(scope);
}

bool RuleBoard::needed(std::size_t kernel, std::size_t rule, RuleScope scope, DType dtype) const {
  const std::vector<DType>& dtypes = acceptance_rules()[rule - 1].dtypes;
  return std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end() &&
         (kernel >= first_specimen_ || !rejected_[place(kernel, rule, scope)].load());
}

bool RuleBoard::open(std::size_t kernel, RuleScope scope, DType dtype) const {
  for (std::size_t rule = 1; rule < rules_; ++rule)
    if (needed(kernel, rule, scope, dtype)) return true;
  return false;
}

void RuleBoard::record(std::size_t kernel, std::size_t rule, RuleScope scope, bool rejected) {
  if (rejected) rejected_[place(kernel, rule, scope)] = true;
  if (kernel < first_specimen_) return;
  const std::lock_guard lock(mutex_);
  specimens_[{rule, scope}].add(rejected);
}

void RuleBoard::add_verdict(std::size_t kernel, RuleScope scope, bool rejected) { record(kernel, 0, scope, rejected); }

std::vector<bool> RuleBoard::add(std::size_t kernel, const Run& run, RuleScope scope, const KernelData* data,
                                 const Array* h, RuleProblem& problem, const std::vector<bool>& useless) {
  std::vector<bool> rejects(rules_, false);
  const Problem& p = problem.problem_case().problem;
  RuleInput input{.problem = &p,
                  .module = run.kernel->info().module,
                  .convention = run.convention,
                  .got = data,
                  .reference = &problem.reference()};
  std::optional<KernelData> loss_run;
  bool loss_tried = false;
  for (std::size_t n = 1; n < rules_; ++n) {
    const Rule& rule = acceptance_rules()[n - 1];
    if (!needed(kernel, n, scope, p.dtype) || (!useless.empty() && useless[n])) continue;
    if (data == nullptr) {  // an exception fails any test
      record(kernel, n, scope, true);
      rejects[n] = true;
      continue;
    }
    if (rule.needs_plain && input.plain == nullptr) input.plain = problem.plain(run.convention);
    bool rejected = !rule.accepts(input);
    // The loss costs runs of its own; what is rejected already needs none.
    if (!rejected && rule.needs_loss && run.convention && h != nullptr) {
      if (!loss_tried) {
        loss_tried = true;
        try {
          loss_run = problem.loss_run(*run.kernel, *h, *run.convention);
        } catch (const std::exception&) {
        }
        input.loss_got = loss_run ? &*loss_run : nullptr;
        input.loss_reference = loss_run ? &problem.loss_reference() : nullptr;
      }
      rejected = !loss_run || !rule.accepts(input);
    }
    record(kernel, n, scope, rejected);
    rejects[n] = rejected;
  }
  return rejects;
}

std::vector<RuleResult> RuleBoard::results(const std::vector<bool>& counted) const {
  std::vector<RuleResult> results;
  for (std::size_t rule = 0; rule < rules_; ++rule) {
    RuleResult result;
    if (rule == 0) {
      result.name = kVerifier;
      result.description =
          "error bounds of each element; red zones, poison, unchanged inputs, equal bits of repeated runs";
    } else {
      result.name = acceptance_rules()[rule - 1].name;
      result.description = acceptance_rules()[rule - 1].description;
    }
    for (const RuleScope scope : kRuleScopes) {
      for (std::size_t kernel = 0; kernel < first_specimen_; ++kernel)
        if (counted[kernel]) result.mutants[scope].add(rejected_[place(kernel, rule, scope)].load());
      if (const auto found = specimens_.find({rule, scope}); found != specimens_.end())
        result.specimens[scope] = found->second;
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace mlstm::verify
