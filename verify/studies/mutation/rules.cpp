// SPDX-License-Identifier: Apache-2.0
#include "studies/mutation/rules.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/random.hpp"

namespace mlstm::verify {
namespace {

/// One returned tensor beside what it should be.
struct Tensor {
  std::string name;  ///< h, c_last, ..., dq, ..., dm_initial
  const Array *got, *expected;
  const Array* plain;  ///< of the plain program; null if it has none
  DType storage;
  bool gradient;
};

const Array* find(const TensorMap& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &found->second;
}

const TensorMap& gradients_of(const ReferenceData& reference, Convention convention) {
  return convention == Convention::exact ? reference.exact : reference.detached;
}

std::vector<Tensor> tensors_of(const RuleInput& input) {
  std::vector<Tensor> tensors;
  const auto add = [&](const std::string& prefix, const TensorMap& got, const TensorMap& expected,
                       const TensorMap* plain) {
    for (const auto& [name, array] : got)
      tensors.push_back({prefix + name, &array, &expected.at(name), plain != nullptr ? find(*plain, name) : nullptr,
                         storage_dtype(name, *input.problem), !prefix.empty()});
  };
  add("", input.got->outputs, input.reference->outputs, input.plain != nullptr ? &input.plain->outputs : nullptr);
  if (input.convention)
    add("d", input.got->gradients, gradients_of(*input.reference, *input.convention),
        input.plain != nullptr ? &input.plain->gradients : nullptr);
  return tensors;
}

bool all_tensors(const RuleInput& input, const std::function<bool(const Tensor&)>& accepts) {
  const std::vector<Tensor> tensors = tensors_of(input);
  return std::all_of(tensors.begin(), tensors.end(), accepts);
}

double error_of(double got, double expected) { return got == expected ? 0 : std::abs(got - expected); }

/// The largest absolute error; NaN if there is one.
double max_error(const Array& got, const Array& expected) {
  double largest = 0;
  for (std::size_t n = 0; n < expected.size(); ++n) {
    const double error = error_of(got.data()[n], expected.data()[n]);
    if (!(error <= largest)) largest = error;
    if (std::isnan(largest)) break;
  }
  return largest;
}

bool has_nan(const Array& array) {
  return std::any_of(array.begin(), array.end(), [](double x) { return std::isnan(x); });
}

// ---- mlstm_kernels

struct Tolerances {
  double atol_fw, rtol_fw, atol_bw, rtol_bw;
};

/// h, and the gradients of q, k, v, i, f under the layer-norm loss; last states and handing them on as in
/// test_state_passing, which compares at `atol_state` = rtol (here with the reference: a sequence that is split has the
/// same answer). Gradients of states, and cotangents of last states, are not tested there.
bool accepts_published(const RuleInput& input, const Tolerances& t, double state) {
  const ReferenceData& reference = *input.reference;
  for (const auto& [name, array] : input.got->outputs) {
    const bool is_h = name == "h";
    const Array& expected = reference.outputs.at(name);
    if (!all_close(array, expected, is_h ? t.atol_fw : state, is_h ? t.rtol_fw : state)) return false;
    if (is_h && input.problem->has_initial_state && !all_close(array, expected, state, state)) return false;
  }
  if (input.loss_got == nullptr || !input.convention) return true;
  const TensorMap& expected = gradients_of(*input.loss_reference, *input.convention);
  return std::all_of(kSequenceInputs.begin(), kSequenceInputs.end(), [&](std::string_view name) {
    const Array* got = find(input.loss_got->gradients, std::string(name));
    return got == nullptr || all_close(*got, expected.at(std::string(name)), t.atol_bw, t.rtol_bw);
  });
}

// The Triton kernels of each formulation against parallel native_stablef.
bool published_tiled(const RuleInput& input) {
  switch (input.module) {
    case Module::recurrent:
      return accepts_published(input, {1e-4, 1e-4, 1e-4, 1e-2}, 1e-4);
    case Module::parallel:
      return accepts_published(input, {1e-2, 5e-2, 3e-1, 1.0}, 2e-3);
    case Module::chunkwise:
      break;
  }
  if (input.problem->gate == Gate::sigmoid) return accepts_published(input, {2e-2, 5e-2, 4e-1, 0.5}, 2e-3);
  return accepts_published(input, {2e-2, 5e-2, 4.2, 0.5}, 2e-3);
}

bool published_native(const RuleInput& input) { return accepts_published(input, {1e-4, 1e-3, 1e-3, 1e-2}, 1e-5); }

// ---- others

bool fixed_tolerance(const RuleInput& input) {
  return all_tensors(input, [](const Tensor& t) { return all_close(*t.got, *t.expected, 1e-2, 1e-2); });
}

bool flash_attention(const RuleInput& input) {
  return all_tensors(input, [](const Tensor& t) {
    if (t.plain == nullptr) return true;  // nothing to compare with
    double floor = 0;                     // what rounding to the dtype costs beside 0.3
    for (const double x : *t.expected) {
      const double stored = round_to(t.storage, x);
      const double shifted = round_to(t.storage, round_to(t.storage, stored + 0.3) - 0.3);
      if (std::isfinite(shifted)) floor = std::max(floor, std::abs(shifted - stored));
    }
    return max_error(*t.got, *t.expected) <= 2 * max_error(*t.plain, *t.expected) + 2 * floor;
  });
}

double machine_epsilon(DType dtype) { return 2 * unit_roundoff(dtype); }

/// |got - expected| <= threshold, relatively where |expected| > 1e-5.
bool points_close(double got, double expected, double threshold) {
  const double error = error_of(got, expected);
  return (std::abs(expected) > 1e-5 ? error / std::abs(expected) : error) <= threshold;
}

double norm_difference(const Tensor& t) {
  double errors = 0, squares = 0;
  for (std::size_t n = 0; n < t.expected->size(); ++n) {
    const double expected = round_to(t.storage, t.expected->data()[n]);
    const double error = error_of(t.got->data()[n], expected);
    errors += error * error;
    squares += expected * expected;
  }
  if (squares == 0) return errors == 0 ? 0 : std::numeric_limits<double>::infinity();
  return std::sqrt(errors / squares);
}

std::size_t wrong_points(const Tensor& t, double threshold) {
  std::size_t wrong = 0;
  for (std::size_t n = 0; n < t.expected->size(); ++n)
    wrong += !points_close(t.got->data()[n], round_to(t.storage, t.expected->data()[n]), threshold);
  return wrong;
}

// The threshold of the RNN driver, with two gates, sums over DHQK as its GRU's, and S steps.
bool benchdnn_rnn(const RuleInput& input) {
  const Shape& shape = input.problem->shape;
  constexpr double gates = 2;
  const double forward_terms = (2 * gates + 1) * static_cast<double>(shape.DHQK);
  const double backward_terms =
      forward_terms * std::max(gates * static_cast<double>(shape.DHV), static_cast<double>(shape.B));
  return all_tensors(input, [&](const Tensor& t) {
    const double terms = (t.gradient ? backward_terms : forward_terms) * static_cast<double>(shape.S);
    const double threshold = 4 * (t.gradient ? 2 : 1) * std::ceil(std::log2(terms)) * machine_epsilon(t.storage);
    return shape.S > 1 ? norm_difference(t) <= threshold : wrong_points(t, threshold) == 0;
  });
}

// Every point as in the driver of batched matrix products; a few wrong points are passed on to a norm, as for graphs.
bool benchdnn_points(const RuleInput& input) {
  return all_tensors(input, [](const Tensor& t) {
    const double threshold = t.storage == DType::float32 ? 1e-6 : machine_epsilon(t.storage);
    const std::size_t wrong = wrong_points(t, threshold);
    return wrong == 0 || (wrong <= t.expected->size() / 1024 && norm_difference(t) <= 1e-4);
  });
}

bool rms_close(const Tensor& t, double ratio) {
  if (max_error(*t.got, *t.expected) <= 1e-6) return true;
  return !has_nan(*t.got) && rms_ratio(*t.got, *t.expected) < ratio;
}

bool fla_ratio(const RuleInput& input) {
  return all_tensors(input, [](const Tensor& t) { return rms_close(t, 0.005); });
}

// With FLA_CI_ENV a ratio below 0.01, or errors of at most 0.3, are only warned of.
bool fla_ratio_in_ci(const RuleInput& input) {
  return all_tensors(input, [](const Tensor& t) {
    return rms_close(t, 0.01) || (!has_nan(*t.got) && max_error(*t.got, *t.expected) <= 0.3);
  });
}

}  // namespace

const std::vector<Rule>& acceptance_rules() {
  using enum DType;
  static const std::vector<Rule> all{
      {"mlstm_kernels, tiled",
       "allclose, h: atol 2e-2 rtol 5e-2; gradients of a layer-norm loss: atol 4.2 rtol 0.5 (chunkwise, exp gate), "
       "0.4 and 0.5 (sigmoid), 0.3 and 1 (parallel)",
       false,
       true,
       {float32},
       published_tiled},
      {"mlstm_kernels, native",
       "allclose, h: atol 1e-4 rtol 1e-3; gradients of a layer-norm loss: atol 1e-3 rtol 1e-2",
       false,
       true,
       {float32},
       published_native},
      {"atol = rtol = 1e-2", "allclose of all tensors", false, false, {float32, bfloat16, float16}, fixed_tolerance},
      {"FlashAttention",
       "max error <= 2 * max error of a plain program in the same dtype + 2 * max |(x + 0.3 - 0.3) - x|",
       true,
       false,
       {bfloat16, float16},
       flash_attention},
      {"benchdnn, RNN",
       "relative L2 norm of the error <= 4 (8 backward) * ceil(log2(terms * S)) * epsilon of the dtype; each element "
       "if S = 1",
       false,
       false,
       {float32, bfloat16, float16},
       benchdnn_rnn},
      {"benchdnn, elements",
       "relative error of each element <= 1e-6 (float32) or epsilon of the dtype; 1 in 1024 may differ if the L2 norm "
       "is <= 1e-4",
       false,
       false,
       {float32, bfloat16, float16},
       benchdnn_points},
      {"fla", "rms(error) / rms < 0.005, or max error <= 1e-6", false, false, {float32, float16}, fla_ratio},
      {"fla in CI", "the same with 0.01, or max error <= 0.3", false, false, {float32, float16}, fla_ratio_in_ci},
  };
  return all;
}

bool all_close(const Array& got, const Array& expected, double atol, double rtol) {
  for (std::size_t n = 0; n < expected.size(); ++n) {
    const double x = got.data()[n], wanted = expected.data()[n];
    if (x == wanted) continue;  // infinities too
    if (std::isinf(wanted) || !(std::abs(x - wanted) <= atol + rtol * std::abs(wanted))) return false;
  }
  return true;
}

double rms_ratio(const Array& got, const Array& expected) {
  double errors = 0, squares = 0;
  for (std::size_t n = 0; n < expected.size(); ++n) {
    const double error = error_of(got.data()[n], expected.data()[n]);
    errors += error * error;
    squares += expected.data()[n] * expected.data()[n];
  }
  const auto count = static_cast<double>(expected.size());
  return std::sqrt(errors / count) / (std::sqrt(squares / count) + 1e-8);
}

Array layer_norm_cotangents(const Array& h, DType dtype, std::uint64_t seed) {
  constexpr double eps = 1e-5;
  const RandomStream offsets(seed, "layer-norm loss");
  Array dh = Array::from_shape(h.shape());
  const std::size_t columns = h.shape(3), rows = h.size() / columns, steps = h.shape(2);
  std::vector<double> unit(columns), slope(columns);  // layer_norm(h), and d loss / d layer_norm(h)
  const auto width = static_cast<double>(columns);
  for (std::size_t row = 0; row < rows; ++row) {
    const double* const x = h.data() + row * columns;
    double mean = 0, variance = 0;
    for (std::size_t a = 0; a < columns; ++a) mean += x[a] / width;
    for (std::size_t a = 0; a < columns; ++a) variance += (x[a] - mean) * (x[a] - mean) / width;
    const double scale = 1 / std::sqrt(variance + eps);
    double slope_mean = 0, slope_unit = 0;
    for (std::size_t a = 0; a < columns; ++a) {
      unit[a] = (x[a] - mean) * scale;
      slope[a] = 2 * (unit[a] + offsets.normal({static_cast<std::int64_t>(row / steps),
                                                static_cast<std::int64_t>(row % steps), static_cast<std::int64_t>(a)}));
      slope_mean += slope[a] / width;
      slope_unit += slope[a] * unit[a] / width;
    }
    for (std::size_t a = 0; a < columns; ++a)
      dh.data()[row * columns + a] = round_to(dtype, scale * (slope[a] - slope_mean - unit[a] * slope_unit));
  }
  return dh;
}

}  // namespace mlstm::verify
