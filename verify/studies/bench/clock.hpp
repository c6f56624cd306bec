// SPDX-License-Identifier: Apache-2.0
// How calls are timed on one device, and what the device can reach. The CPU's clock is in clock.cpp, that of a
// GPU in clock_cuda.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runner/runner_memory.hpp"
#include "studies/bench/bench.hpp"

namespace mlstm::verify {

class BenchClock {
 public:
  virtual ~BenchClock() = default;
  virtual std::string device_name() const = 0;
  /// Of the cache before the memory: fewer bytes than this may stay in it from call to call.
  virtual std::size_t cache_bytes() const = 0;
  virtual std::size_t free_bytes() const = 0;
  /// Times call(0), call(1), ..., which take turns among `turns` sets of data, after warming up. A call may return
  /// before its work is done. `before` is called once, when all is warm and the next call is one that counts.
  virtual Timing time(
      const std::function<void(std::int64_t)>& call, std::int64_t turns, const BenchBudget& budget,
      const std::function<void()>& before = [] {}) = 0;
  virtual std::optional<Ceilings> ceilings() = 0;
};

/// Null where memory_of is null.
BenchClock* clock_of(Device device);
#ifdef MLSTM_HAVE_CUDA
/// Of the current device, which has to be there.
BenchClock* cuda_clock();
#endif

/// How many samples to take, at `estimate` seconds each: what fits the budget, within limits.
std::int64_t samples_for(const BenchBudget& budget, double estimate);

/// Of at least one sample.
Timing summarize(std::vector<double> seconds, std::string method);

/// Fills with n independent normal numbers, which repeat after some million: fast, and as costly to multiply as any.
/// Numbers of zero, or few of them, would be cheaper: they save power, and with it time.
void fill_normal(DeviceMemory& memory, void* data, std::int64_t n, DType dtype, double mean, double deviation,
                 std::string_view stream);

}  // namespace mlstm::verify
