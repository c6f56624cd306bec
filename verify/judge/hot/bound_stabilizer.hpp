// SPDX-License-Identifier: Apache-2.0
// The path of the gradient through the stabiliser (verify/BOUNDS.md, sections 6 and 7).
#pragma once

#include "judge/hot/bound_rows.hpp"

namespace mlstm::verify::bound {

/// Error of the path through the stabiliser, scattered to the arg max and to what is nearly tied with it.
struct Scatter {
  Vec column;       ///< standard deviation of what column j receives
  Vec column_jump;  ///< what column j receives or loses where the arg max is open
  Vec row2, row_jump;
  double open_rows = 0;
  double initial2 = 0, initial_jump = 0;
};

/// `variance` of dm and its reference value by row (S each). The candidates for the arg max are those within 4 delta_t
/// of the maximum.
Scatter scatter_stabilizer(const Rows& rows, const Vec& variance, const Vec& dm);

/// What rounds in df where dm is scattered by differences (dm_t at t, its negative at the arg max) and a sum over them:
/// every difference, and every partial sum of what passes a gate on its way. dm: absolute values.
double partial_sums(const Rows& rows, Vec dm);

}  // namespace mlstm::verify::bound
