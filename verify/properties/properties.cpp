// SPDX-License-Identifier: Apache-2.0
#include "properties/properties.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

const Property& property_named(std::string_view name) {
  for (const Property& property : all_properties())
    if (property.info.name == name) return property;
  throw std::invalid_argument(
      fmt::format("property is \"{}\"; expected one of {}", name, fmt::join(select_properties({}), ", ")));
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

}  // namespace mlstm::verify
