// SPDX-License-Identifier: Apache-2.0
#include "common/block.hpp"
#include "common/saved.hpp"
#include "parallel/native_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_eigen {
namespace {

template <class N>
void backward_head(N, const Problem& problem, const BackwardArgs& args, std::int64_t head) {
  using Real = RealOf<N>;
  const Shape& shape = problem.shape;
  HeadInputs<Real> in = load_inputs<N>(problem, args, head);
  const Vector<Real> l = Saved<Real>(args.saved, shape, 0, head).l();
  const HeadCotangents<Real> given = load_cotangents<N>(problem, args, head, l, in.gates.m);
  in.q = N::operand(given.rows.lift.asDiagonal() * in.q);
  const Decays<Real> decays = decays_of_block(in.gates, 0, shape.S);
  const Block<Real> sequence{in.q, in.k, in.v, decays, in.initial, in.scale};

  StepGradients<Real> gradients =
      block_backward<N>(sequence, given.dh, given.rows.inverse, given.rows.gamma, given.last);
  store_gradients<N>(problem, args, head, in.gates, given.rows, gradients);
}

}  // namespace

void backward(const Problem& problem, const BackwardArgs& args) {
  for_each_head(problem, [&](auto numeric, std::int64_t head) { backward_head(numeric, problem, args, head); });
}

}  // namespace mlstm::kernels::parallel_native_eigen
