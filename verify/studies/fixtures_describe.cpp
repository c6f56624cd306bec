// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cases/case_file.hpp"
#include "studies/fixtures.hpp"

namespace mlstm::verify {
namespace {

struct Text {
  std::string operator()(std::int64_t value) const { return fmt::format("{}", value); }
  std::string operator()(double value) const { return fmt::format("{}", value); }
  std::string operator()(const std::string& value) const { return value; }
  std::string operator()(const OpaqueAttribute& value) const { return fmt::format("{} bytes", value.data.size()); }
};

std::string line(std::string_view key, std::string_view value, int indent = 2) {
  return fmt::format("{:{}}{:<20} {}\n", "", indent, key, value);
}

std::string describe(const Attributes& attributes, int indent = 2) {
  std::string text;
  for (const auto& [name, value] : attributes) text += line(name, std::visit(Text{}, value), indent);
  return text;
}

std::string describe(const std::string& group, const TensorMap& tensors) {
  if (tensors.empty()) return {};
  std::string text = group + "\n";
  for (const auto& [name, array] : tensors) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    std::int64_t strange = 0;
    for (const double value : array) {
      if (!std::isfinite(value)) {
        ++strange;
        continue;
      }
      low = std::min(low, value);
      high = std::max(high, value);
    }
    std::string range = fmt::format("({})", fmt::join(array.shape(), ","));
    if (low <= high) range += fmt::format("  {:.6g} ... {:.6g}", low, high);
    if (strange > 0) range += fmt::format("  {} NaN or infinite", strange);
    text += line(name, range, 4);
  }
  return text;
}

}  // namespace

std::string describe_case(const std::filesystem::path& path) {
  const Case c = read_case(path);
  const Problem& p = c.problem;
  const Shape& s = p.shape;
  std::string text = path.string() + "\n";
  text += line("case", c.name);
  text += line("shape", fmt::format("B={} NH={} S={} DHQK={} DHV={}", s.B, s.NH, s.S, s.DHQK, s.DHV));
  text += line("gate",
               p.normalized() ? std::string(to_string(p.gate)) : fmt::format("{}, not normalized", to_string(p.gate)));
  text += line("dtype", to_string(p.dtype));
  text += line("eps", fmt::format("{}", p.eps));
  text += line("stabilizer_init", p.has_initial_state ? "(initial states are given)" : to_string(p.stabilizer_init));
  text += line("chunk_size", p.chunk_size > 0 ? fmt::format("{}", p.chunk_size) : "not applicable");
  text += describe(c.attributes);
  text += describe("/inputs", c.inputs) + describe("/cotangents", c.cotangents);
  if (c.reference) {
    text += "/reference\n" + describe(c.reference->attributes);
    text += describe("/reference/outputs", c.reference->outputs);
    text += describe("/reference/gradients/exact", c.reference->exact);
    text += describe("/reference/gradients/detached", c.reference->detached);
    if (!c.reference->bounds.empty())
      text += fmt::format("/reference/bounds\n  {} tensors\n", c.reference->bounds.size());
  }
  if (c.kernel) {
    text += "/kernel\n";
    text += line("variant", c.kernel->variant.empty() ? "(not named)" : c.kernel->variant);
    text += line("gradients", c.kernel->convention ? to_string(*c.kernel->convention) : "convention unknown");
    if (c.kernel->operand_dtype) text += line("operand_dtype", to_string(*c.kernel->operand_dtype));
    if (c.kernel->state_dtype) text += line("state_dtype", to_string(*c.kernel->state_dtype));
    text += describe(c.kernel->attributes);
    text += describe("/kernel/outputs", c.kernel->outputs) + describe("/kernel/gradients", c.kernel->gradients);
  }
  return text;
}

}  // namespace mlstm::verify
