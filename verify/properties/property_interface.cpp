// SPDX-License-Identifier: Apache-2.0
// What the interface promises of a call (contract §4): arguments that are null, and calls that come between others, or
// beside them.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

using Names = std::vector<std::string>;

/// Each name by itself, all but each, and all: every argument is null beside others that are and that are not.
std::vector<Names> choices(const Names& names) {
  std::vector<Names> all;
  const auto add = [&](Names choice) {
    if (!choice.empty() && std::find(all.begin(), all.end(), choice) == all.end()) all.push_back(std::move(choice));
  };
  for (const std::string& name : names) {
    add({name});
    Names rest;
    std::copy_if(names.begin(), names.end(), std::back_inserter(rest),
                 [&](const auto& other) { return other != name; });
    add(rest);
  }
  add(names);
  return all;
}

std::string text_of(const Names& nulls) {
  std::string text = nulls.front();
  for (std::size_t n = 1; n < nulls.size(); ++n) text += (n + 1 < nulls.size() ? ", " : " and ") + nulls[n];
  return text + (nulls.size() == 1 ? " is null" : " are null");
}

/// Results of a kernel that may be null: last states and gradients of initial ones.
Names optional_results(const KernelData& data) {
  Names names;
  for (const auto& [name, values] : data.outputs)
    if (name != "h") names.push_back(name);
  for (const auto& [name, values] : data.gradients)
    if (name.ends_with("_initial")) names.push_back("d" + name);
  return names;
}

/// Only those of `names` that `wanted` wants.
template <class Wanted>
Names those(const Names& names, const Wanted& wanted) {
  Names some;
  std::copy_if(names.begin(), names.end(), std::back_inserter(some), wanted);
  return some;
}

/// The other cases that calls come between or beside: of the same shape; with more of everything, and another eps; and
/// with less. Those that the variant does not take are left out.
std::vector<std::shared_ptr<const Case>> companions(const PropertyCheck& check) {
  const Kernel& kernel = check.kernel();
  ProblemSpec same = check.spec(), larger = same, smaller = same;
  same.seed += 1;
  Shape &more = larger.problem.shape, &less = smaller.problem.shape;
  more = {more.B, more.NH + 1, more.S > 1 ? 2 * more.S + 3 : 1, 2 * more.DHQK, 2 * more.DHV};
  less = {1, 1, (less.S + 1) / 2, less.DHQK, less.DHV};
  larger.problem.eps = 2 * larger.problem.eps + 0.5;
  std::vector<std::shared_ptr<const Case>> cases;
  for (const ProblemSpec& spec : {same, larger, smaller})
    if (unsupported_reason(kernel, spec).empty()) cases.push_back(std::make_shared<const Case>(make_case(spec)));
  return cases;
}

std::string shape_text(const Shape& s) {
  return fmt::format("B={}, NH={}, S={}, DHQK={}, DHV={}", s.B, s.NH, s.S, s.DHQK, s.DHV);
}

/// Runs the problem in each of these kinds of company, with each of `others`, against what it gives alone.
void check_company(PropertyCheck& check, const std::vector<std::shared_ptr<const Case>>& others,
                   const std::vector<std::pair<Company, const char*>>& kinds) {
  const Case base = make_case(check.spec());
  for (const std::optional<Convention> convention : check.passes()) {
    const KernelData alone = check.run(base, convention);
    for (const auto& other : others)
      for (const auto& [company, words] : kinds)
        check.compare_answers(check.run(base, convention, {.company = company, .other = other}), alone, base,
                              convention, fmt::format("{} (a problem of {})", words, shape_text(other->problem.shape)));
  }
}

}  // namespace

std::string null_arguments_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (!kernel.info().last_states && kernel.info().gradient_conventions.empty())
    return "none of its arguments may be null";
  return unsupported_reason(kernel, spec);
}

// An output that is not wanted is not computed, and no other depends on that: c_last, n_last, m_last and the gradients
// of given states by themselves, all but one, and all. The same outputs with and without a backward pass to follow
// (`saved`). A cotangent that is null is one of zeros: dh, dc_last, dn_last, dm_last likewise.
void check_null_arguments(PropertyCheck& check) {
  const Case base = make_case(check.spec());
  for (const std::optional<Convention> convention : check.passes()) {
    const KernelData plain = check.run(base, convention);
    const Names results = optional_results(plain);
    const Names outputs = those(results, [](const auto& name) { return !name.starts_with('d'); });
    const Names gradients = those(results, [](const auto& name) { return name.starts_with('d'); });
    std::vector<Names> unwanted = choices(outputs);
    for (const Names& names : {gradients, results})
      for (Names& nulls : choices(names))
        if (std::find(unwanted.begin(), unwanted.end(), nulls) == unwanted.end()) unwanted.push_back(std::move(nulls));
    for (const Names& nulls : unwanted)
      check.compare_answers(check.run(base, convention, {.nulls = nulls}), plain, base, convention, text_of(nulls));
    if (!convention) continue;
    check.compare_answers(check.run(base, {}), plain, base, {}, "saved is null, as no backward follows");
    check.compare_answers(check.run(base, {}, {.nulls = outputs}), plain, base, {}, "saved is null, and last states");

    Names cotangents;
    for (const auto& [name, values] : base.cotangents) cotangents.push_back(name);
    for (const Names& chosen : choices(cotangents)) {
      Case zeros = base;
      Names nulls;
      for (const std::string& name : chosen) {
        zeros.cotangents.at(name).fill(0);
        nulls.push_back("d" + name);
      }
      check.compare_answers(check.run(zeros, convention, {.nulls = nulls}), check.run(zeros, convention), zeros,
                            convention, text_of(nulls) + ", against zeros");
    }
  }
}

// What forward saves belongs to the call: backward of one call is right after forward of another, and from a copy of
// all that forward left, elsewhere, in another thread, as automatic differentiation runs it.
void check_interleaving(PropertyCheck& check) {
  check_company(check, companions(check),
                {{Company::interleaved, "backward after another call's forward"},
                 {Company::moved, "backward in another thread, from moved memory, after another call"}});
}

// Calls with buffers of their own do not see each other: neither in two threads, nor on two streams.
void check_concurrency(PropertyCheck& check) {
  std::vector<std::pair<Company, const char*>> kinds{{Company::threads, "beside calls in another thread"}};
  if (check.kernel().info().device == Device::cuda)
    kinds.emplace_back(Company::streams, "beside calls on another stream");
  std::vector<std::shared_ptr<const Case>> others = companions(check);
  others.resize(std::min<std::size_t>(2, others.size()));  // the smaller one has the least time to do harm
  check_company(check, others, kinds);
}

}  // namespace mlstm::verify
