// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace mlstm {

/// Calls body(0) ... body(n-1), each once, on up to `threads` threads (0: one per core). Which thread runs an
/// index is not fixed, so a body must not depend on it; results are then the same for any thread count.
/// The first exception thrown by a body is rethrown after all threads have stopped.
void parallel_for(std::int64_t n, int threads, const std::function<void(std::int64_t)>& body);

}  // namespace mlstm
