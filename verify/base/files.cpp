// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

#include "base/files.hpp"

namespace mlstm::verify {
namespace {

constexpr std::string_view kTemporary = ".tmp";

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

/// File systems that cannot sync a directory say EINVAL.
void sync_directory(const std::filesystem::path& path) {
  const Descriptor handle(path, O_RDONLY | O_DIRECTORY, "cannot open the directory");
  if (fsync(handle) != 0 && errno != EINVAL) fail("cannot sync");
}

std::string temporary_prefix(const std::filesystem::path& path) {
  return fmt::format(".{}.", path.filename().string());
}

/// A file under a temporary name beside the one that it is going to replace.
class Replacement {
 public:
  explicit Replacement(const std::filesystem::path& path) : path_(path) {
    static std::atomic<unsigned> counter{0};
    // Not *.h5, so that what a killed process leaves is never taken for a case.
    temporary_ = path.parent_path() / fmt::format("{}{}.{}{}", temporary_prefix(path), getpid(), counter++, kTemporary);
  }
  ~Replacement() {
    if (!temporary_.empty()) unlink(temporary_.c_str());
  }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  void write(std::string_view bytes) {
    attempt([&] {
      const Descriptor file(temporary_, O_WRONLY | O_CREAT | O_EXCL, "cannot create");
      while (!bytes.empty()) {
        const ssize_t written = ::write(file, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail("cannot write");
        bytes.remove_prefix(static_cast<std::size_t>(written));
      }
      if (fsync(file) != 0 && errno != EINVAL) fail("cannot sync");
    });
  }

  void rename() {
    attempt([&] {
      if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot replace");
      temporary_.clear();
      sync_directory(path_.has_parent_path() ? path_.parent_path() : ".");
    });
  }

 private:
  template <class Step>
  void attempt(const Step& step) const try {
    step();
  } catch (const std::exception& error) {
    throw FileError(fmt::format("{}: {}", path_.string(), error.what()));
  }

  std::filesystem::path path_, temporary_;
};

}  // namespace

std::string read_bytes(const std::filesystem::path& path) try {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, "cannot open");  // or a FIFO would make it wait
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

void replace_file(const std::filesystem::path& path, std::string_view bytes) {
  Replacement file(path);
  file.write(bytes);
  file.rename();
}

void replace_files(const std::vector<std::pair<std::filesystem::path, std::string>>& files) {
  std::vector<std::unique_ptr<Replacement>> replacements;
  for (const auto& [path, bytes] : files) {
    replacements.push_back(std::make_unique<Replacement>(path));
    replacements.back()->write(bytes);
  }
  for (const auto& replacement : replacements) replacement->rename();
}

void remove_temporaries(const std::filesystem::path& path) {
  const std::string prefix = temporary_prefix(path);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(kTemporary)) std::filesystem::remove(entry.path(), ignored);
  }
}

std::string read_text_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    throw FileError(path.string() + ": is a directory; expected a file");
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  if (!stream || !(text << stream.rdbuf() || stream.peek() == std::ifstream::traits_type::eof()))
    throw FileError(fmt::format("{}: cannot be read{}", path.string(),
                                errno != 0 ? fmt::format(": {}", std::strerror(errno)) : ""));
  return text.str();
}

std::string sha256_of(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1)
    throw FileError("SHA-256 is not available in OpenSSL");
  std::string text;
  for (unsigned n = 0; n < size; ++n) text += fmt::format("{:02x}", digest[n]);
  return text;
}

std::string sha256_of_file(const std::filesystem::path& path) { return sha256_of(read_bytes(path)); }

}  // namespace mlstm::verify
