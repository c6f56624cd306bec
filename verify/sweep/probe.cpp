// SPDX-License-Identifier: Apache-2.0
#include "sweep/probe.hpp"

#include <algorithm>
#include <cmath>
#include <xtensor/xview.hpp>

#include "base/memory.hpp"

namespace mlstm::verify {
namespace {

Case part_of(const Case& c, std::int64_t first, std::int64_t end) {
  Case part;
  part.name = c.name;
  part.problem = c.problem;
  part.problem.shape.S = end - first;
  for (const std::string_view name : kSequenceInputs)
    part.inputs[std::string(name)] = steps_of(c.inputs.at(std::string(name)), first, end);
  return part;
}

}  // namespace

Array steps_of(const Array& array, std::int64_t first, std::int64_t end) {
  return xt::view(array, xt::all(), xt::all(), xt::range(first, end));
}

Case prefix_of(const Case& c, std::int64_t length) {
  Case part = part_of(c, 0, length);
  for (const std::string_view name : kInitialStates)
    if (const auto state = c.inputs.find(std::string(name)); state != c.inputs.end()) part.inputs.insert(*state);
  return part;
}

std::optional<Case> suffix_of(const Case& c, std::int64_t first) {
  Case part = part_of(c, first, c.problem.shape.S);
  part.problem.has_initial_state = true;
  TensorMap states;
  if (first > 0) {
    for (auto& [name, values] : evaluate_reference(prefix_of(c, first)).outputs)
      if (name != "h") states[name.substr(0, 1) + "_initial"] = std::move(values);
  } else {
    const Problem& problem = c.problem;
    if (!problem.has_initial_state && problem.has_m() && problem.stabilizer_init == StabilizerInit::neg_inf) return {};
    for (const std::string& name : input_names(part.problem)) {
      if (name.size() == 1) continue;
      const auto given = c.inputs.find(name);
      const auto extents = shape_of(name, problem.shape);
      states[name] = given != c.inputs.end()
                         ? given->second
                         : Array(xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end())));
    }
  }
  for (auto& [name, values] : states) {
    for (double& value : values) {
      value = round_to(storage_dtype(name, part.problem), value);
      if (!std::isfinite(value)) return {};
    }
    part.inputs[name] = std::move(values);
  }
  for (const auto& [name, values] : c.cotangents)
    part.cotangents[name] = name == "h" ? steps_of(values, first, c.problem.shape.S) : values;
  return part;
}

bool Probe::all_right() const {
  return stopped.empty() &&
         std::none_of(tensors.begin(), tensors.end(), [](const auto& tensor) { return tensor.second.failing > 0; });
}

Probe probe(const Kernel& kernel, const Case& part, std::optional<Convention> convention, const RunFunction& runner) {
  Probe result;
  Case c = part;
  try {
    c.kernel = runner(kernel, c, convention, {});
  } catch (const std::exception& error) {
    result.stopped = reason_of(error);
    return result;
  }
  const ReferenceData reference = evaluate_reference(c);
  const TensorMap bounds = error_bounds(c, reference, precision_of(c));
  const auto add = [&](const TensorMap& tensors, const std::string& prefix, std::string_view in) {
    for (const auto& [name, values] : tensors) {
      Item item;
      item.tensor = prefix + name;
      item.convention = in;
      result.tensors[item.tensor] = locate(judged_tensor(c, reference, bounds, item));
    }
  };
  add(c.kernel->outputs, "", "");
  if (convention) add(c.kernel->gradients, "d", to_string(*convention));
  result.data = std::move(*c.kernel);
  return result;
}

}  // namespace mlstm::verify
