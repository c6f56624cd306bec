// SPDX-License-Identifier: Apache-2.0
// One head of an mLSTM: its data, what to compute, and the results that all formulations share.
// T is the scalar: double, Extended (extended.hpp) or Var (tape.hpp).
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "mlstm/problem.hpp"
#include "mlstm/reference/reference.hpp"
#include "mlstm/tensors.hpp"

namespace mlstm::reference {

using Eigen::Index;
template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
template <class T>
using ConstMatrixMap = Eigen::Map<const Matrix<T>>;
template <class T>
using ConstVectorMap = Eigen::Map<const Vector<T>>;

/// Gives `matrix` this size, with undefined values. What is used again with another size gets it here, before anything
/// is assigned to it: Eigen's own resize frees first, and leaves a pointer to freed memory when there is no other.
template <class M>
void set_size(M& matrix, Index rows, Index cols = 1) {
  if (matrix.rows() == rows && matrix.cols() == cols) return;
  M().swap(matrix);
  matrix.resize(rows, cols);
}

/// One head without its data, and the formulation that is to evaluate it.
struct HeadProblem {
  Index S = 1, DHQK = 1, DHV = 1;
  Gate gate = Gate::exp;
  bool normalized = true;
  double eps = 1e-6;
  StabilizerInit stabilizer_init = StabilizerInit::zero;
  Module formulation = Module::chunkwise;
  Index L = 64;  ///< chunk size of the chunkwise formulation
};

/// Request for one head; pointers are to the head's own data, null = not wanted (cotangents: zero).
template <class T>
struct HeadRequest {
  Outputs<T> outputs;
  Intermediates<T> intermediates;
  Cotangents<T> cotangents;
  Gradients<T> exact, detached;
};

/// One head with its data: q, k (S x DHQK), v (S x DHV), i, f (S), state C (DHQK x DHV), n (DHQK), m.
template <class T>
struct Head {
  Head(const HeadProblem& p, const Inputs<T>& in)
      : problem(p),
        q(in.q, p.S, p.DHQK),
        k(in.k, p.S, p.DHQK),
        v(in.v, p.S, p.DHV),
        i(in.i, p.S),
        f(in.f, p.S),
        C_0(Matrix<T>::Zero(p.DHQK, p.DHV)),
        n_0(Vector<T>::Zero(p.DHQK)) {
    using std::sqrt;
    s = T(1) / sqrt(T(static_cast<double>(p.DHQK)));
    if (in.c_initial) {
      C_0 = ConstMatrixMap<T>(in.c_initial, p.DHQK, p.DHV);
      n_0 = ConstVectorMap<T>(in.n_initial, p.DHQK);
    }
    if (p.gate == Gate::sigmoid) {
      m_0 = T(0.0);
    } else if (in.c_initial) {
      m_0 = *in.m_initial;
    } else {
      m_0 = T(p.stabilizer_init == StabilizerInit::zero ? 0.0 : -std::numeric_limits<double>::infinity());
    }
  }

  HeadProblem problem;
  ConstMatrixMap<T> q, k, v;
  ConstVectorMap<T> i, f;
  Matrix<T> C_0;
  Vector<T> n_0;
  T m_0, s;
};

/// State between two steps, stabilised by the m of that step.
template <class T>
struct State {
  Matrix<T> C;
  Vector<T> n;
};

/// A matrix of results: in the caller's memory if it is wanted there, else in its own.
template <class T>
class Result {
 public:
  Result() = default;
  Result(T* wanted, Index rows, Index cols)
      : own_(wanted ? 0 : rows * cols), wanted_(wanted), rows_(rows), cols_(cols) {}
  Eigen::Map<Matrix<T>> operator*() { return {wanted_ ? wanted_ : own_.data(), rows_, cols_}; }
  ConstMatrixMap<T> operator*() const { return {wanted_ ? wanted_ : own_.data(), rows_, cols_}; }

 private:
  Vector<T> own_;
  T* wanted_ = nullptr;
  Index rows_ = 0, cols_ = 0;
};

/// What a forward pass leaves, for the caller and for a backward pass.
template <class T>
struct Forward {
  Vector<T> lf, li;          ///< log F and log I before stabilisation (S)
  Vector<T> m;               ///< m_0 ... m_S (S + 1)
  std::vector<char> newest;  ///< [t]: m of step t is i_t, not the past (S)
  Vector<T> l;               ///< s n_t.q_t (S)
  Vector<T> inverse_d;       ///< 1/d_t (S); held instead of d_t, which overflows for very negative m_t
  Result<T> h;               ///< S x DHV
  State<T> last;
  T m_last{};                      ///< m_S as an output: differentiable also when m is frozen
  std::vector<State<T>> entering;  ///< state entering each segment (chunk, checkpoint); only if saved
};

/// Values of m_t and 1/d_t that a forward pass has to take as constants: the detached convention.
template <class T>
struct Frozen {
  Vector<T> m, inverse_d;
};

/// result += A B. Eigen's blocked product for double; a plain loop otherwise, because the blocking follows the cache
/// sizes of the machine and would change the order of summation.
template <class Result, class A, class B>
void add_product(Result&& result, const A& a, const B& b) {
  if constexpr (std::is_same_v<typename A::Scalar, double>) {
    result.noalias() += a * b;
  } else {
    result += a.lazyProduct(b);
  }
}

/// result = A B.
template <class Result, class A, class B>
void set_product(Result&& result, const A& a, const B& b) {
  if constexpr (std::is_same_v<typename A::Scalar, double>) {
    result.noalias() = a * b;
  } else {
    result = a.lazyProduct(b);
  }
}

}  // namespace mlstm::reference
