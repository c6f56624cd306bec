// SPDX-License-Identifier: Apache-2.0
// The float64 reference: every formulation, forward and backward, on host memory.
// Source of the formulas: contract §2 and §3; derivation in reference/README.md.
#pragma once

#include <cstdint>
#include <string_view>

#include "mlstm/problem.hpp"
#include "mlstm/tensors.hpp"

namespace mlstm::reference {

enum class Backward { ownbw, autograd };
std::string_view to_string(Backward);
Backward parse_backward(std::string_view text, std::string_view argument = "backward");

/// How to evaluate; the result is the same function for every choice, up to rounding.
struct Options {
  Module formulation = Module::chunkwise;
  Backward backward = Backward::ownbw;
  std::int64_t chunk_size = 0;  ///< L of the chunkwise formulation; 0: the problem's if > 0, else 64
  int threads = 0;              ///< over (B, NH); 0: one per core. The result does not depend on it, bit for bit
};

/// Per-row quantities that judging needs (each (B,NH,S), or null if not wanted).
template <class T>
struct Intermediates {
  T* m = nullptr;  ///< stabiliser m_t (0 with the sigmoid gate)
  T* l = nullptr;  ///< s n_t.q_t
  T* d = nullptr;  ///< denominator d_t, eps included; may be +inf where exp(-m_t) overflows
};

/// What to compute. Null pointers are not computed.
struct Request {
  Outputs<double> outputs;
  Intermediates<double> intermediates;
  Cotangents<double> cotangents;
  Gradients<double> exact;     ///< gradients in the exact convention
  Gradients<double> detached;  ///< gradients in the detached convention
};

/// Evaluates in float64. Never gives NaN for finite input: a head whose float64 evaluation leaves the range of
/// float64 is evaluated again in extended precision and rounded (overflow to an infinity).
/// Throws std::invalid_argument for a problem that `validate` refuses, non-finite input, missing inputs, some but not
/// all initial states, or a chunk size < 0.
void evaluate(const Problem&, const Inputs<double>&, const Request&, const Options& = {});

/// The same in binary floating point of at least 50 decimal digits, rounded to float64 at the end: the same bits on
/// every machine, compiler and thread count. Options::backward must be ownbw.
void evaluate_extended(const Problem&, const Inputs<double>&, const Request&, const Options& = {});

}  // namespace mlstm::reference
