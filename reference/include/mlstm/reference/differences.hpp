// SPDX-License-Identifier: Apache-2.0
// Central differences in extended precision, against which the analytic gradients are checked.
#pragma once

#include "mlstm/problem.hpp"
#include "mlstm/reference/reference.hpp"
#include "mlstm/tensors.hpp"

namespace mlstm::reference {

/// Derivatives of <cotangents, outputs> by every element x of every wanted input, as
/// (f(x + e) - f(x - e)) / 2e with e = 1e-16 max(1, |x|) in 50 digits: truncation and rounding errors stay below 1e-30.
/// Convention::detached: m_t (m_initial included) and d_t are held at the values of the unperturbed problem inside h,
/// c_last and n_last. Where the function has a kink within e (equal candidates of the maximum), the result is the mean
/// of the two one-sided derivatives, unlike the contract's choice. Two forward passes per element: for small problems.
/// Throws std::invalid_argument as `evaluate` does.
void differences(const Problem&, const Inputs<double>&, const Cotangents<double>&, Convention,
                 const Gradients<double>& wanted, const Options& = {});

}  // namespace mlstm::reference
