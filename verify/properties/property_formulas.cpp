// SPDX-License-Identifier: Apache-2.0
// Properties of the formulas: the chunk size does not matter, and v enters linearly.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

/// Chunk sizes that the variant takes for this problem: its own first, then smaller, larger, odd, longer than S.
std::vector<std::int64_t> chunk_sizes(const Kernel& kernel, const ProblemSpec& spec) {
  std::vector<std::int64_t> sizes;
  for (const std::int64_t L : {spec.problem.chunk_size, std::int64_t{7}, std::int64_t{16}, std::int64_t{32},
                               std::int64_t{64}, std::int64_t{128}}) {
    ProblemSpec other = spec;
    other.problem.chunk_size = L;
    if (L > 0 && unsupported_reason(kernel, other).empty() && std::find(sizes.begin(), sizes.end(), L) == sizes.end())
      sizes.push_back(L);
  }
  return sizes;
}

/// v and c_initial, in which h and c_last are linear together.
bool is_linear_input(std::string_view name) { return name == "v" || name == "c_initial"; }

/// Tensors of which every element is multiplied by `factor` if v and c_initial are (cotangents: those of h and c_last).
/// dv and dc_initial, n_last and m_last stay: they do not depend on v.
double factor_of(const ResultName& name, double factor) {
  if (!name.convention) return name.tensor == "h" || name.tensor == "c_last" ? factor : 1;
  return is_linear_input(name.tensor) ? 1 : factor;
}

/// Multiples of 1/16 up to 4: the sum of two is exact in every dtype.
void make_coarse(Case& c) {
  for (auto& [name, values] : c.inputs)
    if (is_linear_input(name))
      for (double& value : values) value = std::clamp(std::round(value * 16) / 16, -4.0, 4.0);
}

void check_scaling(PropertyCheck& check) {
  Case base = make_case(check.spec());
  std::erase_if(base.cotangents, [](const auto& c) { return c.first != "h" && c.first != "c_last"; });
  check.compares(base);
  // float16 operands may be subnormal, where scaling rounds; elsewhere the exponents have room.
  const bool bitwise = base.problem.dtype != DType::float16;
  const double factor = -2;
  Case scaled = base;
  for (auto& [name, values] : scaled.inputs)
    if (is_linear_input(name)) values *= factor;
  for (const std::optional<Convention> convention : check.passes()) {
    Solved plain, other;
    if (bitwise) {
      (plain.c = base).kernel = check.run(base, convention);
      (other.c = scaled).kernel = check.run(scaled, convention);
    } else {
      plain = check.solve(base, convention);
      other = check.solve(scaled, convention);
    }
    Leeway leeway(check, scaled, convention);
    for (const ResultName& name : check.results_of(*plain.c.kernel)) {
      const double by = factor_of(name, factor);
      const Array expected = plain.value(name) * by;
      if (bitwise) {
        check.compare_bits(name, other.value(name), expected, leeway, "v times -2");
        continue;
      }
      const Array allowed = other.bound(name) + plain.bound(name) * std::abs(by);
      check.compare(name, other.value(name), expected, &allowed, "v times -2");
    }
  }
}

void check_superposition(PropertyCheck& check) {
  Case first = make_case(check.spec());
  first.cotangents.clear();
  make_coarse(first);
  Case second = first, sum = first;
  Case other = other_numbers(check.spec());
  make_coarse(other);
  for (auto& [name, values] : second.inputs)
    if (is_linear_input(name)) {
      values = other.inputs.at(name);
      sum.inputs.at(name) = first.inputs.at(name) + values;
    }
  const Solved a = check.solve(first, {}), b = check.solve(second, {}), both = check.solve(sum, {});
  for (const ResultName& name : check.results_of(*a.c.kernel)) {
    if (name.tensor != "h" && name.tensor != "c_last") continue;
    const Array expected = a.value(name) + b.value(name), allowed = a.bound(name) + b.bound(name) + both.bound(name);
    check.compare(name, both.value(name), expected, &allowed, "v the sum of two");
  }
}

}  // namespace

std::string chunk_size_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (kernel.info().module != Module::chunkwise) return "it has no chunks";
  if (const std::string reason = unsupported_reason(kernel, spec); !reason.empty()) return reason;
  return chunk_sizes(kernel, spec).size() < 2 ? "it takes one chunk size only" : "";
}

// The chunkwise form is the same function for every L, so runs with two L differ by at most the sum of their bounds.
void check_chunk_size(PropertyCheck& check) {
  const Case base = make_case(check.spec());
  for (const std::optional<Convention> convention : check.passes()) {
    std::vector<Solved> runs;
    for (const std::int64_t L : chunk_sizes(check.kernel(), check.spec())) {
      Case c = base;
      c.problem.chunk_size = L;
      runs.push_back(check.solve(c, convention));
    }
    for (std::size_t a = 0; a < runs.size(); ++a)
      for (std::size_t b = a + 1; b < runs.size(); ++b)
        for (const ResultName& name : check.results_of(*runs[a].c.kernel)) {
          const Array allowed = runs[a].bound(name) + runs[b].bound(name);
          check.compare(
              name, runs[b].value(name), runs[a].value(name), &allowed,
              fmt::format("L = {} against L = {}", runs[b].c.problem.chunk_size, runs[a].c.problem.chunk_size));
        }
  }
}

std::string linearity_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  return unsupported_reason(kernel, spec);
}

// Denominators, gates and n do not read v. So h and c_last are linear in (v, c_initial), and with them, given
// cotangents of h and c_last alone, the gradients of q, k, i, f, n_initial and m_initial. Multiplication by -2 commutes
// with every rounding that neither overflows nor underflows, hence the same bits. Sums are rounded: the three runs of
// F(v + v') = F(v) + F(v') may each be off by their bound.
void check_linearity(PropertyCheck& check) {
  check_scaling(check);
  check_superposition(check);
}

}  // namespace mlstm::verify
