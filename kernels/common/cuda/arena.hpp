// SPDX-License-Identifier: Apache-2.0
// Parts of a caller-owned buffer. The same code hands out the parts and, with a null base, adds up the size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlstm::kernels::cuda {

class Arena {
 public:
  explicit Arena(const void* base) : base_(static_cast<std::byte*>(const_cast<void*>(base))) {}

  /// The next n elements, aligned to 256 bytes; null if the base is null.
  template <class T>
  T* take(std::int64_t n) {
    T* const part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
  /// Bytes handed out so far.
  std::size_t size() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace mlstm::kernels::cuda
