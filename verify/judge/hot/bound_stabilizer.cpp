// SPDX-License-Identifier: Apache-2.0
#include "judge/hot/bound_stabilizer.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace mlstm::verify::bound {

Scatter scatter_stabilizer(const Rows& rows, const Vec& variance, const Vec& dm) {
  const Index S = rows.m.size();
  Scatter out{Vec::Zero(S), Vec::Zero(S), variance, Vec::Zero(S)};
  // Candidates with their distance below the maximum, which never shrinks as t grows.
  std::vector<std::pair<Index, double>> live;
  constexpr Index kInitial = -1;
  if (std::isfinite(rows.m0)) live.emplace_back(kInitial, 0.0);
  const double widest = 4 * rows.delta.maxCoeff();
  double m_prev = rows.m0;
  for (Index t = 0; t < S; ++t) {
    const double rise = rows.m[t] - (rows.lf[t] + m_prev);
    std::size_t kept = 0, tied = 0;
    live.emplace_back(t, rows.m[t] - rows.li[t] - rise);
    for (auto& [j, gap] : live) {
      gap += rise;
      if (gap > widest) continue;
      live[kept++] = {j, gap};
      if (gap <= 4 * rows.delta[t]) ++tied;
    }
    live.resize(kept);
    const double jump = tied > 1 ? std::abs(dm[t]) : 0;
    out.row_jump[t] = jump;
    if (jump > 0x1p-20 * std::sqrt(variance[t])) ++out.open_rows;  // less is the rounding of a dm of 0
    if (variance[t] != 0 || jump != 0)
      for (const auto& [j, gap] : live) {
        if (gap > 4 * rows.delta[t]) continue;
        (j == kInitial ? out.initial2 : out.column[j]) += variance[t];
        (j == kInitial ? out.initial_jump : out.column_jump[j]) += jump;
      }
    m_prev = rows.m[t];
  }
  out.column = out.column.cwiseSqrt();
  return out;
}

double partial_sums(const Rows& rows, Vec dm) {
  const Vec terms = dm;
  Index arg_max = -1;
  for (Index t = 0; t < dm.size(); ++t) {
    const double before = t == 0 ? rows.m0 : rows.m[t - 1];
    if (rows.li[t] >= rows.lf[t] + before) arg_max = t;
    if (arg_max >= 0) dm[arg_max] -= std::abs(dm[t]);  // dm_t is counted at t, and no more from the arg max on
  }
  double sum = 0, squares = 0;
  for (Index t = dm.size(); t-- > 0;) {
    sum = std::max(0.0, sum + dm[t]);
    squares += sum * sum + terms[t] * terms[t];
  }
  return std::sqrt(squares);
}

}  // namespace mlstm::verify::bound
