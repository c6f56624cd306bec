// SPDX-License-Identifier: Apache-2.0
#include "judge/hot/bound_reads.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace mlstm::verify::bound {

StateWalk::StateWalk(Mat X, Vec x, bool stored) : X_(std::move(X)), x_(std::move(x)), stored_(stored) {
  if (!stored_) return;
  V_ = Mat::Zero(X_.rows(), X_.cols());
  v_ = Vec::Zero(x_.size());
  A_ = V_;
  a_ = v_;
}

StateWalk::StateWalk(Mat X, Vec x, Mat A, Vec a)
    : X_(std::move(X)), A_(std::move(A)), x_(std::move(x)), a_(std::move(a)), stored_(true) {
  V_ = A_.cwiseAbs2();
  v_ = a_.cwiseAbs2();
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

std::vector<StateWalk> states_before(const Values& x, const Rows& rows, Index t0, Index n, StateWalk walk) {
  std::vector<StateWalk> all;
  for (Index t = t0; t < t0 + n; ++t) {
    all.push_back(walk);
    const double before = t == 0 ? rows.m0 : rows.m[t - 1];
    const Vec key = std::exp(rows.li[t] - rows.m[t]) * x.k.row(t).transpose();
    walk.step(std::exp(rows.lf[t] + before - rows.m[t]), key, x.v.row(t).transpose(), key);
  }
  return all;
}

double stored_product(const StateWalk& x, const StateWalk& y) {
  return x.X().cwiseAbs2().cwiseProduct(y.variance()).sum() + x.variance().cwiseProduct(y.X().cwiseAbs2()).sum() +
         x.x().cwiseAbs2().dot(y.variance_of_vector()) + x.variance_of_vector().dot(y.x().cwiseAbs2());
}

namespace {
constexpr double kNarrow = 8;  // times the roundoff of sums
}

bool states_are_narrow(const HeadProblem& p) { return p.u.state > kNarrow * p.u.accumulator; }

bool reads_matter(const HeadProblem& p) {
  return p.u.operand > kNarrow * p.u.accumulator || (p.sums_every_step && states_are_narrow(p));
}

CotangentReads read_cotangents(const HeadProblem& p, const Values& x, const Rows& rows, const Vec& gamma, Index t0,
                               Index n, const PastState& past, StateWalk& states) {
  const double ratio = p.u.state / p.u.operand, ratio2 = p.sums_every_step ? ratio * ratio : 0;
  CotangentReads reads{Mat(n, x.d), Mat(n, x.e), Mat(n, x.d), Vec::Zero(n)};
  Vec across, along;
  std::vector<StateWalk> before;
  if (p.sums_every_step && states_are_narrow(p))
    before = states_before(x, rows, t0, n, StateWalk(past.C, past.n, past.A, past.a));
  for (Index b = n; b-- > 0;) {
    const Index j = t0 + b;
    const double decay = j + 1 == x.S ? 1 : std::exp(rows.lf[j + 1] + rows.m[j] - rows.m[j + 1]);
    const double input = std::exp(rows.li[j] - rows.m[j]);
    const Vec query = x.s * x.q.row(j).transpose();
    states.step(decay, query, rows.g0.row(j).transpose(), gamma[j] * query);
    states.read(x.K2.row(j).transpose(), x.V2.row(j).transpose(), reads_per_step(p), ratio2, across, along);
    reads.k.row(b) = input * input * along.transpose();
    reads.v.row(b) = input * input * across.transpose();
    Vec n2 = reads_per_step(p) * states.x().cwiseAbs2();
    if (p.sums_every_step) n2 += ratio2 * states.variance_of_vector();
    reads.n.row(b) = input * input * n2.transpose();
    if (before.empty()) continue;
    const double across_gate = std::exp(rows.lf[j] + (j == 0 ? rows.m0 : rows.m[j - 1]) - rows.m[j]);
    reads.pairs[b] = across_gate * across_gate * stored_product(before[static_cast<std::size_t>(b)], states);
  }
  return reads;
}

}  // namespace mlstm::verify::bound
