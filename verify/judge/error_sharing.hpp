// SPDX-License-Identifier: Apache-2.0
// How much of their errors the elements of a tensor may share, which their bounds do not say (verify/BOUNDS.md,
// section 10).
#pragma once

#include <cstdint>
#include <vector>

#include "judge/bounds.hpp"

namespace mlstm::verify {

using Numbers = std::vector<double>;

/// Shares of the tokens in a state that decays: of what a step sees, the part `kept` is what its neighbour saw, and
/// `alike` is the sum of the squares of all shares: 1 / (number of tokens that matter).
struct Overlap {
  Numbers kept, alike;
};

/// Of one head. Vectors have an element per step.
struct HeadSharing {
  Numbers rows, columns;  ///< relative error that all rows (columns) of a product may share: gates and sums
  /// Relative errors, with their signs, that saving m and d in a narrow type leaves in rows of gradients, and what
  /// columns get of them. Empty if they are saved in full.
  Numbers saved_rows, saved_columns;
  double last_token = 0;         ///< error that all of the last state shares with its only key; likewise
  Numbers near_rows;             ///< error of dh / d with d of nearly 1 that a row of dq has; empty without gradients
  Overlap past, future;          ///< of keys in what row t sees, of rows in what column j gets
  double keys = 1, queries = 1;  ///< independent roundings of one key (one row) on its way into a state
  /// Elements that matter in a key, a value, a query and a row of dh: independent roundings of a state are those of its
  /// rows times those of its columns.
  double key_columns = 1, value_columns = 1, query_columns = 1, cotangent_columns = 1;
  /// How much the products of one rounded state with different rows of these have in common (0 ... 1); 0 unless states
  /// are kept in a format so narrow that this is all that matters.
  double alike_keys = 0, alike_values = 0, alike_queries = 0, alike_cotangents = 0;
  double repeated = 0;  ///< share of keys, or of values, that equal the one before
  /// coincidence() of P, of dS, of keys and queries on their way into states, and of dh / d.
  double P = 0, dS = 0, key = 0, query = 0, g = 0;
};

/// Of all heads of a problem, for kernels of one precision.
class ErrorSharing {
 public:
  ErrorSharing(const Case& c, const Precision& precision);

  const HeadSharing& head(std::int64_t index) const { return heads_[static_cast<std::size_t>(index)]; }
  /// Largest number of heads with the same inputs.
  double equal_heads() const { return equal_heads_; }
  /// Mean error that truncation leaves in every element, relative to it; 0 where everything is rounded to nearest.
  double truncation() const { return truncation_; }

 private:
  std::vector<HeadSharing> heads_;
  double equal_heads_ = 1, truncation_ = 0;
};

/// How likely two of the values, drawn with probabilities proportional to their squares, have the same digits: then
/// they are rounded alike. 0 where all differ.
double coincidence(const Numbers& values);

}  // namespace mlstm::verify
