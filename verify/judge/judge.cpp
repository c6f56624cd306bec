// SPDX-License-Identifier: Apache-2.0
#include "judge/judge.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "cases/problems.hpp"
#include "judge/bias.hpp"
#include "judge/element_error.hpp"
#include "judge/locate.hpp"

namespace mlstm::verify {
namespace {

constexpr std::array<std::pair<Status, std::string_view>, 7> kNames{{{Status::PASS, "PASS"},
                                                                     {Status::FAIL, "FAIL"},
                                                                     {Status::MISTRUSTED, "MISTRUSTED"},
                                                                     {Status::SKIPPED, "SKIPPED"},
                                                                     {Status::ERROR, "ERROR"},
                                                                     {Status::TIMEOUT, "TIMEOUT"},
                                                                     {Status::STALE, "STALE"}}};

void add_note(Item& item, const std::string& text) { item.note += (item.note.empty() ? "" : "; ") + text; }

std::vector<std::int64_t> unravel(std::size_t flat, const Array& like) {
  std::vector<std::int64_t> index(like.dimension());
  for (std::size_t axis = like.dimension(); axis-- > 0;) {
    index[axis] = static_cast<std::int64_t>(flat % like.shape(axis));
    flat /= like.shape(axis);
  }
  return index;
}

void require_equal_shapes(const Array& values, const Array& reference, const Array& bound) {
  if (values.shape() != reference.shape() || bound.shape() != reference.shape())
    throw std::invalid_argument("compare: values, reference and bound differ in shape");
}

bool would_pass(const Array& values, const Array& reference, const Array& bound) {
  require_equal_shapes(values, reference, bound);
  for (std::size_t n = 0; n < reference.size(); ++n)
    if (!(error_of_element(values.data()[n], reference.data()[n], bound.data()[n], DType::float64).ratio <= 1))
      return false;
  return true;
}

/// Adds the bias of a tensor that is within its bounds or not, as they are.
void judge_bias(const Problem& problem, const std::string& tensor, const Array& values, const Array& reference,
                const Yardstick& yardstick, const std::string& key, Item& item) {
  const std::string convention = key.substr(0, key.find('/') + 1);
  JudgedTensor judged{.tensor = tensor, .problem = problem};
  judged.values = &values, judged.reference = &reference, judged.bound = &yardstick.bounds.at(key);
  const auto open_rows = yardstick.bounds.find(convention + "open_rows");
  const std::optional<Bias> bias = bias_of(
      judged, *yardstick.sharing, open_rows == yardstick.bounds.end() || tensor == "dv" ? nullptr : &open_rows->second,
      bias_constant(yardstick.operand, tensor));
  if (!bias) return;
  item.bias_ratio = bias->ratio;
  item.bias = bias->overall;
  if (bias->ratio <= 1) return;
  item.status = Status::FAIL;
  if (*item.error_ratio <= 1)
    add_note(item, bias_text(tensor, *bias, problem) + ", though every element is within its bound");
}

/// Judges `values` of `tensor` within the bound named `key`.
Item judge_tensor(const Problem& problem, const std::string& tensor, const Array& values, const Array& reference,
                  Yardstick& yardstick, const std::string& key, DType storage) {
  const Array& bound = yardstick.bounds.at(key);
  Item item;
  item.tensor = tensor;
  const Comparison result = compare(values, reference, bound, storage);
  item.error_ratio = result.error_ratio;
  item.max_abs_error = result.max_abs_error;
  item.rel_frobenius = result.rel_frobenius;
  item.worst_index = unravel(result.worst, reference);
  item.detail = std::make_shared<Detail>();
  item.detail->got = values.data()[result.worst];
  item.detail->expected = reference.data()[result.worst];
  item.detail->bound = bound.data()[result.worst];
  item.detail->shape.assign(reference.shape().begin(), reference.shape().end());
  item.detail->storage = storage;
  item.status = result.error_ratio <= 1 ? Status::PASS : Status::FAIL;
  if (!result.bound_usable && yardstick.narrow_gates && std::isfinite(result.max_abs_error)) {
    item.status = Status::SKIPPED;
    item.error_ratio.reset();
    add_note(item, "with gates in the declared format, exponents of this problem say nothing: it cannot be judged");
    return item;
  }
  if (!result.bound_usable) {
    item.status = Status::ERROR;
    add_note(item, "the error bound is not finite: the problem leaves the range in which it can be judged");
    return item;
  }
  const bool has_time_axis = reference.dimension() >= 3 && tensor != "c_last" && tensor != "n_last" &&
                             tensor != "dc_initial" && tensor != "dn_initial";
  const auto [hides, is_new] = yardstick.hides.try_emplace(key);
  if (is_new) hides->second = hidden_wrong_answers(reference, bound, has_time_axis);
  item.hides = hides->second;
  if (std::all_of(reference.begin(), reference.end(), [](double x) { return x == 0; }))
    item.trivial = item.zero_by_definition = true;
  else
    item.trivial = std::find(item.hides.begin(), item.hides.end(), "zero") != item.hides.end();
  if (item.trivial) add_note(item, std::string(trivial_text(item.zero_by_definition)));
  if (item.status == Status::FAIL) add_note(item, difference_text(*item.detail));
  judge_bias(problem, tensor, values, reference, yardstick, key, item);
  return item;
}

/// Adds by how much each element differed between runs. Each run may be off by its bound.
void judge_spread(const Array& spread, const Array& bound, Item& item) {
  Nondeterminism seen;
  for (std::size_t n = 0; n < spread.size(); ++n) {
    const double apart = spread.data()[n];
    if (apart == 0) continue;
    ++seen.elements;
    seen.max_abs_difference = std::max(seen.max_abs_difference, apart);
    const double ratio = apart / (2 * bound.data()[n]);
    seen.ratio = ratio <= seen.ratio ? seen.ratio : std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
  }
  if (seen.elements == 0) return;
  item.nondeterminism = seen;
  if (seen.ratio > 1 && item.status == Status::PASS) item.status = Status::FAIL;
  add_note(item, nondeterminism_text(seen, spread.size()));
}

/// The gradients of a case judged as one set under one convention.
struct GradientVerdicts {
  std::vector<Item> items;
  std::size_t failures = 0;
  double mean_log_ratio = 0;
};

}  // namespace

bool declares_straddling(const KernelData& kernel) {
  const auto found = kernel.attributes.find("gate_gradient");
  if (found == kernel.attributes.end()) return false;
  const auto* text = std::get_if<std::string>(&found->second);
  return text != nullptr && *text == "straddling";
}

namespace {

void add_picture(Item& item, const Case& c, const Array& values, const Array& reference, const Array& bound,
                 const JudgeOptions& options) {
  item.variant = c.kernel->variant;
  if (options.wants_picture && options.wants_picture(item))
    item.detail->picture = picture_of(item.tensor, values, reference, bound, item.detail->storage);
}

GradientVerdicts judge_gradients(const Case& c, const ReferenceData& reference, Yardstick& yardstick,
                                 Convention convention) {
  const TensorMap& bounds = yardstick.bounds;
  const std::string prefix = std::string(to_string(convention)) + "/";
  const TensorMap& expected = convention == Convention::exact ? reference.exact : reference.detached;
  const Array& open_rows = bounds.at(prefix + "open_rows");
  double open = 0;
  for (const double n : open_rows) open += n;
  GradientVerdicts verdicts;
  double logs = 0;
  for (const std::string& name : input_names(c.problem)) {
    const auto found = c.kernel->gradients.find(name);
    if (found == c.kernel->gradients.end()) continue;
    const DType storage = storage_dtype(name, c.problem);
    const bool straddling = name == "f" && declares_straddling(*c.kernel);
    Item item = judge_tensor(c.problem, "d" + name, found->second, expected.at(name), yardstick,
                             bound_name(*c.kernel, "d" + name, to_string(convention)), storage);
    item.convention = to_string(convention);
    if (name == "f" && !straddling && item.status == Status::PASS) {
      const double tight =
          compare(found->second, expected.at("f"), bounds.at(prefix + "f_straddling"), storage).error_ratio;
      add_note(item, tight <= 1 ? "meets the bound for unrounded terms too"
                                : fmt::format("meets only the bound for rounded terms ({:.3g} of the other)", tight));
    }
    if (straddling) add_note(item, "held to the bound for unrounded terms");
    if (open > 0 && name != "v")
      add_note(item,
               fmt::format("{} rows where either one-sided gradient is accepted", static_cast<std::int64_t>(open)));
    verdicts.failures += item.status != Status::PASS && item.status != Status::SKIPPED;
    logs += std::log(std::max(item.error_ratio.value_or(1), 1e-30));
    verdicts.items.push_back(std::move(item));
  }
  if (!verdicts.items.empty()) verdicts.mean_log_ratio = logs / static_cast<double>(verdicts.items.size());
  return verdicts;
}

/// The regime of a generated problem, which its attribute `spec` names; else empty.
std::string regime_of(const Case& c) {
  const auto found = c.attributes.find("spec");
  const auto* line = found == c.attributes.end() ? nullptr : std::get_if<std::string>(&found->second);
  try {
    return line == nullptr ? std::string() : parse_spec(*line).regime;
  } catch (const std::invalid_argument&) {
    return {};  // a file of others may call something else `spec`
  }
}

/// `told`: by enough elements, which of the two a gradient is. A few fit by chance.
void note_other_convention(GradientVerdicts& judged, const GradientVerdicts& other, Convention other_name,
                           const std::function<bool(const Item&)>& told) {
  for (std::size_t n = 0; n < judged.items.size(); ++n) {
    if (judged.items[n].status != Status::FAIL) continue;
    const std::string name(to_string(other_name));
    if (other.items[n].status == Status::PASS && told(judged.items[n]))
      add_note(judged.items[n], "this is the " + name + " gradient");
    else if (other.items[n].error_ratio)
      add_note(judged.items[n], fmt::format("error_ratio under {} would be {:.3g}", name, *other.items[n].error_ratio));
  }
}

std::vector<Item> judge_gradient_set(const Case& c, const ReferenceData& reference, Yardstick& yardstick,
                                     const JudgeOptions& options) {
  const std::optional<Convention> fixed = options.convention ? options.convention : c.kernel->convention;
  const auto judged = [&](Convention convention) { return judge_gradients(c, reference, yardstick, convention); };
  bool take_exact = false;
  GradientVerdicts exact, detached;
  if (fixed) {
    take_exact = *fixed == Convention::exact;
    GradientVerdicts& asked = take_exact ? exact : detached;
    asked = judged(*fixed);
    // The other one matters only for what is said of a failure.
    if (asked.failures > 0)
      (take_exact ? detached : exact) = judged(take_exact ? Convention::detached : Convention::exact);
  } else {
    exact = judged(Convention::exact);
    detached = judged(Convention::detached);
    take_exact = exact.failures != detached.failures ? exact.failures < detached.failures
                                                     : exact.mean_log_ratio <= detached.mean_log_ratio;
  }
  const auto told = [&](const Item& item) {
    constexpr std::ptrdiff_t sample = 8;
    constexpr double apart = 4;  // bounds
    const std::string name = item.tensor.substr(1);
    const Array &a = reference.exact.at(name), &b = reference.detached.at(name),
                &bound = yardstick.bounds.at(bound_name(*c.kernel, item.tensor, item.convention));
    std::ptrdiff_t count = 0;
    for (std::size_t n = 0; n < a.size(); ++n)
      count += std::abs(a.data()[n] - b.data()[n]) > apart * bound.data()[n] ? 1 : 0;
    return count >= sample;
  };
  note_other_convention(exact, detached, Convention::detached, told);
  note_other_convention(detached, exact, Convention::exact, told);
  GradientVerdicts& taken = take_exact ? exact : detached;
  const TensorMap& expected = take_exact ? reference.exact : reference.detached;
  for (Item& item : taken.items) {
    const std::string name = item.tensor.substr(1);
    const Convention convention = take_exact ? Convention::exact : Convention::detached;
    add_picture(item, c, c.kernel->gradients.at(name), expected.at(name),
                yardstick.bounds.at(bound_name(*c.kernel, "d" + name, to_string(convention))), options);
  }
  if (!fixed)
    for (Item& item : taken.items) {
      if (exact.failures == 0 && detached.failures == 0) item.convention = "both";
      add_note(item, item.convention == "both"
                         ? std::string("convention not declared: the set of gradients fits both")
                         : "convention not declared: the set of gradients fits " + item.convention + " better");
    }
  return std::move(taken.items);
}

}  // namespace

std::string_view to_string(Status status) {
  for (const auto& [value, name] : kNames)
    if (value == status) return name;
  throw std::logic_error("to_string: unknown Status");
}

Status parse_status(std::string_view text) {
  for (const auto& [value, name] : kNames)
    if (name == text) return value;
  throw std::invalid_argument("status is \"" + std::string(text) +
                              "\"; expected PASS, FAIL, MISTRUSTED, SKIPPED, ERROR, TIMEOUT or STALE");
}

Comparison compare(const Array& values, const Array& reference, const Array& bound, DType storage) {
  require_equal_shapes(values, reference, bound);
  Comparison result;
  double error_squares = 0, squares = 0;
  for (std::size_t n = 0; n < reference.size(); ++n) {
    const double expected = reference.data()[n];
    const auto [error, ratio, usable] = error_of_element(values.data()[n], expected, bound.data()[n], storage);
    result.bound_usable &= usable;
    if (n == 0 || ratio > result.error_ratio) {
      result.error_ratio = ratio;
      result.worst = n;
    }
    result.max_abs_error = std::max(result.max_abs_error, error);
    error_squares += error * error;
    if (std::isfinite(expected)) squares += expected * expected;
  }
  result.rel_frobenius = error_squares == 0 ? 0 : std::sqrt(error_squares / squares);
  return result;
}

Array error_ratios(const Array& values, const Array& reference, const Array& bound, DType storage) {
  require_equal_shapes(values, reference, bound);
  Array ratios = xt::zeros_like(reference);
  for (std::size_t n = 0; n < reference.size(); ++n)
    ratios.data()[n] = error_of_element(values.data()[n], reference.data()[n], bound.data()[n], storage).ratio;
  return ratios;
}

std::string_view trivial_text(bool zero_by_definition) {
  return zero_by_definition ? "trivial: zero by definition" : "trivial: zeros would pass";
}

std::string bound_name(const KernelData& kernel, const std::string& tensor, std::string_view convention) {
  if (convention.empty()) return tensor;
  const std::string input = tensor.substr(1);
  return std::string(convention) + "/" + (input == "f" && declares_straddling(kernel) ? "f_straddling" : input);
}

std::string nondeterminism_text(const Nondeterminism& seen, std::size_t of_elements) {
  return fmt::format("{} of {} elements differ from run to run, by {:.3g} at most, {} twice the bound ({})",
                     seen.elements, of_elements, seen.max_abs_difference,
                     seen.ratio <= 1 ? fmt::format("{:.2g} of", seen.ratio) : fmt::format("{:.3g} times", seen.ratio),
                     seen.ratio <= 1 ? "accepted" : "not accepted");
}

std::vector<std::string> hidden_wrong_answers(const Array& reference, const Array& bound, bool has_time_axis) {
  std::vector<std::string> hidden;
  const auto plant = [&](const char* name, const Array& wrong) {
    if (wrong != reference && would_pass(wrong, reference, bound)) hidden.emplace_back(name);
  };
  plant("zero", xt::zeros_like(reference));
  double mean = 0;
  for (const double x : reference) mean += x / static_cast<double>(reference.size());
  if (reference.size() > 1) plant("constant", xt::full_like(reference, mean));
  plant("negated", -reference);
  plant("doubled", 2.0 * reference);
  if (has_time_axis && reference.shape(2) > 1) {
    Array shifted = reference;
    const std::size_t heads = reference.shape(0) * reference.shape(1);
    const std::size_t head = reference.size() / heads, row = head / reference.shape(2);
    for (std::size_t h = 0; h < heads; ++h) {
      double* start = shifted.data() + h * head;
      std::rotate(start, start + head - row, start + head);
    }
    plant("shifted", shifted);
  }
  return hidden;
}

std::vector<Item> judge(const Case& c, const ReferenceData& reference, const JudgeOptions& options) {
  if (!c.kernel) throw std::invalid_argument("judge: case " + c.name + " holds no /kernel");
  Precision precision = precision_of(c);
  if (options.operand_dtype) precision.operand = *options.operand_dtype;
  Yardsticks unshared;
  Yardsticks& known = options.known != nullptr ? *options.known : unshared;
  if (!known.contains(precision))
    known[precision] = {.sharing = std::make_shared<ErrorSharing>(c, precision),
                        .operand = precision.operand,
                        .narrow_gates = precision.gate && unit_roundoff(*precision.gate) > 0x1p-24,
                        .bounds = error_bounds(c, reference, precision, options.threads),
                        .hides = {}};
  Yardstick& yardstick = known.at(precision);

  std::vector<Item> items;
  for (const std::string& name : output_names(c.problem))
    if (const auto found = c.kernel->outputs.find(name); found != c.kernel->outputs.end()) {
      const Array& expected = reference.outputs.at(name);
      items.push_back(
          judge_tensor(c.problem, name, found->second, expected, yardstick, name, storage_dtype(name, c.problem)));
      add_picture(items.back(), c, found->second, expected, yardstick.bounds.at(name), options);
    }
  if (!c.cotangents.empty())
    for (Item& item : judge_gradient_set(c, reference, yardstick, options)) items.push_back(std::move(item));
  for (Item& item : items)
    if (const auto spread = c.kernel->spread.find(item.tensor);
        spread != c.kernel->spread.end() && item.status != Status::ERROR)
      judge_spread(spread->second, yardstick.bounds.at(bound_name(*c.kernel, item.tensor, item.convention)), item);
  if (options.explain)
    for (Item& item : items)
      if (item.status == Status::FAIL && item.error_ratio)
        item.explanation = explain_tensor(judged_tensor(c, reference, yardstick.bounds, item));
  if (options.require_all) {
    const auto require = [&](const TensorMap& held, const std::string& name, const std::string& tensor) {
      if (held.contains(name)) return;
      Item item;
      item.tensor = tensor;
      item.status = Status::FAIL;
      item.note = "absent, and everything is required";
      items.push_back(std::move(item));
    };
    for (const std::string& name : output_names(c.problem)) require(c.kernel->outputs, name, name);
    if (!c.cotangents.empty())
      for (const std::string& name : input_names(c.problem)) require(c.kernel->gradients, name, "d" + name);
  }
  const std::string regime = regime_of(c);
  const bool unknown = !formulation_of(*c.kernel);
  for (Item& item : items) {
    if (unknown && item.error_ratio) add_note(item, "formulation not stated: bounds of the widest window of gate sums");
    item.variant = c.kernel->variant;
    item.case_name = c.name;
    item.regime = regime;
    if (!item.detail) continue;
    item.detail->problem = c.problem;
    item.detail->regime = regime;
  }
  return items;
}

}  // namespace mlstm::verify
