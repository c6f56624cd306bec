// SPDX-License-Identifier: Apache-2.0
// Per-element forward error bounds for mLSTM outputs and gradients. The model and its derivation: verify/BOUNDS.md.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>

#include "cases/case.hpp"

namespace mlstm::verify {

/// Precision of the computation that is judged; bounds follow it.
struct Precision {
  DType storage = DType::float32;  ///< inputs and outputs
  DType operand = DType::float32;  ///< what matrix products read
  DType state = DType::float32;    ///< what chunk states and last states are kept in
  DType saved = DType::float32;    ///< what m and d are saved in for the backward pass
  /// Steps after which sums of gates restart, and a state is rounded for its next use: L chunkwise, S parallel. 0:
  /// recurrent, where sums restart at every step but a state is used as it is.
  std::int64_t window = 64;
  bool truncates = false;             ///< operands and results lose bits instead of being rounded to nearest
  std::optional<DType> gate = {};     ///< what logσ, m, F and I are computed or kept in; absent: as sums are
  std::optional<DType> product = {};  ///< what the terms of sums are rounded to; absent: they are not

  auto operator<=>(const Precision&) const = default;
};

/// What `c` was computed with: its dtype, its chunk size and what /kernel declares (its formulation, without
/// which the window is the widest that there is, S; operand_dtype, state_dtype, gate_dtype, product_dtype, and the
/// attributes `saved_dtype`, without which m and d count as saved in the dtype, and `rounding`). Without a /kernel the
/// window is the chunk size, or S if there is none.
Precision precision_of(const Case& c);

/// The calibrated constant c of a tensor ("h", ..., "dq", ..., "dm_initial"), and that of its bias (bias.hpp).
double bound_constant(DType operand, std::string_view tensor);
double bias_constant(DType operand, std::string_view tensor);

/// Bounds by tensor: "h", "c_last", ..., "exact/q", ..., "detached/m_initial"; calibrated: an honest kernel of this
/// precision stays at or below them. "exact/f" holds for a df summed from rounded q.dq - k.dk, "exact/f_straddling"
/// for one summed from unrounded terms over straddling pairs. "exact/open_rows" (B,NH) counts the rows in which both
/// one-sided gradients are accepted (denominator branch or arg max closer than the forward error); likewise detached.
/// `reference` must hold both gradients if the case has cotangents.
TensorMap error_bounds(const Case& c, const ReferenceData& reference, const Precision& precision, int threads = 0);

}  // namespace mlstm::verify
