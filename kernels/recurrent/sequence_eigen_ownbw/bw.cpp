// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "common/saved.hpp"
#include "common/step.hpp"
#include "recurrent/sequence_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::recurrent_sequence_eigen {
namespace {

/// One step back. `d_state`: cotangent of the state after step t coming from later steps, replaced by that of the
/// state before it.
template <class Real>
void step_back(const HeadInputs<Real>& in, const HeadCotangents<Real>& given, Index t, const State<Real>& before,
               const State<Real>& after, State<Real>& d_state, StepGradients<Real>& gradients) {
  const Real F = in.gates.F(t), I = in.gates.I(t), gamma = given.rows.gamma[t];
  const auto q = in.q.row(t), k = in.k.row(t), v = in.v.row(t);
  const Matrix<Real> g = given.rows.inverse[t] * given.dh.row(t);

  d_state.C.noalias() += (in.scale * q).transpose() * g;
  d_state.n += in.scale * gamma * q.transpose();
  gradients.dq.row(t) = in.scale * (g * after.C.transpose() + gamma * after.n.transpose());
  gradients.dk.row(t) = I * (v * d_state.C.transpose() + d_state.n.transpose());
  gradients.dv.row(t) = I * (k * d_state.C);
  gradients.d_log_i[t] = k.dot(gradients.dk.row(t));
  gradients.d_log_f[t] = F * d_state.dot(before);
  d_state.C *= F;
  d_state.n *= F;
}

template <class N>
void backward_head(N, const Problem& problem, const BackwardArgs& args, std::int64_t head) {
  using Real = RealOf<N>;
  const Shape& shape = problem.shape;
  const Index length = segment_length(problem), segments = number_of_segments(problem);
  HeadInputs<Real> in = load_inputs<N>(problem, args, head);
  const Saved<Real> saved(args.saved, shape, segments, head);
  const HeadCotangents<Real> given = load_cotangents<N>(problem, args, head, Vector<Real>(saved.l()), in.gates.m);
  in.q = given.rows.lift.asDiagonal() * in.q;

  auto gradients = StepGradients<Real>::of(shape);
  State<Real> d_state = given.last;
  std::vector<State<Real>> states(static_cast<std::size_t>(length) + 1);  // before each step of a segment, and after it
  Matrix<Real> numerator;
  for (Index segment = segments - 1; segment >= 0; --segment) {
    const Index begin = segment * length, n = std::min(length, shape.S - begin);
    const auto state = [&](Index t) -> State<Real>& { return states[static_cast<std::size_t>(t - begin)]; };
    state(begin) = saved.get(segment);
    for (Index t = begin; t < begin + n; ++t) {
      state(t + 1) = state(t);
      fused_step(in, t, state(t + 1), numerator);
    }
    if (segment == segments - 1) gradients.after_product = d_state.dot(state(shape.S));
    for (Index t = begin + n - 1; t >= begin; --t) step_back(in, given, t, state(t), state(t + 1), d_state, gradients);
  }
  gradients.before = d_state;
  store_gradients<N>(problem, args, head, in.gates, given.rows, gradients);
}

}  // namespace

void backward(const Problem& problem, const BackwardArgs& args) {
  for_each_head(problem, [&](auto numeric, std::int64_t head) { backward_head(numeric, problem, args, head); });
}

}  // namespace mlstm::kernels::recurrent_sequence_eigen
