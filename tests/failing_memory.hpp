// SPDX-License-Identifier: Apache-2.0
// A malloc that fails when it is told to, and counts what is taken. Included by one source file of a program: it
// replaces that program's malloc, operator new and all that is built on them included.
#pragma once

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define MLSTM_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MLSTM_ADDRESS_SANITIZER
#endif
#endif

#ifdef MLSTM_ADDRESS_SANITIZER
extern "C" void* __interceptor_malloc(std::size_t) noexcept;
extern "C" void* __interceptor_aligned_alloc(std::size_t, std::size_t) noexcept;
#else
extern "C" void* __libc_malloc(std::size_t) noexcept;
extern "C" void* __libc_memalign(std::size_t, std::size_t) noexcept;
extern "C" void __libc_free(void*) noexcept;
#endif

namespace mlstm::test {

/// Calls of malloc from now on that succeed before one fails; all those after it succeed again. Plain numbers and
/// built-in atomics: a sanitizer calls malloc before anything of its own is ready.
inline std::int64_t calls_before_failure = std::numeric_limits<std::int64_t>::max();
inline bool failed = false;

__attribute__((no_sanitize("address"), no_sanitize("undefined"))) inline bool fails_now() {
  if (__atomic_fetch_sub(&calls_before_failure, 1, __ATOMIC_SEQ_CST) != 0) return false;
  failed = true;
  errno = ENOMEM;
  return true;
}

/// The n-th allocation (from 0) fails while this object lives.
class FailingAllocation {
 public:
  explicit FailingAllocation(std::int64_t n) {
    failed = false;
    calls_before_failure = n;
  }
  ~FailingAllocation() { calls_before_failure = std::numeric_limits<std::int64_t>::max(); }
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
  static bool happened() { return failed; }
};

/// Bytes that are allocated now, and the most since `begin`, by malloc and aligned_alloc.
inline std::atomic<std::int64_t> bytes_now{0}, bytes_most{0};

inline void* counted(void* address) {
  if (address == nullptr) return address;
  const std::int64_t now = bytes_now += static_cast<std::int64_t>(malloc_usable_size(address));
  for (std::int64_t most = bytes_most; now > most && !bytes_most.compare_exchange_weak(most, now);) {
  }
  return address;
}

}  // namespace mlstm::test

#ifdef MLSTM_ADDRESS_SANITIZER
extern "C" __attribute__((no_sanitize("address"), no_sanitize("undefined"))) void* malloc(std::size_t bytes) noexcept {
  return mlstm::test::fails_now() ? nullptr : __interceptor_malloc(bytes);
}
extern "C" __attribute__((no_sanitize("address"), no_sanitize("undefined"))) void* aligned_alloc(
    std::size_t alignment, std::size_t bytes) noexcept {
  return mlstm::test::fails_now() ? nullptr : __interceptor_aligned_alloc(alignment, bytes);
}
// A sanitizer's operator new does not call malloc. Not inlined, or GCC takes free() for one that does not match.
__attribute__((noinline)) void* operator new(std::size_t bytes) {
  if (void* const address = malloc(bytes)) return address;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* address) noexcept { free(address); }
__attribute__((noinline)) void operator delete(void* address, std::size_t) noexcept { free(address); }
#else
extern "C" void* malloc(std::size_t bytes) noexcept {
  return mlstm::test::fails_now() ? nullptr : mlstm::test::counted(__libc_malloc(bytes));
}
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  return mlstm::test::fails_now() ? nullptr : mlstm::test::counted(__libc_memalign(alignment, bytes));
}
extern "C" void free(void* address) noexcept {
  if (address != nullptr) mlstm::test::bytes_now -= static_cast<std::int64_t>(malloc_usable_size(address));
  __libc_free(address);
}
#endif
