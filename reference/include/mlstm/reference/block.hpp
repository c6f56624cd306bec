// SPDX-License-Identifier: Apache-2.0
// The parallel form of a stretch of steps with a state entering and a state leaving. The parallel formulation is one
// such block, the chunkwise formulation a chain of them. Rows t and columns j count from 0 inside the block:
//   logD_tj = sum_{r=j+1..t} lf_r + li_j (j <= t)     b_t = sum_{r=0..t} lf_r
//   D_tj = exp(logD_tj - m_t)    carried_t = exp(b_t + m_entering - m_t)    P = (s q k^T) o D
//   u = P v + s carried o (q C)  l = P 1 + s carried o (q n)
//   C' = carried_last C + (k o D_last)^T v,  n' likewise
#pragma once

#include <algorithm>

#include "mlstm/reference/gradients.hpp"

namespace mlstm::reference {

template <class T>
struct Block {
  Index first = 0, n = 0;
  Matrix<T> D;                                 ///< lower triangle; first the logarithm, then the factors
  Vector<T> carried;                           ///< factor of the entering state in row t; first the logarithm b_t
  Matrix<T> P;                                 ///< lower triangle
  Matrix<T> g, dP, dS, G, gC, v_dC, weighted;  ///< scratch, kept to be used by the next block
};

/// Calls body(row, rows, columns) for bands of rows that cover the lower triangle, so that products with triangular
/// matrices skip most of the zeros. Within a band the columns beyond the diagonal have to hold zeros.
template <class Body>
void for_each_band(Index n, const Body& body) {
  constexpr Index kBand = 64;
  for (Index row = 0; row < n; row += kBand) {
    const Index rows = std::min(kBand, n - row);
    body(row, rows, row + rows);
  }
}

/// Columns of the band that holds row t.
inline Index band_end(Index t, Index n) { return std::min(n, (t / 64 + 1) * 64); }

/// Lower triangle of a b^T.
template <class T, class A, class B>
void triangle_product(const A& a, const B& b, Matrix<T>& result) {
  set_size(result, a.rows(), a.rows());
  for_each_band(a.rows(), [&](Index row, Index rows, Index columns) {
    set_product(result.block(row, 0, rows, columns), a.middleRows(row, rows), b.topRows(columns).transpose());
  });
}

/// result += lower a.
template <class T, class A, class R>
void add_triangle_times(const Matrix<T>& lower, const A& a, R&& result) {
  for_each_band(a.rows(), [&](Index row, Index rows, Index columns) {
    add_product(result.middleRows(row, rows), lower.block(row, 0, rows, columns), a.topRows(columns));
  });
}

/// result += lower^T a.
template <class T, class A, class R>
void add_transposed_triangle_times(const Matrix<T>& lower, const A& a, R&& result) {
  for_each_band(a.rows(), [&](Index row, Index rows, Index columns) {
    add_product(result.topRows(columns), lower.block(row, 0, rows, columns).transpose(), a.middleRows(row, rows));
  });
}

/// Sets D and carried to their logarithms. Sums run forward along a column: a difference of long sums would lose the
/// small ones next to gates of -1e4.
template <class T>
void log_gates(const Forward<T>& fw, Index first, Index n, Block<T>& block) {
  block.first = first;
  block.n = n;
  set_size(block.D, n, n);
  set_size(block.carried, n);
  Vector<T> sums = Vector<T>::Zero(n);
  T b = T(0.0);
  for (Index t = 0; t < n; ++t) {
    const T lf = fw.lf(first + t);
    b += lf;
    block.carried(t) = b;
    for (Index j = 0; j < t; ++j) {
      sums(j) += lf;
      block.D(t, j) = sums(j) + fw.li(first + j);
    }
    block.D(t, t) = fw.li(first + t);
  }
}

/// From logarithms to factors, with the m of `fw`, and P.
template <class T>
void gate_products(const Head<T>& head, const Forward<T>& fw, Block<T>& block) {
  using std::exp;
  const Index first = block.first, n = block.n;
  const T m_entering = fw.m(first);
  triangle_product(head.q.middleRows(first, n), head.k.middleRows(first, n), block.P);
  for (Index t = 0; t < n; ++t) {
    const T m = fw.m(first + t + 1);
    block.carried(t) = exp(T(block.carried(t) + m_entering - m));
    for (Index j = 0; j <= t; ++j) {
      block.D(t, j) = exp(T(block.D(t, j) - m));
      block.P(t, j) *= head.s * block.D(t, j);
    }
    for (Index j = t + 1; j < band_end(t, n); ++j) block.P(t, j) = T(0.0);
  }
}

/// l and h of the rows of the block.
template <class T>
void block_outputs(const Head<T>& head, const Block<T>& block, const State<T>& entering, const Frozen<T>* frozen,
                   Forward<T>& fw) {
  const Index first = block.first, n = block.n;
  const auto q = head.q.middleRows(first, n);
  auto h = *fw.h;
  auto u = h.middleRows(first, n);
  set_product(u, q, entering.C);
  Vector<T> qn(n);
  set_product(qn, q, entering.n);
  for (Index t = 0; t < n; ++t) {
    const T factor = head.s * block.carried(t);
    u.row(t) *= factor;
    fw.l(first + t) = block.P.row(t).head(t + 1).sum() + factor * qn(t);
  }
  add_triangle_times(block.P, head.v.middleRows(first, n), u);
  normalize_rows(head, fw, frozen, first, n);
}

/// The state after the block.
template <class T>
void block_state(const Head<T>& head, Block<T>& block, const State<T>& entering, State<T>& leaving) {
  const Index n = block.n;
  const T carried = block.carried(n - 1);
  set_size(block.weighted, n, head.problem.DHQK);
  set_size(leaving.C, head.problem.DHQK, head.problem.DHV);
  set_size(leaving.n, head.problem.DHQK);
  block.weighted = block.D.row(n - 1).asDiagonal() * head.k.middleRows(block.first, n);
  leaving.C = carried * entering.C;
  add_product(leaving.C, block.weighted.transpose(), head.v.middleRows(block.first, n));
  leaving.n = block.weighted.colwise().sum().transpose() + carried * entering.n;
}

/// Gradient of lf from pairs inside the block: out_r += sum_{t >= r} sum_{j < r} G_tj.
template <class T>
void add_straddling_pairs(Matrix<T>& G, Eigen::Ref<Vector<T>> out) {
  const Index n = G.rows();
  for (Index t = n - 2; t >= 0; --t) G.row(t).head(t + 1) += G.row(t + 1).head(t + 1);
  for (Index r = 1; r < n; ++r) out(r) += G.row(r).head(r).sum();
}

/// Adds the block's part to `gradients`; its running cotangents are of the leaving state on entry and of the
/// entering state on exit.
template <class T>
void block_backward(const Head<T>& head, const Forward<T>& fw, const T* dh, const State<T>& entering, Block<T>& block,
                    HeadGradients<T>& gradients) {
  const Index first = block.first, n = block.n;
  const auto q = head.q.middleRows(first, n), k = head.k.middleRows(first, n);
  const auto v = head.v.middleRows(first, n);
  const T carried_last = block.carried(n - 1);
  const Vector<T> s_carried = head.s * block.carried, D_last = block.D.row(n - 1).transpose();
  Matrix<T>& dC = gradients.dC;
  numerator_cotangent(head, fw, dh, first, n, block.g);

  auto all_dv = *gradients.dv;
  auto dv = all_dv.middleRows(first, n);
  set_product(dv, k, dC);
  for (Index j = 0; j < n; ++j) dv.row(j) *= D_last(j);
  add_transposed_triangle_times(block.P, block.g, dv);

  triangle_product(block.g, v, block.dP);
  for (Matrix<T>* rows : {&block.gC, &block.v_dC, &block.weighted}) set_size(*rows, n, k.cols());
  for (Matrix<T>* square : {&block.dS, &block.G}) set_size(*square, n, n);
  set_product(block.gC, block.g, entering.C.transpose());
  set_product(block.v_dC, v, dC.transpose());
  const T through_C = dC.cwiseProduct(entering.C).sum();

  for (ConventionGradients<T>& c : gradients.conventions) {
    const auto gamma = c.gamma.segment(first, n);
    auto all_dq = *c.dq, all_dk = *c.dk;
    auto dq = all_dq.middleRows(first, n), dk = all_dk.middleRows(first, n);
    Vector<T> dq_entering(n), dk_leaving(n);  // <q_t, dq_t> and <k_j, dk_j> of the parts that cross the block's border
    for (Index t = 0; t < n; ++t) {
      dq.row(t) = s_carried(t) * (block.gC.row(t) + gamma(t) * entering.n.transpose());
      dk.row(t) = D_last(t) * (block.v_dC.row(t) + c.dn.transpose());
      dq_entering(t) = dq.row(t).cwiseProduct(q.row(t)).sum();
      dk_leaving(t) = dk.row(t).cwiseProduct(k.row(t)).sum();
      for (Index j = 0; j <= t; ++j) {
        const T dP = block.dP(t, j) + gamma(t);
        block.dS(t, j) = head.s * dP * block.D(t, j);
        block.G(t, j) = dP * block.P(t, j);
      }
      for (Index j = t + 1; j < band_end(t, n); ++j) block.dS(t, j) = T(0.0);
    }
    add_triangle_times(block.dS, k, dq);
    add_transposed_triangle_times(block.dS, q, dk);
    for (Index j = 0; j < n; ++j) c.di(first + j) = dk.row(j).cwiseProduct(k.row(j)).sum();

    auto dlf = c.dlf.segment(first, n);
    add_straddling_pairs<T>(block.G, dlf);
    T after = T(0.0), before = carried_last * (through_C + dot<T>(c.dn, entering.n));
    for (Index t = n - 1; t >= 0; --t) dlf(t) += (after += dq_entering(t));
    for (Index t = 0; t < n; ++t) {
      dlf(t) += before;
      before += dk_leaving(t);
    }
    c.dn *= carried_last;
    for (Index t = 0; t < n; ++t) c.dn += s_carried(t) * gamma(t) * q.row(t).transpose();
  }
  block.weighted = s_carried.asDiagonal() * q;
  dC *= carried_last;
  add_product(dC, block.weighted.transpose(), block.g);
}

}  // namespace mlstm::reference
