// SPDX-License-Identifier: Apache-2.0
// Per-element forward error bounds for mLSTM outputs and gradients. The model and its derivation: verify/BOUNDS.md.
#pragma once

#include <cstdint>

#include "mlstm/verify/case.hpp"

namespace mlstm::verify {

/// Precision of the computation that is judged; bounds follow it.
struct Precision {
  DType storage = DType::float32;   ///< inputs and outputs
  DType operand = DType::float32;   ///< what matrix products read
  DType state = DType::float32;     ///< what chunk states are kept in
  std::int64_t window = 64;         ///< steps after which sums of gates restart: 1 recurrent, L chunkwise, S parallel
};

/// What `c` was computed with, by its dtype, its chunk size and what /kernel declares.
Precision precision_of(const Case& c);

/// Bounds by tensor: "h", "c_last", ..., "exact/q", ..., "detached/m_initial"; calibrated: an honest kernel of this
/// precision stays at or below 1. `reference` must hold both gradients if the case has cotangents.
TensorMap error_bounds(const Case& c, const ReferenceData& reference, const Precision& precision);

}  // namespace mlstm::verify
