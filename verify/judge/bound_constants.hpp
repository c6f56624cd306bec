// SPDX-License-Identifier: Apache-2.0
// The one table of calibrated constants: the bound of a tensor is c times the raw bound of the model. An honest kernel
// stays at or below 1; how the values were found: verify/BOUNDS.md.
#pragma once

#include <string_view>

#include "mlstm/dtype.hpp"

namespace mlstm::verify {

struct BoundConstants {
  double h, c_last, n_last, m_last;        // outputs
  double q, k, v, i, f;                    // gradients
  double c_initial, n_initial, m_initial;  // gradients of the initial state
};

constexpr BoundConstants bound_constants(DType operand) {
  // clang-format off
  //                                  h  c_l n_l m_l   dq dk dv  di   df    dc dn dm
  switch (operand) {
    case DType::float64: return      {2.5, 2.5, 2, 1, 2.5, 3, 2,  2,  2.5,  2, 2, 2};
    case DType::float32: return      {2, 2,  2,  1,    2, 2, 2,  2,   2,    2, 2, 2};
    case DType::tfloat32: return     {3, 3,  3,  1,    3, 3, 3,  2.5, 2.5,  3, 3, 3};
    case DType::float16: return      {3, 3,  3,  1,    3, 3, 3,  2,   3,    3, 2, 2};
    case DType::bfloat16: return     {3, 3,  3,  1,    3, 3, 3,  2,   3,    3, 2, 2};
  }
  // clang-format on
  return {};
}

/// Of the bias of a tensor (bias.hpp), by which standard deviations are multiplied, in units of the element bounds. In
/// float32 and float64 a bias would show in the elements.
constexpr BoundConstants bias_constants(DType operand) {
  // clang-format off
  //                                  h    c_l  n_l  m_l   dq    dk   dv   di   df    dc   dn   dm
  switch (operand) {
    case DType::float64: return      {1,   1,   1,   1,    1,    1,   1,   1,   1,    1,   1,   1};
    case DType::float32: return      {1,   1,   1,   1,    1,    1,   1,   1,   1,    1,   1,   1};
    case DType::tfloat32: return     {0.3, 0.3, 0.6, 1,    0.35, 0.4, 0.3, 0.7, 0.7,  0.3, 0.6, 1};
    case DType::float16: return      {0.3, 0.3, 0.6, 1,    0.35, 0.4, 0.3, 0.7, 0.7,  0.3, 0.6, 1};
    case DType::bfloat16: return     {0.3, 0.3, 0.6, 1,    0.35, 0.4, 0.3, 0.7, 0.7,  0.3, 0.6, 1};
  }
  // clang-format on
  return {};
}

}  // namespace mlstm::verify
