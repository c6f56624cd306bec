// SPDX-License-Identifier: Apache-2.0
// What both ends of a worker know: its descriptors, and how it says that it has ended.
#pragma once

#include <cstdint>

#include "runner/workers.hpp"

namespace mlstm::verify {

/// Sockets that a worker is started with. Through the first the process that runs kernels gets requests and sends
/// replies; the second belongs to the process that watches it: at the end of the file it ends everything, and before it
/// ends itself it says how the other one did.
constexpr int kFramesDescriptor = 3, kControlDescriptor = 4;

struct WorkerEnding {
  enum class Reason : std::int32_t { by_itself, ordered, memory };
  Reason reason = Reason::by_itself;
  std::int32_t status = 0;        ///< as waitpid gives it
  std::uint64_t peak_memory = 0;  ///< bytes
};

/// What the process that runs kernels exits with when it cannot talk to the verifier.
constexpr int kHungUp = 113;

/// What `program worker --probe` exits with, plus the parts of Confinement that are missing.
constexpr int kProbed = 64;

/// Answers requests until there are none any more.
void serve_frames(int descriptor, const FindKernel& find);

}  // namespace mlstm::verify
