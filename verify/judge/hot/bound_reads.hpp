// SPDX-License-Identifier: Apache-2.0
// States step by step: what it costs a product to read them, or what they multiply, in a narrow format
// (verify/BOUNDS.md, section 1, "reads").
#pragma once

#include "judge/hot/bound_rows.hpp"

namespace mlstm::verify::bound {

/// A matrix state X_t = a_t X_{t-1} + l_t r_t^T, its vector x_t = a_t x_{t-1} + y_t, and the variances that storing
/// them at every step leaves, over u_state^2. A state that changes by less than it is rounded by stays as it is, so the
/// errors of an element have one sign: A_t = a_t A_{t-1} + |X_t|, and its square is the variance.
class StateWalk {
 public:
  /// Begins with X (rows, columns) and x (rows). `stored`: whether variances are wanted.
  StateWalk(Mat X, Vec x, bool stored);

  void step(double decay, InVec left, InVec right, InVec vector);

  const Mat& X() const { return X_; }
  const Vec& x() const { return x_; }
  const Mat& variance() const { return V_; }
  const Vec& variance_of_vector() const { return v_; }

  /// Reads of the state as it is: across(e) = Σ_a left²_a X²_ae and along(a) = Σ_e X²_ae right²_e, and the same with
  /// the variances, weighted by ratio2.
  void read(InVec left2, InVec right2, double of_state, double ratio2, Vec& across, Vec& along) const;

 private:
  Mat X_, V_, A_;
  Vec x_, v_, a_;
  bool stored_;
};

/// Whether products read a format so narrow that where a state is read makes a difference.
bool reads_matter(const HeadProblem& p);

/// Whether states are kept in a format so narrow that storing them costs more than anything else.
bool states_are_narrow(const HeadProblem& p);

/// Roundings of what a product with a state reads, over u^2. A chunkwise kernel may round g = dh/d for all of a row's
/// terms, or read states at the ends of shorter chunks; a recurrent one reads every state, and rounds what it is
/// multiplied with.
inline double reads_per_step(const HeadProblem& p) { return p.sums_every_step ? 2 : 1; }

}  // namespace mlstm::verify::bound
