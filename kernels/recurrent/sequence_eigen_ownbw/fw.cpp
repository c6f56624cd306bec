// SPDX-License-Identifier: Apache-2.0
#include "common/saved.hpp"
#include "common/step.hpp"
#include "recurrent/sequence_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::recurrent_sequence_eigen {
namespace {

template <class N>
void forward_head(N, const Problem& problem, const ForwardArgs& args, std::int64_t head) {
  using Real = RealOf<N>;
  const Shape& shape = problem.shape;
  const Index length = segment_length(problem);
  const HeadInputs<Real> in = load_inputs<N>(problem, args, head);
  const Saved<Real> saved(args.saved, shape, number_of_segments(problem), head);

  Matrix<Real> h(shape.S, shape.DHV), numerator;
  State<Real> state = in.initial;
  for (Index t = 0; t < shape.S; ++t) {
    if (args.saved != nullptr && t % length == 0) saved.put(t / length, state);
    const Real l = fused_step(in, t, state, numerator);
    h.row(t) = numerator * denominator(problem, l, in.gates.m[t]).inverse;
    if (args.saved != nullptr) saved.l()[t] = l;
  }
  store<typename N::Storage>(args.h, head, h);
  store_last_state<N>(problem, args, head, state, in.gates);
}

}  // namespace

void forward(const Problem& problem, const ForwardArgs& args) {
  for_each_head(problem, [&](auto numeric, std::int64_t head) { forward_head(numeric, problem, args, head); });
}

}  // namespace mlstm::kernels::recurrent_sequence_eigen
