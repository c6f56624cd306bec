// SPDX-License-Identifier: Apache-2.0
#include "runner/runner_memory.hpp"

#include <fmt/format.h>

#include <Eigen/Core>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "runner/run_check.hpp"

namespace mlstm::verify {
namespace {

class HostMemory final : public DeviceMemory {
 public:
  void* allocate(std::size_t bytes) override {
    constexpr std::size_t alignment = 256;
    void* const address = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (address == nullptr) throw std::bad_alloc();
    return address;
  }
  void release(void* address) noexcept override { std::free(address); }
  void fill(void* address, std::byte byte, std::size_t bytes) override {
    std::memset(address, std::to_integer<int>(byte), bytes);
  }
  void upload(void* device, const void* host, std::size_t bytes) override { copy(device, host, bytes); }
  void download(void* host, const void* device, std::size_t bytes) override { copy(host, device, bytes); }
  void synchronize() override {}
  void* stream() override { return nullptr; }
  Attributes description() override { return {{"device", std::string("cpu")}}; }

 private:
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
};

template <class T>
std::vector<std::byte> pack_as(const Array& array, DType dtype) {
  std::vector<std::byte> bytes(array.size() * sizeof(T));
  std::byte* out = bytes.data();
  for (const double value : array) {
    const auto convert = [](double x) {
      if constexpr (sizeof(T) == 2)
        return T(static_cast<float>(x));
      else
        return static_cast<T>(x);
    };
    // Nearly all values are numbers of the dtype. Others are rounded once, in round_to: the conversion is exact then.
    T stored = convert(value);
    if (static_cast<double>(stored) != value) stored = convert(round_to(dtype, value));
    std::memcpy(out, &stored, sizeof(T));
    out += sizeof(T);
  }
  return bytes;
}

template <class T>
Array unpack_as(std::span<const std::byte> bytes, const std::vector<std::size_t>& extents) {
  Array array = Array::from_shape(extents);
  if (bytes.size() != array.size() * sizeof(T)) throw std::logic_error("unpack: bytes do not fit the shape");
  const std::byte* in = bytes.data();
  for (double& value : array) {
    T stored;
    std::memcpy(&stored, in, sizeof(T));
    value = static_cast<double>(stored);
    in += sizeof(T);
  }
  return array;
}

}  // namespace

#ifndef MLSTM_HAVE_CUDA
const CudaAccess& access_cuda() {
  static const CudaAccess none{{}, "built without CUDA"};
  return none;
}
#endif

DeviceMemory* memory_of(Device device, int lane) {
  static HostMemory host;
  return device == Device::cpu ? &host : access_cuda().lanes.at(static_cast<std::size_t>(lane));
}

std::string unavailable(Device device) { return device == Device::cpu ? "" : access_cuda().unavailable; }

GuardedBuffer::GuardedBuffer(DeviceMemory& memory, std::string name, std::size_t bytes, std::optional<std::byte> fill)
    : memory_(memory),
      name_(std::move(name)),
      bytes_(bytes),
      fill_(fill),
      zone_(fill ? kZone : 0),
      base_(static_cast<std::byte*>(memory.allocate(bytes + 2 * zone_))) {
  if (fill) memory_.fill(base_, *fill, bytes + 2 * zone_);
}

GuardedBuffer::~GuardedBuffer() { memory_.release(base_); }

void GuardedBuffer::upload(std::span<const std::byte> bytes) {
  if (bytes.size() != bytes_) throw std::logic_error(name_ + ": upload of another size");
  memory_.upload(data(), bytes.data(), bytes.size());
}

std::vector<std::byte> GuardedBuffer::download() const {
  std::vector<std::byte> bytes(bytes_);
  memory_.download(bytes.data(), data(), bytes_);
  return bytes;
}

bool GuardedBuffer::holds(std::span<const std::byte> bytes) const {
  if (bytes.size() != bytes_) return false;
  constexpr std::size_t most = std::size_t{64} << 20;
  std::vector<std::byte> part(std::min(most, bytes_));
  for (std::size_t at = 0; at < bytes_; at += most) {
    const std::size_t n = std::min(most, bytes_ - at);
    memory_.download(part.data(), base_ + zone_ + at, n);
    if (std::memcmp(part.data(), bytes.data() + at, n) != 0) return false;
  }
  return true;
}

void GuardedBuffer::check_zones() const {
  if (!fill_) return;
  std::vector<std::byte> zone(kZone);
  memory_.download(zone.data(), base_ + kZone + bytes_, kZone);
  for (std::size_t at = 0; at < kZone; ++at)
    if (zone[at] != *fill_)
      throw CheckFailure(RunCheck::red_zone, name_,
                         fmt::format("{} was written past its end: byte {} of {}", name_, bytes_ + at, bytes_));
  memory_.download(zone.data(), base_, kZone);
  for (std::size_t at = kZone; at-- > 0;)
    if (zone[at] != *fill_)
      throw CheckFailure(RunCheck::red_zone, name_,
                         fmt::format("{} was written before its start: byte -{} of {}", name_, kZone - at, bytes_));
}

std::vector<std::byte> pack(const Array& array, DType dtype) {
  switch (dtype) {
    case DType::float64:
      return pack_as<double>(array, dtype);
    case DType::float32:
      return pack_as<float>(array, dtype);
    case DType::float16:
      return pack_as<Eigen::half>(array, dtype);
    case DType::bfloat16:
      return pack_as<Eigen::bfloat16>(array, dtype);
    case DType::tfloat32:
      break;
  }
  throw std::logic_error("pack: tfloat32 is not a storage format");
}

Array unpack(std::span<const std::byte> bytes, DType dtype, const std::vector<std::int64_t>& shape) {
  const std::vector<std::size_t> extents(shape.begin(), shape.end());
  switch (dtype) {
    case DType::float64:
      return unpack_as<double>(bytes, extents);
    case DType::float32:
      return unpack_as<float>(bytes, extents);
    case DType::float16:
      return unpack_as<Eigen::half>(bytes, extents);
    case DType::bfloat16:
      return unpack_as<Eigen::bfloat16>(bytes, extents);
    case DType::tfloat32:
      break;
  }
  throw std::logic_error("unpack: tfloat32 is not a storage format");
}

}  // namespace mlstm::verify
