// SPDX-License-Identifier: Apache-2.0
#include "mlstm/verify/properties.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "property_check.hpp"

namespace mlstm::verify {
namespace {

const Property& property_named(std::string_view name) {
  for (const Property& property : all_properties())
    if (property.info.name == name) return property;
  throw std::invalid_argument(
      fmt::format("property is \"{}\"; expected one of {}", name, fmt::join(select_properties({}), ", ")));
}

/// `spec` without what the variant does not take.
ProblemSpec reduced(ProblemSpec spec, const VariantInfo& info) {
  spec.problem.has_initial_state &= info.initial_states;
  spec.last_state_cotangents &= info.last_state_cotangents;
  if (info.gradient_conventions.empty()) spec.cotangents = spec.last_state_cotangents = false;
  return adapted(spec, info);
}

}  // namespace

const std::vector<PropertyInfo>& properties() {
  static const std::vector<PropertyInfo> infos = [] {
    std::vector<PropertyInfo> list;
    for (const Property& property : all_properties()) list.push_back(property.info);
    return list;
  }();
  return infos;
}

std::vector<std::string> select_properties(const std::vector<std::string>& globs, std::string_view argument) {
  const auto matches = [](const std::string& glob, std::string_view name) {
    return fnmatch(glob.c_str(), std::string(name).c_str(), 0) == 0;
  };
  std::vector<std::string> all, selected;
  for (const PropertyInfo& info : properties()) {
    all.emplace_back(info.name);
    if (globs.empty() ||
        std::any_of(globs.begin(), globs.end(), [&](const auto& glob) { return matches(glob, info.name); }))
      selected.emplace_back(info.name);
  }
  for (const std::string& glob : globs)
    if (std::none_of(all.begin(), all.end(), [&](const auto& name) { return matches(glob, name); }))
      throw std::invalid_argument(
          fmt::format("{} is \"{}\"; expected a name or glob among {}", argument, glob, fmt::join(all, ", ")));
  return selected;
}

std::vector<ProblemSpec> property_problems(std::string_view name) {
  const Property& property = property_named(name);
  std::vector<ProblemSpec> specs;
  for (const std::string_view line : property.problems)
    for (const DType dtype : property.dtypes)
      specs.push_back(parse_spec(fmt::format("{},dtype={}", line, to_string(dtype))));
  return specs;
}

std::string property_refusal(std::string_view property, const Kernel& kernel, const ProblemSpec& spec) {
  return property_named(property).refusal(kernel, spec);
}

std::vector<Item> check_property(std::string_view property, const Kernel& kernel, const ProblemSpec& spec,
                                 const PropertyOptions& options) {
  const Property& wanted = property_named(property);
  if (const std::string reason = wanted.refusal(kernel, spec); !reason.empty())
    throw std::invalid_argument(fmt::format("{}: {}: {}", kernel.info().key(), property, reason));
  PropertyCheck check(kernel, spec, options);
  wanted.check(check);
  return check.items(property);
}

void add_properties(Plan& plan, const std::vector<const Kernel*>& kernels, const PropertySelection& selection) {
  const auto add = [&](const Kernel* kernel, const std::string& property, const ProblemSpec& spec,
                       const std::string& why_not) {
    Unit unit;
    unit.spec = spec;
    unit.runs.push_back({kernel, selection.convention, true});
    unit.property = property;
    unit.unavailable = why_not;
    extend(plan, std::move(unit));
  };
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
        return !unit.unavailable.empty() && unit.runs.front().kernel == kernel;
      });
      if (!said) add(kernel, "", {}, absent);
      continue;
    }
    for (const std::string& name : selection.names) {
      std::vector<std::string> reasons, taken;
      for (const ProblemSpec& candidate : candidates.at(name)) {
        const ProblemSpec spec = own ? reduced(candidate, info) : candidate;
        if (const std::string reason = property_refusal(name, *kernel, spec); !reason.empty()) {
          if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) reasons.push_back(reason);
          continue;
        }
        // Two problems may become the same one for this variant.
        if (std::find(taken.begin(), taken.end(), to_line(spec)) != taken.end()) continue;
        taken.push_back(to_line(spec));
        add(kernel, name, spec, "");
      }
      if (taken.empty() && !reasons.empty()) add(kernel, name, {}, fmt::format("{}", fmt::join(reasons, "; ")));
    }
  }
}

bool is_property(const Item& item) { return item.case_name.starts_with("property:"); }

std::string list_properties(const std::vector<Item>& items) {
  struct Worst {
    double ratio = 0;
    bool bad = false, skipped = false;
  };
  std::vector<std::string> order;
  std::map<std::string, std::map<std::string, Worst>> table;
  for (const Item& item : items) {
    if (!is_property(item)) continue;
    const std::string name = item.case_name.substr(9, item.case_name.find('/') - 9);
    if (!table.contains(item.variant)) order.push_back(item.variant);
    Worst& worst = table[item.variant][name];
    worst.skipped |= item.status == Status::SKIPPED;
    worst.bad |= item.status != Status::PASS && item.status != Status::SKIPPED;
    worst.ratio = std::max(worst.ratio, item.error_ratio.value_or(0));
  }
  if (table.empty()) return {};
  std::string text = "Properties: largest deviation / allowed (at most 1 passes; 0: the same bits; ! did not pass)\n";
  for (const std::string& variant : order) {
    std::vector<std::string> words;
    for (const PropertyInfo& info : properties())
      if (const auto found = table.at(variant).find(std::string(info.name)); found != table.at(variant).end())
        words.push_back(fmt::format("{} {}", info.name,
                                    found->second.skipped
                                        ? std::string("-")
                                        : fmt::format("{:.2g}{}", found->second.ratio, found->second.bad ? "!" : "")));
    text += fmt::format("  {}: {}\n", variant, fmt::join(words, ", "));
  }
  return text + "\n";
}

}  // namespace mlstm::verify
