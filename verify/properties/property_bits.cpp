// SPDX-License-Identifier: Apache-2.0
// Properties that hold bit for bit, because no honest kernel has a reason to compute anything else: it does the same
// operations on the same numbers. (-0 counts as 0: a masked product may have either sign.)
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

/// The tensors with head `h` taken from head `source(h)`.
template <class Source>
TensorMap permuted(const TensorMap& tensors, const Problem& problem, const Source& source) {
  TensorMap result;
  for (const auto& [name, values] : tensors) {
    Array& out = result[name] = values;
    const std::size_t size = elements_per_head(name, problem);
    for (std::int64_t head = 0; head < problem.shape.heads(); ++head)
      std::copy_n(values.data() + static_cast<std::size_t>(source(head)) * size, size,
                  out.data() + static_cast<std::size_t>(head) * size);
  }
  return result;
}

/// The values of one head, or of all but one, from `from`.
void take_heads(TensorMap& to, const TensorMap& from, const Problem& problem, std::int64_t kept) {
  for (auto& [name, values] : to) {
    const std::size_t size = elements_per_head(name, problem);
    for (std::int64_t head = 0; head < problem.shape.heads(); ++head)
      if (head != kept)
        std::copy_n(from.at(name).data() + static_cast<std::size_t>(head) * size, size,
                    values.data() + static_cast<std::size_t>(head) * size);
  }
}

/// The other numbers, and input gates 5 higher, so that stabilisers differ too.
Case louder_numbers(const ProblemSpec& spec) {
  Case other = other_numbers(spec);
  for (double& i : other.inputs.at("i")) i = round_to(other.problem.dtype, i + 5);
  return other;
}

/// Where to draw the line between past and future: within chunks and at their ends.
std::vector<std::int64_t> presents(const Problem& problem) {
  const std::int64_t S = problem.shape.S, L = problem.chunk_size > 0 ? problem.chunk_size : (S + 1) / 2;
  std::vector<std::int64_t> all;
  for (const std::int64_t s : {L - 1, L, L + 3, S - 1})
    if (s > 0 && s < S && std::find(all.begin(), all.end(), s) == all.end()) all.push_back(s);
  return all;
}

/// body(index, time step) for every element of a tensor with a time axis.
template <class Body>
void for_each_step(const std::string& tensor, const Problem& problem, const Body& body) {
  const auto S = static_cast<std::size_t>(problem.shape.S);
  const std::size_t row = elements_per_step(tensor, problem);
  const auto size = static_cast<std::size_t>(size_of(tensor, problem.shape));
  for (std::size_t n = 0; n < size; ++n) body(n, static_cast<std::int64_t>(n / row % S));
}

}  // namespace

std::string causality_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (const std::string reason = unsupported_reason(kernel, spec); !reason.empty()) return reason;
  return spec.problem.shape.S < 2 ? "one step has no future" : "";
}

// h_t depends on steps 0 ... t alone. With the steps from s on replaced by other numbers, h[..s) keeps its bits. With a
// cotangent of zero from s on (and none of the last states), the gradients at steps from s on are sums of zeros, and
// those before s keep their bits whatever the future holds: 0 times a finite number adds nothing.
void check_causality(PropertyCheck& check) {
  Case base = make_case(check.spec());
  const Problem& problem = base.problem;
  const Case other = louder_numbers(check.spec());
  std::erase_if(base.cotangents, [](const auto& cotangent) { return cotangent.first != "h"; });
  check.compares(base);
  for (const std::int64_t s : presents(problem)) {
    const std::string future = fmt::format("with another future from step {} on", s);
    Case past = base, changed = base;
    if (past.cotangents.contains("h"))
      for_each_step("h", problem, [&](std::size_t n, std::int64_t t) {
        if (t >= s) past.cotangents.at("h").data()[n] = 0;
      });
    changed.cotangents = past.cotangents;
    for (auto& [name, values] : changed.inputs)
      if (has_time_axis(name))
        for_each_step(name, problem, [&, &name = name, &values = values](std::size_t n, std::int64_t t) {
          if (t >= s) values.data()[n] = other.inputs.at(name).data()[n];
        });
    for (const std::optional<Convention> convention : check.passes()) {
      const KernelData before = check.run(past, convention), after = check.run(changed, convention);
      Leeway leeway(check, past, convention);
      for (const ResultName& name : check.results_of(before)) {
        const bool is_gradient = name.convention.has_value();
        if (!is_gradient && name.tensor != "h") continue;
        const Array& first = (is_gradient ? before.gradients : before.outputs).at(name.tensor);
        const Array& second = (is_gradient ? after.gradients : after.outputs).at(name.tensor);
        if (!has_time_axis(name.tensor)) {
          check.compare_bits(name, second, first, leeway, future);
          continue;
        }
        for_each_step(name.tensor, problem, [&](std::size_t n, std::int64_t t) {
          if (t < s)
            check.compare_bits(name, n, second.data()[n], first.data()[n], leeway, future);
          else if (is_gradient)
            for (const Array* values : {&first, &second})
              check.compare(name, n, values->data()[n], 0, 0, fmt::format("no cotangent from step {} on", s));
        });
      }
    }
  }
}

std::string several_heads_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (const std::string reason = unsupported_reason(kernel, spec); !reason.empty()) return reason;
  return spec.problem.shape.heads() < 2 ? "the problem has one head" : "";
}

// (B, NH) only counts heads: heads in another order, also across batches, give the same results in that order. Not to
// the last bit: a product that is cut into equal shares of work (stream-K) sums some heads in other pieces than others.
void check_permutation(PropertyCheck& check) {
  const Case base = make_case(check.spec());
  const Problem& problem = base.problem;
  const std::int64_t heads = problem.shape.heads();
  const auto next = [heads](std::int64_t head) { return (head + 1) % heads; };
  Case turned = base;
  turned.inputs = permuted(base.inputs, problem, next);
  turned.cotangents = permuted(base.cotangents, problem, next);
  for (const std::optional<Convention> convention : check.passes()) {
    KernelData expected = check.run(base, convention);
    expected.outputs = permuted(expected.outputs, problem, next);
    expected.gradients = permuted(expected.gradients, problem, next);
    check.compare_answers(check.run(turned, convention), expected, turned, convention, "heads moved on by one");
  }
}

// A head does not see its neighbours: whatever the other heads hold, its results keep their bits. The shapes stay, so
// that a library that chooses its algorithm by them chooses the same one. (That a head alone gives the same bits as
// among others is not required: with other shapes, cuBLAS may sum in another order.)
void check_neighbours(PropertyCheck& check) {
  const Case base = make_case(check.spec());
  const Problem& problem = base.problem;
  const Case other = louder_numbers(check.spec());
  for (const std::optional<Convention> convention : check.passes()) {
    const KernelData plain = check.run(base, convention);
    Leeway leeway(check, base, convention);
    const std::int64_t heads = problem.shape.heads(), stride = (heads + 7) / 8;
    for (std::int64_t kept = 0; kept < heads; kept += stride) {
      Case changed = base;
      take_heads(changed.inputs, other.inputs, problem, kept);
      take_heads(changed.cotangents, other.cotangents, problem, kept);
      const KernelData beside = check.run(changed, convention);
      for (const ResultName& name : check.results_of(plain)) {
        const Array& first = (name.convention ? plain.gradients : plain.outputs).at(name.tensor);
        const Array& second = (name.convention ? beside.gradients : beside.outputs).at(name.tensor);
        const std::size_t size = elements_per_head(name.tensor, problem), begin = static_cast<std::size_t>(kept) * size;
        for (std::size_t n = begin; n < begin + size; ++n)
          check.compare_bits(name, n, second.data()[n], first.data()[n], leeway,
                             fmt::format("head {} beside other neighbours", kept));
      }
    }
  }
}

std::string determinism_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  return unsupported_reason(kernel, spec);
}

// The same problem gives the same bits: several times in a row (the runner throws if not), and after another problem
// has left its traces in whatever a kernel keeps between calls.
void check_determinism(PropertyCheck& check) {
  const Case base = make_case(check.spec()), other = louder_numbers(check.spec());
  for (const std::optional<Convention> convention : check.passes()) {
    const KernelData first = check.run(base, convention);
    check.run(other, convention);
    const KernelData again = check.run(base, convention, 4);
    Leeway leeway(check, base, convention);
    for (const ResultName& name : check.results_of(first)) {
      const Array& values = (name.convention ? again.gradients : again.outputs).at(name.tensor);
      check.compare_bits(name, values, (name.convention ? first.gradients : first.outputs).at(name.tensor), leeway,
                         "again, after another problem");
      // Where the runner did not throw, it says how far the last runs were apart.
      if (const auto spread = again.spread.find((name.convention ? "d" : "") + name.tensor);
          spread != again.spread.end())
        check.compare_bits(name, values + spread->second, values, leeway, "several times in a row");
    }
  }
}

}  // namespace mlstm::verify
