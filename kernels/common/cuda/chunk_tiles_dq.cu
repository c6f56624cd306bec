// SPDX-License-Identifier: Apache-2.0
// dq by the kernel of common/cuda/chunk_tiles.hpp, which says what it computes.
#include "common/cuda/chunk_tiles.cuh"

namespace mlstm::kernels::cuda {

template <class T>
void tiles_dq(const ChunkSizes& sizes, const TileInputs<T>& in, const TileDots& dots, T* dq, cudaStream_t stream) {
  TileArguments<T> args = gradient_arguments(sizes, in, in.states, dots);
  args.A = in.dh;
  args.B = in.v;
  args.X = in.k;
  args.rows = in.q;
  args.out = dq;
  launch_tiles<T, Product::dq>("tiles_kernel of dq", args, stream);
}

template void tiles_dq(const ChunkSizes&, const TileInputs<float>&, const TileDots&, float*, cudaStream_t);
template void tiles_dq(const ChunkSizes&, const TileInputs<bfloat16>&, const TileDots&, bfloat16*, cudaStream_t);
template void tiles_dq(const ChunkSizes&, const TileInputs<float16>&, const TileDots&, float16*, cudaStream_t);

}  // namespace mlstm::kernels::cuda
