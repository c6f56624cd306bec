// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "file_bytes.hpp"
#include "mlstm/verify/case_file.hpp"

namespace mlstm::verify {
namespace {

[[noreturn]] void fail(std::string_view doing) { throw FileError(fmt::format("{}: {}", doing, std::strerror(errno))); }

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, std::string_view doing)
      : fd_(open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0) fail(doing);
  }
  ~Descriptor() { close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }  // NOLINT: system calls take it as it is

 private:
  int fd_;
};

void write_all(const std::filesystem::path& path, std::string_view bytes) {
  const Descriptor file(path, O_WRONLY | O_CREAT | O_EXCL, "cannot create");
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

/// File systems that cannot sync a directory say EINVAL.
void sync(const std::filesystem::path& path, int flags) {
  const Descriptor handle(path, O_RDONLY | flags, "cannot open");
  if (fsync(handle) != 0 && errno != EINVAL) fail("cannot sync");
}

}  // namespace

std::string read_bytes(const std::filesystem::path& path) try {
  const Descriptor file(path, O_RDONLY, "cannot open");
  struct stat status {};
  if (fstat(file, &status) != 0) fail("cannot stat");
  if (!S_ISREG(status.st_mode)) throw FileError("is not a regular file; expected one");
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = read(file, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read");
    if (got == 0) break;  // it became shorter
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  return bytes;
} catch (const std::exception& error) {
  throw FileError(fmt::format("{}: {}", path.string(), error.what()));
}

void replace_file(const std::filesystem::path& path, const std::function<void(const std::filesystem::path&)>& create) {
  static std::atomic<unsigned> counter{0};
  // Not *.h5, so that what a killed process leaves is never taken for a case.
  const std::filesystem::path temporary =
      path.parent_path() / fmt::format(".{}.{}.{}.tmp", path.filename().string(), getpid(), counter++);
  try {
    create(temporary);
    sync(temporary, 0);
    if (rename(temporary.c_str(), path.c_str()) != 0) fail("cannot replace");
    sync(path.has_parent_path() ? path.parent_path() : ".", O_DIRECTORY);
  } catch (const std::exception& error) {
    unlink(temporary.c_str());
    throw FileError(fmt::format("{}: {}", path.string(), error.what()));
  }
}

void write_text_file(const std::filesystem::path& path, const std::string& text) {
  replace_file(path, [&](const std::filesystem::path& temporary) { write_all(temporary, text); });
}

}  // namespace mlstm::verify
