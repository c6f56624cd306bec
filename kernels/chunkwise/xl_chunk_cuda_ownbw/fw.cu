// SPDX-License-Identifier: Apache-2.0
// Forward: gates and states by the building blocks, h by the kernel of tiles.cuh.
#include "chunkwise/xl_chunk_cuda_ownbw/tiles.cuh"

namespace mlstm::kernels::chunkwise_xl_chunk_cuda {
namespace {

template <class T>
void tiles_h(const ForwardPass<T>& pass, const DenominatorRule& rule) {
  TileArguments<T> args{};
  args.sizes = pass.sizes;
  args.A = pass.q;
  args.B = pass.k;
  args.X = pass.v;
  args.state = pass.states.C;
  args.n_state = pass.states.n;
  args.gates = pass.gates;
  args.rule = rule;
  args.out = pass.h;
  args.l = pass.l;
  launch_tiles<T, Result::h>("tiles_kernel of h", args, pass.stream);
}

}  // namespace

void forward(const Problem& problem, std::int64_t L, const ForwardArgs& args) {
  dispatch<float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    const ForwardPass<T> pass = begin_forward<T>(problem, L, args);
    tiles_h(pass, DenominatorRule::of(problem));
  });
}

}  // namespace mlstm::kernels::chunkwise_xl_chunk_cuda
