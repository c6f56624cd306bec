// SPDX-License-Identifier: Apache-2.0
// Backward: dq, dk and dv by the kernel of tiles.cuh, between the building blocks.
#include "chunkwise/xl_chunk_cuda_ownbw/tiles.cuh"

namespace mlstm::kernels::chunkwise_xl_chunk_cuda {
namespace {

/// What the three gradients have in common.
template <class T>
TileArguments<T> gradient_arguments(const BackwardPass<T>& pass, const ChunkStates<T>& states) {
  TileArguments<T> args{};
  args.sizes = pass.sizes;
  args.state = states.C;
  args.n_state = states.n;
  args.gates = pass.in.gates;
  args.inverse = pass.in.inverse;
  args.gamma = pass.in.gamma;
  args.dots = pass.dots;
  return args;
}

template <class T>
void tiles_dq(const BackwardPass<T>& pass) {
  TileArguments<T> args = gradient_arguments(pass, pass.in.states);
  args.A = pass.in.dh;
  args.B = pass.in.v;
  args.X = pass.in.k;
  args.rows = pass.in.q;
  args.out = pass.dq;
  launch_tiles<T, Result::dq>("tiles_kernel of dq", args, pass.stream);
}

template <class T>
void tiles_dk(const BackwardPass<T>& pass) {
  TileArguments<T> args = gradient_arguments(pass, pass.in.d_states);
  args.A = pass.in.v;
  args.B = pass.in.dh;
  args.X = pass.in.q;
  args.rows = pass.in.k;
  args.out = pass.dk;
  launch_tiles<T, Result::dk>("tiles_kernel of dk", args, pass.stream);
}

template <class T>
void tiles_dv(const BackwardPass<T>& pass) {
  TileArguments<T> args = gradient_arguments(pass, pass.in.d_states);
  args.A = pass.in.k;
  args.B = pass.in.q;
  args.X = pass.in.g;
  args.out = pass.dv;
  launch_tiles<T, Result::dv>("tiles_kernel of dv", args, pass.stream);
}

}  // namespace

void backward(const Problem& problem, std::int64_t L, const BackwardArgs& args) {
  dispatch<float, bfloat16, float16>(problem.dtype, [&]<class T>(T) {
    const BackwardPass<T> pass = begin_backward<T>(problem, L, args);
    tiles_dq(pass);
    tiles_dk(pass);
    if (pass.dv != nullptr) tiles_dv(pass);
    diagonal_gate_sums(pass.sizes, pass.in, pass.diagonal, pass.stream);
    finish_backward(problem, args, pass);
  });
}

}  // namespace mlstm::kernels::chunkwise_xl_chunk_cuda
