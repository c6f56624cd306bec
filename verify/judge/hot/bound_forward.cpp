// SPDX-License-Identifier: Apache-2.0
// Forward half of the error bound: gates, denominators, h and last states (verify/BOUNDS.md, sections 2 to 4).
#include <algorithm>
#include <cmath>
#include <limits>

#include "judge/hot/bound_reads.hpp"
#include "judge/hot/bound_rows.hpp"

namespace mlstm::verify::bound {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kSigmas = 3;  // how far a denominator is allowed to move when its smallest value is looked for

double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

/// The oldest column that row t still sees: D_tj is no longer so small that it counts as flushed to zero. Since D_tj
/// never grows with t, what is out of sight stays there.
class Sight {
 public:
  explicit Sight(const HeadProblem& p) : smallest_(std::log(p.u.flush)) {}

  /// The span Σ_{r=j+1..t} |logσ(f_r)| behind it, and behind the window's first if that is younger; rows up to t are
  /// known.
  struct Spans {
    double all, window;
  };
  Spans spans(const Rows& rows, Index t, Index window) {
    if (t == 0) sums_.push_back(0);
    sums_.push_back(sums_.back() + rows.lf[t]);
    const auto span_of = [&](Index j) { return sums_.back() - sums_[static_cast<std::size_t>(j + 1)]; };
    const auto log_weight = [&](Index j) { return span_of(j) + (j < 0 ? rows.m0 : rows.li[j]) - rows.m[t]; };
    while (oldest_ < t && !(log_weight(oldest_) >= smallest_)) ++oldest_;
    if (oldest_ == t) sums_.back() = 0;  // nothing is left of a sum that may have been huge
    return {-span_of(oldest_), -span_of(std::max(oldest_, t - window))};
  }

 private:
  double smallest_;
  Index oldest_ = -1;  // the initial state
  std::vector<double> sums_;
};

constexpr double kMemories = 3;  // after so many times the steps that count, what is left is less than its error

/// Errors of exponents that belong to a column: those of i_j and m_j, of the partial sums of logσ(f) that start at i_j,
/// and what these lose in a narrow format.
void scan_columns(const HeadProblem& p, double u_a, double u_g, Rows& rows) {
  const Index S = p.S;
  Vec behind = Vec::Zero(S + 1);  // Σ_{r>j} |logσ(f_r)|
  double memory = 0;              // steps that remember j
  for (Index j = S; j-- > 0;) {
    memory = 1 + (j + 1 < S ? std::exp(rows.lf[j + 1]) : 0) * memory;
    behind[j] = behind[j + 1] - (j + 1 < S ? rows.lf[j + 1] : 0);
    const Index last = std::min(S - 1, j + static_cast<Index>(kMemories * memory));
    const double size = std::abs(rows.li[j]) + std::abs(rows.m[j]);
    const double steps = static_cast<double>(std::min(last - j, static_cast<Index>(p.window)));
    rows.delta_j[j] = size * (2 * std::max(u_a, u_g) + u_a * std::sqrt(steps));
    if (u_g > u_a)
      rows.delta_j[j] += lost_in_gate_sums(u_g, kMemories * memory, behind[j] - behind[last], 0, std::abs(rows.li[j]));
  }
}

// The stabiliser, and the error of the gate exponents of rows (delta) and columns (delta_j).
void scan_gates(const HeadProblem& p, Rows& rows) {
  const Index S = p.S;
  const bool exp_gate = p.gate == Gate::exp;
  rows.lf.resize(S), rows.li.resize(S), rows.m.resize(S), rows.delta.resize(S), rows.delta_j.resize(S);
  rows.w.resize(S), rows.uv.resize(S);
  if (!exp_gate)
    rows.m0 = 0;
  else if (p.in.m_initial != nullptr)
    rows.m0 = *p.in.m_initial;
  else
    rows.m0 = p.stabilizer_init == StabilizerInit::zero ? 0 : -kInf;
  double m = rows.m0, largest_m = std::isfinite(m) ? std::abs(m) : 0;
  // In float64 the exponents of the reference are no better than those of a kernel, and both count.
  const double exponents = p.u.accumulator < 0x1p-40 ? 2 : 1;
  const double W = static_cast<double>(p.window), ua = exponents * p.u.accumulator, ug = exponents * p.u.gate;
  double memory = 0, since_first = 0;  // steps; Σ|logσ(f)|
  Sight sight(p);
  for (Index t = 0; t < S; ++t) {
    rows.lf[t] = log_sigmoid(p.in.f[t]);
    rows.li[t] = exp_gate ? p.in.i[t] : log_sigmoid(p.in.i[t]);
    if (exp_gate) m = std::max(rows.lf[t] + m, rows.li[t]);
    rows.m[t] = m;
    largest_m = std::max(largest_m, std::abs(m));
    const double steps = static_cast<double>(t);
    // What a row has forgotten has no part in its error, however much was forgotten at once.
    const auto [all, seen] = sight.spans(rows, t, p.window);
    rows.delta[t] =
        ua * (8 + (2 + std::sqrt(std::min(steps + 1, W))) * seen + (1 + std::sqrt(steps / W)) * (1 + 2 * largest_m));
    if (ug > ua) {
      // Kept in a narrow format: F and I themselves, once per window that is remembered; every partial sum of logσ(f),
      // and m at both ends.
      memory = 1 + std::exp(rows.lf[t]) * memory;
      rows.delta[t] +=
          ug * (2 + std::sqrt(1 + memory / W) + 2 * largest_m) + lost_in_gate_sums(ug, memory, all, seen, largest_m);
      since_first -= rows.lf[t];
      const double first = ug * (2 + std::sqrt(1 + steps / W) + 2 * largest_m) +
                           lost_in_gate_sums(ug, steps + 1, since_first, since_first, largest_m);
      rows.delta_first = std::max(rows.delta_first, first);
    }
    rows.w[t] = p.u.operand + rows.delta[t];
    rows.first_over_w = std::max(rows.first_over_w, (p.u.operand + rows.delta_first) / rows.w[t]);
    // Roundings are random within a window; what is carried from one window to the next is rounded alike when inputs
    // repeat.
    rows.uv[t] = std::max(p.u.operand, ua * (16 + std::sqrt(std::min(steps, W)) + steps / W));
  }
  scan_columns(p, ua, ug, rows);
}

ChunkWeights weigh_chunk(const Rows& rows, Index t0, Index n, double m_prev) {
  ChunkWeights c{t0, n, Mat::Zero(n, n), Mat::Zero(n, n), Vec(n), Vec(n)};
  Vec sums = Vec::Zero(n);  // of logσ(f) from behind column b up to the row: never a difference of long sums
  double from_start = 0;
  for (Index a = 0; a < n; ++a) {
    const Index t = t0 + a;
    from_start += rows.lf[t];
    c.past[a] = std::exp(from_start + m_prev - rows.m[t]);
    c.past2[a] = c.past[a] * c.past[a];
    for (Index b = 0; b <= a; ++b) {
      if (b < a) sums[b] += rows.lf[t];
      const double D = std::exp(sums[b] + rows.li[t0 + b] - rows.m[t]);
      const double k = 1 + rows.delta_j[t0 + b] / rows.w[t];
      c.D(a, b) = D;
      c.D2(a, b) = D * D * k * k;
    }
  }
  return c;
}

// A recurrent kernel (and one with chunks of one step) rounds its state at every step. The error of an element C is
// then that of as many roundings as the state remembers steps, about u_a |C| √(memory / 3), while squares of terms,
// which rows are weighted by, see only √(sum D^2 k^2 v^2). The two differ by the coherence |C|^2 / sum D^2 |k|^2 |v|^2,
// 1 where inputs are independent and the number of remembered steps where they repeat. `memory` is carried from chunk
// to chunk.
void add_state_roundings(const HeadProblem& p, const Values& x, const PastState& past, const ChunkWeights& c,
                         double& memory, Rows& rows) {
  const auto k = x.k.middleRows(c.t0, c.rows), v = x.v.middleRows(c.t0, c.rows);
  const Vec sizes =
      x.K2.middleRows(c.t0, c.rows).rowwise().sum().cwiseProduct(x.V2.middleRows(c.t0, c.rows).rowwise().sum());
  const Vec with_past = nn(k, past.C).cwiseProduct(v).rowwise().sum();
  const Vec whole = nn(c.D, nt(k, k).cwiseProduct(nt(v, v))).cwiseProduct(c.D).rowwise().sum() +
                    2 * c.past.cwiseProduct(c.D * with_past) + c.past2 * past.C.squaredNorm();
  const Vec terms = c.D2 * sizes + c.past2 * past.C2.sum();
  for (Index a = 0; a < c.rows; ++a) {
    const Index t = c.t0 + a;
    memory = 1 + std::exp(rows.lf[t]) * memory;
    const double coherence = alignment(whole[a], terms[a], static_cast<double>(t + 2));
    rows.w[t] = std::sqrt(rows.w[t] * rows.w[t] + p.u.accumulator * p.u.accumulator * memory * (coherence - 1));
  }
}

/// What the rows of a chunk read of the state of their own step, over u^2.
struct Reads {
  Mat h, q;  ///< in h d (rows, DHV) and in dq (rows, DHQK)
  Vec l;
};

Reads read_states(const HeadProblem& p, const Values& x, const Rows& rows, Index t0, Index n, StateWalk& states) {
  const double of_state = reads_per_step(p), ratio = p.u.state / p.u.operand;
  const double ratio2 = p.sums_every_step ? ratio * ratio : 0;
  Reads reads{Mat(n, x.e), Mat(n, x.d), Vec(n)};
  Vec across, along, g2 = Vec::Zero(x.e);
  for (Index a = 0; a < n; ++a) {
    const Index t = t0 + a;
    const double before = t == 0 ? rows.m0 : rows.m[t - 1];
    const double input = std::exp(rows.li[t] - rows.m[t]);
    const Vec key = input * x.k.row(t).transpose(), value = x.v.row(t).transpose();
    states.step(std::exp(rows.lf[t] + before - rows.m[t]), key, value, key);
    const Vec q2 = x.Q2.row(t).transpose();
    if (p.cotangents.h != nullptr)
      g2 = (ConstMap(p.cotangents.h, x.S, x.e).row(t) / rows.den[t]).cwiseAbs2().transpose();
    states.read(q2, g2, of_state, ratio2, across, along);
    reads.h.row(a) = across.transpose();
    reads.q.row(a) = x.s * x.s * along.transpose();
    Vec n2 = of_state * states.x().cwiseAbs2();
    if (p.sums_every_step) n2 += ratio2 * states.variance_of_vector();
    reads.l[a] = q2.dot(n2);
  }
  return reads;
}

// Alignment of a row with the initial state, which is no sum of outer products that the other states could hold.
double initial_alignment(const Mat& weighted, const Mat& squares, Index row, double limit) {
  return alignment(weighted.row(row).squaredNorm(), squares.row(row).sum(), limit);
}

// Sum of squares of what rounding the keys, weighted by the last row of D~, leaves in every element of n, over u^2.
// Numbers that are equal may be rounded alike, as they are if their weights are equal too, and then their errors add
// up.
Vec rounded_keys(const Values& x, const Rows& rows) {
  Vec weights(x.S), sums(x.d);
  double behind = -rows.m[x.S - 1];
  for (Index t = x.S; t-- > 0;) {
    weights[t] = std::exp(behind + rows.li[t]) * (1 + rows.delta_j[t] / rows.w[x.S - 1]);
    behind += rows.lf[t];
  }
  std::vector<std::pair<double, double>> terms(static_cast<std::size_t>(x.S));  // |key|, term
  for (Index a = 0; a < x.d; ++a) {
    for (Index t = 0; t < x.S; ++t) terms[static_cast<std::size_t>(t)] = {std::abs(x.k(t, a)), weights[t] * x.k(t, a)};
    std::sort(terms.begin(), terms.end());
    double sum = 0, alike = 0;
    for (std::size_t n = 0; n < terms.size(); ++n) {
      alike += terms[n].second;
      if (n + 1 < terms.size() && terms[n + 1].first == terms[n].first) continue;
      sum += alike * alike;
      alike = 0;
    }
    sums[a] = sum;
  }
  return sums;
}

}  // namespace

Values::Values(const HeadProblem& p)
    : S(p.S),
      d(p.DHQK),
      e(p.DHV),
      s(1 / std::sqrt(static_cast<double>(p.DHQK))),
      q(ConstMap(p.in.q, S, d)),
      k(ConstMap(p.in.k, S, d)),
      v(ConstMap(p.in.v, S, e)),
      h(ConstMap(p.out.h, S, e)),
      Q2((s * q).cwiseAbs2()),
      K2(k.cwiseAbs2()),
      V2(v.cwiseAbs2()) {}

double alignment(double num, double den, double limit) {
  const double ratio = num / den;
  return std::isfinite(ratio) ? std::clamp(ratio, 1.0, limit) : 1.0;
}

// A state that is stored in a narrow format at every step drifts: its elements are off by a common factor, the more the
// longer it remembers, forward or backward.
void add_drift(const HeadProblem& p, Rows& rows) {
  Vec longest(p.S);
  double memory = 0;
  for (Index t = 0; t < p.S; ++t) longest[t] = memory = 1 + std::exp(rows.lf[t]) * memory;
  memory = 0;
  for (Index t = p.S; t-- > 0;) {
    memory = 1 + (t + 1 < p.S ? std::exp(rows.lf[t + 1]) : 0.0) * memory;
    rows.uv[t] += p.u.state * std::sqrt(std::max(longest[t], memory));
  }
}

Rows forward_bounds(const HeadProblem& p, const Values& x, const HeadBounds& bounds) {
  Rows rows;
  scan_gates(p, rows);
  if (p.sums_every_step && states_are_narrow(p)) add_drift(p, rows);
  const Index S = x.S, d = x.d, e = x.e;
  const double u = p.u.operand, eta = p.u.step, limit_d = static_cast<double>(d), limit_e = static_cast<double>(e);
  const bool normalized = p.gate == Gate::exp || p.normalize;
  const bool gradients = p.cotangents.h != nullptr, initial = p.in.c_initial != nullptr;
  for (Vec* row : {&rows.l, &rows.den, &rows.rho, &rows.r, &rows.dmin, &rows.gamma, &rows.dgamma, &rows.alpha_qk,
                   &rows.alpha_gv, &rows.row_g})
    row->setZero(S);
  rows.near.assign(static_cast<std::size_t>(S), 0);
  rows.open = rows.near;
  rows.h_bound.resize(S, e);
  if (gradients) {
    rows.g.resize(S, e), rows.g2.resize(S, e), rows.g0.resize(S, e);
  }

  PastState past{Mat::Zero(d, e),
                 Vec::Zero(d),
                 Mat::Zero(d, e),
                 Vec::Zero(d),
                 Mat::Zero(d, d),
                 Mat::Zero(e, e),
                 Vec::Zero(e),
                 Mat::Zero(d, e),
                 rows.m0,
                 Vec::Zero(d),
                 {},
                 {}};
  Mat stored = Mat::Zero(d, e);  // variance that storing the state has left in it, over u_state^2
  Mat C0, C0_squared;
  double weight0 = 1;  // of the initial state at the end of the last chunk
  double memory = 0;   // steps whose roundings the state of a recurrent kernel still holds
  if (initial) {
    C0 = ConstMap(p.in.c_initial, d, e);
    C0_squared = C0.cwiseAbs2();
    past.C = C0;
    past.n = Eigen::Map<const Vec>(p.in.n_initial, d);
    past.C2 = C0_squared;
    past.n2 = past.n.cwiseAbs2();
    past.kk = past.n * past.n.transpose();
    past.T = 2 * C0_squared;
  }
  const double ratio = p.u.state / u;
  const bool reads = reads_matter(p);
  StateWalk states(reads ? past.C : Mat(), reads ? past.n : Vec(), reads && p.sums_every_step);
  if (reads && gradients) rows.read_q.resize(S, d);
  Mat plain2 = Mat::Zero(d, e);  // C2 without the initial state, for c_last
  Vec plain_n2 = Vec::Zero(d);
  Vec v2_sum = Vec::Zero(e);  // running sum of v^2, for the floor near zero
  // What multiplies a weight or a product on its way that is flushed to zero, summed over the past.
  double lost_l = initial ? past.n.norm() : 0;
  Vec lost_h = initial ? Vec(C0.colwise().norm().transpose()) : Vec(Vec::Zero(e));

  for (Index t0 = 0; t0 < S; t0 += p.chunk) {
    const Index n = std::min<Index>(p.chunk, S - t0);
    rows.chunks.push_back(weigh_chunk(rows, t0, n, past.m));
    rows.past.push_back(past);
    if (p.sums_every_step && states_are_narrow(p))
      rows.past.back().A = states.sizes(), rows.past.back().a = states.sizes_of_vector();
    const ChunkWeights& c = rows.chunks.back();
    if (p.sums_every_step) add_state_roundings(p, x, past, c, memory, rows);
    const auto q = x.q.middleRows(t0, n), k = x.k.middleRows(t0, n), v = x.v.middleRows(t0, n);
    const auto Q2 = x.Q2.middleRows(t0, n), K2 = x.K2.middleRows(t0, n), V2 = x.V2.middleRows(t0, n);
    const auto h = x.h.middleRows(t0, n);

    const Mat S_qk = x.s * nt(q, k);
    const Mat E = nt(Q2, K2).cwiseProduct(c.D2);
    const Mat P2 = S_qk.cwiseAbs2().cwiseProduct(c.D2);
    const Vec q_n = x.s * (q * past.n);
    const Vec row_E = E.rowwise().sum() + c.past2.cwiseProduct(Q2 * past.n2);
    const Vec row_P = P2.rowwise().sum() + x.s * x.s * c.past2.cwiseProduct(quadratic(q, past.kk));
    Vec row_n = c.past2.cwiseProduct(Q2 * (2 * past.n.cwiseAbs2() + past.stored_n));
    const Mat E_v = nn(E, V2) + weighted(c.past2, nn(Q2, past.C2));
    Mat state_h = weighted(c.past2, nn(Q2, past.T));
    for (Index a = 0; a < n; ++a) {
      const Index t = t0 + a;
      rows.l[t] = S_qk.row(a).dot(c.D.row(a)) + c.past[a] * q_n[a];
      rows.den[t] = normalized ? std::max(std::abs(rows.l[t]), std::exp(-rows.m[t])) + p.eps : 1;
    }
    if (reads) {
      const Reads own = read_states(p, x, rows, t0, n, states);
      if (p.sums_every_step) row_n = own.l, state_h = own.h;
      row_n = row_n.cwiseMax(own.l);
      state_h = state_h.cwiseMax(own.h);
      if (gradients) rows.read_q.middleRows(t0, n) = own.q;
    }
    Mat q_C0, q2_C02;
    if (initial) q_C0 = x.s * nn(q, C0), q2_C02 = nn(Q2, C0_squared);

    for (Index a = 0; a < n; ++a) {
      const Index t = t0 + a;
      const double w = rows.w[t], delta = rows.delta[t], uv = rows.uv[t], m = rows.m[t];
      // The rows of a chunk share the rounding of a state, so that it may count fourfold in sums over rows; but it has
      // no part in the error of large exponents.
      const double w_state = std::min(w, 4 * u);
      rows.alpha_qk[t] = alignment(row_P[a], row_E[a], limit_d);
      if (initial) rows.alpha_qk[t] = std::max(rows.alpha_qk[t], initial_alignment(q_C0, q2_C02, a, limit_d));
      const double l = std::abs(rows.l[t]);
      const double lost = p.u.flush * (1 + x.s * std::sqrt(limit_d) * q.row(a).norm());
      lost_l += 1 + k.row(a).norm();
      lost_h += (1 + k.row(a).norm()) * (1 + v.row(a).transpose().array().abs()).matrix();
      const double den = rows.den[t];
      double dmin = 1, rho = 0;
      if (normalized) {
        const double floor = std::exp(-m);
        const double dl = std::sqrt(w * w * (row_P[a] + row_E[a]) + w_state * w_state * row_n[a]) + uv * l +
                          eta * std::sqrt(double(S)) + lost * lost_l;
        const bool near = l + kSigmas * dl >= floor * (1 - delta);
        const double dd = std::max(near ? dl : 0.0, p.gate == Gate::exp ? delta * floor : 0.0);
        const bool no_end = std::isinf(floor);  // an infinite denominator has no error
        dmin = no_end ? floor : std::max(den - kSigmas * dd, floor * (1 - std::min(delta, 0.5)) + p.eps);
        rho = no_end ? delta : dd / dmin;
        rows.near[static_cast<std::size_t>(t)] = near;
        // Branch or sign of the denominator open: the exact gradient may take either side.
        rows.dgamma[t] = near && l - kSigmas * dl < floor * (1 + delta) ? (l < kSigmas * dl ? 2.0 : 1.0) : 0.0;
        rows.open[static_cast<std::size_t>(t)] = rows.dgamma[t] > 0;
      }
      rows.dmin[t] = dmin;
      rows.rho[t] = rho;
      rows.r[t] = rho + p.u.saved * (std::abs(m) + (normalized ? 1 : 0));
      v2_sum += V2.row(a).transpose();
      const double floor_h = eta * (1 + x.s * q.row(a).norm()) / dmin;
      for (Index b = 0; b < e; ++b)
        rows.h_bound(t, b) =
            std::sqrt(w * w * rows.alpha_qk[t] * E_v(a, b) + w_state * w_state * state_h(a, b)) / dmin +
            std::abs(h(a, b)) * (rho + delta + uv + p.u.output) + floor_h * (1 + std::sqrt(v2_sum[b])) +
            lost * lost_h[b] / dmin + eta;
    }

    if (gradients) {
      const ConstMap all_dh(p.cotangents.h, S, e);
      const auto dh = all_dh.middleRows(t0, n);
      rows.g.middleRows(t0, n) = rows.dmin.segment(t0, n).cwiseInverse().asDiagonal() * dh;
      rows.g0.middleRows(t0, n) = rows.den.segment(t0, n).cwiseInverse().asDiagonal() * dh;
      rows.g2.middleRows(t0, n) = rows.g.middleRows(t0, n).cwiseAbs2();
      const auto g = rows.g.middleRows(t0, n), g2 = rows.g2.middleRows(t0, n);
      const Mat Eg = nt(g2, V2), D2_Eg = Eg.cwiseProduct(c.D2);
      const Mat gv = nt(g, v);
      const Vec aligned =
          gv.cwiseAbs2().cwiseProduct(c.D2).rowwise().sum() + c.past2.cwiseProduct(quadratic(g, past.vv));
      const Vec spread = D2_Eg.rowwise().sum() + c.past2.cwiseProduct(g2 * past.v2);
      rows.row_g.segment(t0, n) =
          E.cwiseProduct(Eg).rowwise().sum() + c.past2.cwiseProduct(nn(Q2, past.C2).cwiseProduct(g2).rowwise().sum());
      Mat g_C0, g2_C02;
      if (initial) g_C0 = nt(g, C0), g2_C02 = nt(g2, C0_squared);
      rows.past.back().vv.resize(0, 0);  // not needed again, and the largest of the states
      for (Index a = 0; a < n; ++a) {
        const Index t = t0 + a;
        rows.alpha_gv[t] = alignment(aligned[a], spread[a], limit_e);
        if (initial) rows.alpha_gv[t] = std::max(rows.alpha_gv[t], initial_alignment(g_C0, g2_C02, a, limit_e));
        if (!rows.near[static_cast<std::size_t>(t)]) {
          rows.dgamma[t] = 0;
          continue;
        }
        const double gm = std::abs(dh.row(a).dot(h.row(a))) / rows.dmin[t];
        const double spread_h = (dh.row(a).cwiseProduct(rows.h_bound.row(t))).norm();
        const double stored_h = p.u.output * dh.row(a).cwiseProduct(h.row(a)).norm();
        const double smooth = (spread_h + stored_h) / rows.dmin[t] + gm * (rows.r[t] + rows.uv[t]);
        rows.gamma[t] = gm;
        rows.dgamma[t] = std::hypot(smooth, gm * rows.dgamma[t]);
      }
    }

    // The state after the chunk, and its squares.
    const double carry = c.past[n - 1], carry2 = c.past2[n - 1];
    const Vec a1 = c.D.row(n - 1).transpose(), a2 = c.D2.row(n - 1).transpose();
    const Mat k2 = weighted(a2, K2);
    const Mat new2 = tn(k2, V2);
    const Vec new_n2 = k2.colwise().sum().transpose();
    const Vec v2_new = weighted(a2, V2).colwise().sum().transpose();
    const Mat k1 = weighted(a1, k);
    past.C = carry * past.C + tn(k1, v);
    past.n = carry * past.n + k1.colwise().sum().transpose();
    past.C2 = carry2 * past.C2 + new2;
    past.n2 = carry2 * past.n2 + new_n2;
    past.kk = carry2 * past.kk + tn(k, weighted(a2, k));
    if (gradients) {
      past.vv = carry2 * past.vv + tn(v, weighted(a2, v));
      past.v2 = carry2 * past.v2 + v2_new;
    }
    plain2 = carry2 * plain2 + new2;
    plain_n2 = carry2 * plain_n2 + new_n2;
    weight0 *= carry;
    stored = carry2 * stored + past.C.cwiseAbs2();
    past.stored_n = carry2 * past.stored_n + ratio * ratio * past.n.cwiseAbs2();
    past.T = 2 * past.C.cwiseAbs2() + ratio * ratio * stored;
    past.m = rows.m[t0 + n - 1];
  }
  if (reads && p.sums_every_step) {
    stored = states.variance(), past.stored_n = ratio * ratio * states.variance_of_vector();
    past.T = 2 * past.C.cwiseAbs2() + ratio * ratio * stored;
  }
  rows.past.push_back(past);

  if (bounds.out.h != nullptr) Eigen::Map<Mat>(bounds.out.h, S, e) = rows.h_bound;
  const double w = rows.w[S - 1], delta = rows.delta[S - 1], uv = rows.uv[S - 1], us = p.u.state;
  const double delta_first = std::max(delta, rows.delta_first);
  const double initial_factor = initial ? delta_first * weight0 * delta_first * weight0 : 0;
  const Vec lost_k = (1 + x.k.cwiseAbs().array()).matrix().colwise().norm().transpose();
  const Vec lost_v = (1 + x.v.cwiseAbs().array()).matrix().colwise().norm().transpose();
  if (bounds.out.c_last != nullptr) {
    const ConstMap c_last(p.out.c_last, d, e);
    for (Index a = 0; a < d; ++a)
      for (Index b = 0; b < e; ++b) {
        const double C02 = initial ? C0_squared(a, b) : 0;
        bounds.out.c_last[a * e + b] = std::sqrt(w * w * plain2(a, b) + initial_factor * C02 + us * us * stored(a, b)) +
                                       (us + delta + uv) * std::abs(c_last(a, b)) + eta * (1 + std::sqrt(v2_sum[b])) +
                                       p.u.flush * (lost_k[a] * lost_v[b] + std::sqrt(C02));
      }
  }
  // n is a sum and no product: only the keys may be operands, as they are in C.
  if (bounds.out.n_last != nullptr) {
    const double sums =
        p.u.accumulator * (16 + std::sqrt(double(std::min(S, p.window))) + double(S) / double(p.window));
    const bool narrow = u > sums;
    if (narrow) plain_n2 = plain_n2.cwiseMax(rounded_keys(x, rows));
    for (Index a = 0; a < d; ++a) {
      const double n0 = initial ? p.in.n_initial[a] : 0;
      bounds.out.n_last[a] = std::sqrt(w * w * plain_n2[a] + initial_factor * n0 * n0 + u * u * past.stored_n[a]) +
                             (us + delta + (narrow ? sums : uv)) * std::abs(p.out.n_last[a]) +
                             eta * (1 + std::sqrt(double(S))) +
                             p.u.flush * (std::sqrt(double(S)) * lost_k[a] + std::abs(n0));
    }
  }
  // Unlike differences of stabilisers, m itself may be scanned step by step, whatever the window.
  if (bounds.out.m_last != nullptr) {
    const double scan = p.u.gate * (1 + std::sqrt(double(S))) * (1 + rows.m.cwiseAbs().maxCoeff());
    *bounds.out.m_last = delta + scan + us * std::abs(rows.m[S - 1]);
  }
  return rows;
}

}  // namespace mlstm::verify::bound

namespace mlstm::verify {

void head_bounds(const HeadProblem& problem, const HeadBounds& bounds) {
  const bound::Values values(problem);
  const bound::Rows rows = bound::forward_bounds(problem, values, bounds);
  if (problem.cotangents.h != nullptr) bound::backward_bounds(problem, values, rows, bounds);
}

}  // namespace mlstm::verify
