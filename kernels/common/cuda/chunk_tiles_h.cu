// SPDX-License-Identifier: Apache-2.0
// h by the kernel of common/cuda/chunk_tiles.hpp, which says what it computes.
#include "common/cuda/chunk_tiles.cuh"

namespace mlstm::kernels::cuda {

template <class T>
void tiles_h(const Problem& problem, const ChunkSizes& sizes, const T* q, const T* k, const T* v, const Gates& gates,
             const ChunkStates<T>& states, T* h, float* l, cudaStream_t stream) {
  TileArguments<T> args{};
  args.sizes = sizes;
  args.A = q;
  args.B = k;
  args.X = v;
  args.state = states.C;
  args.n_state = states.n;
  args.gates = gates;
  args.rule = DenominatorRule::of(problem);
  args.out = h;
  args.l = l;
  launch_tiles<T, Product::h>("tiles_kernel of h", args, stream);
}

template void tiles_h(const Problem&, const ChunkSizes&, const float*, const float*, const float*, const Gates&,
                      const ChunkStates<float>&, float*, float*, cudaStream_t);
template void tiles_h(const Problem&, const ChunkSizes&, const bfloat16*, const bfloat16*, const bfloat16*,
                      const Gates&, const ChunkStates<bfloat16>&, bfloat16*, float*, cudaStream_t);
template void tiles_h(const Problem&, const ChunkSizes&, const float16*, const float16*, const float16*, const Gates&,
                      const ChunkStates<float16>&, float16*, float*, cudaStream_t);

}  // namespace mlstm::kernels::cuda
