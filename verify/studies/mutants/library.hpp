// SPDX-License-Identifier: Apache-2.0
// Memory that a kernel's library keeps between calls, and shares among them, though the interface leaves it none. It is
// locked, so that what goes wrong is what is in it, and not the access.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mlstm/kernel.hpp"

namespace mlstm::verify::planted {

class Library {
 public:
  using Bytes = std::vector<std::byte>;

  /// What forward saved, kept by a key.
  void keep(const std::string& key, const void* saved, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto* const from = static_cast<const std::byte*>(saved);
    kept_[key].assign(from, from + bytes);
  }
  /// `bytes` of it.
  Bytes kept(const std::string& key, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    Bytes copy = kept_[key];
    copy.resize(bytes);
    return copy;
  }
  void push(const void* saved, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto* const from = static_cast<const std::byte*>(saved);
    if (stack_.size() == kDeepest) stack_.erase(stack_.begin());
    stack_.emplace_back(from, from + bytes);
  }
  Bytes pop(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    Bytes top(bytes);
    if (stack_.empty()) return top;
    top = std::move(stack_.back());
    stack_.pop_back();
    top.resize(bytes);
    return top;
  }

  /// Puts numbers into memory that all calls share, and takes them from there a little later.
  template <class Real>
  void pass_through(Real* numbers, std::int64_t count) {
    {
      const std::lock_guard lock(mutex_);
      scratch_.assign(numbers, numbers + count);
    }
    for (int n = 0; n < kLittle; ++n) std::this_thread::yield();
    const std::lock_guard lock(mutex_);
    const auto there = std::min(scratch_.size(), static_cast<std::size_t>(count));
    std::transform(scratch_.begin(), scratch_.begin() + static_cast<std::ptrdiff_t>(there), numbers,
                   [](double x) { return static_cast<Real>(x); });
  }

  /// The k of the last forward call, while its shape is this one.
  void keep_keys(const Shape& shape, const void* keys) {
    const std::lock_guard lock(mutex_);
    shape_ = shape;
    keys_ = keys;
  }
  const void* keys(const Shape& shape, const void* otherwise) {
    const std::lock_guard lock(mutex_);
    return shape_ == shape ? keys_ : otherwise;
  }

  std::atomic<double> eps{0}, scale{0};    ///< of the last call
  std::atomic<std::int64_t> steps{0};      ///< S of the last forward call
  std::atomic<std::int64_t> next_head{0};  ///< that a call takes

 private:
  static constexpr std::size_t kDeepest = 16;
  static constexpr int kLittle = 10;
  std::mutex mutex_;
  std::map<std::string, Bytes> kept_;
  std::vector<Bytes> stack_;
  std::vector<double> scratch_;
  Shape shape_;
  const void* keys_ = nullptr;
};

}  // namespace mlstm::verify::planted
