// SPDX-License-Identifier: Apache-2.0
#include "common/cuda/chunk_tiles.cuh"

namespace mlstm::kernels::cuda {
namespace {

template <class T>
TileArguments<T> arguments_of(const ChunkSizes& sizes, const TileInputs<T>& in, const ChunkStates<T>& states) {
  TileArguments<T> args{};
  args.sizes = sizes;
  args.state = states.C;
  args.n_state = states.n;
  args.gates = in.gates;
  args.inverse = in.inverse;
  args.gamma = in.gamma;
  return args;
}

}  // namespace

template <class T>
void tiles_dq(const ChunkSizes& sizes, const TileInputs<T>& in, const TileDots& dots, T* dq, cudaStream_t stream) {
  TileArguments<T> args = arguments_of(sizes, in, in.states);
  args.A = in.dh;
  args.B = in.v;
  args.X = in.k;
  args.rows = in.q;
  args.out = dq;
  args.dots = dots;
  launch_tiles<T, Product::dq>("tiles_kernel of dq", args, stream);
}

template <class T>
void tiles_dk(const ChunkSizes& sizes, const TileInputs<T>& in, const TileDots& dots, T* dk, cudaStream_t stream) {
  TileArguments<T> args = arguments_of(sizes, in, in.d_states);
  args.A = in.v;
  args.B = in.dh;
  args.X = in.q;
  args.rows = in.k;
  args.out = dk;
  args.dots = dots;
  launch_tiles<T, Product::dk>("tiles_kernel of dk", args, stream);
}

template <class T>
void tiles_dv(const ChunkSizes& sizes, const TileInputs<T>& in, T* dv, cudaStream_t stream) {
  TileArguments<T> args = arguments_of(sizes, in, in.d_states);
  args.A = in.k;
  args.B = in.q;
  args.X = in.g;
  args.out = dv;
  launch_tiles<T, Product::dv>("tiles_kernel of dv", args, stream);
}

template void tiles_dq(const ChunkSizes&, const TileInputs<float>&, const TileDots&, float*, cudaStream_t);
template void tiles_dq(const ChunkSizes&, const TileInputs<bfloat16>&, const TileDots&, bfloat16*, cudaStream_t);
template void tiles_dq(const ChunkSizes&, const TileInputs<float16>&, const TileDots&, float16*, cudaStream_t);
template void tiles_dk(const ChunkSizes&, const TileInputs<float>&, const TileDots&, float*, cudaStream_t);
template void tiles_dk(const ChunkSizes&, const TileInputs<bfloat16>&, const TileDots&, bfloat16*, cudaStream_t);
template void tiles_dk(const ChunkSizes&, const TileInputs<float16>&, const TileDots&, float16*, cudaStream_t);
template void tiles_dv(const ChunkSizes&, const TileInputs<float>&, float*, cudaStream_t);
template void tiles_dv(const ChunkSizes&, const TileInputs<bfloat16>&, bfloat16*, cudaStream_t);
template void tiles_dv(const ChunkSizes&, const TileInputs<float16>&, float16*, cudaStream_t);

}  // namespace mlstm::kernels::cuda
