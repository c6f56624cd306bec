// SPDX-License-Identifier: Apache-2.0
// How much host memory a run takes, before any of it is taken.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "base/memory.hpp"
#include "cases/memory_needs.hpp"
#include "mlstm/kernel.hpp"

namespace mlstm::verify {

/// Bytes that the process has that runs the variant, beside what the variant allocates itself.
struct KernelNeeds {
  std::uint64_t inputs = 0;   ///< as they arrive, and as they are stored
  std::uint64_t buffers = 0;  ///< what the variant gets in host memory, and what is kept to compare with it
  std::uint64_t saved = 0;    ///< of the buffers: what forward leaves for backward, twice
  std::uint64_t results = 0;  ///< of two runs, to be compared
  std::uint64_t reply = 0;    ///< results of one run, and as they are sent; buffers are gone by then

  std::uint64_t total() const { return inputs + std::max(buffers + results, reply); }
};

/// Nothing if the variant cannot be asked here (one of a plugin that is loaded in workers only), or throws.
std::optional<KernelNeeds> kernel_needs(const Kernel& kernel, const Problem& problem, bool gradients);

/// What limits the memory of a sweep.
struct MemoryLimits {
  MemoryRoom room = available_memory();  ///< for this process and those that run kernels, together
  /// Bytes that a process that runs kernels may use, 0: any number. Absent: kernels run in this process.
  std::optional<std::uint64_t> worker;
};

/// One line on what a problem needs.
std::string needs_text(const VerifierNeeds& verifier, const std::optional<KernelNeeds>& kernel);

/// Why a problem with these needs cannot be judged, with what it needs and what there is; empty if it can.
std::string why_too_large(const VerifierNeeds& verifier, const std::optional<KernelNeeds>& kernel,
                          const MemoryLimits& limits);

}  // namespace mlstm::verify
