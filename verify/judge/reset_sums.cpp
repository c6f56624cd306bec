// SPDX-License-Identifier: Apache-2.0
#include "judge/reset_sums.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "judge/bounds.hpp"

namespace mlstm::verify {
namespace {

double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

/// The inverse: f with logσ(f) = y < 0.
double logit_of_exp(double y) { return y < -1 ? y - std::log1p(-std::exp(y)) : y - std::log(-std::expm1(y)); }

/// Sums of the steps of one window, each rounded to float32.
std::vector<float> sums_of(std::vector<float> values, bool by_doubling) {
  if (!by_doubling) {
    for (std::size_t t = 1; t < values.size(); ++t) values[t] += values[t - 1];
    return values;
  }
  for (std::size_t by = 1; by < values.size(); by *= 2)
    for (std::size_t t = values.size(); t-- > by;) values[t] += values[t - by];
  return values;
}

}  // namespace

std::vector<GateSums> reset_sums_of(const Case& c) {
  if (!c.kernel || precision_of(c).gate.value_or(state_dtype_of(c.problem.dtype)) != DType::float32) return {};
  const std::int64_t S = c.problem.shape.S, L = c.problem.chunk_size;
  const Array& f = c.inputs.at("f");
  std::vector<GateSums> all;
  std::set<std::int64_t> windows{S};
  if (formulation_of(*c.kernel) == Module::chunkwise && L > 0) windows.insert(std::min(L, S));
  for (const std::int64_t window : windows) {
    bool drowns = false;
    for (std::size_t n = 0; n < f.size() && !drowns; ++n) {
      const std::int64_t t = static_cast<std::int64_t>(n) % S;
      drowns = log_sigmoid(f.data()[n]) < -24 * std::log(2.0) && t + 1 < S && (t + 1) % window != 0;
    }
    if (drowns)
      for (const bool by_doubling : {false, true}) all.push_back({by_doubling, window});
  }
  return all;
}

ReferenceData with_float32_gate_sums(const Case& c, const GateSums& sums, int threads) {
  // No gate loses all it has, so that df can be told from the gradient of logσ(f).
  constexpr double smallest = 1e-12;
  Case other;
  other.problem = c.problem;
  other.inputs = c.inputs;
  other.cotangents = c.cotangents;
  const Array& right = c.inputs.at("f");
  Array& f = other.inputs.at("f");
  const std::int64_t S = c.problem.shape.S;
  for (std::int64_t head = 0; head < c.problem.shape.heads(); ++head)
    for (std::int64_t first = 0; first < S; first += sums.window) {
      const std::int64_t begin = head * S + first, count = std::min(sums.window, S - first);
      std::vector<float> values(static_cast<std::size_t>(count));
      for (std::int64_t t = 0; t < count; ++t)
        values[static_cast<std::size_t>(t)] = static_cast<float>(log_sigmoid(right.data()[begin + t]));
      values = sums_of(std::move(values), sums.by_doubling);
      double before = 0;
      for (std::int64_t t = 0; t < count; ++t) {
        const double sum = static_cast<double>(values[static_cast<std::size_t>(t)]);
        f.data()[begin + t] = logit_of_exp(std::min(sum - before, -smallest));
        before = sum;
      }
    }
  reference::Options options;
  options.threads = threads;
  ReferenceData answer = evaluate_reference(other, options);
  for (TensorMap* gradients : {&answer.exact, &answer.detached})
    if (const auto df = gradients->find("f"); df != gradients->end())
      for (std::size_t n = 0; n < f.size(); ++n)  // σ(-f) of the gate that the kernel was given
        df->second.data()[n] *= std::exp(log_sigmoid(-right.data()[n]) - log_sigmoid(-f.data()[n]));
  return answer;
}

bool is_answer(const Array& values, const Array& right, const Array& bound, const Array& guess, std::int64_t sample) {
  constexpr double most = 0.95, slack = 2;  // bounds: one for either problem
  std::int64_t failing = 0, explained = 0, others_missed = 0;
  double rests = 0, errors = 0;
  for (std::size_t n = 0; n < right.size(); ++n) {
    const double b = bound.data()[n], error = std::abs(values.data()[n] - right.data()[n]),
                 rest = std::abs(values.data()[n] - guess.data()[n]);
    const bool fits = rest <= slack * b;
    if (error <= b) {
      others_missed += fits ? 0 : 1;
      continue;
    }
    ++failing;
    if (!fits || !(rest <= error / 2)) continue;
    ++explained;
    rests += rest * rest / (b * b), errors += error * error / (b * b);
  }
  const auto few = (1 - most) * static_cast<double>(failing);
  return explained >= sample && static_cast<double>(failing - explained) <= few &&
         static_cast<double>(others_missed) <= few && rests <= errors / 16;
}

}  // namespace mlstm::verify
