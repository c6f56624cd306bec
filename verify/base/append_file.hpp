// SPDX-License-Identifier: Apache-2.0
// Files that grow line by line and survive whatever ends the program.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/text.hpp"

namespace mlstm::verify {

/// An existing file, opened for appending. All errors are FileErrors that name it.
class AppendFile {
 public:
  /// Opens `path` and cuts it to `size` bytes.
  AppendFile(const std::filesystem::path& path, std::uint64_t size);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// Adds `bytes`, whole or not at all: what a full disk let through is cut off again. When it returns, the operating
  /// system has them, so that they survive the end of the process; they survive a power failure after the next sync(),
  /// which append() itself calls if the last one is a second ago.
  void append(std::string_view bytes);

  /// Waits until the storage device has everything.
  void sync();

 private:
  [[noreturn]] void fail(std::string_view doing) const;

  std::filesystem::path path_;
  int fd_;
  std::uint64_t size_;
  bool broken_ = false;  ///< part of a line may be at the end
  std::chrono::steady_clock::time_point synced_ = std::chrono::steady_clock::now();
};

/// Held by the process that writes into a directory; ends with the process, however that ends. Child processes do not
/// inherit it.
class DirectoryLock {
 public:
  static constexpr std::string_view kName = ".lock";

  /// Throws FileError if another process holds it. On file systems without locks it is never held.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_;
};

}  // namespace mlstm::verify
