// SPDX-License-Identifier: Apache-2.0
#include "mlstm/parallel_for.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace mlstm {

void parallel_for(std::int64_t n, int threads, const std::function<void(std::int64_t)>& body) {
  const std::int64_t wanted = threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
  const std::int64_t count = std::min(n, wanted);
  if (count <= 1) {
    for (std::int64_t index = 0; index < n; ++index) body(index);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr first_error;
  std::mutex error_mutex;
  const auto work = [&] {
    for (std::int64_t index = next++; index < n; index = next++) {
      try {
        body(index);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!first_error) first_error = std::current_exception();
        next = n;
      }
    }
  };
  {
    std::vector<std::jthread> pool;
    pool.reserve(static_cast<std::size_t>(count - 1));
    try {
      for (std::int64_t extra = 1; extra < count; ++extra) pool.emplace_back(work);
    } catch (const std::system_error&) {
      // no memory for another thread's stack: those that there are do the work
    }
    work();
  }
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace mlstm
