// SPDX-License-Identifier: Apache-2.0
// A property of problems that are too large for the reference: their heads are copies of a few.
#include <fmt/format.h>

#include <algorithm>

#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

/// Different heads. A prime: an index that wraps at a power of two, or at NH = 257, finds another head than its own.
constexpr std::int64_t kDifferentHeads = 7;

/// The heads 0, 1, ..., 6, 0, 1, ... of tensors with seven heads, in the shape of `problem`.
TensorMap repeated_heads(const TensorMap& few, const Problem& problem) {
  TensorMap many;
  for (const auto& [name, values] : few) {
    const std::vector<std::int64_t> shape = shape_of(name, problem.shape);
    Array& out = many[name] = Array::from_shape(std::vector<std::size_t>(shape.begin(), shape.end()));
    const std::size_t size = elements_per_head(name, problem);
    for (std::int64_t head = 0; head < problem.shape.heads(); ++head)
      std::copy_n(values.data() + static_cast<std::size_t>(head % kDifferentHeads) * size, size,
                  out.data() + static_cast<std::size_t>(head) * size);
  }
  return many;
}

}  // namespace

std::string many_heads_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (const std::string reason = unsupported_reason(kernel, spec); !reason.empty()) return reason;
  return spec.problem.shape.heads() < 2 * kDifferentHeads ? fmt::format("the problem has {} heads; expected {} or more",
                                                                        spec.problem.shape.heads(), 2 * kDifferentHeads)
                                                          : "";
}

// (B, NH) counts heads, so head n of a problem whose heads repeat has the results of head n mod 7, for which there is a
// reference. That is how head indices beyond 16 bits and offsets of elements beyond 2^22 are reached at the cost of a
// small problem. A kernel may sum in another order in another head, so results may differ from the reference by their
// bound. Addresses do not depend on the convention: one is enough.
void check_many_heads(PropertyCheck& check) {
  ProblemSpec few = check.spec();
  few.problem.shape.B = 1;
  few.problem.shape.NH = kDifferentHeads;
  const std::optional<Convention> convention = check.passes().front();
  const Solved small = check.solve(make_case(few), convention);
  check.compares(small.c);
  Case large;
  large.name = case_name(check.spec());
  large.problem = check.problem();
  large.inputs = repeated_heads(small.c.inputs, large.problem);
  large.cotangents = repeated_heads(small.c.cotangents, large.problem);
  const KernelData results = check.run(large, convention);
  for (const ResultName& name : check.results_of(results)) {
    const Array& got = (name.convention ? results.gradients : results.outputs).at(name.tensor);
    const std::size_t size = elements_per_head(name.tensor, large.problem);
    const Array &truth = small.truth(name), &bound = small.bound(name);
    for (std::size_t n = 0; n < got.size(); ++n) {
      const std::size_t head = n / size, at = head % static_cast<std::size_t>(kDifferentHeads) * size + n % size;
      check.compare(name, n, got.data()[n], truth.data()[at], bound.data()[at], "a copy of another head");
    }
  }
}

}  // namespace mlstm::verify
