// SPDX-License-Identifier: Apache-2.0
#include "mlstm/problem.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace mlstm {
namespace {

template <class E, std::size_t N>
using Names = std::array<std::pair<E, std::string_view>, N>;

constexpr Names<Gate, 2> kGates{{{Gate::exp, "exp"}, {Gate::sigmoid, "sigmoid"}}};
constexpr Names<StabilizerInit, 2> kInits{{{StabilizerInit::zero, "zero"}, {StabilizerInit::neg_inf, "neg_inf"}}};
constexpr Names<Convention, 2> kConventions{{{Convention::exact, "exact"}, {Convention::detached, "detached"}}};
constexpr Names<Module, 3> kModules{
    {{Module::recurrent, "recurrent"}, {Module::parallel, "parallel"}, {Module::chunkwise, "chunkwise"}}};

template <class E, std::size_t N>
std::string_view name_of(const Names<E, N>& names, E value) {
  for (const auto& [candidate, name] : names)
    if (candidate == value) return name;
  throw std::logic_error("to_string: unknown enumerator");
}

template <class E, std::size_t N>
E value_of(const Names<E, N>& names, std::string_view text, std::string_view argument) {
  std::string expected;
  for (const auto& [value, name] : names) {
    if (name == text) return value;
    expected += (expected.empty() ? "" : ", ") + std::string(name);
  }
  throw std::invalid_argument(std::string(argument) + " is \"" + std::string(text) + "\"; expected one of " + expected);
}

[[noreturn]] void refuse(const std::string& what, const std::string& value, const std::string& expected) {
  throw std::invalid_argument(what + " is " + value + "; expected " + expected);
}

}  // namespace

std::string_view to_string(Gate gate) { return name_of(kGates, gate); }
std::string_view to_string(StabilizerInit init) { return name_of(kInits, init); }
std::string_view to_string(Convention convention) { return name_of(kConventions, convention); }
std::string_view to_string(Module module) { return name_of(kModules, module); }

Gate parse_gate(std::string_view text, std::string_view argument) { return value_of(kGates, text, argument); }
StabilizerInit parse_stabilizer_init(std::string_view text, std::string_view argument) {
  return value_of(kInits, text, argument);
}
Convention parse_convention(std::string_view text, std::string_view argument) {
  return value_of(kConventions, text, argument);
}
Module parse_module(std::string_view text, std::string_view argument) { return value_of(kModules, text, argument); }

void validate(const Problem& problem) {
  const Shape& s = problem.shape;
  for (const auto& [name, n] : {std::pair{"B", s.B}, {"NH", s.NH}, {"S", s.S}, {"DHQK", s.DHQK}, {"DHV", s.DHV}})
    if (n < 1) refuse(name, std::to_string(n), "a size of at least 1");
  // The largest tensors are (heads, S, max dim) and (heads, DHQK, DHV); their bytes have to fit an int64.
  const long double widest = static_cast<long double>(s.B) * static_cast<long double>(s.NH) *
                             std::max(static_cast<long double>(s.S) * static_cast<long double>(std::max(s.DHQK, s.DHV)),
                                      static_cast<long double>(s.DHQK) * static_cast<long double>(s.DHV));
  if (widest > 0x1p58L) refuse("number of elements", std::to_string(widest), "at most 2^58 in any tensor");
  if (!std::isfinite(problem.eps) || problem.eps < 0) refuse("eps", std::to_string(problem.eps), "a finite value >= 0");
  if (problem.gate == Gate::exp && !problem.normalize)
    refuse("normalize", "0 with the exp gate", "1 (only the sigmoid gate can do without)");
  if (problem.chunk_size < 0) refuse("chunk_size", std::to_string(problem.chunk_size), "0 (not applicable) or more");
  if (problem.dtype == DType::tfloat32) refuse("dtype", "tfloat32", "a storage format (tfloat32 is an operand format)");
}

std::vector<std::int64_t> shape_of(std::string_view tensor, const Shape& s) {
  if (tensor == "q" || tensor == "k") return {s.B, s.NH, s.S, s.DHQK};
  if (tensor == "v" || tensor == "h") return {s.B, s.NH, s.S, s.DHV};
  if (tensor == "i" || tensor == "f") return {s.B, s.NH, s.S};
  if (tensor == "c_initial" || tensor == "c_last") return {s.B, s.NH, s.DHQK, s.DHV};
  if (tensor == "n_initial" || tensor == "n_last") return {s.B, s.NH, s.DHQK};
  if (tensor == "m_initial" || tensor == "m_last") return {s.B, s.NH};
  throw std::invalid_argument("tensor name is \"" + std::string(tensor) +
                              "\"; expected q, k, v, i, f, h or c_, n_, m_ with initial or last");
}

std::int64_t size_of(std::string_view tensor, const Shape& shape) {
  std::int64_t n = 1;
  for (const std::int64_t extent : shape_of(tensor, shape)) n *= extent;
  return n;
}

std::vector<std::string> input_names(const Problem& problem) {
  std::vector<std::string> names(kSequenceInputs.begin(), kSequenceInputs.end());
  if (problem.has_initial_state)
    for (const std::string_view state : kInitialStates)
      if (state != "m_initial" || problem.has_m()) names.emplace_back(state);
  return names;
}

std::vector<std::string> output_names(const Problem& problem) {
  std::vector<std::string> names{"h"};
  for (const std::string_view state : kLastStates)
    if (state != "m_last" || problem.has_m()) names.emplace_back(state);
  return names;
}

DType storage_dtype(std::string_view tensor, const Problem& problem) {
  return tensor.find('_') == std::string_view::npos ? problem.dtype : state_dtype_of(problem.dtype);
}

}  // namespace mlstm
