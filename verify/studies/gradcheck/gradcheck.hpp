// SPDX-License-Identifier: Apache-2.0
// The analytic gradient against automatic differentiation and against differences in extended precision.
#pragma once

#include <string>
#include <vector>

#include "cases/case.hpp"

namespace mlstm::verify {

/// One input tensor under one convention.
struct GradcheckResult {
  Module formulation{};
  Convention convention{};
  std::string tensor;               ///< "dq", ..., "dm_initial"
  double ownbw_vs_autograd = 0;     ///< relative Frobenius difference; 0 / 0 is 0, x / 0 is infinite
  double ownbw_vs_differences = 0;  ///< the same
  double tolerance = 0;
  bool passed = false;  ///< both at most `tolerance`
};

/// Checks every input tensor of `c`, which has to have cotangents, in both conventions: the reference's ownbw against
/// its autograd and against central differences of every element in 50 digits (reference/differences.hpp). A tensor of
/// which the exact gradient cancels is measured at the scale of the detached one.
/// Cost: two extended-precision forward passes per input element and convention; meant for small problems without equal
/// candidates of the maximum (differences straddle them).
/// `options`: formulation, chunk size, threads. Throws std::invalid_argument for a case that is not valid or has no
/// cotangents.
std::vector<GradcheckResult> gradcheck(const Case& c, const reference::Options& options = {}, double tolerance = 1e-12);

}  // namespace mlstm::verify
