// SPDX-License-Identifier: Apache-2.0
// The example of two steps that can be followed by hand, for every kernel.
//
// Sigmoid gate, eps = 0, i_t = f_t = 0, so that I = F = σ(0) = 1/2; DHQK = 16, so that s = 1/4. Only the first elements
// of q, k, v and dh are not zero: q = 4, so that s q = 1; k = 1; v_1 = 2, v_2 = 4; dh = 1. In the first elements, and
// nowhere else (contract §2):
//
//   C_1 = 1/2 2 = 1              n_1 = 1/2                l_1 = 1/2   d_1 = max(1/2, 1) = 1   h_1 = C_1 = 1
//   C_2 = 1/2 1 + 1/2 4 = 5/2    n_2 = 1/2 1/2 + 1/2 = 3/4    l_2 = 3/4   d_2 = 1             h_2 = C_2 = 5/2
//
// The floor is the denominator, so that both conventions give the same gradients. With dC_t the cotangent of C_t,
// dC_2 = s q = 1 and dC_1 = s q + F dC_2 = 3/2:
//
//   dq_t = s C_t    dk_t = I dC_t v_t    dv_t = I dC_t k    di_t = (1 - σ(0)) k dk_t    df_t = (1 - σ(0)) F dC_t
//   C_{t-1} 1/4, 5/8        3/2, 2               3/4, 1/2           3/4, 1                      0, 1/4
//
// The first step alone (dC_1 = 1), and the second one from C_1 and n_1, are examples for kernels that take one step.
#pragma once

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mlstm/kernel.hpp"
#include "runner/runner.hpp"

namespace mlstm::test {

/// First elements of every tensor, one for each step; of states, one.
using FirstElements = std::map<std::string, std::vector<double>>;

struct Example {
  std::string name;
  std::int64_t S;
  FirstElements inputs, outputs, gradients;
};

inline const std::vector<Example>& two_step_examples() {
  static const std::vector<Example> examples{
      {"both steps",
       2,
       {{"q", {4, 4}}, {"k", {1, 1}}, {"v", {2, 4}}, {"i", {0, 0}}, {"f", {0, 0}}},
       {{"h", {1, 2.5}}, {"c_last", {2.5}}, {"n_last", {0.75}}},
       {{"q", {0.25, 0.625}}, {"k", {1.5, 2}}, {"v", {0.75, 0.5}}, {"i", {0.75, 1}}, {"f", {0, 0.25}}}},
      {"the first step",
       1,
       {{"q", {4}}, {"k", {1}}, {"v", {2}}, {"i", {0}}, {"f", {0}}},
       {{"h", {1}}, {"c_last", {1}}, {"n_last", {0.5}}},
       {{"q", {0.25}}, {"k", {1}}, {"v", {0.5}}, {"i", {0.5}}, {"f", {0}}}},
      {"the second step from the state after the first",
       1,
       {{"q", {4}}, {"k", {1}}, {"v", {4}}, {"i", {0}}, {"f", {0}}, {"c_initial", {1}}, {"n_initial", {0.5}}},
       {{"h", {2.5}}, {"c_last", {2.5}}, {"n_last", {0.75}}},
       {{"q", {0.625}},
        {"k", {2}},
        {"v", {0.5}},
        {"i", {1}},
        {"f", {0.25}},
        {"c_initial", {0.5}},
        {"n_initial", {0}}}}};
  return examples;
}

/// A tensor that is zero but for the first element of each step (of a state: its first element).
inline verify::Array spread(const std::string& tensor, const Shape& shape, const std::vector<double>& first) {
  const auto dimensions = shape_of(tensor, shape);
  verify::Array array = verify::Array::from_shape({dimensions.begin(), dimensions.end()});
  array.fill(0.0);
  for (std::size_t t = 0; t < first.size(); ++t) array.data()[t * (array.size() / first.size())] = first[t];
  return array;
}

inline verify::Case case_of(const Example& example, DType dtype, std::int64_t chunk_size) {
  verify::Case c;
  c.name = example.name;
  c.problem.shape = {1, 1, example.S, 16, 8};
  c.problem.gate = Gate::sigmoid;
  c.problem.eps = 0;
  c.problem.dtype = dtype;
  c.problem.chunk_size = chunk_size;
  c.problem.has_initial_state = example.inputs.contains("c_initial");
  for (const auto& [tensor, first] : example.inputs) c.inputs[tensor] = spread(tensor, c.problem.shape, first);
  c.cotangents["h"] = spread("h", c.problem.shape, std::vector<double>(static_cast<std::size_t>(example.S), 1.0));
  return c;
}

/// What is wrong with the results of an example, one line for each wrong element; empty if nothing is. All numbers are
/// exact in every dtype; but kernels make decays as exponentials of logarithms.
inline std::string wrong_elements(const Example& example, const Problem& problem, const verify::TensorMap& outputs,
                                  const verify::TensorMap* gradients) {
  const double tolerance = problem.dtype == DType::float64 ? 1e-14 : 1e-6;
  std::string lines;
  const auto compare = [&](const std::string& prefix, const FirstElements& expected, const verify::TensorMap& values) {
    for (const auto& [tensor, first] : expected) {
      const auto found = values.find(tensor);
      if (found == values.end()) {
        lines += prefix + tensor + " is missing\n";
        continue;
      }
      const verify::Array wanted = spread(tensor, problem.shape, first);
      if (found->second.size() != wanted.size()) lines += prefix + tensor + " has another size\n";
      for (std::size_t e = 0; e < wanted.size() && e < found->second.size(); ++e) {
        const double is = found->second.data()[e], expected_here = wanted.data()[e];
        if (!(std::abs(is - expected_here) <= tolerance))
          lines += prefix + tensor + "[" + std::to_string(e) + "] is " + std::to_string(is) + ", expected " +
                   std::to_string(expected_here) + "\n";
      }
    }
  };
  compare("", example.outputs, outputs);
  if (gradients != nullptr) compare("d", example.gradients, *gradients);
  return lines;
}

/// Runs the examples that a kernel takes, in all its dtypes and conventions, in chunks of one step and of two. `check`
/// gets what was run and what was wrong. Returns how many runs there were.
template <class Check>
int run_two_steps(const Kernel& kernel, const Check& check) {
  const VariantInfo& info = kernel.info();
  std::vector<std::optional<Convention>> conventions(info.gradient_conventions.begin(),
                                                     info.gradient_conventions.end());
  if (conventions.empty()) conventions.push_back(std::nullopt);
  int runs = 0;
  for (const Example& example : two_step_examples())
    for (const DType dtype : info.dtypes)
      for (const std::int64_t L : {1, 2})
        for (const auto& convention : conventions) {
          const verify::Case c = case_of(example, dtype, L);
          if (!kernel.unsupported(c.problem).empty()) continue;
          const verify::KernelData result = verify::run_kernel(kernel, c, convention);
          check(info.key() + ", " + example.name + ", " + std::string(to_string(dtype)) + ", L = " + std::to_string(L),
                wrong_elements(example, c.problem, result.outputs, convention ? &result.gradients : nullptr));
          ++runs;
        }
  return runs;
}

}  // namespace mlstm::test
