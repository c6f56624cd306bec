// SPDX-License-Identifier: Apache-2.0
#include "judge/hot/bound_reads.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mlstm::verify::bound {

StateWalk::StateWalk(Mat X, Vec x, bool stored) : X_(std::move(X)), x_(std::move(x)), stored_(stored) {
  if (!stored_) return;
  V_ = Mat::Zero(X_.rows(), X_.cols());
  v_ = Vec::Zero(x_.size());
  A_ = V_;
  a_ = v_;
}

void StateWalk::step(double decay, InVec left, InVec right, InVec vector) {
  for (Index a = 0; a < X_.rows(); ++a) X_.row(a) = decay * X_.row(a) + left[a] * right.transpose();
  x_ = decay * x_ + vector;
  if (!stored_) return;
  A_ = decay * A_ + X_.cwiseAbs();
  a_ = decay * a_ + x_.cwiseAbs();
  V_ = A_.cwiseAbs2();
  v_ = a_.cwiseAbs2();
}

void StateWalk::read(InVec left2, InVec right2, double of_state, double ratio2, Vec& across, Vec& along) const {
  across.setZero(X_.cols());
  along.resize(X_.rows());
  Vec squares(X_.cols());
  for (Index a = 0; a < X_.rows(); ++a) {
    squares = of_state * X_.row(a).cwiseAbs2().transpose();
    if (stored_) squares += ratio2 * V_.row(a).transpose();
    across += left2[a] * squares;
    along[a] = squares.dot(right2);
  }
}

namespace {
constexpr double kNarrow = 8;  // times the roundoff of sums
}

bool states_are_narrow(const HeadProblem& p) { return p.u.state > kNarrow * p.u.accumulator; }

bool reads_matter(const HeadProblem& p) {
  return p.u.operand > kNarrow * p.u.accumulator || (p.sums_every_step && states_are_narrow(p));
}

}  // namespace mlstm::verify::bound
