// SPDX-License-Identifier: Apache-2.0
// One mLSTM problem without its data: shape, gate, eps and conventions (contract §1, §2).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlstm/dtype.hpp"

namespace mlstm {

enum class Gate { exp, sigmoid };                      ///< input gate: mLSTMexp or mLSTMsig
enum class StabilizerInit { zero, neg_inf };           ///< m_0 when no initial state is given (exp gate only)
enum class Convention { exact, detached };             ///< gradient convention (contract §3)
enum class Module { recurrent, parallel, chunkwise };  ///< formulation

std::string_view to_string(Gate);
std::string_view to_string(StabilizerInit);
std::string_view to_string(Convention);
std::string_view to_string(Module);

/// Inverses of to_string. Throw std::invalid_argument that names `argument`, the value and what was expected.
Gate parse_gate(std::string_view text, std::string_view argument = "gate");
StabilizerInit parse_stabilizer_init(std::string_view text, std::string_view argument = "stabilizer_init");
Convention parse_convention(std::string_view text, std::string_view argument = "convention");
Module parse_module(std::string_view text, std::string_view argument = "module");

/// Sizes: batch, heads, sequence length, query/key and value head dimension.
struct Shape {
  std::int64_t B = 1, NH = 1, S = 1, DHQK = 1, DHV = 1;
  std::int64_t heads() const { return B * NH; }
  bool operator==(const Shape&) const = default;
};

struct Problem {
  Shape shape;
  Gate gate = Gate::exp;
  bool normalize = true;  ///< sigmoid gate only: false makes the denominator 1
  double eps = 1e-6;
  DType dtype = DType::float64;
  StabilizerInit stabilizer_init = StabilizerInit::zero;
  std::int64_t chunk_size = 0;  ///< L; 0 = not applicable
  bool has_initial_state = false;

  bool has_m() const { return gate == Gate::exp; }
  /// False if d_t = 1 (sigmoid gate without `normalize`).
  bool normalized() const { return gate == Gate::exp || normalize; }
  bool operator==(const Problem&) const = default;
};

/// Throws std::invalid_argument naming the first bad field, its value and what was expected
/// (zero-sized dimension, element counts beyond 2^62 bytes, negative or non-finite eps, exp gate without
/// normalize, negative chunk size).
void validate(const Problem&);

/// Tensor names as in the contract (§1, §5) and in files.
inline constexpr std::array<std::string_view, 5> kSequenceInputs{"q", "k", "v", "i", "f"};
inline constexpr std::array<std::string_view, 3> kInitialStates{"c_initial", "n_initial", "m_initial"};
inline constexpr std::array<std::string_view, 3> kLastStates{"c_last", "n_last", "m_last"};

/// Row-major shape of a tensor by its contract name: q, k, v, i, f, h, c_/n_/m_initial, c_/n_/m_last.
/// Throws std::invalid_argument for an unknown name.
std::vector<std::int64_t> shape_of(std::string_view tensor, const Shape&);

/// Number of elements of that tensor.
std::int64_t size_of(std::string_view tensor, const Shape&);

/// Inputs that this problem has: q k v i f, then c_initial n_initial (m_initial with the exp gate) if any.
std::vector<std::string> input_names(const Problem&);

/// Outputs that this problem has: h, c_last, n_last (m_last with the exp gate).
std::vector<std::string> output_names(const Problem&);

/// What `tensor` (an input, output or cotangent name) is stored in: states in state_dtype_of(dtype), all else in dtype.
DType storage_dtype(std::string_view tensor, const Problem&);

}  // namespace mlstm
