// SPDX-License-Identifier: Apache-2.0
// Where a kernel's buffers live. The CPU implementation is here; another device adds one file that implements
// DeviceMemory and one line in runner_memory.cpp.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "mlstm/kernel.hpp"
#include "mlstm/verify/case.hpp"

namespace mlstm::verify {

/// Memory of one device. Errors are exceptions that name the call.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  /// At least `bytes` bytes, aligned to 256.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* address) noexcept = 0;
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;
  /// Waits for all kernels; errors of asynchronous work surface here.
  virtual void synchronize() = 0;
  /// What ForwardArgs::stream gets.
  virtual void* stream() = 0;
};

/// The device's memory, or null where this machine or build has no such device.
DeviceMemory* memory_of(Device device);

/// A device buffer between two red zones. All of it starts as repetitions of one byte.
class GuardedBuffer {
 public:
  static constexpr std::size_t kZone = 256;

  GuardedBuffer(DeviceMemory& memory, std::string name, std::size_t bytes, std::byte fill);
  ~GuardedBuffer();
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  const std::string& name() const { return name_; }
  void* data() const { return base_ + kZone; }
  void upload(std::span<const std::byte> bytes);
  std::vector<std::byte> download() const;
  /// Throws std::runtime_error that names the buffer and the first damaged byte if a red zone changed.
  void check_zones() const;

 private:
  DeviceMemory& memory_;
  std::string name_;
  std::size_t bytes_;
  std::byte fill_;
  std::byte* base_;
};

/// `array` in `dtype`, row-major; every value is rounded to nearest even.
std::vector<std::byte> pack(const Array& array, DType dtype);

/// Inverse of pack: exact. `shape` by shape_of.
Array unpack(std::span<const std::byte> bytes, DType dtype, const std::vector<std::int64_t>& shape);

}  // namespace mlstm::verify
