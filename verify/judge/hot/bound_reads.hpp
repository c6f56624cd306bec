// SPDX-License-Identifier: Apache-2.0
// States step by step: what it costs a product to read them, or what they multiply, in a narrow format
// (verify/BOUNDS.md, section 1, "reads").
#pragma once

#include <vector>

#include "judge/hot/bound_rows.hpp"

namespace mlstm::verify::bound {

/// A matrix state X_t = a_t X_{t-1} + l_t r_t^T, its vector x_t = a_t x_{t-1} + y_t, and the variances that storing
/// them at every step leaves, over u_state^2. A state that changes by less than it is rounded by stays as it is, so the
/// errors of an element have one sign: A_t = a_t A_{t-1} + |X_t|, and its square is the variance.
class StateWalk {
 public:
  /// Begins with X (rows, columns) and x (rows). `stored`: whether variances are wanted.
  StateWalk(Mat X, Vec x, bool stored);

  /// Goes on with sums of sizes that another walk has come to.
  StateWalk(Mat X, Vec x, Mat A, Vec a);

  void step(double decay, InVec left, InVec right, InVec vector);

  const Mat& X() const { return X_; }
  const Vec& x() const { return x_; }
  const Mat& variance() const { return V_; }
  const Vec& variance_of_vector() const { return v_; }
  const Mat& sizes() const { return A_; }
  const Vec& sizes_of_vector() const { return a_; }

  /// Reads of the state as it is: across(e) = Σ_a left²_a X²_ae and along(a) = Σ_e X²_ae right²_e, and the same with
  /// the variances, weighted by ratio2.
  void read(InVec left2, InVec right2, double of_state, double ratio2, Vec& across, Vec& along) const;

 private:
  Mat X_, V_, A_;
  Vec x_, v_, a_;
  bool stored_;
};

/// The states before each of n steps from t0 on, relative to the stabiliser before that step; the first is `walk`.
std::vector<StateWalk> states_before(const Values& x, const Rows& rows, Index t0, Index n, StateWalk walk);

/// Variance of <X, Y> and x.y through what storing both has left in them, over u_state^2.
double stored_product(const StateWalk& x, const StateWalk& y);

/// Whether products read a format so narrow that where a state is read makes a difference.
bool reads_matter(const HeadProblem& p);

/// Whether states are kept in a format so narrow that storing them costs more than anything else.
bool states_are_narrow(const HeadProblem& p);

/// Roundings of what a product with a state reads, over u^2. A chunkwise kernel may round g = dh/d for all of a row's
/// terms, or read states at the ends of shorter chunks; a recurrent one reads every state, and rounds what it is
/// multiplied with.
inline double reads_per_step(const HeadProblem& p) { return p.sums_every_step ? 2 : 1; }

/// What the columns of a chunk read of the cotangent of the state of their own step, over u^2: in dk and dv.
struct CotangentReads {
  Mat k, v;
  Mat n;  ///< in dk, by dn
  /// Where narrow states are stored at every step: variance of <C, dC> + n.dn across the gate of each step, over
  /// u_state^2.
  Vec pairs;
};

/// gamma: S. Walks `states` back over the chunk.
CotangentReads read_cotangents(const HeadProblem& p, const Values& x, const Rows& rows, const Vec& gamma, Index t0,
                               Index n, const PastState& past, StateWalk& states);

}  // namespace mlstm::verify::bound
