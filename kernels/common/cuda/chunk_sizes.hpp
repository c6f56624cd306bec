// SPDX-License-Identifier: Apache-2.0
// Sizes that the tensor-core kernels pass around, and the arrays that they leave for each other.
#pragma once

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/cuda/gates.hpp"

namespace mlstm::kernels::cuda {

/// A problem cut into chunks of L steps, and chunks into tiles of 64.
struct ChunkSizes {
  std::int64_t heads, S, L, chunks, tiles;  ///< tiles: of a full chunk
  int DHQK, DHV;
  float scale;         ///< DHQK^(-1/2)
  bool starts_empty;   ///< no initial state
  bool ends_unwanted;  ///< no cotangent of the last state (backward)

  static ChunkSizes of(const Problem& problem, std::int64_t L) {
    const Shape& shape = problem.shape;
    L = L < shape.S ? L : shape.S;
    const std::int64_t chunks = chunks_of(problem, L);
    return {shape.heads(),
            shape.S,
            L,
            chunks,
            (L - 1) / 64 + 1,
            static_cast<int>(shape.DHQK),
            static_cast<int>(shape.DHV),
            1 / std::sqrt(static_cast<float>(shape.DHQK)),
            !problem.has_initial_state,
            false};
  }
};

/// States at the borders of chunks, stabilised as the recurrence has them there.
template <class T>
struct ChunkStates {
  T* C;      ///< (heads,NC,DHQK,DHV): entering each chunk, as an operand of products
  float* n;  ///< (heads,NC,DHQK)

  static ChunkStates take(Arena& arena, const ChunkSizes& sizes) {
    const std::int64_t states = sizes.heads * sizes.chunks * sizes.DHQK;
    return {arena.take<T>(states * sizes.DHV), arena.take<float>(states)};
  }
};

/// Throws std::invalid_argument for a tensor that is not aligned to 16 bytes.
inline void require_aligned(const char* name, const void* pointer) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % 16 != 0)
    throw std::invalid_argument(std::string(name) + " is not aligned; expected a multiple of 16 bytes");
}

}  // namespace mlstm::kernels::cuda
