// SPDX-License-Identifier: Apache-2.0
// dk by the kernel of common/cuda/chunk_tiles.hpp, which says what it computes.
#include "common/cuda/chunk_tiles.cuh"

namespace mlstm::kernels::cuda {

template <class T>
void tiles_dk(const ChunkSizes& sizes, const TileInputs<T>& in, const TileDots& dots, T* dk, cudaStream_t stream) {
  TileArguments<T> args = gradient_arguments(sizes, in, in.d_states, dots);
  args.A = in.v;
  args.B = in.dh;
  args.X = in.q;
  args.rows = in.k;
  args.out = dk;
  launch_tiles<T, Product::dk>("tiles_kernel of dk", args, stream);
}

template void tiles_dk(const ChunkSizes&, const TileInputs<float>&, const TileDots&, float*, cudaStream_t);
template void tiles_dk(const ChunkSizes&, const TileInputs<bfloat16>&, const TileDots&, bfloat16*, cudaStream_t);
template void tiles_dk(const ChunkSizes&, const TileInputs<float16>&, const TileDots&, float16*, cudaStream_t);

}  // namespace mlstm::kernels::cuda
