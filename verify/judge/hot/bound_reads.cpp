// SPDX-License-Identifier: Apache-2.0
#include "judge/hot/bound_reads.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mlstm::verify::bound {

StateWalk::StateWalk(Mat X, Vec x, bool stored) : X_(std::move(X)), x_(std::move(x)), terms_(0), stored_(stored) {
  terms_ = X_.squaredNorm();
  if (!stored_) return;
  V_ = Mat::Zero(X_.rows(), X_.cols());
  v_ = Vec::Zero(x_.size());
}

void StateWalk::step(double decay, InVec left, InVec right, InVec vector, double limit) {
  for (Index a = 0; a < X_.rows(); ++a) X_.row(a) = decay * X_.row(a) + left[a] * right.transpose();
  x_ = decay * x_ + vector;
  terms_ = decay * decay * terms_ + left.squaredNorm() * right.squaredNorm();
  if (!stored_) return;
  const double coherence = alignment(X_.squaredNorm(), terms_, limit);
  V_ = decay * decay * V_ + coherence * X_.cwiseAbs2();
  v_ = decay * decay * v_ + coherence * x_.cwiseAbs2();
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

bool reads_matter(const HeadProblem& p) {
  constexpr double kNarrow = 8;
  return p.u.operand > kNarrow * p.u.accumulator || (p.sums_every_step && p.u.state > kNarrow * p.u.accumulator);
}

}  // namespace mlstm::verify::bound
