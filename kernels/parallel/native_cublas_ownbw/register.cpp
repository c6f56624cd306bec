// SPDX-License-Identifier: Apache-2.0
#include "parallel/native_cublas_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_cublas {
namespace {

VariantInfo declaration() {
  VariantInfo info = takes_everything(Module::parallel, Device::cuda, "native_cublas_ownbw",
                                      "cuBLAS baseline: GEMMs over materialised S x S matrices", all_dtypes());
  info.S.max = chunkwise_native_cublas::kMaxChunk;
  return info;
}

/// One chunk of S steps.
struct NativeCublas : chunkwise_native_cublas::ChunksVariant {
  NativeCublas() : ChunksVariant(declaration()) {}
};

const RegisterKernel<NativeCublas> registration;

}  // namespace
}  // namespace mlstm::kernels::parallel_native_cublas
