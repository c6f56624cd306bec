// SPDX-License-Identifier: Apache-2.0
// The pipe from the process that reads a case: HDF5 may have damaged that process's memory before it died, or before
// it went on.
#include <sys/mman.h>
#include <unistd.h>

#include "cases/case_image.hpp"
#include "small_case.hpp"
#include "targets.hpp"

namespace mlstm::fuzz {
namespace {

/// A file in memory, open at its beginning.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("reply", MFD_CLOEXEC)) { require(fd_ >= 0, "memory for a file"); }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  int fd() const { return fd_; }
  void rewind() const { require(lseek(fd_, 0, SEEK_SET) == 0, "a file can be rewound"); }

 private:
  int fd_;
};

std::string reply(verify::Case c, std::string error) {
  const MemoryFile file;
  verify::send_reply(file.fd(), c, error);
  std::string bytes(static_cast<std::size_t>(lseek(file.fd(), 0, SEEK_CUR)), '\0');
  file.rewind();
  require(read(file.fd(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "a file can be read");
  return bytes;
}

std::vector<std::string> seeds() {
  verify::Case forward = test::small_case(DType::float32, Gate::sigmoid, false, {1, 1, 2, 1, 1});
  forward.reference.reset();
  forward.kernel.reset();
  verify::Case opaque = forward;
  opaque.attributes["array"] = verify::OpaqueAttribute{"type", "space", "data"};
  return {reply(forward, ""), reply(opaque, ""), reply({}, "wrong"),
          reply(test::small_case(DType::float64, Gate::exp, true, {1, 1, 1, 1, 1}), "")};
}

bool run(std::string_view bytes) {
  const MemoryFile file;
  require(write(file.fd(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "a file can be written");
  file.rewind();
  verify::Case c;
  std::string error;
  if (!verify::receive_reply(file.fd(), c, error) || !error.empty()) return false;
  try {
    verify::validate(c);
    require(reply(c, "").size() <= bytes.size(), "what has arrived was sent");
    return true;
  } catch (const std::invalid_argument& refusal) {
    require_message(refusal.what());
  }
  return false;
}

}  // namespace

Target reply_target() {
  using namespace std::string_literals;
  return {"reply",
          run,
          seeds,
          {"\0\0\0\0\0\0\0\0"s, "\xff\xff\xff\xff\xff\xff\xff\xff"s, "\1\0\0\0\0\0\0\0"s, "\0\0\0\0\0\0\0\x10"s,
           "\0\0\0\0\1\0\0\0"s, "\2"s, "\0\0\0\0\0\0\xf8\x7f"s}};
}

}  // namespace mlstm::fuzz
