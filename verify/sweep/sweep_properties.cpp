// SPDX-License-Identifier: Apache-2.0
#include "sweep/sweep_properties.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "properties/properties.hpp"

namespace mlstm::verify {
namespace {

/// `spec` without what the variant does not take.
ProblemSpec reduced(ProblemSpec spec, const VariantInfo& info) {
  spec.problem.has_initial_state &= info.initial_states;
  spec.last_state_cotangents &= info.last_state_cotangents;
  if (info.gradient_conventions.empty()) spec.cotangents = spec.last_state_cotangents = false;
  return adapted(spec, info);
}

}  // namespace

void add_properties(Plan& plan, const std::vector<const Kernel*>& kernels, const PropertySelection& selection) {
  const bool own = selection.cases.empty();
  std::map<std::string, std::vector<ProblemSpec>> candidates;
  for (const std::string& name : selection.names) {
    candidates[name] = own ? select(property_problems(name), selection.problems) : selection.cases;
    if (candidates[name].empty()) plan.unselected.push_back(fmt::format("property {}: no problem is selected", name));
  }
  for (const Kernel* kernel : kernels) {
    const VariantInfo& info = kernel->info();
    const std::string absent = selection.why_unavailable(*kernel);
    // A variant that cannot run here is said once for everything.
    if (!absent.empty()) {
      const bool said = std::any_of(plan.units.begin(), plan.units.end(), [&](const Unit& unit) {
        return unit.cannot_run() != nullptr && unit.cannot_run()->kernel == kernel;
      });
      if (!said) extend(plan, CannotRun{kernel, {}, absent});
      continue;
    }
    for (const std::string& name : selection.names) {
      std::vector<std::string> reasons, taken;
      Refusals refusals(*kernel);
      for (const ProblemSpec& candidate : candidates.at(name)) {
        const ProblemSpec spec = own ? reduced(candidate, info) : candidate;
        if (const std::string reason = property_refusal(name, *kernel, spec); !reason.empty()) {
          if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) reasons.push_back(reason);
          if (const std::string said = kernel->unsupported(spec.problem); !said.empty()) refusals.declined(spec, said);
          continue;
        }
        refusals.took();
        // Two problems may become the same one for this variant.
        if (std::find(taken.begin(), taken.end(), to_line(spec)) != taken.end()) continue;
        taken.push_back(to_line(spec));
        extend(plan, PropertyCheckup{spec, {kernel, selection.convention}, name});
      }
      if (taken.empty() && !reasons.empty())
        extend(plan, CannotRun{kernel, name, fmt::format("{}", fmt::join(reasons, "; "))});
      // What the declaration rules out, own problems leave out too, or the property does not apply to it.
      for (const CannotRun& declined : refusals.report(name))
        if (declined.admitted) extend(plan, declined);
    }
  }
}

}  // namespace mlstm::verify
