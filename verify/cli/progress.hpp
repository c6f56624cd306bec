// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

namespace mlstm::cli {

/// How far a sweep has come: a bar on a terminal; in a pipe or a log one line every few seconds, and none for what is
/// done sooner.
class Progress {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  /// `what` is counted, e.g. "problems". Without `count_failures` only progress is said: failures are what a command
  /// looks for. `clock` and `out` are for tests.
  Progress(std::string what, std::int64_t total, bool count_failures = true,
           Clock clock = std::chrono::steady_clock::now, std::FILE* out = stderr);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// One more is done, in which so many tensors did not pass.
  void advance(std::int64_t failures);

 private:
  void draw() const;

  std::string what_;
  std::int64_t total_, done_ = 0, failures_ = 0;
  bool count_failures_, terminal_;
  Clock clock_;
  std::chrono::steady_clock::time_point last_line_;  ///< or the beginning
  std::FILE* out_;
};

}  // namespace mlstm::cli
