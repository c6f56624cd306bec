// SPDX-License-Identifier: Apache-2.0
// What variants did not take, and whether their declarations say so.
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "sweep/sweep.hpp"

namespace mlstm::verify {
namespace {

/// A declaration alone: it takes all that it admits.
class Declaration final : public Kernel {
 public:
  explicit Declaration(const VariantInfo& info) : info_(info) {}
  const VariantInfo& info() const override { return info_; }
  void forward(const Problem&, const ForwardArgs&) const override {
    throw std::logic_error("a declaration alone cannot be run");
  }

 private:
  const VariantInfo& info_;
};

/// Why the declaration does not admit the problem; empty if it does.
std::string ruled_out(const VariantInfo& info, const ProblemSpec& spec) {
  if (const std::string reason = Declaration(info).unsupported(spec.problem); !reason.empty()) return reason;
  const bool takes_cotangents = info.last_state_cotangents || info.gradient_conventions.empty();
  return spec.last_state_cotangents && !takes_cotangents ? "cotangents of the last states are not supported" : "";
}

/// "S" of "S 256 is not supported (...)": refusals by a declaration begin with what they are about.
std::string first_word(const std::string& reason) { return reason.substr(0, reason.find(' ')); }

}  // namespace

void Refusals::Group::add(const std::string& kind, const std::string& reason, const ProblemSpec& spec) {
  if (!first) first = spec;
  ++problems;
  auto found = std::find_if(reasons.begin(), reasons.end(), [&](const auto& known) { return known.first == kind; });
  if (found == reasons.end()) found = reasons.insert(reasons.end(), {kind, {reason, 0}});
  ++found->second.problems;
}

std::string Refusals::Group::text() const {
  constexpr std::size_t kMost = 3;
  std::string text;
  for (std::size_t n = 0; n < std::min(kMost, reasons.size()); ++n) {
    const Reason& reason = reasons[n].second;
    text += (n > 0 ? "; " : "") + reason.text;
    if (reasons.size() > 1) text += fmt::format(" ({})", reason.problems);
  }
  if (reasons.size() > kMost) text += fmt::format("; and {} other reasons", reasons.size() - kMost);
  return text;
}

void Refusals::declined(const ProblemSpec& spec, const std::string& reason) {
  ++selected_;
  if (const std::string rule = ruled_out(kernel_.info(), spec); !rule.empty())
    ruled_out_.add(first_word(rule), rule, spec);
  else
    admitted_.add(reason, reason, spec);
}

std::vector<CannotRun> Refusals::report(const std::string& property) const {
  std::vector<CannotRun> report;
  const std::string what = property.empty() ? "problems" : "problems of " + property;
  if (ruled_out_.problems > 0)
    report.push_back({&kernel_,
                      property,
                      fmt::format("declined {} of {} {}: {}", ruled_out_.problems, selected_, what, ruled_out_.text()),
                      Declined{ruled_out_.problems, selected_},
                      {}});
  if (admitted_.problems > 0)
    report.push_back({&kernel_, property,
                      fmt::format("declined {} of {} {}, though its declaration admits them: {}", admitted_.problems,
                                  selected_, what, admitted_.text()),
                      Declined{admitted_.problems, selected_}, admitted_.first});
  return report;
}

void add_declined(Plan& plan) {
  for (const CannotRun& declined : plan.declined) extend(plan, declined);
}

}  // namespace mlstm::verify
