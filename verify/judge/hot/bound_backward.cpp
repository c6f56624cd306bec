// SPDX-License-Identifier: Apache-2.0
// Backward half of the error bound: gradients in both conventions (verify/BOUNDS.md, sections 5 to 8).
#include <algorithm>
#include <cmath>
#include <limits>

#include "judge/hot/bound_reads.hpp"
#include "judge/hot/bound_rows.hpp"
#include "judge/hot/bound_stabilizer.hpp"

namespace mlstm::verify::bound {
namespace {

double sigmoid_of_minus(double x) { return x >= 0 ? std::exp(-x) / (1 + std::exp(-x)) : 1 / (1 + std::exp(x)); }

/// Sum over a pair set of rows t >= r and columns j < r, for each r of a chunk, of a nonnegative matrix given by its
/// part inside the chunk (rows x columns), its row sums over earlier columns, its column sums over later rows, and the
/// sum over pairs that enclose the whole chunk.
Vec straddling(const Mat& inside, const Vec& rows_before, const Vec& columns_after, double around) {
  const Index n = inside.rows();
  Vec result(n);
  Vec column_tail = Vec::Zero(n);  // sums of rows >= r, per column
  double row_tail = 0;
  for (Index r = n - 1; r >= 0; --r) {
    column_tail += inside.row(r).transpose();
    row_tail += rows_before[r];
    result[r] = column_tail.head(r).sum() + row_tail + columns_after.head(r).sum() + around;
  }
  return result;
}

/// Sums of squares over the rows behind a chunk, relative to the stabiliser at its end.
struct FutureState {
  Mat C, T;        ///< dC itself (s included); 2 dC^2 + variance of the stored dC / u^2
  Mat X, Y, Z, A;  ///< s^2 q^2 g^2 weighted by w^2 + r^2, w^2, alpha r^2, alpha (w^2 + r^2)
  Mat qq, gg;      ///< weighted s^2 q q^T and g g^T, for alignments
  Vec q2, g2;      ///< their diagonals
  Mat w_qq, r_qq;  ///< exact: s^2 q q^T weighted by (w gamma)^2 and dgamma^2 + (r gamma)^2
  Vec n2;          ///< their diagonals, together
};

Vec reverse_cumsum(Vec x) {
  for (Index t = x.size() - 2; t >= 0; --t) x[t] += x[t + 1];
  return x;
}

/// Sizes of the reference gradients of one convention that the bound scales with. Exact gradients are a sum of the
/// detached ones and a rest, and both parts count.
struct GradientSizes {
  Mat q, k, v;
  Vec i, f, dlogf, tail;  // tail: |sum over t >= r of q.dq| and the same with k, parts counted apart
};

GradientSizes sizes_of(const HeadProblem& p, const Values& x, bool exact) {
  const auto& G = exact ? p.exact : p.detached;
  const auto size = [&](const double* own, const double* detached, Index cols) -> Mat {
    const ConstMap a(own, x.S, cols), b(detached, x.S, cols);
    return b.cwiseAbs() + (a - b).cwiseAbs();
  };
  const auto dot = [&](const Mat& left, const double* right) -> Vec {
    return left.cwiseProduct(ConstMap(right, x.S, x.d)).rowwise().sum();
  };
  GradientSizes z{size(G.q, p.detached.q, x.d),
                  size(G.k, p.detached.k, x.d),
                  size(G.v, p.detached.v, x.e),
                  size(G.i, p.detached.i, 1),
                  size(G.f, p.detached.f, 1),
                  Vec(x.S),
                  Vec()};
  for (Index t = 0; t < x.S; ++t) {
    const double sf = sigmoid_of_minus(p.in.f[t]);
    z.dlogf[t] = sf > 0 ? std::abs(G.f[t]) / sf : 0;
  }
  const Vec qd = dot(x.q, p.detached.q), kd = dot(x.k, p.detached.k);
  z.tail = reverse_cumsum(qd).cwiseAbs() + reverse_cumsum(kd).cwiseAbs() +
           reverse_cumsum(dot(x.q, G.q) - qd).cwiseAbs() + reverse_cumsum(dot(x.k, G.k) - kd).cwiseAbs();
  return z;
}

/// The floors that the smallest step of an operand leaves near zero (matter in float16 only), and what flushing weights
/// or products to zero loses, with all that they would have been multiplied by.
struct Floors {
  Mat q, k, v, c_initial;
  Mat c_flushed;  // of dc_initial, beside c_initial
  Vec n_initial;
};

void add_flushed(const HeadProblem& p, const Values& x, const Rows& rows, Floors& out) {
  const double sqrt_d = std::sqrt(double(x.d));
  const auto one_and = [](const auto& values) -> Vec { return (1 + values.array().abs()).matrix().transpose(); };
  const Vec g = rows.g.rowwise().norm() + rows.gamma.cwiseAbs();
  Vec past = Vec::Zero(x.d);
  if (p.in.c_initial != nullptr)
    past = ConstMap(p.in.c_initial, x.d, x.e).rowwise().norm() + Eigen::Map<const Vec>(p.in.n_initial, x.d).cwiseAbs();
  for (Index t = 0; t < x.S; ++t) {
    past += (1 + x.v.row(t).norm()) * one_and(x.k.row(t));
    out.q.row(t) += p.u.flush * (1 + x.s) * (1 + g[t]) * past.transpose();
  }
  Vec k = Vec::Zero(x.d), v = Vec::Zero(x.e), q_all = Vec::Zero(x.d), g_all = Vec::Zero(x.e);
  Mat last = Mat::Zero(x.d, x.e);
  if (p.cotangents.c_last != nullptr) last = ConstMap(p.cotangents.c_last, x.d, x.e).cwiseAbs();
  out.n_initial = p.cotangents.n_last == nullptr ? k : Vec(Eigen::Map<const Vec>(p.cotangents.n_last, x.d).cwiseAbs());
  k = last.rowwise().norm() + out.n_initial;
  v = last.colwise().norm().transpose();
  for (Index t = x.S - 1; t >= 0; --t) {
    const Vec q = one_and(x.s * x.q.row(t));
    k += (1 + g[t]) * q;
    v += (1 + x.s * x.q.row(t).norm()) * one_and(rows.g.row(t));
    out.k.row(t) += p.u.flush * (1 + x.v.row(t).norm()) * k.transpose();
    out.v.row(t) += p.u.flush * (1 + sqrt_d * x.k.row(t).norm()) * v.transpose();
    out.n_initial += (1 + std::abs(rows.gamma[t])) * q;
    q_all += q.cwiseAbs2();
    g_all += one_and(rows.g.row(t)).cwiseAbs2();
  }
  out.n_initial *= p.u.flush;
  out.c_flushed = p.u.flush * (q_all.cwiseSqrt() * g_all.cwiseSqrt().transpose() + last);
}

/// What is left of a gradient whose gate's slope is flushed to zero, with all that multiplies the slope: nothing.
double lost_with_slope(double slope, double gradient, double flush) { return slope < 2 * flush ? gradient : 0; }

Floors floors_of(const HeadProblem& p, const Values& x, const Rows& rows, const Vec& column_P2) {
  Floors out{Mat(x.S, x.d), Mat(x.S, x.d), Mat(x.S, x.e), Mat(x.d, x.e), Mat(), Vec()};
  const double eta = p.u.step, largest_v = x.V2.rowwise().sum().cwiseSqrt().maxCoeff();
  Vec k2 = Vec::Zero(x.d), q2 = Vec::Zero(x.d), g2 = Vec::Zero(x.e);
  for (Index t = 0; t < x.S; ++t) {
    k2 += x.K2.row(t).transpose();
    const double factor = eta * (1 + x.s * largest_v + x.s * std::sqrt(rows.g2.row(t).sum()));
    out.q.row(t) = factor * (k2.cwiseSqrt().array() + 1).matrix().transpose();
  }
  for (Index t = x.S - 1; t >= 0; --t) {
    q2 += x.q.row(t).cwiseAbs2().transpose();
    g2 += rows.g2.row(t).transpose();
    out.k.row(t) = eta * (1 + x.v.row(t).norm()) * (q2.cwiseSqrt().array() + 1).matrix().transpose();
    out.v.row(t) = (eta * (1 + x.k.row(t).norm()) * (g2.cwiseSqrt().array() + 1) + eta * std::sqrt(column_P2[t]))
                       .matrix()
                       .transpose();
  }
  out.c_initial = eta * (q2.cwiseSqrt().replicate(1, x.e) + g2.cwiseSqrt().transpose().replicate(x.d, 1));
  add_flushed(p, x, rows, out);
  return out;
}

/// Everything that both conventions share, collected by one walk over the chunks from the last to the first.
struct Walk {
  Mat q, k, v;           ///< variances of dq, dk, dv without the terms of gamma
  Mat N, n2;             ///< sum_j D k and sum_j D~^2 k^2 (S, DHQK)
  Mat k_gamma;           ///< exact: variance of dk through gamma
  Vec row_T, column_T;   ///< u^2 times state rounding in q.dq and k.dk
  Vec column, column_w;  ///< variance of k.dk, all of it and without what q.dq shares
  Vec gamma_w, gamma_r;  ///< exact: column sums of P^2 weighted by (w gamma)^2 and by dgamma^2 + (r gamma)^2
  Vec row_P2, column_P2;
  Vec shared, shared_gamma;      ///< straddling sums of what q.dq and k.dk share
  Vec straddle, straddle_gamma;  ///< straddling sums of everything
  Mat stored;                    ///< narrow states: variance that storing dC has left in it, over u_state^2; or empty
  FutureState start;             ///< at the first step, relative to the initial stabiliser
};

/// Product of the cotangent of c_last with c_last, and the variance of what rounding does to it.
struct LastProduct {
  double value = 0, variance = 0, alignment = 1;
};

LastProduct last_product(const HeadProblem& p, const Values& x, const Rows& rows) {
  LastProduct out;
  if (p.cotangents.c_last == nullptr) return out;
  const ConstMap dc(p.cotangents.c_last, x.d, x.e), c(p.out.c_last, x.d, x.e);
  out.value = dc.cwiseProduct(c).sum();
  const double spread = dc.cwiseAbs2().cwiseProduct(rows.past.back().C2).sum();
  out.alignment = alignment(out.value * out.value, spread, double(x.d));
  out.variance = out.alignment * spread;
  return out;
}

/// How much larger an error that all terms of a row share makes the sum of its terms than independent ones would, as a
/// ratio of variances, at least 1: where keys and values repeat. S each.
struct Coherence {
  Vec operand;  ///< of an element of q or of g, as an operand
  Vec row;      ///< of the denominator, a common factor
};

Coherence coherence(const HeadProblem& p, const Values& x, const Rows& rows) {
  Coherence out{Vec::Ones(x.S), Vec::Ones(x.S)};
  const ConstMap dq(p.detached.q, x.S, x.d), dh(p.cotangents.h, x.S, x.e);
  for (Index t = 0; t < x.S; ++t) {
    // The sums over j of G_tj by elements a of q and by elements e of g; with and without the step itself, whose term
    // may outweigh the rest though no pair j < r <= t has it.
    Vec by_q = x.q.row(t).cwiseProduct(dq.row(t)).transpose(), by_g = dh.row(t).cwiseProduct(x.h.row(t)).transpose();
    const double alpha = rows.alpha_qk[t] * rows.alpha_gv[t];
    double independent = alpha * rows.row_g[t];
    const auto keep = [&] {
      if (!(independent > 0)) return;
      out.operand[t] = std::max(out.operand[t], (by_q.squaredNorm() + by_g.squaredNorm()) / independent);
      out.row[t] = std::max(out.row[t], by_q.sum() * by_q.sum() / independent);
    };
    keep();
    const double D = std::exp(rows.li[t] - rows.m[t]);
    const Vec qk = D * x.s * x.q.row(t).cwiseProduct(x.k.row(t)).transpose();
    const Vec gv = rows.g0.row(t).cwiseProduct(x.v.row(t)).transpose();
    by_q -= gv.sum() * qk;
    by_g -= qk.sum() * gv;
    independent -= alpha * D * D * x.Q2.row(t).dot(x.K2.row(t)) * rows.g2.row(t).dot(x.V2.row(t));
    keep();
  }
  return out;
}

Walk walk_back(const HeadProblem& p, const Values& x, const Rows& rows, const Coherence& coherent, const Vec& w2,
               const Vec& r2, const Vec& W2, const Vec& gw2, const Vec& gr2) {
  const Index S = x.S, d = x.d, e = x.e;
  const double s2 = x.s * x.s, u2 = p.u.operand * p.u.operand, limit_d = double(d), limit_e = double(e);
  const double ratio2 = p.u.state * p.u.state / u2;
  Walk out{Mat(S, d), Mat(S, d), Mat(S, e), Mat(S, d), Mat(S, d), Mat(S, d), Vec(S), Vec(S), Vec(S), Vec(S),
           Vec(S),    Vec(S),    Vec(S),    Vec(S),    Vec(S),    Vec(S),    Vec(S), Vec(S), {},     {}};
  const Mat zero = Mat::Zero(d, e), zero_d = Mat::Zero(d, d);
  FutureState f{zero,         zero,         zero,   zero,   zero,        zero, zero_d, Mat::Zero(e, e),
                Vec::Zero(d), Vec::Zero(e), zero_d, zero_d, Vec::Zero(d)};
  Mat stored = zero;
  Mat last_c, last_c2;  // cotangent of c_last and its square
  if (p.cotangents.c_last != nullptr) {
    last_c = ConstMap(p.cotangents.c_last, d, e);
    last_c2 = last_c.cwiseAbs2();
    f.C = last_c;
    f.T = 2 * last_c2;
    f.X = f.Y = w2[S - 1] * last_c2;
    f.A = last_product(p, x, rows).alignment * f.X;
  }
  if (p.cotangents.n_last != nullptr) {
    const Eigen::Map<const Vec> dn(p.cotangents.n_last, d);
    f.w_qq = w2[S - 1] * dn * dn.transpose();
    f.n2 = w2[S - 1] * dn.cwiseAbs2();
  }
  const Vec alpha = rows.alpha_qk.cwiseProduct(rows.alpha_gv);
  const Vec alpha_r = alpha.cwiseProduct(r2).cwiseProduct(coherent.row);
  const Vec alpha_W = alpha_r + alpha.cwiseProduct(w2).cwiseProduct(coherent.operand);
  const bool reads = reads_matter(p), narrow = states_are_narrow(p);
  Vec dn = Vec::Zero(d), stored_n = Vec::Zero(d);  // the cotangent of n, and what storing it has left in it
  if (p.cotangents.n_last != nullptr) dn = Eigen::Map<const Vec>(p.cotangents.n_last, d);
  Vec gamma = Vec::Zero(S);  // with its sign
  for (Index t = 0; t < S; ++t)
    if (gw2[t] > 0) gamma[t] = (rows.l[t] < 0 ? 1 : -1) * rows.g0.row(t).dot(x.h.row(t));
  StateWalk states(reads ? f.C : Mat(), reads ? dn : Vec(), reads && p.sums_every_step);

  for (Index index = static_cast<Index>(rows.chunks.size()) - 1; index >= 0; --index) {
    const ChunkWeights& c = rows.chunks[static_cast<std::size_t>(index)];
    const PastState& past = rows.past[static_cast<std::size_t>(index)];
    const Index t0 = c.t0, n = c.rows;
    const auto q = x.q.middleRows(t0, n), k = x.k.middleRows(t0, n), v = x.v.middleRows(t0, n);
    const auto Q2 = x.Q2.middleRows(t0, n), K2 = x.K2.middleRows(t0, n), V2 = x.V2.middleRows(t0, n);
    const auto g = rows.g.middleRows(t0, n), g2 = rows.g2.middleRows(t0, n), g0 = rows.g0.middleRows(t0, n);
    const auto part = [&](const Vec& all) { return all.segment(t0, n); };

    const Mat Eg = nt(g2, V2);
    const Mat E = nt(Q2, K2).cwiseProduct(c.D2);
    const Mat P2 = (s2 * nt(q, k).cwiseAbs2()).cwiseProduct(c.D2);
    const Mat D2_Eg = c.D2.cwiseProduct(Eg);
    const Mat D2_dP2 = c.D2.cwiseProduct(nt(g, v).cwiseAbs2());
    const Mat EG = E.cwiseProduct(Eg);
    const Mat W_E = weighted(part(W2), E), W_D2_Eg = weighted(part(W2), D2_Eg);
    const Vec last = c.D.row(n - 1).transpose(), last2 = c.D2.row(n - 1).transpose();  // weights of later rows
    const Vec plain_last2 = last.cwiseAbs2();

    // Rows: dq.
    const Mat past_g = weighted(c.past2, nt(g2, past.C2));
    Mat tg = s2 * weighted(c.past2, nt(g0.cwiseAbs2(), past.T));
    const auto of_rows = [&](const Mat& t) -> Vec { return u2 * t.cwiseProduct(q.cwiseAbs2()).rowwise().sum(); };
    const auto of_columns = [&](const Mat& t) -> Vec { return u2 * K2.cwiseProduct(t).rowwise().sum(); };
    // Of pairs that straddle a gate in the chunk, those with a column before it: only they go through the state.
    Vec row_state = of_rows(tg);
    if (reads) tg = p.sums_every_step ? Mat(rows.read_q.middleRows(t0, n)) : tg.cwiseMax(rows.read_q.middleRows(t0, n));
    out.q.middleRows(t0, n) =
        s2 * weighted(part(w2).cwiseProduct(part(rows.alpha_gv)), nn(D2_Eg, K2) + past_g) + u2 * tg;
    out.N.middleRows(t0, n) = nn(c.D, k) + c.past * past.n.transpose();
    out.n2.middleRows(t0, n) = nn(c.D2, K2) + c.past2 * past.n2.transpose();
    if (narrow) out.n2.middleRows(t0, n) += c.past2 * past.stored_n.transpose();
    out.row_T.segment(t0, n) = of_rows(tg);
    if (p.sums_every_step) row_state = of_rows(tg);
    const Vec past_EG = Q2.cwiseProduct(past_g).rowwise().sum();
    Vec past_P2 = s2 * c.past2.cwiseProduct(quadratic(q, past.kk));
    if (narrow) past_P2 += c.past2.cwiseProduct(Q2 * past.stored_n);
    out.row_P2.segment(t0, n) = P2.rowwise().sum() + past_P2;

    // Columns: dk, dv, k.dk.
    const Vec colsum_P2 = P2.transpose() * part(W2), colsum_E = E.transpose() * part(W2);
    const Vec kqk = quadratic(k, f.qq), vgv = quadratic(v, f.gg);
    const Mat VX = nt(V2, f.X), KX = nn(K2, f.X);
    Vec aligned_k(n), aligned_v(n);
    Mat k_c, k_c2, c_v, c_v2;
    if (last_c.size() > 0) {
      k_c = nn(k, last_c), k_c2 = nn(K2, last_c2);
      c_v = nt(v, last_c), c_v2 = nt(V2, last_c2);
    }
    const Vec num_v = D2_dP2.transpose() * part(W2) + last2.cwiseProduct(vgv);
    const Vec den_v = D2_Eg.transpose() * part(W2) + last2.cwiseProduct(V2 * f.g2);
    const Vec num_k = colsum_P2 + last2.cwiseProduct(kqk);
    const Vec den_k = colsum_E + last2.cwiseProduct(K2 * f.q2);
    for (Index b = 0; b < n; ++b) {
      aligned_v[b] = alignment(num_v[b], den_v[b], limit_e);
      aligned_k[b] = alignment(num_k[b], den_k[b], limit_d);
      if (last_c.size() > 0) {
        aligned_v[b] = std::max(aligned_v[b], alignment(c_v.row(b).squaredNorm(), c_v2.row(b).sum(), limit_e));
        aligned_k[b] = std::max(aligned_k[b], alignment(k_c.row(b).squaredNorm(), k_c2.row(b).sum(), limit_d));
      }
    }
    Mat n_read = Mat::Zero(n, d);  // what dn as it is stored, or read, leaves in dk
    if (narrow && !p.sums_every_step) n_read = p.u.state * p.u.state * plain_last2 * stored_n.transpose();
    Mat tk = weighted(plain_last2, nt(V2, f.T)), tv = weighted(plain_last2, nn(K2, f.T));
    Vec column_state = of_columns(tk), stored_pairs = Vec::Zero(n);
    if (reads) {
      const CotangentReads own = read_cotangents(p, x, rows, gamma, t0, n, past, states);
      if (p.sums_every_step) n_read = u2 * own.n;
      stored_pairs = p.u.state * p.u.state * own.pairs;
      tk = p.sums_every_step ? own.k : tk.cwiseMax(own.k);
      tv = p.sums_every_step ? own.v : tv.cwiseMax(own.v);
    }
    out.k.middleRows(t0, n) = weighted(aligned_v, tn(W_D2_Eg, Q2) + weighted(last2, VX)) + u2 * tk;
    out.v.middleRows(t0, n) = weighted(aligned_k, tn(W_E, g2) + weighted(last2, KX)) + u2 * tv;
    out.column_T.segment(t0, n) = of_columns(tk);
    if (p.sums_every_step) column_state = of_columns(tk);
    const Vec both = aligned_k.cwiseProduct(aligned_v);
    const auto later = [&](const Mat& state) -> Vec {  // sum over later rows of state . (k^2 v^2)
      return last2.cwiseProduct(nn(K2, state).cwiseProduct(V2).rowwise().sum());
    };
    out.column.segment(t0, n) =
        both.cwiseProduct(EG.transpose() * part(W2) + last2.cwiseProduct(KX.cwiseProduct(V2).rowwise().sum()));
    out.column_w.segment(t0, n) = both.cwiseProduct(EG.transpose() * part(w2) + later(f.Y));
    // Products that cancel in k . q are as wrong as their terms, hence the larger of coherent and incoherent sums.
    const auto largest = [&](const Mat& qq) -> Vec { return quadratic(k, qq).cwiseMax(K2 * qq.diagonal()); };
    const Vec later_w = last2.cwiseProduct(largest(f.w_qq)) + K2.cwiseProduct(n_read).rowwise().sum(),
              later_r = last2.cwiseProduct(largest(f.r_qq));
    const Mat both_P2 = P2.cwiseMax(s2 * E);
    const Mat P2w = weighted(part(gw2), both_P2), P2r = weighted(part(gr2), both_P2);
    out.gamma_w.segment(t0, n) = P2w.colwise().sum().transpose() + later_w;
    out.gamma_r.segment(t0, n) = P2r.colwise().sum().transpose() + later_r;
    out.column_P2.segment(t0, n) = P2.colwise().sum().transpose();
    out.k_gamma.middleRows(t0, n) = tn(c.D2, weighted(part(gw2) + part(gr2), Q2)) + last2 * f.n2.transpose() + n_read;

    // Pairs j < r <= t: df.
    const double carry = c.past[n - 1], carry2 = c.past2[n - 1];
    const Vec a_r = part(alpha_r), a_W = part(alpha_W);
    const auto around = [&](In left, In right) { return carry2 * left.cwiseProduct(right).sum(); };
    // A product of two stored states, <C, dC>, for the pairs that enclose the chunk.
    double both_stored = 0;
    if (narrow || reads)
      both_stored = u2 * (around(past.T, f.C.cwiseAbs2()) + around(past.C.cwiseAbs2(), f.T) +
                          around(past.stored_n, dn.cwiseAbs2()) + around(past.n.cwiseAbs2(), ratio2 * stored_n));
    out.shared.segment(t0, n) =
        straddling(weighted(a_r, EG), a_r.cwiseProduct(past_EG), later(f.Z), around(past.C2, f.Z));
    // A state is rounded once for all rows, or columns, of the chunk, so its errors add up where those repeat.
    const auto together = [](const Mat& own, const Mat& T, double apart) {
      return apart > 0 ? std::max(1.0, own.cwiseAbs2().cwiseProduct(T).sum() / apart) : 1.0;
    };
    if (!p.sums_every_step) {
      row_state *= together(tn(weighted(x.s * c.past, q), g0), u2 * past.T, row_state.sum());
      column_state *= together(tn(weighted(last, k), v), u2 * f.T, column_state.sum());
    }
    out.straddle.segment(t0, n) = straddling(weighted(a_W, EG), a_W.cwiseProduct(past_EG) + row_state,
                                             later(f.A) + column_state, around(past.C2, f.A) + both_stored) +
                                  stored_pairs;
    const double around_r = around(past.kk, f.r_qq), around_w = around(past.kk, f.w_qq);
    out.shared_gamma.segment(t0, n) = straddling(P2r, part(gr2).cwiseProduct(past_P2), later_r, around_r);
    out.straddle_gamma.segment(t0, n) =
        straddling(P2r + P2w, (part(gr2) + part(gw2)).cwiseProduct(past_P2), later_r + later_w, around_r + around_w);

    // The state before the chunk.
    const Mat q_past = weighted(x.s * c.past, q), Q2_past = weighted(c.past2, Q2);
    f.C = carry * f.C + tn(q_past, g0);
    f.X = carry2 * f.X + tn(Q2_past, weighted(part(W2), g2));
    f.Y = carry2 * f.Y + tn(Q2_past, weighted(part(w2), g2));
    f.Z = carry2 * f.Z + tn(Q2_past, weighted(a_r, g2));
    f.A = carry2 * f.A + tn(Q2_past, weighted(a_W, g2));
    f.qq = carry2 * f.qq + tn(q_past, weighted(part(W2), q_past));
    f.q2 = carry2 * f.q2 + Q2_past.transpose() * part(W2);
    f.gg = carry2 * f.gg + tn(g, weighted(c.past2.cwiseProduct(part(W2)), g));
    f.g2 = carry2 * f.g2 + g2.transpose() * c.past2.cwiseProduct(part(W2));
    f.w_qq = carry2 * f.w_qq + tn(q_past, weighted(part(gw2), q_past));
    f.r_qq = carry2 * f.r_qq + tn(q_past, weighted(part(gr2), q_past));
    f.n2 = carry2 * f.n2 + Q2_past.transpose() * (part(gw2) + part(gr2));
    stored = carry2 * stored + f.C.cwiseAbs2();
    dn = carry * dn + q_past.transpose() * part(gamma);
    stored_n = carry2 * stored_n + dn.cwiseAbs2();
    f.T = 2 * f.C.cwiseAbs2() + ratio2 * stored;
  }
  const double first = std::exp(rows.lf[0] + rows.m0 - rows.m[0]);
  if (narrow && p.sums_every_step) {
    stored = first * first * states.variance();
    stored_n = first * first * states.variance_of_vector();
  }
  if (narrow) {
    out.stored = stored;
    f.n2 += p.u.state * p.u.state * stored_n;
  }
  out.start = std::move(f);
  return out;
}

void write_initial_states(const HeadProblem& p, const Values& x, const Rows& rows, const Walk& walk, bool exact,
                          const Scatter& scatter, double scattering, const Floors& floor, const GradientBounds& out) {
  const auto& G = exact ? p.exact : p.detached;
  const double us = p.u.state, uv = rows.uv[x.S - 1], eta = p.u.step;
  const double delta = std::max(rows.delta[x.S - 1], rows.delta_first), first2 = rows.first_over_w * rows.first_over_w;
  const ConstMap c0(p.in.c_initial, x.d, x.e);
  const Eigen::Map<const Vec> n0(p.in.n_initial, x.d);
  const Mat dc = G.c_initial != nullptr ? Mat(ConstMap(G.c_initial, x.d, x.e)) : Mat(Mat::Zero(x.d, x.e));
  const Vec dn = G.n_initial != nullptr ? Vec(Eigen::Map<const Vec>(G.n_initial, x.d)) : Vec(Vec::Zero(x.d));
  const FutureState& f = walk.start;
  const Vec n2 = first2 * f.n2;  // in the detached convention only the cotangent of n_last is in it
  if (out.c_initial != nullptr)
    Eigen::Map<Mat>(out.c_initial, x.d, x.e) =
        Mat(((first2 * f.X + us * us * (walk.stored.size() > 0 ? walk.stored : Mat(f.C.cwiseAbs2()))).cwiseSqrt() +
             floor.c_initial + floor.c_flushed + (us + uv + delta) * dc.cwiseAbs())
                .array() +
            eta);
  if (out.n_initial != nullptr)
    Eigen::Map<Vec>(out.n_initial, x.d) =
        Vec((n2.cwiseSqrt() + floor.n_initial + (us + uv + delta) * dn.cwiseAbs()).array() + eta);
  if (out.m_initial != nullptr && G.m_initial != nullptr) {
    double variance = scatter.initial2, value = us * std::abs(*G.m_initial) + scattering;
    if (exact) {
      if (walk.stored.size() > 0) variance += us * us * c0.cwiseAbs2().cwiseProduct(walk.stored).sum();
      variance +=
          c0.cwiseAbs2().cwiseProduct(first2 * f.A + floor.c_initial.cwiseAbs2()).sum() + n0.cwiseAbs2().dot(n2);
      value += c0.cwiseAbs().cwiseProduct(floor.c_flushed).sum() + n0.cwiseAbs().dot(floor.n_initial);
      value +=
          (us + uv + delta) * (std::abs(c0.cwiseProduct(dc).sum()) + std::abs(n0.dot(dn)) + std::abs(*G.m_initial));
    }
    *out.m_initial = std::sqrt(variance) + scatter.initial_jump + value + eta;
  }
}

}  // namespace

void backward_bounds(const HeadProblem& p, const Values& x, const Rows& rows, const HeadBounds& bounds) {
  const Index S = x.S;
  const bool exp_gate = p.gate == Gate::exp, normalized = exp_gate || p.normalize;
  const double uo = p.u.output, eta = p.u.step, u2 = p.u.operand * p.u.operand;
  const Vec w2 = rows.w.cwiseAbs2(), r2 = rows.r.cwiseAbs2(), W2 = w2 + r2;
  const ConstMap dh(p.cotangents.h, S, x.e);
  const Vec dh_h = dh.cwiseProduct(x.h).rowwise().sum();

  // What gamma adds is apart from the rest, so one walk serves both conventions; a cotangent of n_last, which acts like
  // a gamma in both, needs one each.
  const Vec none = Vec::Zero(S);
  const Coherence coherent = coherence(p, x, rows);
  const auto walk_with = [&](bool gamma) {
    const Vec gamma2 = rows.gamma.cwiseAbs2();
    return walk_back(p, x, rows, coherent, w2, r2, W2, gamma ? Vec(w2.cwiseProduct(gamma2)) : none,
                     gamma ? Vec(rows.dgamma.cwiseAbs2() + r2.cwiseProduct(gamma2)) : none);
  };
  Walk walk = walk_with(normalized);
  for (const bool exact : {true, false}) {
    const GradientBounds& out = exact ? bounds.exact : bounds.detached;
    if (out.q == nullptr) continue;
    const bool with_gamma = exact && normalized;
    const Vec gamma2 = with_gamma ? Vec(rows.gamma.cwiseAbs2()) : none;
    const Vec gw2 = w2.cwiseProduct(gamma2);
    const Vec gr2 = with_gamma ? Vec(rows.dgamma.cwiseAbs2() + r2.cwiseProduct(gamma2)) : none;
    if (!exact && normalized) {
      if (p.cotangents.n_last != nullptr) {
        walk = walk_with(false);
      } else {
        walk.k_gamma.setZero();
        for (Vec* part : {&walk.gamma_w, &walk.gamma_r, &walk.shared_gamma, &walk.straddle_gamma, &walk.start.n2})
          part->setZero();
      }
    }
    const GradientSizes size = sizes_of(p, x, exact);
    const Floors floor = floors_of(p, x, rows, walk.column_P2);

    Mat bq = walk.q.cwiseSqrt() + floor.q, bk = walk.k.cwiseSqrt() + floor.k, bv = walk.v.cwiseSqrt() + floor.v;
    for (Index t = 0; t < S; ++t) {
      const double row = rows.r[t] + uo + rows.uv[t] + rows.delta[t], column = uo + rows.uv[t] + rows.delta_j[t];
      bq.row(t) += row * size.q.row(t);
      bk.row(t) += column * size.k.row(t);
      bv.row(t) += column * size.v.row(t);
      if (with_gamma) {
        bq.row(t) += x.s * rows.dgamma[t] * walk.N.row(t).cwiseAbs();
        bq.row(t) += x.s * rows.w[t] * rows.gamma[t] * walk.n2.row(t).cwiseSqrt();
      }
    }
    bk += walk.k_gamma.cwiseSqrt();
    Eigen::Map<Mat>(out.q, S, x.d) = bq;
    Eigen::Map<Mat>(out.k, S, x.d) = bk;
    Eigen::Map<Mat>(out.v, S, x.e) = bv;

    // Gate gradients: sums of products whose terms have the errors of dq and dk.
    const Vec alpha = rows.alpha_qk.cwiseProduct(rows.alpha_gv);
    const Vec gamma_rows = (gw2 + gr2).cwiseProduct(walk.row_P2), gamma_rows_w = gw2.cwiseProduct(walk.row_P2);
    const Vec row_all = alpha.cwiseProduct(W2).cwiseProduct(rows.row_g) + gamma_rows + walk.row_T;
    const Vec row_w = alpha.cwiseProduct(w2).cwiseProduct(rows.row_g) + gamma_rows_w + walk.row_T;
    const auto& G = exact ? p.exact : p.detached;
    const ConstMap dq(G.q, S, x.d), dk(G.k, S, x.d);
    const Vec stored_q = x.q.cwiseProduct(dq).cwiseAbs2().rowwise().sum();
    const Vec stored_k = x.k.cwiseProduct(dk).cwiseAbs2().rowwise().sum();
    const Vec floor_q = x.q.cwiseAbs().cwiseProduct(floor.q).rowwise().sum();
    const Vec floor_k = x.k.cwiseAbs().cwiseProduct(floor.k).rowwise().sum();

    Vec bi =
        (walk.column + walk.gamma_w + walk.gamma_r + walk.column_T).cwiseSqrt() + uo * stored_k.cwiseSqrt() + floor_k;
    const Vec floors = reverse_cumsum(floor_q + floor_k);
    const Vec sums = p.u.accumulator * reverse_cumsum(size.dlogf);
    // df from unrounded terms rounds every partial sum once.
    const Vec partial_dlogf = p.u.accumulator * reverse_cumsum(size.dlogf.cwiseAbs2()).cwiseSqrt();
    Vec bf_rounded =
        (reverse_cumsum(row_w + walk.column_w + walk.gamma_w + walk.column_T + uo * uo * (stored_q + stored_k)) +
         walk.shared + walk.shared_gamma)
            .cwiseSqrt() +
        sums + floors;
    for (Index t = 0; t < S; ++t) bf_rounded[t] += (rows.uv[t] + uo) / 2 * size.tail[t];
    Vec bf_straddling = (walk.straddle + walk.straddle_gamma).cwiseSqrt() + partial_dlogf + floors;

    // Cotangents of the last states: one more row, behind the last.
    Vec dm = Vec::Zero(S), variance = Vec::Zero(S);
    const LastProduct last = last_product(p, x, rows);
    double last_value = last.value, last_variance = w2[S - 1] * last.variance;
    if (p.cotangents.n_last != nullptr) {
      const Eigen::Map<const Vec> dn(p.cotangents.n_last, x.d), n(p.out.n_last, x.d);
      last_value += dn.dot(n);
      last_variance += w2[S - 1] * dn.cwiseAbs2().dot(rows.past.back().n2);
      if (states_are_narrow(p)) last_variance += u2 * dn.cwiseAbs2().dot(rows.past.back().stored_n);
    }
    if (states_are_narrow(p) && p.cotangents.c_last != nullptr)  // the product reads the last states as they are stored
      last_variance += u2 * ConstMap(p.cotangents.c_last, x.d, x.e).cwiseAbs2().cwiseProduct(rows.past.back().T).sum();
    const double last_error =
        std::sqrt(last_variance) + (p.u.state + rows.delta[S - 1] + rows.uv[S - 1]) * std::abs(last_value);
    bf_rounded.array() += last_error;

    if (exp_gate) {
      if (exact) {
        for (Index t = 0; t < S; ++t) {
          const double ratio = std::isinf(rows.den[t]) ? 0 : p.eps / rows.den[t];
          dm[t] = std::abs(dh_h[t]) * ratio;
          variance[t] = row_all[t] + std::pow(dm[t] * (rows.r[t] + rows.uv[t]), 2) + floor_q[t] * floor_q[t];
        }
        dm[S - 1] += std::abs(last_value);
        variance[S - 1] += last_error * last_error;
      }
      if (p.cotangents.m_last != nullptr) dm[S - 1] += std::abs(*p.cotangents.m_last);
    }
    const double scattering = exp_gate ? p.u.accumulator * partial_sums(rows, dm.cwiseAbs()) : 0;
    const Scatter scatter = exp_gate ? scatter_stabilizer(rows, variance, dm)
                                     : Scatter{Vec::Zero(S), Vec::Zero(S), Vec::Zero(S), Vec::Zero(S)};
    if (out.open_rows != nullptr) {
      *out.open_rows = scatter.open_rows;
      if (with_gamma)
        for (Index t = 0; t < S; ++t) *out.open_rows += rows.open[static_cast<std::size_t>(t)];
    }
    bi += scatter.column + scatter.column_jump;
    const Vec row_variance = reverse_cumsum(scatter.row2), row_jump = reverse_cumsum(scatter.row_jump);

    for (Index t = 0; t < S; ++t) {
      const double si = exp_gate ? 1 : sigmoid_of_minus(p.in.i[t]), sf = sigmoid_of_minus(p.in.f[t]);
      const double uv = rows.uv[t] + (p.u.gate > p.u.accumulator ? p.u.gate : 0);  // slopes are gates, too
      out.i[t] = si * bi[t] + (uo + uv + rows.delta_j[t]) * size.i[t] + lost_with_slope(si, size.i[t], p.u.flush) + eta;
      const double value =
          (uo + uv) * size.f[t] + sf * (row_jump[t] + scattering) + lost_with_slope(sf, size.f[t], p.u.flush) + eta;
      out.f[t] = sf * std::sqrt(bf_rounded[t] * bf_rounded[t] + row_variance[t]) + value;
      out.f_straddling[t] = sf * std::sqrt(bf_straddling[t] * bf_straddling[t] + row_variance[t]) + value;
    }
    if (p.in.c_initial != nullptr) write_initial_states(p, x, rows, walk, exact, scatter, scattering, floor, out);
  }
}

}  // namespace mlstm::verify::bound
