// SPDX-License-Identifier: Apache-2.0
// Host memory: how much there is to be had, and who ran out of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <utility>

namespace mlstm::verify {

/// Memory that ran out. The message says whose: the verifier's own, or that of a kernel and the buffers it gets.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

/// What body() returns. A std::bad_alloc that leaves it becomes OutOfMemory "<who> ran out of memory while <doing>";
/// one that says so already passes.
template <class Body>
decltype(auto) naming_who_ran_out(std::string_view who, std::string_view doing, const Body& body) {
  try {
    return body();
  } catch (const OutOfMemory&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(std::string(who).append(" ran out of memory while ").append(doing));
  }
}

/// An error's message for a user: what(), or for a bare std::bad_alloc that the verifier ran out of memory.
std::string reason_of(const std::exception& error);

/// Bytes as in "512 MiB" and "3.4 GiB".
std::string bytes_text(std::uint64_t bytes);

/// Bytes, and what limits them: "the machine", "the control group", ...
struct MemoryRoom {
  std::uint64_t bytes = UINT64_MAX;
  std::string limited_by = "nothing";
};

/// Bytes of the machine's memory, or of what its control group may have, if that is less; used or not.
std::uint64_t machine_memory();

/// Memory that this process can still get: the least of what the machine has available (swap included), of what its
/// control groups (version 1 or 2) and its limits (RLIMIT_AS, RLIMIT_DATA) leave. `root` is where /proc and /sys are.
MemoryRoom available_memory(const std::filesystem::path& root = "/");

}  // namespace mlstm::verify
