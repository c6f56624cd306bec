// SPDX-License-Identifier: Apache-2.0
// Known mistakes, each as a problem whose right answer the wrong answer would be.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <xtensor/xview.hpp>

#include "cases/problems.hpp"
#include "judge/tensor_view.hpp"
#include "sweep/declarations.hpp"
#include "sweep/mistakes.hpp"
#include "sweep/probe.hpp"

namespace mlstm::verify {
namespace {

constexpr double kMost = 0.95;  // of a tensor's failing elements have to be explained
constexpr double kSlack = 2;    // bounds that two answers may be apart: one for either problem
constexpr std::size_t kShown = 3;
constexpr double kLargest = 2e10;    // multiplications of a problem that is solved again for each mistake
constexpr std::int64_t kSample = 8;  // elements that have to be explained in all; fewer fit by chance

/// What the kernel would have computed; tensors that a mistake says nothing about are absent.
using Guess = std::function<ReferenceData()>;

struct Mistake {
  std::string name;
  Guess guess;
};

Case bare(const Case& c) {
  Case copy;
  copy.name = c.name;
  copy.problem = c.problem;
  copy.inputs = c.inputs;
  copy.cotangents = c.cotangents;
  return copy;
}

template <class Change>
Guess changed(const Case& c, int threads, Change change) {
  return [&c, threads, change] {
    Case copy = bare(c);
    change(copy);
    reference::Options options;
    options.threads = threads;
    return evaluate_reference(copy, options);
  };
}

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
    Case chunk = bare(c);
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
  Case later = bare(c);
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

std::vector<Mistake> mistakes_of(const Case& c, int threads) {
  const Problem& p = c.problem;
  const double root = std::sqrt(static_cast<double>(p.shape.DHQK));
  std::vector<Mistake> all;
  const auto add = [&](std::string name, auto change) {
    all.push_back({std::move(name), changed(c, threads, change)});
  };
  if (formulation_of(*c.kernel) == Module::chunkwise && p.chunk_size > 0 && p.chunk_size < p.shape.S) {
    all.push_back(
        {"the state is dropped between chunks", [&c, threads] { return chunk_by_chunk(c, Dropped::state, threads); }});
    if (!c.cotangents.empty())
      all.push_back({"dC and dn are dropped between chunks",
                     [&c, threads] { return chunk_by_chunk(c, Dropped::cotangent, threads); }});
  }
  if (p.has_initial_state) add("the initial states are ignored", drop_initial_states);
  if (c.cotangents.size() > 1)
    add("the cotangents of the last states are ignored", [](Case& d) {
      for (const std::string_view name : kLastStates) d.cotangents.erase(std::string(name));
    });
  if (p.shape.S > 1)
    all.push_back({"q reads the state before its own step", [&c, threads] { return strictly_causal(c, threads); }});
  if (p.eps != 0) add("eps is 0", [](Case& d) { d.problem.eps = 0; });
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
        {"there is no denominator", [](double, double, double) { return 1.0; }}};
    for (const auto& [name, denominator] : denominators)
      all.push_back(
          {name, [&c, threads, denominator = denominator] { return with_denominator(c, threads, denominator); }});
  }
  add("nothing is forgotten", [](Case& d) { d.inputs.at("f").fill(40.0); });
  add("input gates are 0", [](Case& d) { d.inputs.at("i").fill(0.0); });
  if (p.shape.S > 1)
    for (const std::string gate : {"f", "i"}) {
      const std::string name = gate == "f" ? "forget gates" : "input gates";
      add(name + " are one step late", [gate](Case& d) { d.inputs.at(gate) = shifted(d.inputs.at(gate), 1); });
      add(name + " are one step early", [gate](Case& d) { d.inputs.at(gate) = shifted(d.inputs.at(gate), -1); });
    }
  return all;
}

/// Whether nearly all elements of the tensor that fail are what `guess` is.
bool explains(const JudgedTensor& judged, const Array& guess) {
  const Array ratios = ratios_of(judged);
  double guessed = 0, expected = 0;
  std::int64_t failing = 0, explained = 0;
  for (std::size_t n = 0; n < ratios.size(); ++n)
    if (!(ratios.data()[n] <= 1)) {
      guessed += guess.data()[n] * guess.data()[n];
      expected += judged.reference->data()[n] * judged.reference->data()[n];
    }
  // A larger answer has a larger bound.
  const double growth = expected > 0 ? std::max(1.0, std::sqrt(guessed / expected)) : 1;
  for (std::size_t n = 0; n < ratios.size(); ++n)
    if (!(ratios.data()[n] <= 1)) {
      ++failing;
      const double error = std::abs(judged.values->data()[n] - judged.reference->data()[n]),
                   rest = std::abs(judged.values->data()[n] - guess.data()[n]);
      // Not by the slack alone: nearer to the guess than to the right answer.
      explained += rest <= kSlack * growth * judged.bound->data()[n] && !(rest > error / 2);
    }
  return failing > 0 && static_cast<double>(explained) >= kMost * static_cast<double>(failing);
}

}  // namespace

std::vector<std::string> find_mistakes(const Case& c, const ReferenceData& reference, const std::vector<Item>& items,
                                       int threads) {
  std::vector<const Item*> failing;
  for (const Item& item : items)
    if (item.status == Status::FAIL && item.error_ratio) failing.push_back(&item);
  if (failing.empty() || !c.kernel) return {};
  if (cost_of(c.problem, !c.cotangents.empty()) > kLargest)
    return {"known mistakes were not tried: the problem is too large to be solved once for each of them"};
  const Precision declared = precision_of(c);
  const TensorMap bounds = error_bounds(c, reference, declared, threads);

  std::vector<std::int64_t> counts;  // failing elements by item
  for (const Item* item : failing) counts.push_back(locate(judged_tensor(c, reference, bounds, *item)).failing);

  struct Found {
    std::string name;
    std::vector<std::string> tensors;
  };
  std::vector<Found> found;
  const auto add = [&](const std::string& name, const auto& explained) {
    Found entry{name, {}};
    std::int64_t elements = 0;
    for (std::size_t n = 0; n < failing.size(); ++n)
      if (explained(*failing[n])) {
        entry.tensors.push_back(failing[n]->tensor);
        elements += counts[n];
      }
    if (!entry.tensors.empty() && (elements >= kSample || entry.tensors.size() == failing.size()))
      found.push_back(std::move(entry));
  };
  for (const Mistake& mistake : mistakes_of(c, threads)) {
    const ReferenceData guess = mistake.guess();
    add(mistake.name, [&](const Item& item) {
      const bool output = item.convention.empty();
      const TensorMap& tensors = output ? guess.outputs : item.convention == "detached" ? guess.detached : guess.exact;
      const auto answer = tensors.find(output ? item.tensor : item.tensor.substr(1));
      return answer != tensors.end() && explains(judged_tensor(c, reference, bounds, item), answer->second);
    });
  }
  for (const DType operand : {DType::tfloat32, DType::float16, DType::bfloat16}) {
    if (unit_roundoff(operand) <= unit_roundoff(declared.operand)) continue;
    Precision coarse = declared;
    coarse.operand = operand;
    const TensorMap wide = error_bounds(c, reference, coarse, threads);
    const std::size_t before = found.size();
    add(fmt::format("matrix products read {}", to_string(operand)),
        [&](const Item& item) { return locate(judged_tensor(c, reference, wide, item)).failing == 0; });
    if (found.size() > before && found.back().tensors.size() == failing.size()) break;  // coarser ones explain it too
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Found& a, const Found& b) { return a.tensors.size() > b.tensors.size(); });
  // One that explains everything leaves nothing to the others.
  if (!found.empty() && found.front().tensors.size() == failing.size())
    std::erase_if(found, [&](const Found& other) { return other.tensors.size() < failing.size(); });
  std::vector<std::string> lines;
  for (std::size_t n = 0; n < std::min(found.size(), kShown); ++n)
    lines.push_back(fmt::format("as if: {}: that would give {}", found[n].name, fmt::join(found[n].tensors, ", ")));
  if (const std::string declaration = tightest_declaration(c, reference, items, threads); !declaration.empty())
    lines.push_back(fmt::format("would pass if the kernel declared {}", declaration));
  return lines;
}

}  // namespace mlstm::verify
