// SPDX-License-Identifier: Apache-2.0
// The error of one element, and how much of its bound it uses: the rule that verdicts and pictures share.
#pragma once

#include <cmath>
#include <limits>

#include "mlstm/dtype.hpp"

namespace mlstm::verify {

struct ElementError {
  double error = 0, ratio = 0;  ///< infinite for NaN, or Inf where the reference is finite
  bool bound_usable = true;
};

/// An `expected` that is infinite, or becomes so when it is rounded to `storage`, has to be met by the same infinity.
inline ElementError error_of_element(double value, double expected, double allowed, DType storage) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  ElementError result;
  double error = std::abs(value - expected);
  // Beyond the largest number of the dtype an infinity is the right answer.
  if (std::isinf(value) && std::signbit(value) == std::signbit(expected) && std::isinf(round_to(storage, expected)))
    error = 0;
  if (std::isnan(error)) error = infinity;
  double ratio = error == 0 ? 0 : error / allowed;
  if (!std::isfinite(allowed) && !std::isinf(expected)) {
    result.bound_usable = false;
    ratio = infinity;
  }
  if (std::isnan(ratio)) ratio = infinity;
  result.error = error;
  result.ratio = ratio;
  return result;
}

}  // namespace mlstm::verify
