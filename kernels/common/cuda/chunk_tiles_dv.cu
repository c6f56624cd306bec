// SPDX-License-Identifier: Apache-2.0
// dv by the kernel of common/cuda/chunk_tiles.hpp, which says what it computes.
#include "common/cuda/chunk_tiles.cuh"

namespace mlstm::kernels::cuda {

template <class T>
void tiles_dv(const ChunkSizes& sizes, const TileInputs<T>& in, T* dv, cudaStream_t stream) {
  TileArguments<T> args = gradient_arguments(sizes, in, in.d_states, TileDots{});
  args.A = in.k;
  args.B = in.q;
  args.X = in.g;
  args.out = dv;
  launch_tiles<T, Product::dv>("tiles_kernel of dv", args, stream);
}

template void tiles_dv(const ChunkSizes&, const TileInputs<float>&, float*, cudaStream_t);
template void tiles_dv(const ChunkSizes&, const TileInputs<bfloat16>&, bfloat16*, cudaStream_t);
template void tiles_dv(const ChunkSizes&, const TileInputs<float16>&, float16*, cudaStream_t);

}  // namespace mlstm::kernels::cuda
