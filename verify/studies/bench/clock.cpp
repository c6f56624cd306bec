// SPDX-License-Identifier: Apache-2.0
#include "studies/bench/clock.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <span>
#include <utility>

#include "base/random.hpp"

namespace mlstm::verify {
namespace {

class SteadyClock final : public BenchClock {
 public:
  std::string device_name() const override {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
      if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(": ") + 2));
    return "CPU";
  }

  std::size_t cache_bytes() const override {
#ifdef _SC_LEVEL3_CACHE_SIZE
    if (const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE); bytes > 0) return static_cast<std::size_t>(bytes);
#endif
    return std::size_t{32} << 20;
  }

  std::size_t free_bytes() const override {
    return static_cast<std::size_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  }

  Timing time(const std::function<void(std::int64_t)>& call, std::int64_t, const BenchBudget& budget,
              const std::function<void()>& before) override {
    std::int64_t turn = 0;
    const auto seconds = [&] {
      const auto start = std::chrono::steady_clock::now();
      call(turn++);
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    seconds();  // touches memory for the first time
    std::vector<double> samples(static_cast<std::size_t>(samples_for(budget, seconds())));
    before();
    for (double& sample : samples) sample = seconds();
    return summarize(std::move(samples), "steady_clock");
  }

  std::optional<Ceilings> ceilings() override { return {}; }
};

/// A prime, so that no dimension of a tensor divides it.
constexpr std::int64_t kPeriod = 1048573;

const std::vector<double>& normal_numbers() {
  static const std::vector<double> numbers = [] {
    const RandomStream stream(0, "bench");
    std::vector<double> values(kPeriod);
    for (std::int64_t n = 0; n < kPeriod; ++n) values[static_cast<std::size_t>(n)] = stream.normal({0, 0, n});
    return values;
  }();
  return numbers;
}

}  // namespace

BenchClock* clock_of(Device device) {
  static SteadyClock steady;
  if (memory_of(device) == nullptr) return nullptr;
  if (device == Device::cpu) return &steady;
#ifdef MLSTM_HAVE_CUDA
  return cuda_clock();
#else
  return nullptr;
#endif
}

std::int64_t samples_for(const BenchBudget& budget, double estimate) {
  if (budget.repetitions > 0) return budget.repetitions;
  const double wanted = budget.seconds / std::max(estimate, 1e-9);
  return static_cast<std::int64_t>(std::clamp(wanted, 5.0, 1000.0));
}

Timing summarize(std::vector<double> seconds, std::string method) {
  std::sort(seconds.begin(), seconds.end());
  const std::size_t n = seconds.size();
  return {(seconds[(n - 1) / 2] + seconds[n / 2]) / 2, seconds.front(), static_cast<std::int64_t>(n),
          std::move(method)};
}

void fill_normal(DeviceMemory& memory, void* data, std::int64_t n, DType dtype, double mean, double deviation,
                 std::string_view stream) {
  const std::vector<double>& numbers = normal_numbers();
  const std::int64_t block = std::min(n, kPeriod);
  // streams differ in where they begin
  std::int64_t at = static_cast<std::int64_t>(std::hash<std::string_view>{}(stream) % kPeriod);
  Array values = Array::from_shape({static_cast<std::size_t>(block)});
  for (double& value : values) {
    value = mean + deviation * numbers[static_cast<std::size_t>(at)];
    if (++at == kPeriod) at = 0;
  }
  const std::vector<std::byte> bytes = pack(values, dtype);
  auto* const to = static_cast<std::byte*>(data);
  const std::size_t size = size_of(dtype);
  for (std::int64_t begin = 0; begin < n; begin += block)
    memory.upload(to + static_cast<std::size_t>(begin) * size, bytes.data(),
                  static_cast<std::size_t>(std::min(block, n - begin)) * size);
}

}  // namespace mlstm::verify
