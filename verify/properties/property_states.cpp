// SPDX-License-Identifier: Apache-2.0
// Properties of states: handing them over, and the freedom in how they are stabilised.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

#include "judge/reset_sums.hpp"
#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

constexpr double kResetGate = -1000;  // of a document's first step; a number of every dtype

/// Steps [begin, end) of a sequence tensor.
Array steps_of(const Array& array, std::int64_t begin, std::int64_t end) {
  std::vector<std::size_t> shape(array.shape().begin(), array.shape().end());
  const std::size_t heads = shape[0] * shape[1], steps = shape[2], row = array.size() / (heads * steps);
  shape[2] = static_cast<std::size_t>(end - begin);
  Array part = Array::from_shape(shape);
  for (std::size_t head = 0; head < heads; ++head)
    std::copy_n(array.data() + (head * steps + static_cast<std::size_t>(begin)) * row, shape[2] * row,
                part.data() + head * shape[2] * row);
  return part;
}

Problem part_of(const Problem& problem, std::int64_t begin, std::int64_t end) {
  Problem part = problem;
  part.shape.S = end - begin;
  part.has_initial_state |= begin > 0;
  return part;
}

/// Where a sequence of S steps is cut, several ways: inside, at and around the ends of chunks, once in three. For a
/// variant that takes single steps only: everywhere.
std::vector<std::vector<std::int64_t>> ways_to_cut(const Kernel& kernel, const Problem& problem) {
  const std::int64_t S = problem.shape.S, L = problem.chunk_size > 0 ? problem.chunk_size : (S + 1) / 2;
  std::vector<std::vector<std::int64_t>> ways;
  for (const std::vector<std::int64_t>& wanted :
       std::vector<std::vector<std::int64_t>>{{1}, {L - 1}, {L}, {L + 1, 2 * L + 3}, {S - 1}}) {
    std::set<std::int64_t> cuts;
    for (const std::int64_t cut : wanted)
      if (cut > 0 && cut < S) cuts.insert(cut);
    if (!cuts.empty()) ways.emplace_back(cuts.begin(), cuts.end());
  }
  std::vector<std::int64_t> everywhere;
  for (std::int64_t cut = 1; cut < S; ++cut) everywhere.push_back(cut);
  ways.push_back(everywhere);
  const auto possible = [&](const std::vector<std::int64_t>& cuts) {
    std::int64_t begin = 0;
    for (std::size_t part = 0; part <= cuts.size(); ++part) {
      const std::int64_t end = part < cuts.size() ? cuts[part] : S;
      if (!kernel.unsupported(part_of(problem, begin, end)).empty()) return false;
      begin = end;
    }
    return true;
  };
  std::erase_if(ways, [&](const auto& cuts) { return !possible(cuts); });
  std::sort(ways.begin(), ways.end());
  ways.erase(std::unique(ways.begin(), ways.end()), ways.end());
  // Single steps are dear; they are for variants that can do nothing else.
  if (ways.size() > 1) std::erase(ways, everywhere);
  return ways;
}

/// "c_last" -> "c_initial" and back.
std::string other_end(const std::string& state) {
  return fmt::format("{}_{}", state.front(), state.ends_with("_last") ? "initial" : "last");
}

void require_finite(const Array& values, const std::string& what) {
  for (const double value : values)
    if (!std::isfinite(value)) throw std::runtime_error(what + " that is handed over is not finite");
}

std::vector<std::string> last_states(const Problem& problem) {
  std::vector<std::string> names = output_names(problem);
  std::erase(names, "h");
  return names;
}

/// The parts of one sequence, solved one after the other.
std::vector<Solved> solve_in_parts(const PropertyCheck& check, const Case& whole, const std::vector<std::int64_t>& cuts,
                                   std::optional<Convention> convention) {
  const std::size_t count = cuts.size() + 1;
  std::vector<Case> parts(count);
  for (std::size_t p = 0; p < count; ++p) {
    const std::int64_t begin = p == 0 ? 0 : cuts[p - 1], end = p < cuts.size() ? cuts[p] : whole.problem.shape.S;
    Case& part = parts[p];
    part.name = whole.name;
    part.problem = part_of(whole.problem, begin, end);
    for (const auto& [name, values] : whole.inputs)
      if (has_time_axis(name)) part.inputs[name] = steps_of(values, begin, end);
    if (const auto dh = whole.cotangents.find("h"); dh != whole.cotangents.end())
      part.cotangents["h"] = steps_of(dh->second, begin, end);
  }
  for (const auto& [name, values] : whole.inputs)
    if (!has_time_axis(name)) parts.front().inputs[name] = values;
  for (const auto& [name, values] : whole.cotangents)
    if (name != "h") parts.back().cotangents[name] = values;
  for (std::size_t p = 0; p + 1 < count; ++p) {
    const KernelData data = check.run(parts[p], {});
    for (const std::string& name : last_states(whole.problem)) {
      require_finite(data.outputs.at(name), name);
      parts[p + 1].inputs[other_end(name)] = data.outputs.at(name);
    }
  }
  std::vector<Solved> solved(count);
  for (std::size_t p = count; p-- > 0;) {
    solved[p] = check.solve(parts[p], convention);
    if (p == 0 || !convention) continue;
    for (const std::string& name : last_states(whole.problem)) {
      const Array& gradient = solved[p].c.kernel->gradients.at(other_end(name));
      require_finite(gradient, fmt::format("d{}", other_end(name)));
      parts[p - 1].cotangents[name] = gradient;
    }
  }
  return solved;
}

/// Compares element n of a part with element `at` of the whole. What the part's inputs, as they were handed over, make
/// of it is taken away first (see check_split_state).
void compare_element(PropertyCheck& check, const ResultName& name, const Solved& part, std::size_t n,
                     const Array& truth, const Solved* one_run, std::size_t at, const std::string& where) {
  const double expected = truth.data()[at], got = part.value(name).data()[n] - (part.truth(name).data()[n] - expected);
  const double allowed = part.bound(name).data()[n];
  check.compare(name, at, got, expected, allowed, where + " against the reference");
  if (one_run != nullptr)
    check.compare(name, at, got, one_run->value(name).data()[at], allowed + one_run->bound(name).data()[at],
                  where + " against one run");
}

}  // namespace

std::string split_state_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  const VariantInfo& info = kernel.info();
  if (!info.initial_states || !info.last_states) return "it does not take and return states";
  if (!info.gradient_conventions.empty() && spec.cotangents && !info.last_state_cotangents)
    return "it takes no cotangents of the last states";
  if (spec.problem.shape.S < 2) return "one step cannot be split";
  return ways_to_cut(kernel, spec.problem).empty() ? "it takes none of the parts: " + unsupported_reason(kernel, spec)
                                                   : "";
}

// The last states of steps [0, s) are the initial states of steps [s, S), and the gradients of the latter the
// cotangents of the former:
//
//     F(x[0,S), z) = (h_1, h_2, z_2) with (h_1, z_1) = F(x[0,s), z), (h_2, z_2) = F(x[s,S), z_1)
//
// A part that is given z_1 + e, e the rounding errors that were handed over, has to be within its own bound of the
// exact F(x[s,S), z_1 + e), and that is F(x[s,S), z_1) + what e makes of it. The latter is computed, by the reference;
// e itself is held to its bound, as a last state or a gradient of the part it comes from. One run may be off by its own
// bound, too.
void check_split_state(PropertyCheck& check) {
  const Case whole = make_case(check.spec());
  const Problem& problem = whole.problem;
  const auto S = static_cast<std::size_t>(problem.shape.S), heads = static_cast<std::size_t>(problem.shape.heads());
  const bool takes_all = check.kernel().unsupported(problem).empty();
  for (const std::optional<Convention> convention : check.passes()) {
    Solved one_run;
    if (takes_all)
      one_run = check.solve(whole, convention);
    else
      one_run.reference = check.reference(whole);
    const Solved* const one = takes_all ? &one_run : nullptr;
    for (const std::vector<std::int64_t>& cuts : ways_to_cut(check.kernel(), problem)) {
      const std::vector<Solved> parts = solve_in_parts(check, whole, cuts, convention);
      std::size_t begin = 0;
      for (std::size_t p = 0; p < parts.size(); ++p) {
        const Solved& part = parts[p];
        const auto steps = static_cast<std::size_t>(part.c.problem.shape.S);
        const std::string where = cuts.size() > 3
                                      ? fmt::format("step {} of single steps", p)
                                      : fmt::format("part {} of a run cut at {}", p + 1, fmt::join(cuts, ", "));
        for (const ResultName& name : check.results_of(*part.c.kernel)) {
          const bool is_state = !has_time_axis(name.tensor);
          const bool handed_over = is_state && (name.convention ? p > 0 : p + 1 < parts.size());
          const std::size_t width = elements_per_head(name.tensor, problem) / (is_state ? 1 : S);
          if (handed_over) {
            for (std::size_t n = 0; n < part.value(name).size(); ++n)
              check.compare(name, n, part.value(name).data()[n], part.truth(name).data()[n], part.bound(name).data()[n],
                            where + " hands over");
            continue;
          }
          const Array& truth = one_run.truth(name);
          const std::size_t rows = is_state ? 1 : steps, all_rows = is_state ? 1 : S, first = is_state ? 0 : begin;
          for (std::size_t head = 0; head < heads; ++head)
            for (std::size_t n = 0; n < rows * width; ++n)
              compare_element(check, name, part, head * rows * width + n, truth, one,
                              (head * all_rows + first) * width + n, where);
        }
        if (cuts.size() <= 3) check.judge_bias(part, where);  // single steps show none
        begin += steps;
      }
    }
  }
}

std::string stabilizer_shift_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (!kernel.info().initial_states) return "it takes no initial states";
  if (!spec.problem.has_m()) return "the sigmoid gate has no stabiliser";
  if (!spec.problem.has_initial_state) return "the problem has no initial state";
  if (spec.problem.eps != 0) return "eps is not 0, and it acts on the stabilised denominator";
  return unsupported_reason(kernel, spec);
}

// A state is (c, n) e^m; how it is shared between the factors is free. For any p,
//
//     (c, n, m) -> (2^-p c, 2^-p n, m + p log 2)
//
// leaves h as it is if eps = 0, and with it the gradients of everything that is not a state; those of c and n are 2^p
// times what they were, that of m stays. The scaling of c and n is exact. m + p log 2 is rounded, to an error that the
// bound of the shifted problem holds for every exponent, u_a |m|. So two honest runs differ by at most the sum of their
// bounds. A kernel that forgets m_initial, or adds it in the wrong place, is off by a factor 2^p in the state's share.
void check_stabilizer_shift(PropertyCheck& check) {
  Case base = make_case(check.spec());
  // The last states are stabilised as the kernel likes, so they do not take part.
  std::erase_if(base.cotangents, [](const auto& cotangent) { return cotangent.first != "h"; });
  check.compares(base);
  const DType state = storage_dtype("m_initial", base.problem);
  // float16 has no room for states 2^-24 times smaller as operands of a product
  std::vector<int> shifts{3, -3};
  if (base.problem.dtype != DType::float16) shifts.push_back(24);
  for (const std::optional<Convention> convention : check.passes()) {
    const Solved plain = check.solve(base, convention);
    for (const int p : shifts) {
      Case shifted = base;
      for (const char* name : {"c_initial", "n_initial"})
        for (double& value : shifted.inputs.at(name)) value = std::ldexp(value, -p);
      for (double& m : shifted.inputs.at("m_initial")) m = round_to(state, m + p * std::log(2.0));
      const Solved moved = check.solve(shifted, convention);
      for (const ResultName& name : check.results_of(*plain.c.kernel)) {
        if (!name.convention && name.tensor != "h") continue;
        const double factor = name.tensor == "c_initial" || name.tensor == "n_initial" ? std::ldexp(1.0, -p) : 1;
        const Array got = moved.value(name) * factor, allowed = moved.bound(name) * factor + plain.bound(name);
        check.compare(name, got, plain.value(name), &allowed, fmt::format("with the state's factor 2^{}", -p));
      }
    }
  }
}

std::string packed_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (const std::string reason = unsupported_reason(kernel, spec); !reason.empty()) return reason;
  if (spec.problem.shape.S < 2) return "one step is one document";
  return {};
}

namespace {

/// Steps [begin, end) of a packed sequence.
struct Document {
  std::int64_t begin, end;
  bool is_last;
  bool holds(std::size_t step) const {
    return static_cast<std::int64_t>(step) >= begin && static_cast<std::int64_t>(step) < end;
  }
};

std::vector<Document> documents_of(const Problem& problem) {
  const std::vector<std::int64_t> starts = document_starts(problem);
  std::vector<Document> documents;
  for (std::size_t d = 0; d < starts.size(); ++d) {
    const bool is_last = d + 1 == starts.size();
    documents.push_back({starts[d], is_last ? problem.shape.S : starts[d + 1], is_last});
  }
  return documents;
}

/// The document by itself: no initial state, and cotangents of last states if it is the last.
Case apart(const Case& whole, const Document& document) {
  Case c;
  c.name = whole.name;
  c.problem = part_of(whole.problem, document.begin, document.end);
  c.problem.has_initial_state = false;
  for (const auto& [name, values] : whole.inputs)
    if (has_time_axis(name)) c.inputs[name] = steps_of(values, document.begin, document.end);
  for (const auto& [name, values] : whole.cotangents)
    if (name == "h")
      c.cotangents[name] = steps_of(values, document.begin, document.end);
    else if (document.is_last)
      c.cotangents[name] = values;
  return c;
}

void compare_with_document(PropertyCheck& check, const Solved& packed, const Document& document,
                           const Solved& by_itself) {
  const Problem& problem = check.problem();
  const auto S = static_cast<std::size_t>(problem.shape.S), heads = static_cast<std::size_t>(problem.shape.heads());
  const std::string where =
      fmt::format("document of steps {} to {}, packed and apart", document.begin, document.end - 1);
  for (const ResultName& name : check.results_of(*by_itself.c.kernel)) {
    const bool is_state = !has_time_axis(name.tensor);
    if (is_state && (name.convention || !document.is_last)) continue;
    const std::size_t rows = is_state ? 1 : static_cast<std::size_t>(document.end - document.begin);
    const std::size_t all_rows = is_state ? 1 : S, first = is_state ? 0 : static_cast<std::size_t>(document.begin);
    const std::size_t width = elements_per_head(name.tensor, problem) / all_rows;
    for (std::size_t head = 0; head < heads; ++head)
      for (std::size_t n = 0; n < rows * width; ++n) {
        const std::size_t here = head * rows * width + n, there = (head * all_rows + first) * width + n;
        check.compare(name, there, packed.value(name).data()[there], by_itself.value(name).data()[here],
                      packed.bound(name).data()[there] + by_itself.bound(name).data()[here], where);
      }
  }
}

/// `whole` with cotangents of h in one document and none elsewhere.
Case with_cotangents_in(const Case& whole, const Document& document) {
  Case c = whole;
  std::erase_if(c.cotangents, [](const auto& cotangent) { return cotangent.first != "h"; });
  Array& dh = c.cotangents.at("h");
  const auto S = static_cast<std::size_t>(c.problem.shape.S);
  for (std::size_t n = 0; n < dh.size(); ++n)
    if (!document.holds(n / elements_per_step("h", c.problem) % S)) dh.data()[n] = 0;
  return c;
}

void expect_nothing_outside(PropertyCheck& check, const Document& document, const Solved& solved) {
  const Problem& problem = check.problem();
  const auto S = static_cast<std::size_t>(problem.shape.S);
  const std::string where =
      fmt::format("cotangents in the document of steps {} to {} alone", document.begin, document.end - 1);
  for (const ResultName& name : check.results_of(*solved.c.kernel)) {
    if (!name.convention) continue;
    const bool is_state = !has_time_axis(name.tensor);
    const Array& values = solved.value(name);
    for (std::size_t n = 0; n < values.size(); ++n)
      if (is_state || !document.holds(n / elements_per_step(name.tensor, problem) % S))
        check.compare(name, n, values.data()[n], 0, solved.bound(name).data()[n], where);
  }
}

/// Says of the tensors in which the packed sequence is wrong that sums across a reset would give that, if they would.
void explain_packed(PropertyCheck& check, const Solved& packed) {
  const auto is_wrong = [&](const ResultName& name) {
    const Array &values = packed.value(name), &truth = packed.truth(name), &bound = packed.bound(name);
    for (std::size_t n = 0; n < values.size(); ++n)
      if (!(std::abs(values.data()[n] - truth.data()[n]) <= bound.data()[n])) return true;
    return false;
  };
  std::vector<ResultName> wrong = check.results_of(*packed.c.kernel);
  std::erase_if(wrong, [&](const ResultName& name) { return !is_wrong(name); });
  if (wrong.empty()) return;
  for (const GateSums& sums : reset_sums_of(packed.c)) {
    Solved guess;
    guess.reference = with_float32_gate_sums(packed.c, sums, check.threads());
    for (const ResultName& name : wrong)
      if (is_answer(packed.value(name), packed.truth(name), packed.bound(name), guess.truth(name)))
        check.remark(name, "as if: " + std::string(kResetSums));
  }
}

}  // namespace

// Documents that are packed into one sequence, with forget gates of -1000 in their first steps. logσ(-1000) = -1000,
// and exp(-1000) is 0 in every dtype, so a document knows nothing of those before it, nor of the initial state:
//
//     h, gradients of [s, e) = those of the document run apart;  last states = those of the last document
//     cotangents of one document alone: gradients of 0 in all others, and of 0 for the initial state
//
// Both runs round, so they may differ by the sum of their bounds.
void check_packed(PropertyCheck& check) {
  Case whole = make_case(check.spec());
  const std::vector<Document> documents = documents_of(check.problem());
  Array& f = whole.inputs.at("f");
  for (std::size_t head = 0; head < f.size(); head += static_cast<std::size_t>(check.problem().shape.S))
    for (const Document& document : documents) f.data()[head + static_cast<std::size_t>(document.begin)] = kResetGate;
  check.compares(whole);
  // It has neighbours on both sides, if there are three.
  const Document& inner = documents[documents.size() > 1 ? documents.size() - 2 : 0];
  for (const std::optional<Convention> convention : check.passes()) {
    const Solved packed = check.solve(whole, convention);
    explain_packed(check, packed);
    check.judge_bias(packed, "packed documents");
    for (const Document& document : documents) {
      Case by_itself = apart(whole, document);
      if (!check.kernel().unsupported(by_itself.problem).empty()) continue;
      const bool forward_only = by_itself.cotangents.empty();
      compare_with_document(check, packed, document,
                            check.solve(std::move(by_itself), forward_only ? std::nullopt : convention));
    }
    if (convention && whole.cotangents.contains("h"))
      expect_nothing_outside(check, inner, check.solve(with_cotangents_in(whole, inner), convention));
  }
}

}  // namespace mlstm::verify
