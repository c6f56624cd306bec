// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/native_cublas_ownbw/variant.hpp"

namespace mlstm::kernels::chunkwise_native_cublas {
namespace {

VariantInfo declaration() {
  VariantInfo info = takes_everything(
      Module::chunkwise, Device::cuda, "native_cublas_ownbw",
      "cuBLAS baseline: GEMMs over materialised chunk states and L x L matrices, any chunk size", all_dtypes());
  info.L.max = kMaxChunk;
  return info;
}

struct NativeCublas : ChunksVariant {
  NativeCublas() : ChunksVariant(declaration()) {}
};

const RegisterKernel<NativeCublas> registration;

}  // namespace
}  // namespace mlstm::kernels::chunkwise_native_cublas
