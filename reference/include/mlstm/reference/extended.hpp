// SPDX-License-Identifier: Apache-2.0
// The extended-precision scalar: 50 decimal digits of binary floating point in integer arithmetic, so that a result
// has the same bits on every machine and with every compiler.
#pragma once

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <boost/multiprecision/eigen.hpp>
#include <cstdint>

#include "mlstm/reference/head.hpp"

namespace mlstm::reference {

/// 64-bit exponent: exp(-m) neither overflows nor vanishes for |m| up to 3e18.
using Extended = boost::multiprecision::number<
    boost::multiprecision::cpp_bin_float<50, boost::multiprecision::digit_base_10, void, std::int64_t>,
    boost::multiprecision::et_off>;

/// Forward and hand-written backward of one head in extended precision, rounded to float64 at the end.
void evaluate_head_extended(const HeadProblem&, const Inputs<double>&, const HeadRequest<double>&);

}  // namespace mlstm::reference
