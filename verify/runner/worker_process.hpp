// SPDX-License-Identifier: Apache-2.0
// The verifier's end of one worker process.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "runner/worker_ends.hpp"
#include "runner/worker_frames.hpp"
#include "runner/workers.hpp"

namespace mlstm::verify {

/// What a worker writes to stdout and stderr.
class CapturedOutput {
 public:
  static constexpr std::size_t kKept = 4096, kMost = 1 << 20;
  void add(std::string_view text);
  bool too_much() const { return total_ > kMost; }
  /// The beginning, in valid UTF-8.
  std::string beginning() const;
  /// `; last output: "..."`, or nothing.
  std::string last_line() const;

 private:
  std::string head_, tail_;
  std::uint64_t total_ = 0;
};

/// What of Confinement this system lacks, says `program worker --probe`. Throws WorkerError if it cannot be started, or
/// is no such program.
std::uint32_t probe_confinement(const std::filesystem::path& program);

class WorkerProcess {
 public:
  /// Throws WorkerError if it cannot be started.
  WorkerProcess(const std::filesystem::path& program, const WorkerLimits& limits);
  /// Ends it, and whatever it has started.
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  struct Reply {
    FrameKind kind{};
    std::string meta;
    std::string output;
  };

  /// Sends a request and waits for the reply, whose tensors go to `target` if it is `done`; then they have just that
  /// size. Throws TimeoutError after so many seconds, and WorkerError for any other end; then the worker is gone.
  Reply exchange(FrameKind kind, std::string_view meta, const Source& source, const Target& target,
                 std::optional<double> seconds);

  /// False if it has ended since, has sent what nobody asked for, or has started processes that are still there.
  bool is_usable() const;

 private:
  using Clock = std::chrono::steady_clock;
  class Exchange;

  /// Ends the worker, after up to `patience` in which it may do so by itself. How it ended; nothing if it cannot be
  /// told, because somebody killed the process that watches.
  std::optional<WorkerEnding> end(std::chrono::milliseconds patience);
  void read_output();
  std::string describe(const std::optional<WorkerEnding>& ending) const;

  WorkerLimits limits_;
  pid_t pid_ = -1;
  int frames_ = -1, control_ = -1, output_ = -1;
  CapturedOutput captured_;
};

}  // namespace mlstm::verify
