// SPDX-License-Identifier: Apache-2.0
// A State (DHQK,DHV) as an operand of products of tiles.
#pragma once

#include "common/cuda/chunks/sizes.hpp"
#include "common/cuda/tile.cuh"

namespace mlstm::kernels::cuda {

/// Starts copying 64 rows of the common dimension, and the result's columns from `column0` on, of a State (DHQK,DHV) as
/// the second operand of a product: State itself over DHQK (h, dv), or its transpose over DHV (dq, dk).
template <bool kOverDHQK, int kColumns, class T>
__device__ void load_state_slab(T* to, const ChunkSizes& sizes, const T* state, int slab, int column0) {
  if constexpr (kOverDHQK)
    load_tile(to, kTile, kColumns, state + static_cast<std::int64_t>(slab) * kTile * sizes.DHV + column0, sizes.DHV,
              sizes.DHQK - slab * kTile, sizes.DHV - column0);
  else
    load_tile(to, kColumns, kTile, state + static_cast<std::int64_t>(column0) * sizes.DHV + slab * kTile, sizes.DHV,
              sizes.DHQK - column0, sizes.DHV - slab * kTile);
}

}  // namespace mlstm::kernels::cuda
