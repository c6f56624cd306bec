// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/native_eigen_ownbw/variant.hpp"
#include "common/block.hpp"
#include "common/saved.hpp"

namespace mlstm::kernels::chunkwise_native_eigen {
namespace {

template <class N>
void backward_head(N, const Problem& problem, const BackwardArgs& args, std::int64_t head) {
  using Real = RealOf<N>;
  const Shape& shape = problem.shape;
  const Index chunks = number_of_chunks(problem), L = problem.chunk_size;
  HeadInputs<Real> in = load_inputs<N>(problem, args, head);
  const Saved<Real> saved(args.saved, shape, chunks, head);
  const HeadCotangents<Real> given = load_cotangents<N>(problem, args, head, Vector<Real>(saved.l()), in.gates.m);
  in.q = N::operand(given.rows.lift.asDiagonal() * in.q);

  auto gradients = StepGradients<Real>::of(shape);
  State<Real> d_state = given.last;
  for (Index chunk = chunks - 1; chunk >= 0; --chunk) {
    const Index begin = chunk * L, n = std::min(L, shape.S - begin);
    const Decays<Real> decays = decays_of_block(in.gates, begin, n);
    const State<Real> before = saved.get(chunk);
    const Block<Real> block{
        in.q.middleRows(begin, n), in.k.middleRows(begin, n), in.v.middleRows(begin, n), decays, before, in.scale};
    const StepGradients<Real> out =
        block_backward<N>(block, given.dh.middleRows(begin, n), given.rows.inverse.segment(begin, n),
                          given.rows.gamma.segment(begin, n), d_state);
    gradients.dq.middleRows(begin, n) = out.dq;
    gradients.dk.middleRows(begin, n) = out.dk;
    gradients.dv.middleRows(begin, n) = out.dv;
    gradients.d_log_i.segment(begin, n) = out.d_log_i;
    gradients.d_log_f.segment(begin, n) = out.d_log_f;
    if (chunk == chunks - 1) gradients.after_product = out.after_product;
    d_state = out.before;
  }
  gradients.before = d_state;
  store_gradients<N>(problem, args, head, in.gates, given.rows, gradients);
}

}  // namespace

void backward(const Problem& problem, const BackwardArgs& args) {
  for_each_head(problem, [&](auto numeric, std::int64_t head) { backward_head(numeric, problem, args, head); });
}

}  // namespace mlstm::kernels::chunkwise_native_eigen
