// SPDX-License-Identifier: Apache-2.0
// Memory of the first CUDA device that the variants can run on.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <fstream>
#include <mutex>
#include <optional>
#include <regex>
#include <stdexcept>

#include "runner/runner_memory.hpp"

namespace mlstm::verify {
namespace {

constexpr int kLeastMajor = 8, kLeastMinor = 0;

std::string text_of(cudaError_t status, const char* call) {
  return fmt::format("{} failed: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
}

/// "13.0" of 13000; CUDA's numbering of its versions.
std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

/// Of the kernel module, e.g. "580.95.05"; CUDA itself tells only the newest version of it that the driver supports.
std::string driver_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  std::smatch match;
  if (std::regex_search(text, match, std::regex(R"(\s(\d+\.\d+(\.\d+)*)\s)"))) return match[1];
  // Containers may hide that file. The management library comes with the driver.
  std::string version = "unknown";
  if (void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
    const auto init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
    const auto ask = reinterpret_cast<int (*)(char*, unsigned)>(dlsym(library, "nvmlSystemGetDriverVersion"));
    char answer[96] = "";
    if (init != nullptr && ask != nullptr && init() == 0 && ask(answer, sizeof answer) == 0) version = answer;
    dlclose(library);
  }
  return version;
}

class CudaMemory final : public DeviceMemory {
 public:
  /// Throws DeviceError.
  CudaMemory(int device, const cudaDeviceProp& properties) : device_(device), properties_(properties) {
    require(cudaSetDevice(device_), "cudaSetDevice");
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }

  void* allocate(std::size_t bytes) override {
    require(cudaSetDevice(device_), "cudaSetDevice");  // a property of the thread
    cudaGetLastError();                                // what others left behind is not this run's
    void* address = nullptr;
    require(cudaMalloc(&address, bytes), "cudaMalloc");
    return address;
  }

  void release(void* address) noexcept override {
    cudaFree(address);
    cudaGetLastError();
  }

  void fill(void* address, std::byte byte, std::size_t bytes) override {
    if (bytes == 0) return;
    require(cudaMemsetAsync(address, std::to_integer<int>(byte), bytes, stream_), "cudaMemsetAsync");
  }

  void upload(void* device, const void* host, std::size_t bytes) override {
    copy(device, host, bytes, cudaMemcpyHostToDevice);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    copy(host, device, bytes, cudaMemcpyDeviceToHost);
  }

  void synchronize() override {
    // A launch that failed and was not checked.
    const cudaError_t unchecked = cudaGetLastError();
    // The whole device: a kernel that runs in another stream has to be found out, not to race with the checks.
    const cudaError_t status = cudaDeviceSynchronize();
    if (status != cudaSuccess) {
      remember_fatal(text_of(status, "cudaDeviceSynchronize"));
      throw std::runtime_error(text_of(status, "cudaDeviceSynchronize"));
    }
    if (unchecked != cudaSuccess) throw std::runtime_error("unchecked: " + text_of(unchecked, "a call of CUDA"));
  }

  void* stream() override { return stream_; }

  Attributes description() override {
    // Once: two threads may ask at a time, and one would close the library that the other is in.
    static const std::string version_of_driver = driver_version();
    int driver = 0, runtime = 0;
    require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    require(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    return {{"device", std::string("cuda")},
            {"device_name", std::string(properties_.name)},
            {"compute_capability", fmt::format("{}.{}", properties_.major, properties_.minor)},
            {"driver_version", version_of_driver},
            {"driver_cuda_version", version_text(driver)},
            {"cuda_runtime_version", version_text(runtime)}};
  }

 private:
  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return;
    require(cudaMemcpyAsync(to, from, bytes, kind, stream_), "cudaMemcpyAsync");
    require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  void require(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    cudaGetLastError();
    const std::string error = text_of(status, call);
    if (const auto first = remember_fatal(error))
      throw DeviceError("the device is unusable in this process since an earlier run: " + *first);
    throw DeviceError(error);
  }

  /// CUDA repeats a kernel's fatal error at every later call until the process ends. The first one, if there was one.
  std::optional<std::string> remember_fatal(const std::string& error) {
    const bool fatal = cudaDeviceSynchronize() != cudaSuccess;
    const std::lock_guard lock(mutex_);
    if (fatal && !fatal_) fatal_ = error;
    return fatal_;
  }

  int device_;
  cudaDeviceProp properties_;
  cudaStream_t stream_ = nullptr;  // lives as long as the process
  std::mutex mutex_;
  std::optional<std::string> fatal_;
};

/// Never throws: a machine without a GPU or a driver is a normal one.
CudaAccess access() {
  int driver = 0, runtime = 0, devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return {{}, "no CUDA device"};
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaErrorInsufficientDriver && cudaRuntimeGetVersion(&runtime) == cudaSuccess)
    return {{},
            fmt::format("the driver is too old: it supports CUDA {}; expected at least {}", version_text(driver),
                        version_text(runtime))};
  if (status == cudaErrorNoDevice || (status == cudaSuccess && devices == 0)) return {{}, "no CUDA device"};
  if (status != cudaSuccess) return {{}, text_of(status, "cudaGetDeviceCount")};

  std::string reasons;
  for (int device = 0; device < devices; ++device) {
    cudaDeviceProp properties{};
    std::string reason;
    if (const cudaError_t asked = cudaGetDeviceProperties(&properties, device); asked != cudaSuccess) {
      reason = text_of(asked, "cudaGetDeviceProperties");
    } else if (properties.major < kLeastMajor) {
      reason = fmt::format("CUDA device {} has compute capability {}.{}; expected at least {}.{}", properties.name,
                           properties.major, properties.minor, kLeastMajor, kLeastMinor);
    } else {
      try {
        CudaAccess access;  // for the life of the process: the driver may be gone at exit
        for (DeviceMemory*& memory : access.lanes) memory = new CudaMemory(device, properties);
        return access;
      } catch (const DeviceError& error) {
        reason = error.what();
      }
    }
    reasons += (reasons.empty() ? "" : "; ") + reason;
  }
  return {{}, reasons};
}

}  // namespace

const CudaAccess& access_cuda() {
  static const CudaAccess cuda = [] {
    CudaAccess found = access();
    cudaGetLastError();
    return found;
  }();
  return cuda;
}

}  // namespace mlstm::verify
