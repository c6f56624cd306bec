// SPDX-License-Identifier: Apache-2.0
// What the variants made of these building blocks declare alike.
#pragma once

#include <string>
#include <utility>

#include "common/cuda/chunks/pass.hpp"
#include "common/cuda/variant.hpp"

namespace mlstm::kernels::cuda {

/// A variant of tensor-core kernels for the chunks of its module (chunk_length).
class TiledVariant : public CudaVariant {
 public:
  std::size_t saved_size(const Problem& problem) const final { return chunk_saved_size(problem, L_of(problem)); }
  std::size_t workspace_size(const Problem& problem, bool backward) const final {
    return chunk_workspace_size(problem, L_of(problem), backward);
  }

 protected:
  TiledVariant(Module module, std::string name, std::string description, SizeLimit L = {})
      : CudaVariant(declaration(module, std::move(name), std::move(description), L)) {}

  std::int64_t L_of(const Problem& problem) const { return chunk_length(info().module, problem); }

 private:
  static VariantInfo declaration(Module module, std::string name, std::string description, SizeLimit L) {
    VariantInfo info = takes_everything(module, Device::cuda, std::move(name), std::move(description),
                                        {DType::float32, DType::bfloat16, DType::float16});
    info.DHQK = info.DHV = {8, 512, 8};  // rows are copied in pieces of 16 bytes
    info.S = {1, 2147483584, 1};         // steps are counted in 32 bits within a head
    info.L = L;
    return info;
  }
  std::string too_large(const Problem& problem) const final { return too_many_blocks(problem, L_of(problem)); }
};

}  // namespace mlstm::kernels::cuda
