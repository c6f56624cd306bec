// SPDX-License-Identifier: Apache-2.0
// One head, forward and backward, in each formulation, and the memory that takes.
#pragma once

#include "studies/mutants/gradients.hpp"

namespace mlstm::verify::planted {

enum class Formulation { step, recurrent, parallel, chunkwise };

/// Steps between the states that the recurrent kernel keeps.
inline constexpr Index kSegment = 16;

inline Index chunks_of(const Problem& problem) { return (problem.shape.S - 1) / problem.chunk_size + 1; }

/// Numbers per head that forward leaves: l (S), m (S), states.
inline Index saved_numbers(Formulation formulation, const Problem& problem) {
  const Shape& shape = problem.shape;
  const Index states = formulation == Formulation::recurrent   ? (shape.S - 1) / kSegment + 1
                       : formulation == Formulation::chunkwise ? chunks_of(problem)
                                                               : 0;
  return formulation == Formulation::step ? 0 : 2 * shape.S + states * State<double>::size(shape);
}

/// Numbers per head of scratch.
inline Index workspace_numbers(Formulation formulation, const Problem& problem, bool backward);

/// What a head's pass may use.
template <class Real>
struct Memory {
  Real *saved, *workspace;  ///< saved is null if no backward pass follows
};

template <class Real>
void recurrent_forward(const Context&, const ForwardArgs&, Index head, Memory<Real>);
template <class Real>
void recurrent_backward(const Context&, const BackwardArgs&, Index head, Memory<Real>);
template <class Real>
void step_forward(const Context&, const ForwardArgs&, Index head, Memory<Real>);
template <class Real>
void parallel_forward(const Context&, const ForwardArgs&, Index head, Memory<Real>);
template <class Real>
void parallel_backward(const Context&, const BackwardArgs&, Index head, Memory<Real>);
template <class Real>
void chunkwise_forward(const Context&, const ForwardArgs&, Index head, Memory<Real>);
template <class Real>
void chunkwise_backward(const Context&, const BackwardArgs&, Index head, Memory<Real>);

inline Index workspace_numbers(Formulation formulation, const Problem& problem, bool backward) {
  const Shape& shape = problem.shape;
  const Index state = State<double>::size(shape), width = shape.DHQK + shape.DHV;
  switch (formulation) {
    case Formulation::step:
      return 0;
    case Formulation::recurrent:  // the state, or its cotangent and the states of a segment
      return backward ? (kSegment + 2) * state : state;
    case Formulation::parallel:  // the last state, or cotangents of two and accumulators
      return backward ? 2 * state + shape.S * width : state;
    case Formulation::chunkwise:
      return (chunks_of(problem) + 1) * state + (backward ? std::min(problem.chunk_size, shape.S) * width : 0);
  }
  return 0;
}

/// Keeps l and m for the backward pass.
template <class Real>
void save_rows(const Context& c, Real* saved, const std::vector<Real>& l, const std::vector<Real>& m) {
  if (saved == nullptr) return;
  const auto S = static_cast<std::size_t>(c.problem.shape.S);
  for (std::size_t t = 0; t < S; ++t) {
    if (c.has("saved_tail_unwritten") && t + 1 == S) break;
    saved[t] = c.has("saved_l_float16") ? rounded(Rounding::float16, l[t]) : l[t];
    saved[S + t] = c.has("saved_m_bfloat16") ? rounded(Rounding::bfloat16, m[t]) : m[t];
  }
}

/// m as forward saved it.
template <class Real>
void load_saved_m(const Context& c, const Real* saved, Gates<Real>& gates) {
  const auto S = static_cast<std::size_t>(c.problem.shape.S);
  std::copy_n(saved + S, c.has("saved_tail_unwritten") ? S : gates.m.size(), gates.m.begin());
}

template <class Real>
void copy_state(const Shape& shape, State<Real> from, State<Real> to) {
  std::copy_n(from.C, State<Real>::size(shape), to.C);
}

/// What bugs do to inputs at the end of a call: of the first head.
template <class Real>
void damage_inputs(const Context& c, const ForwardArgs& args, Index head, Real scale) {
  if (head != 0) return;
  const Shape& shape = c.problem.shape;
  damage(c, args.q, "q", c.problem.dtype, shape.S * shape.DHQK, scale);
  damage(c, args.f, "f", c.problem.dtype, shape.S, Real(0.5));
  damage(c, args.c_initial, "c_initial", state_dtype_of(c.problem.dtype), shape.DHQK * shape.DHV, Real(0.5));
}

template <class Real>
void damage_inputs(const Context& c, const BackwardArgs& args, Index head) {
  if (head != 0) return;
  const Shape& shape = c.problem.shape;
  damage(c, args.dh, "dh", c.problem.dtype, shape.S * shape.DHV, Real(0.5));
  damage(c, args.h, "h", c.problem.dtype, shape.S * shape.DHV, Real(0.5));
  damage(c, args.saved, "saved", state_dtype_of(c.problem.dtype), shape.S, Real(0.5));
}

}  // namespace mlstm::verify::planted
