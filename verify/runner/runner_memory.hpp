// SPDX-License-Identifier: Apache-2.0
// Where a kernel's buffers live: host memory (runner_memory.cpp) or that of a CUDA device (runner_memory_cuda.cpp).
#pragma once

#include <array>
#include <cstddef>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cases/case.hpp"
#include "mlstm/kernel.hpp"

namespace mlstm::verify {

/// The device itself failed, not the kernel that is being judged: out of memory, or unusable since an earlier error.
class DeviceError : public std::exception {
 public:
  explicit DeviceError(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

/// Memory of one device. Errors are exceptions that name the call: DeviceError, and std::runtime_error from
/// synchronize() for what a kernel did. Calls by one thread take effect in their order, in that of stream() too.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  /// At least `bytes` bytes, aligned to 256. Makes the device the calling thread's current one.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* address) noexcept = 0;
  /// Repeats `byte`; may return before it is done.
  virtual void fill(void* address, std::byte byte, std::size_t bytes) = 0;
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;
  /// Waits for all kernels; errors of asynchronous work surface here.
  virtual void synchronize() = 0;
  /// What ForwardArgs::stream gets.
  virtual void* stream() = 0;
  /// What a capture records of the device: `device`, and for a GPU `device_name`, `compute_capability`,
  /// `driver_version`, `driver_cuda_version` and `cuda_runtime_version`.
  virtual Attributes description() = 0;
};

/// The device's memory, or null where this machine or build has no such device. Each lane has a stream of its own.
inline constexpr int kLanes = 2;
DeviceMemory* memory_of(Device device, int lane = 0);

/// Why memory_of(device) is null; empty if it is not.
std::string unavailable(Device device);

/// The CUDA part of these two; runner_memory_cuda.cpp defines it in builds with CUDA.
struct CudaAccess {
  std::array<DeviceMemory*, kLanes> lanes{};
  std::string unavailable;
};
const CudaAccess& access_cuda();

/// A device buffer between two red zones. All of it starts as repetitions of one byte; without one there are no zones,
/// and the contents are undefined.
class GuardedBuffer {
 public:
  /// Large enough to catch a row too many of most tensors.
  static constexpr std::size_t kZone = 4096;

  GuardedBuffer(DeviceMemory& memory, std::string name, std::size_t bytes, std::optional<std::byte> fill);
  ~GuardedBuffer();
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  const std::string& name() const { return name_; }
  void* data() const { return base_ + zone_; }
  void upload(std::span<const std::byte> bytes);
  /// Overwrites what it holds.
  void wipe(std::byte byte) { memory_.fill(data(), byte, bytes_); }
  std::vector<std::byte> download() const;
  /// True if the buffer holds just these bytes. Needs little host memory.
  bool holds(std::span<const std::byte> bytes) const;
  /// Throws CheckFailure that names the buffer and the first damaged byte if a red zone changed.
  void check_zones() const;

 private:
  DeviceMemory& memory_;
  std::string name_;
  std::size_t bytes_;
  std::optional<std::byte> fill_;
  std::size_t zone_;
  std::byte* base_;
};

/// `array` in `dtype`, row-major; every value is rounded to nearest even.
std::vector<std::byte> pack(const Array& array, DType dtype);

/// Inverse of pack: exact. `shape` by shape_of.
Array unpack(std::span<const std::byte> bytes, DType dtype, const std::vector<std::int64_t>& shape);

}  // namespace mlstm::verify
