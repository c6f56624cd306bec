// SPDX-License-Identifier: Apache-2.0
// What the tests of the reference share: random cases, and comparison of solutions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "cases/case.hpp"

namespace mlstm::test {

struct Difference {
  std::string tensor;
  double relative = 0;  ///< Frobenius norm of the difference over that of the expected values
};

/// Norm of value - expected over the larger of the norms of `expected` and `scale`. NaN gives infinity; two equal
/// infinities agree, and so do values that differ by less than the smallest normal number.
inline double relative_frobenius(const verify::Array& value, const verify::Array& expected,
                                 const verify::Array& scale) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (value.size() != expected.size()) return kInfinity;
  const auto norm = [](const std::vector<double>& values) {
    double largest = 0, sum = 0;
    for (const double x : values) largest = std::max(largest, std::isfinite(x) ? std::abs(x) : 0.0);
    if (largest == 0) return 0.0;
    for (const double x : values) sum += std::isfinite(x) ? (x / largest) * (x / largest) : 0.0;
    return largest * std::sqrt(sum);
  };
  std::vector<double> errors;
  for (std::size_t e = 0; e < expected.size(); ++e) {
    const double x = value.data()[e], y = expected.data()[e];
    if (x == y) continue;
    if (!std::isfinite(x) || !std::isfinite(y)) return kInfinity;
    errors.push_back(std::abs(x - y) < std::numeric_limits<double>::min() ? 0.0 : x - y);
  }
  const double error = norm(errors);
  if (error == 0) return 0.0;
  return error / std::max(norm({expected.begin(), expected.end()}), norm({scale.begin(), scale.end()}));
}

inline double relative_frobenius(const verify::Array& value, const verify::Array& expected) {
  return relative_frobenius(value, expected, expected);
}

inline void append_differences(std::vector<Difference>& out, const std::string& prefix, const verify::TensorMap& values,
                               const verify::TensorMap& expected) {
  for (const auto& [name, array] : expected) {
    const auto found = values.find(name);
    out.push_back({prefix + name, found == values.end() ? std::numeric_limits<double>::infinity()
                                                        : relative_frobenius(found->second, array)});
  }
}

/// One entry for every tensor of `expected`.
inline std::vector<Difference> differences(const verify::ReferenceData& value, const verify::ReferenceData& expected) {
  std::vector<Difference> result;
  append_differences(result, "", value.outputs, expected.outputs);
  append_differences(result, "exact/", value.exact, expected.exact);
  append_differences(result, "detached/", value.detached, expected.detached);
  return result;
}

inline double worst(const std::vector<Difference>& all) {
  double result = 0;
  for (const Difference& d : all) result = std::max(result, d.relative);
  return result;
}

inline std::string describe(const reference::Options& options) {
  std::ostringstream text;
  text << to_string(options.formulation) << " " << to_string(options.backward);
  if (options.formulation == Module::chunkwise) text << " L=" << options.chunk_size;
  return text.str();
}

/// Every formulation with both backward passes, chunkwise with every one of the chunk sizes.
inline std::vector<reference::Options> all_options(const std::vector<std::int64_t>& chunk_sizes) {
  std::vector<reference::Options> result;
  for (const auto backward : {reference::Backward::ownbw, reference::Backward::autograd}) {
    for (const auto module : {Module::recurrent, Module::parallel}) result.push_back({module, backward, 0, 0});
    for (const std::int64_t L : chunk_sizes) result.push_back({Module::chunkwise, backward, L, 0});
  }
  return result;
}

/// Gate pre-activations by time step; values are perturbed by nothing.
using GateFunction = std::function<double(std::int64_t)>;

/// Random numbers that are the same with every standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// Uniform in [-1, 1).
  double operator()() { return static_cast<double>(engine_() >> 11) * 0x1p-52 - 1.0; }
  verify::Array array(const std::vector<std::int64_t>& shape, double scale = 1.0) {
    verify::Array result = verify::Array::from_shape(std::vector<std::size_t>(shape.begin(), shape.end()));
    for (double& x : result) x = scale * (*this)();
    return result;
  }

 private:
  std::mt19937_64 engine_;
};

/// Uniform inputs in [-2, 2), gates i in [-3, 3) and f in [-1, 5), random states if the problem has them, random
/// cotangents of all outputs (of h alone without `last_states`).
inline verify::Case random_case(const Problem& problem, std::uint64_t seed, bool last_states = true) {
  Random random(seed);
  verify::Case c;
  c.name = "random";
  c.problem = problem;
  for (const std::string& name : input_names(problem))
    c.inputs[name] = random.array(shape_of(name, problem.shape), 2.0);
  for (double& x : c.inputs["i"]) x *= 1.5;
  for (double& x : c.inputs["f"]) x = 1.5 * x + 2.0;
  for (const std::string& name : output_names(problem)) {
    if (name == "h" || last_states) c.cotangents[name] = random.array(shape_of(name, problem.shape));
  }
  return c;
}

/// Replaces a gate of all heads by a function of the time step.
inline void set_gate(verify::Case& c, const std::string& name, const GateFunction& gate) {
  verify::Array& array = c.inputs.at(name);
  for (std::size_t e = 0; e < array.size(); ++e) {
    array.data()[e] = gate(static_cast<std::int64_t>(e) % c.problem.shape.S);
  }
}

}  // namespace mlstm::test
