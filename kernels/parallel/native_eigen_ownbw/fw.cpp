// SPDX-License-Identifier: Apache-2.0
#include "common/block.hpp"
#include "common/saved.hpp"
#include "parallel/native_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_eigen {
namespace {

template <class N>
void forward_head(N, const Problem& problem, const ForwardArgs& args, std::int64_t head) {
  using Real = RealOf<N>;
  const Index S = problem.shape.S;
  const HeadInputs<Real> in = load_inputs<N>(problem, args, head);
  const Decays<Real> decays = decays_of_block(in.gates, 0, S);
  const Block<Real> sequence{in.q, in.k, in.v, decays, in.initial, in.scale};

  BlockOutput<Real> out = block_forward<N>(sequence);
  for (Index t = 0; t < S; ++t) out.numerator.row(t) *= denominator(problem, out.l[t], in.gates.m[t]).inverse;
  store<typename N::Storage>(args.h, head, out.numerator);
  if (args.saved != nullptr) Saved<Real>(args.saved, problem.shape, 0, head).l() = out.l;
  if (args.c_last != nullptr || args.n_last != nullptr || args.m_last != nullptr)
    store_last_state<N>(problem, args, head, block_state<N>(sequence), in.gates);
}

}  // namespace

void forward(const Problem& problem, const ForwardArgs& args) {
  for_each_head(problem, [&](auto numeric, std::int64_t head) { forward_head(numeric, problem, args, head); });
}

}  // namespace mlstm::kernels::parallel_native_eigen
