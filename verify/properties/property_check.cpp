// SPDX-License-Identifier: Apache-2.0
#include "properties/property_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace mlstm::verify {
namespace {

// Initial states have gradients in parts of a problem that has none itself.
const std::vector<std::string> kInputs{"q", "k", "v", "i", "f", "c_initial", "n_initial", "m_initial"};

constexpr double kInf = std::numeric_limits<double>::infinity();

const TensorMap& gradients_of(const ReferenceData& reference, Convention convention) {
  return convention == Convention::exact ? reference.exact : reference.detached;
}

std::vector<std::int64_t> unravel(std::size_t flat, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = static_cast<std::int64_t>(flat % static_cast<std::size_t>(shape[axis]));
    flat /= static_cast<std::size_t>(shape[axis]);
  }
  return index;
}

}  // namespace

const Array& Solved::value(const ResultName& name) const {
  return (name.convention ? c.kernel->gradients : c.kernel->outputs).at(name.tensor);
}

const Array& Solved::truth(const ResultName& name) const {
  return (name.convention ? gradients_of(reference, *name.convention) : reference.outputs).at(name.tensor);
}

const Array& Solved::bound(const ResultName& name) const {
  if (!name.convention) return bounds.at(name.tensor);
  const bool straddling = name.tensor == "f" && declares_straddling(*c.kernel);
  return bounds.at(std::string(to_string(*name.convention)) + "/" + (straddling ? "f_straddling" : name.tensor));
}

PropertyCheck::PropertyCheck(const Kernel& kernel, const ProblemSpec& spec, const PropertyOptions& options)
    : kernel_(kernel), spec_(spec), options_(options) {
  if (!spec.cotangents && !spec.last_state_cotangents) return;
  for (const Convention declared : kernel.info().gradient_conventions)
    if (!options.convention || declared == *options.convention) conventions_.push_back(declared);
}

std::vector<std::optional<Convention>> PropertyCheck::passes() const {
  std::vector<std::optional<Convention>> all(conventions_.begin(), conventions_.end());
  if (all.empty()) all.emplace_back();
  return all;
}

KernelData PropertyCheck::run(const Case& c, std::optional<Convention> convention, int repeats) const {
  return run(c, convention, RunOptions{.repeats = repeats});
}

KernelData PropertyCheck::run(const Case& c, std::optional<Convention> convention, RunOptions how) const {
  how.guarded = options_.guarded;
  how.accept_nondeterminism = options_.accept_nondeterminism;
  return options_.runner(kernel_, c, convention, how);
}

ReferenceData PropertyCheck::reference(const Case& c) const {
  reference::Options options;
  options.threads = options_.threads;
  return evaluate_reference(c, options);
}

Solved PropertyCheck::solve(Case c, std::optional<Convention> convention) const {
  Solved solved;
  // A forward pass alone needs neither gradients nor their bounds.
  if (!convention) c.cotangents.clear();
  c.kernel = run(c, convention);
  solved.reference = reference(c);
  solved.bounds = error_bounds(c, solved.reference, precision_of(c), options_.threads);
  solved.c = std::move(c);
  return solved;
}

std::vector<ResultName> PropertyCheck::results_of(const KernelData& data) const {
  std::vector<ResultName> names;
  for (const std::string& name : output_names(problem()))
    if (data.outputs.contains(name)) names.push_back({name, {}});
  for (const std::string& name : kInputs)
    if (data.gradients.contains(name)) names.push_back({name, data.convention});
  return names;
}

void PropertyCheck::compare(const ResultName& name, std::size_t index, double got, double expected, double allowed,
                            std::string_view where) {
  Finding& finding = findings_[name];
  double error = got == expected ? 0 : std::abs(got - expected);
  if (std::isnan(error)) error = kInf;
  const double ratio = error == 0 ? 0 : allowed > 0 ? error / allowed : kInf;
  finding.telling |= std::abs(expected) > allowed;
  finding.only_zeros &= expected == 0;
  if (!finding.compared || ratio > finding.ratio || std::isnan(ratio)) {
    finding.ratio = std::isnan(ratio) ? kInf : ratio;
    finding.worst = index;
    if (finding.ratio > 1)
      finding.note = fmt::format("{}: got {}, expected {}, allowed {:.3g}", where, got, expected, allowed);
  }
  finding.compared = true;
  finding.max_abs_error = std::max(finding.max_abs_error, error);
}

void PropertyCheck::compare(const ResultName& name, const Array& got, const Array& expected, const Array* allowed,
                            std::string_view where) {
  for (std::size_t n = 0; n < expected.size(); ++n)
    compare(name, n, got.data()[n], expected.data()[n], allowed != nullptr ? allowed->data()[n] : 0, where);
}

double Leeway::of(const ResultName& name, std::size_t index) {
  if (!check_.accepts_nondeterminism()) return 0;
  if (!solved_) solved_ = check_.solve(std::move(c_), convention_);
  return 2 * solved_->bound(name).data()[index];
}

void PropertyCheck::compare_bits(const ResultName& name, std::size_t index, double got, double expected, Leeway& leeway,
                                 std::string_view where) {
  if (got == expected) return compare(name, index, got, expected, 0, where);
  const double allowed = leeway.of(name, index);
  compare(name, index, got, expected, allowed, where);
  if (!options_.accept_nondeterminism) return;
  Nondeterminism& seen = findings_.at(name).differing;
  const double apart = std::abs(got - expected);
  ++seen.elements;
  seen.max_abs_difference = std::max(seen.max_abs_difference, std::isfinite(apart) ? apart : kInf);
  const double ratio = apart / allowed;
  seen.ratio = std::max(seen.ratio, std::isnan(ratio) ? kInf : ratio);
}

void PropertyCheck::compare_bits(const ResultName& name, const Array& got, const Array& expected, Leeway& leeway,
                                 std::string_view where) {
  for (std::size_t n = 0; n < expected.size(); ++n)
    compare_bits(name, n, got.data()[n], expected.data()[n], leeway, where);
}

void PropertyCheck::compare_answers(const KernelData& got, const KernelData& expected, const Case& c,
                                    std::optional<Convention> convention, std::string_view where) {
  std::optional<Solved> solved;
  for (const ResultName& name : results_of(got)) {
    const auto of = [&](const KernelData& data) -> const Array& {
      return (name.convention ? data.gradients : data.outputs).at(name.tensor);
    };
    const Array &mine = of(got), &other = of(expected);
    if (std::equal(mine.begin(), mine.end(), other.begin())) {
      compare(name, mine, other, nullptr, where);
      continue;
    }
    if (!solved) solved = solve(c, convention);
    Array allowed = solved->bound(name);
    for (double& bound : allowed) bound *= 2;
    compare(name, mine, other, &allowed, where);
    remark(name, "not the same bits everywhere");
  }
}

void PropertyCheck::judge_bias(const Solved& solved, std::string_view where) {
  const Precision precision = precision_of(solved.c);
  const ErrorSharing sharing(solved.c, precision);
  for (const ResultName& name : results_of(*solved.c.kernel)) {
    const std::string tensor = (name.convention ? "d" : "") + name.tensor;
    JudgedTensor judged{.tensor = tensor, .problem = solved.c.problem};
    judged.values = &solved.value(name), judged.reference = &solved.truth(name), judged.bound = &solved.bound(name);
    const Array* open_rows = nullptr;
    if (name.convention && name.tensor != "v")
      open_rows = &solved.bounds.at(std::string(to_string(*name.convention)) + "/open_rows");
    const std::optional<Bias> bias = bias_of(judged, sharing, open_rows, bias_constant(precision.operand, tensor));
    Finding& finding = findings_[name];
    if (!bias || (finding.bias && bias->ratio <= finding.bias->ratio)) continue;
    finding.bias = bias;
    finding.bias_note = fmt::format("{}: {}", where, bias_text(tensor, *bias, solved.c.problem));
  }
}

void PropertyCheck::remark(const ResultName& name, const std::string& text) {
  std::string& remarks = remarks_[name];
  if (remarks.find(text) != std::string::npos) return;
  remarks += (remarks.empty() ? "" : "; ") + text;
}

void PropertyCheck::cannot_see(const ResultName& name, const std::string& reason) { blind_[name] = reason; }

bool PropertyCheck::zero_by_definition(const ResultName& name) const {
  if (!truth_) truth_ = reference(base_ ? *base_ : make_case(spec_));
  const TensorMap& truths = name.convention ? gradients_of(*truth_, *name.convention) : truth_->outputs;
  // What the case does not have (states between parts of a run) was compared with the reference alone.
  if (!truths.contains(name.tensor)) return findings_.at(name).only_zeros;
  const Array& truth = truths.at(name.tensor);
  return std::all_of(truth.begin(), truth.end(), [](double x) { return x == 0; });
}

std::vector<Item> PropertyCheck::items(std::string_view property) const {
  std::vector<Item> items;
  const auto add = [&](const ResultName& name) {
    const auto found = findings_.find(name);
    if (found == findings_.end() || !found->second.compared) return;
    const Finding& finding = found->second;
    Item item;
    item.variant = kernel_.info().key();
    item.case_name = fmt::format("property:{}/{}", property, case_name(spec_));
    item.property = property;
    item.regime = spec_.regime;
    item.problem = spec_;
    item.tensor = (name.convention ? "d" : "") + name.tensor;
    if (name.convention) item.convention = to_string(*name.convention);
    item.status = finding.ratio <= 1 ? Status::PASS : Status::FAIL;
    item.error_ratio = finding.ratio;
    item.max_abs_error = finding.max_abs_error;
    if (finding.worst != kNoIndex) item.worst_index = unravel(finding.worst, shape_of(name.tensor, problem().shape));
    item.note = finding.note;
    if (finding.bias) {
      item.bias_ratio = finding.bias->ratio;
      item.bias = finding.bias->overall;
      if (finding.bias->ratio > 1) {
        item.status = Status::FAIL;
        item.note += (item.note.empty() ? "" : "; ") + finding.bias_note;
      }
    }
    if (const auto remarks = remarks_.find(name); remarks != remarks_.end())
      item.note += (item.note.empty() ? "" : "; ") + remarks->second;
    if (finding.differing.elements > 0) {
      item.nondeterminism = finding.differing;
      item.note += (item.note.empty() ? "" : "; ") +
                   fmt::format("{} elements differ, though the same bits are required, by {:.3g} at most",
                               finding.differing.elements, finding.differing.max_abs_difference);
    }
    if (!finding.telling) {
      item.trivial = true;
      item.zero_by_definition = zero_by_definition(name);
      item.note += (item.note.empty() ? "" : "; ") + std::string(trivial_text(item.zero_by_definition));
      const auto blind = blind_.find(name);
      if (item.status == Status::PASS && !item.zero_by_definition && blind != blind_.end()) {
        item.status = Status::SKIPPED;
        item.note += "; " + blind->second;
      }
    }
    items.push_back(std::move(item));
  };
  for (const std::string& name : output_names(problem())) add({name, {}});
  for (const Convention convention : conventions_)
    for (const std::string& name : kInputs) add({name, convention});
  return items;
}

Case other_numbers(const ProblemSpec& spec) {
  ProblemSpec other = spec;
  other.seed = spec.seed + 1;
  return make_case(other);
}

std::size_t elements_per_head(std::string_view tensor, const Problem& problem) {
  return static_cast<std::size_t>(size_of(tensor, problem.shape) / problem.shape.heads());
}

bool has_time_axis(std::string_view tensor) {
  return tensor == "h" || std::find(kSequenceInputs.begin(), kSequenceInputs.end(), tensor) != kSequenceInputs.end();
}

std::size_t elements_per_step(std::string_view tensor, const Problem& problem) {
  return elements_per_head(tensor, problem) / static_cast<std::size_t>(problem.shape.S);
}

std::string unsupported_reason(const Kernel& kernel, const ProblemSpec& spec) {
  if (const std::string reason = kernel.unsupported(spec.problem); !reason.empty()) return reason;
  const VariantInfo& info = kernel.info();
  if (spec.last_state_cotangents && !info.last_state_cotangents && !info.gradient_conventions.empty())
    return "cotangents of the last states are not supported";
  return {};
}

}  // namespace mlstm::verify
