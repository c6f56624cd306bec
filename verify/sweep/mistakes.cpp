// SPDX-License-Identifier: Apache-2.0
// Known mistakes, each as a problem whose right answer the wrong answer would be.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <xtensor/xview.hpp>

#include "cases/problems.hpp"
#include "judge/reset_sums.hpp"
#include "judge/tensor_view.hpp"
#include "sweep/declarations.hpp"
#include "sweep/guesses.hpp"
#include "sweep/mistakes.hpp"
#include "sweep/probe.hpp"

namespace mlstm::verify {
namespace {

constexpr double kMost = 0.95;  // of a tensor's failing elements have to be explained
constexpr double kSlack = 2;    // bounds that two answers may be apart: one for either problem
constexpr std::size_t kShown = 3;
constexpr double kLargest = 2e10;          // multiplications of a problem that is solved again for each mistake
constexpr std::int64_t kSample = 8;        // elements that have to be explained in all; fewer fit by chance
constexpr std::int64_t kLargeSample = 64;  // the same for statistics
constexpr double kAsWell = 4;              // how much more a guess may leave than another one, to be named beside it

void drop_initial_states(Case& c) {
  c.problem.has_initial_state = false;
  for (const std::string_view name : kInitialStates) c.inputs.erase(std::string(name));
}

void scale(Array& array, double factor) {
  for (double& value : array) value *= factor;
}

/// array[t] = array[t - by], and 0 where there is no such step.
Array shifted(const Array& array, std::int64_t by) {
  Array result = xt::zeros_like(array);
  const auto S = static_cast<std::int64_t>(array.shape(2));
  for (std::int64_t t = 0; t < S; ++t)
    if (t - by >= 0 && t - by < S)
      xt::view(result, xt::all(), xt::all(), t) = xt::view(array, xt::all(), xt::all(), t - by);
  return result;
}

enum class Dropped { state, cotangent };

/// Chunks one by one. `state`: every chunk from an empty state, the first from the given one. `cotangent`: from the
/// right states, but dC, dn and dm of a chunk's end are 0, but for the last chunk.
ReferenceData chunk_by_chunk(const Case& c, Dropped dropped, int threads) {
  const Shape& s = c.problem.shape;
  ReferenceData joined;
  TensorMap states;  // after the chunk before
  for (std::int64_t first = 0; first < s.S; first += c.problem.chunk_size) {
    const std::int64_t end = std::min(first + c.problem.chunk_size, s.S);
    Case chunk = without_results(c);
    chunk.problem.shape.S = end - first;
    if (first > 0) drop_initial_states(chunk);
    if (first > 0 && dropped == Dropped::cotangent) {
      chunk.problem.has_initial_state = true;
      chunk.inputs.insert(states.begin(), states.end());
    }
    for (const std::string_view name : kSequenceInputs) {
      Array& array = chunk.inputs.at(std::string(name));
      array = steps_of(array, first, end);
    }
    if (!c.cotangents.empty()) {
      chunk.cotangents.clear();
      chunk.cotangents["h"] = steps_of(c.cotangents.at("h"), first, end);
      if (end == s.S) {
        for (const auto& [name, values] : c.cotangents)
          if (name != "h") chunk.cotangents[name] = values;
      }
    }
    reference::Options options;
    options.threads = threads;
    const ReferenceData part = evaluate_reference(chunk, options);
    for (const auto& [name, values] : part.outputs)
      if (name != "h") states[name.substr(0, 1) + "_initial"] = values;
    const auto join = [&](TensorMap& all, const TensorMap& tensors) {
      for (const auto& [name, values] : tensors) {
        if (name.ends_with("_initial") && (first > 0 || !c.problem.has_initial_state)) continue;
        if (name.size() > 1) {
          all[name] =
              values;  // last states: of the last chunk; gradients of initial states: of the only chunk with any
          continue;
        }
        if (first == 0) {
          const auto extents = shape_of(name, s);
          all[name] = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()));
        }
        xt::view(all[name], xt::all(), xt::all(), xt::range(first, end)) = values;
      }
    };
    join(joined.outputs, part.outputs);
    join(joined.exact, part.exact);
    join(joined.detached, part.detached);
  }
  return joined;
}

/// h_t = C_{t-1}^T q_t: each q reads the state one step early.
ReferenceData strictly_causal(const Case& c, int threads) {
  Case later = without_results(c);
  later.cotangents.clear();
  later.inputs.at("q") = shifted(c.inputs.at("q"), -1);
  reference::Options options;
  options.threads = threads;
  ReferenceData result;
  result.outputs["h"] = shifted(evaluate_reference(later, options).outputs.at("h"), 1);
  return result;
}

/// h with another denominator of |l|, m and eps, where l = s n.q.
ReferenceData with_denominator(const Case& c, int threads, double (*denominator)(double l, double m, double eps)) {
  const Problem& problem = c.problem;
  const auto rows = static_cast<std::size_t>(problem.shape.heads() * problem.shape.S);
  const auto columns = static_cast<std::size_t>(problem.shape.DHV);
  std::vector<double> m(rows), l(rows), d(rows);
  ReferenceData result;
  Array& h = result.outputs["h"];
  h = c.kernel->outputs.at("h");
  reference::Request request;
  request.outputs.h = h.data();
  request.intermediates = {m.data(), l.data(), d.data()};
  reference::Options options;
  options.threads = threads;
  reference::evaluate(problem, inputs_of(c.inputs), request, options);
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column)
      h.data()[row * columns + column] *= d[row] / denominator(l[row], m[row], problem.eps);
  return result;
}

std::vector<Mistake> mistakes_of(const Case& c, const ReferenceData& right, const FirstWrong& first, int threads) {
  const Problem& p = c.problem;
  const double root = std::sqrt(static_cast<double>(p.shape.DHQK));
  std::vector<Mistake> all;
  const auto add = [&](std::string name, auto change) {
    all.push_back({std::move(name), answer_to(c, threads, change)});
  };
  if (formulation_of(*c.kernel) == Module::chunkwise && p.chunk_size > 0 && p.chunk_size < p.shape.S) {
    all.push_back({"the state is dropped between chunks",
                   [&c, threads] { return chunk_by_chunk(c, Dropped::state, threads); }, true});
    if (!c.cotangents.empty())
      all.push_back({"dC and dn are dropped between chunks",
                     [&c, threads] { return chunk_by_chunk(c, Dropped::cotangent, threads); }, true});
  }
  if (p.has_initial_state) add("the initial states are ignored", drop_initial_states);
  if (c.cotangents.size() > 1)
    add("the cotangents of the last states are ignored", [](Case& d) {
      for (const std::string_view name : kLastStates) d.cotangents.erase(std::string(name));
    });
  if (p.shape.S > 1)
    all.push_back({"q reads the state before its own step", [&c, threads] { return strictly_causal(c, threads); }});
  if (p.eps != 0) add("eps is 0", [](Case& d) { d.problem.eps = 0; });
  if (p.eps != 0) add("eps is added twice", [](Case& d) { d.problem.eps *= 2; });
  if (p.eps != 0 && p.eps != 1) add("eps is squared", [](Case& d) { d.problem.eps *= d.problem.eps; });
  if (p.eps != 1e-6) add("eps is 1e-6 whatever is asked for", [](Case& d) { d.problem.eps = 1e-6; });
  if (p.has_m() && !p.has_initial_state)
    add("the other stabilizer_init", [](Case& d) {
      auto& init = d.problem.stabilizer_init;
      init = init == StabilizerInit::zero ? StabilizerInit::neg_inf : StabilizerInit::zero;
    });
  if (!p.has_m())
    add(p.normalize ? "not normalized" : "normalized", [](Case& d) { d.problem.normalize = !d.problem.normalize; });
  if (root != 1) {
    add("the scale 1/sqrt(DHQK) is missing", [root](Case& d) { scale(d.inputs.at("q"), root); });
    add("the scale 1/sqrt(DHQK) is applied twice", [root](Case& d) { scale(d.inputs.at("q"), 1 / root); });
  }
  if (p.normalized() && c.kernel->outputs.contains("h")) {
    using Denominator = double (*)(double, double, double);
    const std::pair<const char*, Denominator> denominators[] = {
        {"the denominator has no absolute value",
         [](double l, double m, double eps) { return std::max(l, std::exp(-m)) + eps; }},
        {"the denominator has no floor", [](double l, double, double eps) { return std::abs(l) + eps; }},
        {"the floor of the denominator is 1, not exp(-m)",
         [](double l, double, double eps) { return std::max(std::abs(l), 1.0) + eps; }},
        {"eps is inside the maximum",
         [](double l, double m, double eps) {
           return std::max({std::abs(l), std::exp(-m), eps});
         }},
        {"the floor of the denominator is exp(+m)",
         [](double l, double m, double eps) { return std::max(std::abs(l), std::exp(m)) + eps; }},
        {"the denominator is a sum, not a maximum",
         [](double l, double m, double eps) { return std::abs(l) + std::exp(-m) + eps; }},
        {"eps is added only to the floor",
         [](double l, double m, double eps) { return std::max(std::abs(l), std::exp(-m) + eps); }},
        {"eps is added only where the floor is the denominator",
         [](double l, double m, double eps) {
           return std::max(std::abs(l), std::exp(-m)) + (std::abs(l) < std::exp(-m) ? eps : 0);
         }},
        {"eps is multiplied by exp(-m)",
         [](double l, double m, double eps) { return std::max(std::abs(l), std::exp(-m)) + eps * std::exp(-m); }},
        {"there is no denominator", [](double, double, double) { return 1.0; }}};
    for (const auto& [name, denominator] : denominators)
      all.push_back(
          {name, [&c, threads, denominator = denominator] { return with_denominator(c, threads, denominator); }});
  }
  for (const GateSums& sums : reset_sums_of(c))
    all.push_back({std::string(kResetSums), [&c, sums, threads] { return with_float32_gate_sums(c, sums, threads); }});
  add("nothing is forgotten", [](Case& d) { d.inputs.at("f").fill(40.0); });
  add("input gates are 0", [](Case& d) { d.inputs.at("i").fill(0.0); });
  if (p.shape.S > 1)
    for (const std::string gate : {"f", "i"}) {
      const std::string name = gate == "f" ? "forget gates" : "input gates";
      add(name + " are one step late", [gate](Case& d) { d.inputs.at(gate) = shifted(d.inputs.at(gate), 1); });
      add(name + " are one step early", [gate](Case& d) { d.inputs.at(gate) = shifted(d.inputs.at(gate), -1); });
    }
  for (Mistake& mistake : state_mistakes(c, right, first, threads)) all.push_back(std::move(mistake));
  for (Mistake& mistake : gradient_mistakes(c, right, threads)) {
    mistake.in_parts = true;
    all.push_back(std::move(mistake));
  }
  return all;
}

/// How a guess compares with one tensor.
struct Match {
  bool tells = false;          ///< it is clearly another answer than the right one
  bool explains = false;       ///< nearly all failing elements are what it is, and most others too
  bool explains_half = false;  ///< half of them
  double residual = 0;         ///< sum of squares of what is left, in bounds
  std::int64_t elements = 0;   ///< that it explains
};

Match compare(const JudgedTensor& judged, const Array& guess) {
  const Array ratios = ratios_of(judged);
  const double *value = judged.values->data(), *right = judged.reference->data(), *bound = judged.bound->data();
  double guessed = 0, expected = 0;
  for (std::size_t n = 0; n < ratios.size(); ++n) {
    guessed += guess.data()[n] * guess.data()[n];
    expected += right[n] * right[n];
  }
  // A larger answer has a larger bound.
  const double growth = expected > 0 ? std::max(1.0, std::sqrt(guessed / expected)) : 1;
  Match result;
  std::int64_t failing = 0, others_missed = 0, told = 0;
  double errors = 0;
  for (std::size_t n = 0; n < ratios.size(); ++n) {
    const double error = std::abs(value[n] - right[n]), rest = std::abs(value[n] - guess.data()[n]);
    const bool fits = rest <= kSlack * growth * bound[n];
    told += std::abs(guess.data()[n] - right[n]) > 2 * kSlack * growth * bound[n] ? 1 : 0;
    if (ratios.data()[n] <= 1) {
      others_missed += fits ? 0 : 1;
      continue;
    }
    ++failing;
    // Not by the slack alone: nearer to the guess than to the right answer.
    const bool explained = fits && !(rest > error / 2);
    result.elements += explained ? 1 : 0;
    if (explained && bound[n] > 0) {
      result.residual += rest * rest / (bound[n] * bound[n]);
      errors += error * error / (bound[n] * bound[n]);
    }
  }
  const auto count = static_cast<double>(failing);
  result.explains = failing > 0 && static_cast<double>(result.elements) >= kMost * count &&
                    static_cast<double>(others_missed) <= (1 - kMost) * count && !(result.residual > errors / 16);
  result.explains_half = static_cast<double>(result.elements) >= count / 2;
  result.tells = told > 0;
  return result;
}

/// A part of the computation.
struct Part {
  const char* name;
  bool (*holds)(const Item&);
  bool is_one_gradient = false;
  bool feeds_gates = false;  ///< di and df, sums over products with it, may be wrong with it
};

constexpr Part kParts[] = {{"", [](const Item&) { return true; }},
                           {", in the backward pass alone", [](const Item& item) { return !item.convention.empty(); }},
                           {", in h alone", [](const Item& item) { return item.tensor == "h"; }},
                           {", in dq alone", [](const Item& item) { return item.tensor == "dq"; }, true, true},
                           {", in dk alone", [](const Item& item) { return item.tensor == "dk"; }, true, true},
                           {", in dv alone", [](const Item& item) { return item.tensor == "dv"; }, true},
                           {", in di alone", [](const Item& item) { return item.tensor == "di"; }, true},
                           {", in df alone", [](const Item& item) { return item.tensor == "df"; }, true}};

/// Whether `failing` says that the mistake is not in that part alone. Gradients may follow from wrong outputs.
bool is_beside(const Part& part, const Item& failing) {
  if (part.holds(failing)) return false;
  if (part.feeds_gates && (failing.tensor == "di" || failing.tensor == "df")) return false;
  return failing.convention.empty() || part.is_one_gradient;
}

enum class Rounding { to_nearest, toward_zero };

double rounded(double value, DType dtype, Rounding rounding) {
  if (rounding == Rounding::to_nearest) return round_to(dtype, value);
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  const int bits = -std::ilogb(unit_roundoff(dtype));
  return std::ldexp(std::trunc(std::ldexp(fraction, bits)), exponent - bits);
}

/// The right answer where those operands of products that are inputs are rounded.
ReferenceData rounded_operands(const Case& c, DType operand, Rounding rounding, int threads) {
  return answer_to(c, threads, [operand, rounding](Case& d) {
    const auto round = [&](Array& array) {
      for (double& value : array) value = rounded(value, operand, rounding);
    };
    for (const char* name : {"q", "k", "v"}) round(d.inputs.at(name));
    if (const auto dh = d.cotangents.find("h"); dh != d.cotangents.end()) round(dh->second);
  })();
}

/// Whether the errors of a tensor are those of products with operands in a coarser format: within its bound (`wide`),
/// in nearly all elements, not all far smaller than the bound, with a mean near zero, and correlated with the part of
/// them that is known, that of the inputs (`guess`). Other coarse errors have the size, but not the correlation.
bool is_rounded(const JudgedTensor& wide, const Array& guess) {
  constexpr double least_correlation = 0.5, smallest = 1.0 / 20, still_an_error = 1e-3;
  if (locate(wide).failing > 0) return false;
  std::int64_t elements = 0, wrong = 0;
  double ee = 0, eg = 0, gg = 0, er = 0, rr = 0, sum = 0, largest = 0;
  for (std::size_t n = 0; n < guess.size(); ++n) {
    const double bound = wide.bound->data()[n], right = wide.reference->data()[n];
    if (!(bound > 0) || !std::isfinite(bound) || right == 0) continue;
    const double error = (wide.values->data()[n] - right) / bound, guessed = (guess.data()[n] - right) / bound;
    ++elements;
    wrong += std::abs(error) > still_an_error ? 1 : 0;
    ee += error * error, eg += error * guessed, gg += guessed * guessed, sum += error;
    er += error * right / bound, rr += right / bound * right / bound;
    largest = std::max(largest, std::abs(error));
  }
  if (elements < kLargeSample || static_cast<double>(wrong) < 0.9 * static_cast<double>(elements)) return false;
  const double slope = eg / gg, correlation = eg / std::sqrt(ee * gg);
  const double mean = std::abs(sum) / std::sqrt(static_cast<double>(elements) * ee);
  const double common_factor = std::abs(er) / std::sqrt(ee * rr);
  return largest >= smallest && mean < 0.25 && common_factor < 0.8 && correlation >= least_correlation && slope > 0.4 &&
         slope < 2.5;
}

FirstWrong first_wrong(const Case& c, const ReferenceData& reference, const TensorMap& bounds,
                       const std::vector<const Item*>& failing) {
  constexpr std::int64_t none = -1;
  FirstWrong first{none, none};
  for (const Item* item : failing) {
    if (!item->convention.empty()) continue;
    const Location where = locate(judged_tensor(c, reference, bounds, *item));
    if (first.head == none || where.heads.front() < first.head) first.head = where.heads.front();
    if (item->tensor == "h") first.step = where.rows.front();
    first.m |= item->tensor == "m_last";
  }
  return first;
}

}  // namespace

std::vector<std::string> find_mistakes(const Case& c, const ReferenceData& reference, const std::vector<Item>& items,
                                       int threads) {
  std::vector<const Item*> failing, passing;
  bool h_fails = false, C_fails = false;
  for (const Item& item : items) {
    h_fails |=
        item.tensor == "h" && item.status == Status::FAIL && item.explanation.find("looks like: ") == std::string::npos;
    C_fails |= item.tensor == "c_last" && item.status == Status::FAIL;
    if (!item.error_ratio) continue;
    if (item.status == Status::FAIL && item.error_ratio > 1) failing.push_back(&item);  // a bias is in no element
    if (item.status == Status::PASS) passing.push_back(&item);
  }
  if ((failing.empty() && !h_fails) || !c.kernel) return {};
  if (cost_of(c.problem, !c.cotangents.empty()) > kLargest)
    return {"known mistakes were not tried: the problem is too large to be solved once for each of them"};
  const Precision declared = precision_of(c);
  const TensorMap bounds = error_bounds(c, reference, declared, threads);
  const auto answer_in = [](const ReferenceData& guess, const Item& item) -> const Array* {
    const bool output = item.convention.empty();
    const TensorMap& tensors = output ? guess.outputs : item.convention == "detached" ? guess.detached : guess.exact;
    const auto answer = tensors.find(output ? item.tensor : item.tensor.substr(1));
    return answer == tensors.end() ? nullptr : &answer->second;
  };

  struct Found {
    std::string name;
    std::vector<std::string> tensors;
    double residual = 0;
    bool misses_h = false;
  };
  std::vector<Found> found;
  const FirstWrong first = first_wrong(c, reference, bounds, failing);
  for (const Mistake& mistake : failing.empty() ? std::vector<Mistake>() : mistakes_of(c, reference, first, threads)) {
    const ReferenceData guess = mistake.guess();
    // Where what is right contradicts it, it may have been made in a part of the computation alone.
    for (const Part& part : kParts) {
      if (part.is_one_gradient && !mistake.in_parts) continue;
      Found entry{mistake.name + part.name, {}};
      std::int64_t elements = 0, missed = 0;
      bool fails_elsewhere = false, misses_cause = false;
      for (const Item* item : failing) {
        fails_elsewhere |= is_beside(part, *item);
        const Array* const answer = part.holds(*item) ? answer_in(guess, *item) : nullptr;
        if (answer == nullptr) continue;
        const Match result = compare(judged_tensor(c, reference, bounds, *item), *answer);
        if (!result.explains) {
          ++missed;
          // The states follow from m, and the gradients from h.
          misses_cause |= item->tensor == "m_last" || (item->tensor == "h" && !result.explains_half);
          entry.misses_h |= item->tensor == "h";
          continue;
        }
        entry.tensors.push_back(item->tensor);
        entry.residual += result.residual;
        elements += result.elements;
      }
      const bool contradicted = std::any_of(passing.begin(), passing.end(), [&](const Item* item) {
        const Array* const answer = part.holds(*item) ? answer_in(guess, *item) : nullptr;
        return answer != nullptr && compare(judged_tensor(c, reference, bounds, *item), *answer).tells;
      });
      if (contradicted || fails_elsewhere || misses_cause || elements < kSample ||
          missed > static_cast<std::int64_t>(entry.tensors.size()))
        continue;
      found.push_back(std::move(entry));
      break;
    }
  }
  // Gradients follow from h: what gives them but not h is none if something gives h.
  if (std::any_of(found.begin(), found.end(), [](const Found& one) { return one.tensors.front() == "h"; }))
    std::erase_if(found, [](const Found& one) { return one.misses_h; });
  const auto complete = [&](const Found& one) { return one.tensors.size() == failing.size(); };
  // Of two operands each: h, if it fails, or dq, dk, dv. A state that is rounded once looks like rounded keys.
  const bool is_in_h =
      std::any_of(failing.begin(), failing.end(), [](const Item* item) { return item->tensor == "h"; });
  const auto is_product = [&](const Item& item) {
    return is_in_h ? item.tensor == "h" : item.tensor == "dq" || item.tensor == "dk" || item.tensor == "dv";
  };
  if (!failing.empty() && std::none_of(found.begin(), found.end(), complete))
    for (const DType operand : {DType::float32, DType::tfloat32, DType::float16, DType::bfloat16}) {
      if (unit_roundoff(operand) <= unit_roundoff(declared.operand)) continue;
      Precision coarse = declared;
      coarse.operand = operand;
      const TensorMap wide = error_bounds(c, reference, coarse, threads);
      Found entry{fmt::format("matrix products read {}", to_string(operand)), {}};
      for (const Item* item : failing) {
        const JudgedTensor judged = judged_tensor(c, reference, wide, *item);
        if (locate(judged).failing > 0) break;
        entry.tensors.push_back(item->tensor);
      }
      if (!complete(entry)) continue;
      const auto is_like = [&](Rounding rounding) {
        const ReferenceData guess = rounded_operands(c, operand, rounding, threads);
        return std::any_of(failing.begin(), failing.end(), [&](const Item* item) {
          const Array* const answer = is_product(*item) ? answer_in(guess, *item) : nullptr;
          return answer != nullptr && is_rounded(judged_tensor(c, reference, wide, *item), *answer);
        });
      };
      if (!is_like(Rounding::to_nearest) && !is_like(Rounding::toward_zero)) continue;
      found.push_back(std::move(entry));
      break;
    }
  std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return std::pair(-std::ssize(a.tensors), a.residual) < std::pair(-std::ssize(b.tensors), b.residual);
  });
  // What explains most leaves nothing to the others, but for those that give the same tensors as well as it does.
  std::vector<std::string> names;
  for (const Found& one : found)
    if (one.tensors == found.front().tensors && one.residual <= kAsWell * (found.front().residual + 1) &&
        std::find(names.begin(), names.end(), one.name) == names.end())
      names.push_back(one.name);
  std::vector<std::string> lines;
  if (!names.empty() && names.size() <= kShown)
    lines.push_back(fmt::format("as if: {}: that would give {}", fmt::join(names, "; or: "),
                                fmt::join(found.front().tensors, ", ")));
  if (lines.empty() && h_fails && !C_fails)
    if (std::string line = wrong_denominator(c, reference, bounds.at("h")); !line.empty())
      lines.push_back(std::move(line));
  if (const std::string declaration = tightest_declaration(c, reference, items, threads); !declaration.empty())
    lines.push_back(fmt::format("would pass if the kernel declared {}", declaration));
  return lines;
}

}  // namespace mlstm::verify
