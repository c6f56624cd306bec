// SPDX-License-Identifier: Apache-2.0
#include "base/append_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.hpp"

namespace mlstm::verify {
namespace {

constexpr std::chrono::seconds kSyncInterval{1};

struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

AppendFile::AppendFile(const std::filesystem::path& path, std::uint64_t size)
    : path_(path), fd_(open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC)), size_(size) {
  if (fd_ < 0) fail("cannot open for writing");
  if (ftruncate(fd_, static_cast<off_t>(size)) != 0) {
    const int error = errno;
    close(fd_);
    errno = error;
    fail("cannot cut off an unfinished line");
  }
}

AppendFile::~AppendFile() { close(fd_); }

void AppendFile::fail(std::string_view doing) const {
  throw FileError(fmt::format("{}: {}: {}", path_.string(), doing, std::strerror(errno)));
}

void AppendFile::append(std::string_view bytes) {
  if (broken_) throw FileError(path_.string() + ": cannot be written any more");
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const ssize_t written = write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      // Even if this fails, readers ignore a last line without an end; so nothing may follow it.
      broken_ = ftruncate(fd_, static_cast<off_t>(size_)) != 0;
      errno = error;
      fail("cannot write");
    }
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  size_ += bytes.size();
  if (std::chrono::steady_clock::now() - synced_ >= kSyncInterval) sync();
}

void AppendFile::sync() {
  // File systems that cannot sync say EINVAL.
  if (fdatasync(fd_) != 0 && errno != EINVAL) fail("cannot sync");
  synced_ = std::chrono::steady_clock::now();
}

DirectoryLock::DirectoryLock(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kName;
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) throw FileError(fmt::format("{}: cannot create: {}", path.string(), std::strerror(errno)));
  struct flock lock = whole_file();
  if (fcntl(fd_, F_SETLK, &lock) == 0 || (errno != EACCES && errno != EAGAIN)) return;
  lock = whole_file();
  const bool known = fcntl(fd_, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0;
  close(fd_);
  throw FileError(fmt::format("{}: another sweep{} is writing there; expected a directory of its own for each",
                              directory.string(), known ? fmt::format(" (process {})", lock.l_pid) : ""));
}

DirectoryLock::~DirectoryLock() { close(fd_); }

}  // namespace mlstm::verify
