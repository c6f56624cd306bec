// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/native_eigen_ownbw/variant.hpp"
#include "common/block.hpp"
#include "common/saved.hpp"

namespace mlstm::kernels::chunkwise_native_eigen {
namespace {

template <class N>
void forward_head(N, const Problem& problem, const ForwardArgs& args, std::int64_t head) {
  using Real = RealOf<N>;
  const Shape& shape = problem.shape;
  const Index chunks = number_of_chunks(problem), L = problem.chunk_size;
  const HeadInputs<Real> in = load_inputs<N>(problem, args, head);
  const Saved<Real> saved(args.saved, shape, chunks, head);

  Matrix<Real> h(shape.S, shape.DHV);
  State<Real> state = in.initial;
  for (Index chunk = 0; chunk < chunks; ++chunk) {
    const Index begin = chunk * L, n = std::min(L, shape.S - begin);
    const Decays<Real> decays = decays_of_block(in.gates, begin, n);
    const Block<Real> block{
        in.q.middleRows(begin, n), in.k.middleRows(begin, n), in.v.middleRows(begin, n), decays, state, in.scale};
    const BlockOutput<Real> out = block_forward<N>(block);
    for (Index t = 0; t < n; ++t)
      h.row(begin + t) = out.numerator.row(t) * denominator(problem, out.l[t], in.gates.m[begin + t]).inverse;
    if (args.saved != nullptr) {
      saved.l().segment(begin, n) = out.l;
      saved.put(chunk, state);
    }
    state = block_state<N>(block);
  }
  store<typename N::Storage>(args.h, head, h);
  store_last_state<N>(problem, args, head, state, in.gates);
}

}  // namespace

void forward(const Problem& problem, const ForwardArgs& args) {
  for_each_head(problem, [&](auto numeric, std::int64_t head) { forward_head(numeric, problem, args, head); });
}

}  // namespace mlstm::kernels::chunkwise_native_eigen
