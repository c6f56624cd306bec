// SPDX-License-Identifier: Apache-2.0
// Chunkwise forward and exact backward on two cores, as a fraction of what Eigen's matrix product reaches on the same
// cores in the same run; and the cost per step of long sequences.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "mlstm/reference/hot.hpp"
#include "mlstm/reference/reference.hpp"

namespace {

using namespace mlstm;
using Seconds = std::chrono::duration<double>;

/// Inputs, cotangent of h and room for all results of one problem.
class Workload {
 public:
  explicit Workload(const Shape& shape) {
    problem_.shape = shape;
    std::mt19937_64 engine(1);
    const auto uniform = [&](double low, double high) {
      return low + (high - low) * static_cast<double>(engine() >> 11) * 0x1p-53;
    };
    const auto array = [&](std::string_view name, double low, double high) {
      std::vector<double>& values = arrays_.emplace_back(mlstm::size_of(name, shape));
      for (double& x : values) x = uniform(low, high);
      return values.data();
    };
    arrays_.reserve(12);
    inputs_ = {.q = array("q", -1, 1),
               .k = array("k", -1, 1),
               .v = array("v", -1, 1),
               .i = array("i", -2, 2),
               .f = array("f", 2, 6)};
    request_.cotangents.h = array("h", -1, 1);
    request_.outputs.h = array("h", 0, 0);
    request_.exact = {.q = array("q", 0, 0),
                      .k = array("k", 0, 0),
                      .v = array("v", 0, 0),
                      .i = array("i", 0, 0),
                      .f = array("f", 0, 0)};
  }

  double run(std::int64_t L, int threads) const {
    const auto start = std::chrono::steady_clock::now();
    reference::evaluate(problem_, inputs_, request_, {Module::chunkwise, reference::Backward::ownbw, L, threads});
    return Seconds(std::chrono::steady_clock::now() - start).count();
  }

 private:
  Problem problem_;
  std::vector<std::vector<double>> arrays_;
  Inputs<double> inputs_;
  reference::Request request_;
};

/// Forward T [L (d + e) + 4 d e] and backward T [L (3 d + 2 e) + 10 d e], T = B NH S, counted at L = 64 whatever L is
/// used: what a causal kernel that computes no chunk state twice has to do.
double counted_flops(const Shape& shape) {
  const double T = static_cast<double>(shape.heads() * shape.S), L = 64;
  const double d = static_cast<double>(shape.DHQK), e = static_cast<double>(shape.DHV);
  return T * (L * (d + e) + 4 * d * e) + T * (L * (3 * d + 2 * e) + 10 * d * e);
}

/// Sum of the rates of two products at the same time, each on one thread; the better of n = 512 and 1024.
double ceiling() {
  double best = 0;
  for (const int n : {512, 1024}) {
    double other = 0;
    std::thread thread([&] { other = reference::hot::gemm_rate(n, 0.5); });
    const double own = reference::hot::gemm_rate(n, 0.5);
    thread.join();
    best = std::max(best, own + other);
  }
  return best;
}

void chunkwise_on_two_cores(benchmark::State& state) {
  const Shape shape{.B = 1, .NH = 8, .S = 4096, .DHQK = 256, .DHV = 512};
  const Workload workload(shape);
  for (auto _ : state) {
    const double gemm = ceiling();
    const double seconds = workload.run(state.range(0), 2);
    state.SetIterationTime(seconds);
    const double rate = counted_flops(shape) / seconds;
    state.counters["GFLOP/s"] = rate * 1e-9;
    state.counters["GEMM_GFLOP/s"] = gemm * 1e-9;
    state.counters["fraction"] = rate / gemm;
  }
}
BENCHMARK(chunkwise_on_two_cores)
    ->ArgName("L")
    ->Arg(64)
    ->Arg(128)
    ->Iterations(1)
    ->Repetitions(5)
    ->ReportAggregatesOnly()
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

void cost_per_step(benchmark::State& state) {
  const Shape shape{.B = 1, .NH = 1, .S = state.range(0), .DHQK = 64, .DHV = 128};
  const Workload workload(shape);
  for (auto _ : state) {
    const double seconds = workload.run(64, 1);
    state.SetIterationTime(seconds);
    state.counters["us/step"] = 1e6 * seconds / static_cast<double>(shape.S);
  }
}
BENCHMARK(cost_per_step)
    ->ArgName("S")
    ->RangeMultiplier(4)
    ->Range(1024, 65536)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
