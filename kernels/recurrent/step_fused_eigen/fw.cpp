// SPDX-License-Identifier: Apache-2.0
#include "common/step.hpp"
#include "recurrent/step_fused_eigen/variant.hpp"

namespace mlstm::kernels::recurrent_step_fused_eigen {
namespace {

template <class N>
void forward_head(N, const Problem& problem, const ForwardArgs& args, std::int64_t head) {
  using Real = RealOf<N>;
  const HeadInputs<Real> in = load_inputs<N>(problem, args, head);
  State<Real> state = in.initial;
  Matrix<Real> h;
  const Real l = fused_step(in, 0, state, h);
  h *= denominator(problem, l, in.gates.m[0]).inverse;
  store<typename N::Storage>(args.h, head, h);
  store_last_state<N>(problem, args, head, state, in.gates);
}

}  // namespace

void forward(const Problem& problem, const ForwardArgs& args) {
  for_each_head(problem, [&](auto numeric, std::int64_t head) { forward_head(numeric, problem, args, head); });
}

}  // namespace mlstm::kernels::recurrent_step_fused_eigen
