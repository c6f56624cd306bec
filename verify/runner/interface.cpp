// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "runner/runner.hpp"

namespace mlstm::verify {
namespace {

std::vector<std::int64_t> extents_of(const Array& array) { return {array.shape().begin(), array.shape().end()}; }

/// `array` rounded to what `name` is stored in.
Array cast(const std::string& name, const Array& array, const Problem& problem) {
  const auto expected = shape_of(name, problem.shape);
  if (extents_of(array) != expected)
    throw std::invalid_argument(fmt::format("{} has shape {}; expected {}", name, extents_of(array), expected));
  const DType dtype = storage_dtype(name, problem);
  Array result = array;
  for (double& value : result) {
    const double given = value;
    value = round_to(dtype, given);
    if (!std::isfinite(value))
      throw std::invalid_argument(
          fmt::format("{} holds {}; expected finite values within the range of {}", name, given, to_string(dtype)));
  }
  return result;
}

Shape shape_of_arguments(const Array& q, const Array& v) {
  for (const auto& [name, array] : {std::pair{"q", &q}, {"v", &v}})
    if (array->dimension() != 4)
      throw std::invalid_argument(fmt::format("{} has shape {}; expected four dimensions (B,NH,S,{})", name,
                                              extents_of(*array), *name == 'q' ? "DHQK" : "DHV"));
  const auto of_q = extents_of(q);
  return {of_q[0], of_q[1], of_q[2], of_q[3], extents_of(v)[3]};
}

/// exp, unless the variant has only the sigmoid gate.
Gate gate_of(const VariantInfo& info) {
  const bool has_exp = std::find(info.gates.begin(), info.gates.end(), Gate::exp) != info.gates.end();
  return has_exp ? Gate::exp : Gate::sigmoid;
}

}  // namespace

InterfaceResult mlstm_interface(const Kernel& kernel, const Array& q, const Array& k, const Array& v, const Array& i,
                                const Array& f, const std::optional<Array>& c_initial,
                                const std::optional<Array>& n_initial, const std::optional<Array>& m_initial,
                                const InterfaceOptions& options) {
  const VariantInfo& info = kernel.info();
  Case c;
  c.name = "mlstm_interface";
  Problem& problem = c.problem;
  problem.shape = shape_of_arguments(q, v);
  problem.gate = gate_of(info);
  problem.eps = options.eps;
  problem.dtype = options.autocast_kernel_dtype;
  problem.chunk_size = options.chunk_size;
  problem.has_initial_state = c_initial || n_initial || m_initial;
  if (!info.stabilizer_init.empty()) problem.stabilizer_init = info.stabilizer_init.front();
  validate(problem);
  if (options.chunk_size < 1)
    throw std::invalid_argument(fmt::format("chunk_size is {}; expected 1 or more", options.chunk_size));
  if (options.return_last_states && !info.last_states)
    throw std::invalid_argument(info.key() + ": last states are not supported");

  const std::array<const Array*, 5> sequences{&q, &k, &v, &i, &f};
  for (std::size_t n = 0; n < sequences.size(); ++n) {
    const std::string name(kSequenceInputs[n]);
    c.inputs[name] = cast(name, *sequences[n], problem);
  }
  if (problem.has_initial_state) {
    const std::array<const std::optional<Array>*, 3> states{&c_initial, &n_initial, &m_initial};
    for (std::size_t n = 0; n < states.size(); ++n) {
      const std::string name(kInitialStates[n]);
      const bool given = states[n]->has_value(), expected = problem.has_m() || name != "m_initial";
      if (given != expected)
        throw std::invalid_argument(
            fmt::format("{} is {}; expected {}", name, given ? "given" : "missing",
                        expected ? "all initial states or none" : "none with the sigmoid gate"));
      if (expected) c.inputs[name] = cast(name, **states[n], problem);
    }
  }

  KernelData data = run_kernel(kernel, c, std::nullopt);
  InterfaceResult result{std::move(data.outputs.at("h")), {}, {}, {}};
  if (options.return_last_states) {
    result.c_last = std::move(data.outputs.at("c_last"));
    result.n_last = std::move(data.outputs.at("n_last"));
    if (problem.has_m()) result.m_last = std::move(data.outputs.at("m_last"));
  }
  return result;
}

}  // namespace mlstm::verify
