// SPDX-License-Identifier: Apache-2.0
// The clock of a GPU: events on the stream that kernels run on. Compiled only where there is a CUDA toolkit.
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <variant>

#include "studies/bench/clock.hpp"

namespace mlstm::verify {
namespace {

void require(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(call) + " failed: " + cudaGetErrorString(status));
}

void require(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string(call) + " failed: " + cublasGetStatusString(status));
}

#define MLSTM_REQUIRE(call) require((call), #call)

class Event {
 public:
  Event() { MLSTM_REQUIRE(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { MLSTM_REQUIRE(cudaEventRecord(event_, stream)); }
  double seconds_since(const Event& start) const {
    float milliseconds = 0;
    MLSTM_REQUIRE(cudaEventElapsedTime(&milliseconds, start.event_, event_));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// `body`, captured once, to be launched many times. Empty if the stream or the body does not allow it.
class Graph {
 public:
  template <class Body>
  Graph(cudaStream_t stream, const Body& body) {
    if (stream == nullptr || cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
      cudaGetLastError();
      return;
    }
    bool complete = true;
    try {
      body();
    } catch (const std::exception&) {
      complete = false;
    }
    cudaGraph_t graph = nullptr;
    complete = cudaStreamEndCapture(stream, &graph) == cudaSuccess && complete;
    if (!complete || cudaGraphInstantiate(&executable_, graph, 0) != cudaSuccess) executable_ = nullptr;
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();  // a failed capture leaves an error behind
  }
  ~Graph() {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  bool usable() const { return executable_ != nullptr; }
  void launch(cudaStream_t stream) const { MLSTM_REQUIRE(cudaGraphLaunch(executable_, stream)); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

class Blas {
 public:
  explicit Blas(cudaStream_t stream) {
    MLSTM_REQUIRE(cublasCreate(&handle_));
    MLSTM_REQUIRE(cublasSetStream(handle_, stream));
  }
  ~Blas() { cublasDestroy(handle_); }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  cublasHandle_t handle() const { return handle_; }

 private:
  cublasHandle_t handle_ = nullptr;
};

class CudaClock final : public BenchClock {
 public:
  std::string device_name() const override {
    const Attributes about = memory_of(Device::cuda)->description();
    const auto text = [&](const char* key) { return std::get<std::string>(about.at(key)); };
    return text("device_name") + ", driver " + text("driver_version") + ", CUDA " + text("cuda_runtime_version");
  }

  std::size_t cache_bytes() const override {
    int device = 0, bytes = 0;
    MLSTM_REQUIRE(cudaGetDevice(&device));
    MLSTM_REQUIRE(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device));
    return static_cast<std::size_t>(std::max(bytes, 0));
  }

  std::size_t free_bytes() const override {
    std::size_t free = 0, total = 0;
    MLSTM_REQUIRE(cudaMemGetInfo(&free, &total));
    return free;
  }

  // Samples are queued without waiting in between, so that the GPU never waits for the host. What is shorter than a
  // millisecond is measured in batches, as a graph if possible: launches of the host would be slower than the kernels.
  Timing time(const std::function<void(std::int64_t)>& call, std::int64_t turns, const BenchBudget& budget,
              const std::function<void()>& before) override {
    constexpr double kLongEnough = 1e-3, kWarm = 0.2;
    const cudaStream_t stream = this->stream();
    std::int64_t turn = 0;
    const auto run_for = [&](std::int64_t calls) {
      Event start, stop;
      start.record(stream);
      for (std::int64_t n = 0; n < calls; ++n) call(turn++);
      stop.record(stream);
      MLSTM_REQUIRE(cudaStreamSynchronize(stream));
      return stop.seconds_since(start) / static_cast<double>(calls);
    };
    run_for(1);  // loads code
    double estimate = run_for(2);
    // clocks rise, and caches of the driver fill
    estimate = run_for(std::clamp<std::int64_t>(static_cast<std::int64_t>(kWarm / std::max(estimate, 1e-6)), 2, 1000));
    std::int64_t batch = 1;
    if (estimate < kLongEnough)
      batch = turns *
              static_cast<std::int64_t>(std::ceil(kLongEnough / std::max(estimate, 1e-6) / static_cast<double>(turns)));
    const auto calls = [&] {
      for (std::int64_t n = 0; n < batch; ++n) call(turn++);
    };
    std::unique_ptr<Graph> graph;
    if (batch > 1) graph = std::make_unique<Graph>(stream, calls);
    const bool by_graph = graph != nullptr && graph->usable();
    if (by_graph) graph->launch(stream);

    const std::int64_t count = samples_for(budget, estimate * static_cast<double>(batch));
    std::vector<Event> starts(static_cast<std::size_t>(count)), stops(static_cast<std::size_t>(count));
    before();
    for (std::size_t n = 0; n < starts.size(); ++n) {
      starts[n].record(stream);
      if (by_graph)
        graph->launch(stream);
      else
        calls();
      stops[n].record(stream);
    }
    MLSTM_REQUIRE(cudaStreamSynchronize(stream));
    std::vector<double> samples;
    for (std::size_t n = 0; n < starts.size(); ++n)
      samples.push_back(stops[n].seconds_since(starts[n]) / static_cast<double>(batch));
    return summarize(std::move(samples), by_graph ? "graph" : "events");
  }

  std::optional<Ceilings> ceilings() override {
    Ceilings found;
    DeviceMemory& memory = *memory_of(Device::cuda);
    const BenchBudget budget{.seconds = 0.3};
    {
      constexpr std::size_t bytes = std::size_t{1} << 30;
      const GuardedBuffer from(memory, "from", bytes, {}), to(memory, "to", bytes, {});
      fill_normal(memory, from.data(), bytes / 2, DType::bfloat16, 0, 1, "copy");
      // the better of the copies of the runtime and of cuBLAS: neither is always the faster one
      const Blas blas(stream());
      const auto bytes_per_second = [&](const std::function<void(std::int64_t)>& copy) {
        return 2 * static_cast<double>(bytes) / time(copy, 1, budget, [] {}).median;
      };
      found.copy_bytes_per_second =
          std::max(bytes_per_second([&](std::int64_t) {
                     MLSTM_REQUIRE(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream()));
                   }),
                   bytes_per_second([&](std::int64_t) {
                     MLSTM_REQUIRE(cublasZcopy(blas.handle(), bytes / sizeof(cuDoubleComplex),
                                               static_cast<const cuDoubleComplex*>(from.data()), 1,
                                               static_cast<cuDoubleComplex*>(to.data()), 1));
                   }));
    }
    {
      constexpr int n = 8192;
      constexpr std::size_t elements = std::size_t{n} * n;
      const GuardedBuffer a(memory, "a", 2 * elements, {}), b(memory, "b", 2 * elements, {}),
          c(memory, "c", 2 * elements, {});
      fill_normal(memory, a.data(), elements, DType::bfloat16, 0, 1, "a");
      fill_normal(memory, b.data(), elements, DType::bfloat16, 0, 1, "b");
      const Blas blas(stream());
      const float one = 1, zero = 0;
      const Timing timing = time(
          [&](std::int64_t) {
            MLSTM_REQUIRE(cublasGemmEx(blas.handle(), CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, a.data(), CUDA_R_16BF, n,
                                       b.data(), CUDA_R_16BF, n, &zero, c.data(), CUDA_R_16BF, n, CUBLAS_COMPUTE_32F,
                                       CUBLAS_GEMM_DEFAULT));
          },
          1, budget, [] {});
      found.product_flops_per_second = 2 * std::pow(static_cast<double>(n), 3) / timing.median;
    }
    return found;
  }

 private:
  static cudaStream_t stream() { return static_cast<cudaStream_t>(memory_of(Device::cuda)->stream()); }
};

}  // namespace

BenchClock* cuda_clock() {
  static CudaClock clock;
  return &clock;
}

}  // namespace mlstm::verify
