// SPDX-License-Identifier: Apache-2.0
// What the forward half of the bound leaves for the backward half.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "judge/hot/head_bounds.hpp"

namespace mlstm::verify::bound {

using Mat = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vec = Eigen::VectorXd;
using ConstMap = Eigen::Map<const Mat>;
using Index = Eigen::Index;

/// Sums over the past of a chunk, at its first row, relative to the stabiliser of the row before.
struct PastState {
  Mat C;   ///< the state itself (DHQK, DHV)
  Vec n;   ///< (DHQK)
  Mat C2;  ///< squares: sum of D~^2 k^2 v^2, the initial state included
  Vec n2;  ///< sum of D~^2 k^2
  Mat kk;  ///< sum of D~^2 k k^T (DHQK, DHQK)
  Mat vv;  ///< sum of D~^2 v v^T (DHV, DHV)
  Vec v2;  ///< sum of D~^2 v^2
  Mat T;   ///< 2 C^2 + variance of the stored state / u^2: what rounding the state costs in a product
  double m = 0;
  Vec stored_n;  ///< variance of the stored n / u^2
  Mat A;         ///< of narrow states that are stored at every step: StateWalk's sums of sizes, or empty
  Vec a;
};

/// Gate weights of one chunk; rows are steps t, columns are steps j <= t of the same chunk.
struct ChunkWeights {
  Index t0 = 0, rows = 0;
  Mat D;      ///< exp(logD - m)
  Mat D2;     ///< D~^2: D^2 (1 + delta_j / u)^2
  Vec past;   ///< weight of the past: exp(B_t + m_prev - m_t)
  Vec past2;  ///< its square
};

/// Per-row and per-column quantities of the whole head (S each, or S x dim).
struct Rows {
  Vec lf, li, m, l, den;
  double m0 = 0;              ///< stabiliser before the first step; -inf: none
  Vec delta, delta_j, w, uv;  ///< gate exponent errors; w = u + delta; accumulated roundoff
  /// Weights of the initial state, whose exponents have a term for every step there is: largest error, and largest
  /// ratio to w.
  double delta_first = 0, first_over_w = 1;
  Vec rho, r, dmin, gamma, dgamma;
  Vec alpha_qk, alpha_gv, row_g;  ///< alignments; sum_j E Gamma
  Mat g, g2, g0;                  ///< dh / dmin, its square, dh / den
  Mat h_bound;
  Mat read_q;  ///< variance of dq by what reads the state of each step, over u^2; empty where reads do not matter
  std::vector<char> near, open;  ///< |l| may be the denominator; it is not certain whether it is
  std::vector<ChunkWeights> chunks;
  std::vector<PastState> past;  ///< one per chunk, and one after the last
};

/// Values of one head, and their squares.
struct Values {
  explicit Values(const HeadProblem& p);
  Index S, d, e;
  double s;
  Mat q, k, v, h;  ///< copies in aligned memory: the order of vectorised sums must not depend on the caller's
  Mat Q2, K2, V2;  ///< s^2 q^2, k^2, v^2
};

Rows forward_bounds(const HeadProblem& p, const Values& x, const HeadBounds& bounds);
void backward_bounds(const HeadProblem& p, const Values& x, const Rows& rows, const HeadBounds& bounds);

/// Products, each instantiated once (they are most of the compile time): a b, a^T b, a b^T, and x_t^T M x_t, never
/// negative, for every row x_t; weighted(w, a) is diag(w) a.
using In = const Eigen::Ref<const Mat>&;
using InVec = const Eigen::Ref<const Vec>&;
Mat nn(In a, In b);
Mat tn(In a, In b);
Mat nt(In a, In b);
Vec quadratic(In x, In M);
Mat weighted(InVec w, In a);

/// num / den as an alignment factor in [1, limit]; 1 where it is not defined.
double alignment(double num, double den, double limit);

}  // namespace mlstm::verify::bound
