// SPDX-License-Identifier: Apache-2.0
// Subnormal numbers flushed to zero, as GPUs' fast paths and -ffast-math do.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace mlstm::verify::planted {

/// Whether this processor can be told to.
constexpr bool can_flush_subnormals() {
#if defined(__SSE2__)
  return true;
#else
  return false;
#endif
}

/// While it lives, and if `wanted`, this thread takes subnormal operands and results for 0.
class FlushSubnormals {
 public:
#if defined(__SSE2__)
  explicit FlushSubnormals(bool wanted) : before_(_mm_getcsr()) {
    constexpr unsigned flush_results = 1u << 15, flush_operands = 1u << 6;
    if (wanted) _mm_setcsr(before_ | flush_results | flush_operands);
  }
  ~FlushSubnormals() { _mm_setcsr(before_); }
#else
  explicit FlushSubnormals(bool) {}
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

#if defined(__SSE2__)
 private:
  unsigned before_;
#endif
};

}  // namespace mlstm::verify::planted
