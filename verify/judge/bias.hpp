// SPDX-License-Identifier: Apache-2.0
// Coherent errors that hide under every element's bound: the slope of the error against the expected value, over a
// tensor, its heads and its time steps, and how large it may be in an honest kernel (verify/BOUNDS.md, section 10).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "judge/error_sharing.hpp"
#include "judge/locate.hpp"

namespace mlstm::verify {

/// A part of a tensor: some heads, some steps.
struct BiasPlace {
  std::int64_t head = -1;           ///< b NH + nh; -1: all heads
  std::int64_t begin = 0, end = 0;  ///< steps; none of a tensor without a time axis
  bool operator==(const BiasPlace&) const = default;
};

/// What the signed statistic says of one tensor.
struct Bias {
  double ratio = 0;    ///< largest |slope| of a part over what is allowed there; at most 1 passes
  double slope = 0;    ///< of that part: 0.01 if it is 1 % too large; negative if it is too small
  double overall = 0;  ///< slope of the whole tensor
  BiasPlace place;     ///< that part
};

/// The largest bias of the tensor over its parts. `open_rows` (B,NH), or null: rows of each head in which the expected
/// value may be that of the other side of a kink. `constant`: of bias_constants. Empty where no part could show a
/// bias of 100 %, where something is not finite, and for m_last and tensors of zeros.
std::optional<Bias> bias_of(const JudgedTensor& judged, const ErrorSharing& sharing, const Array* open_rows,
                            double constant);

/// "h is 1.6 % too large on average in head [0, 2], t = 64 ... 127".
std::string bias_text(const std::string& tensor, const Bias& bias, const Problem& problem);

}  // namespace mlstm::verify
