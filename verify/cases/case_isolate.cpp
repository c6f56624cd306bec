// SPDX-License-Identifier: Apache-2.0
// HDF5 1.10 can crash or loop on damaged files. So a child process parses, and sends the case or the error through a
// pipe; the process that matters never opens a file with HDF5.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <new>

#include <fmt/format.h>

#include "cases/case_file.hpp"
#include "cases/case_image.hpp"
#include "cases/codec.hpp"

namespace mlstm::verify {
namespace codec {

/// Into a file descriptor, and out of one. Their functions are found where these types are.
class Sender {
 public:
  static constexpr bool kReceives = false;
  static constexpr std::size_t kLongestText = std::numeric_limits<std::size_t>::max();
  explicit Sender(int fd) : fd_(fd) {}
  void bytes(const void* data, std::size_t size) {
    const char* next = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t sent = write(fd_, next, size);
      if (sent < 0 && errno != EINTR) _exit(EXIT_FAILURE);  // the parent is gone
      if (sent <= 0) continue;
      next += sent;
      size -= static_cast<std::size_t>(sent);
    }
  }

 private:
  int fd_;
};

class Receiver {
 public:
  static constexpr bool kReceives = true;
  static constexpr std::size_t kLongestText = std::numeric_limits<std::size_t>::max();
  explicit Receiver(int fd) : fd_(fd) {}
  void bytes(void* data, std::size_t size) {
    char* next = static_cast<char*>(data);
    while (size > 0) {
      const ssize_t got = read(fd_, next, size);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw CodecError("it was cut off");
      next += got;
      size -= static_cast<std::size_t>(got);
    }
  }

 private:
  int fd_;
};

}  // namespace codec

namespace {

constexpr unsigned kPatienceSeconds = 4;  // for one step, beside its bytes
constexpr double kBusySeconds = 1;        // of CPU time; a child that ran out of time with less did not loop
constexpr int kAttempts = 2;
constexpr std::uint64_t kBytesPerSecond = 20'000'000;             // the slowest honest reading
constexpr std::uint64_t kWorkingMemory = std::uint64_t{1} << 29;  // beside the data
enum class Reply : unsigned char { none, result, error };

std::uint64_t address_space_in_use() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// From now on the process dies when it takes longer, and gets no more memory, than handling `bytes` can need.
void limit_resources(std::uint64_t bytes) {
  alarm(kPatienceSeconds + static_cast<unsigned>(bytes / kBytesPerSecond));
  const std::uint64_t in_use = address_space_in_use();
  if (in_use == 0) return;  // no /proc here
  rlimit memory{};
  getrlimit(RLIMIT_AS, &memory);
  const rlim_t wanted = in_use + kWorkingMemory + 4 * bytes;
  memory.rlim_cur = std::min(wanted, memory.rlim_max);
  setrlimit(RLIMIT_AS, &memory);
}

[[noreturn]] void run_child(int fd, const std::string& image) {
  // Neither the parent's signal handlers nor its terminal are this process's business.
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGTERM, SIGINT, SIGPIPE})
    std::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  alarm(kPatienceSeconds);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(null, STDERR_FILENO);

  std::string error;
  Case c;
  try {
    limit_resources(image.size());
    c = decode_case(image, limit_resources);
  } catch (const std::bad_alloc&) {
    error = "reading needs more memory than its data; the file is damaged";
  } catch (const std::exception& exception) {
    error = exception.what();
  }
  alarm(0);  // the parent reads at its own pace
  send_reply(fd, c, error);
  _exit(EXIT_SUCCESS);
}

struct Child {
  pid_t pid;
  int fd;
};

Child start_child(const std::string& image) {
  const std::lock_guard lock(hdf5_mutex());
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw FileError(fmt::format("pipe: {}", std::strerror(errno)));
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    run_child(ends[1], image);
  }
  const int fork_error = errno;
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    throw FileError(fmt::format("fork: {}", std::strerror(fork_error)));
  }
  return {pid, ends[0]};
}

struct Ending {
  int status = 0;
  double cpu_seconds = 0;
  bool out_of_time() const { return WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM; }
};

Ending wait_for(pid_t pid) {
  Ending ending;
  rusage used{};
  while (wait4(pid, &ending.status, 0, &used) < 0 && errno == EINTR) {
  }
  for (const timeval& time : {used.ru_utime, used.ru_stime})
    ending.cpu_seconds += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  return ending;
}

}  // namespace

bool receive_reply(int fd, Case& c, std::string& error) try {
  codec::Receiver pipe(fd);
  Reply reply = Reply::none;
  pipe.bytes(&reply, sizeof reply);
  if (reply == Reply::result) transfer(pipe, c);
  if (reply == Reply::error) transfer(pipe, error);
  return reply == Reply::result || reply == Reply::error;
} catch (const CodecError&) {  // cut off, or damaged
  return false;
} catch (const std::length_error&) {  // a text longer than can be
  return false;
}

void send_reply(int fd, Case& c, std::string& error) {
  codec::Sender pipe(fd);
  const Reply reply = error.empty() ? Reply::result : Reply::error;
  pipe.bytes(&reply, sizeof reply);
  if (error.empty())
    transfer(pipe, c);
  else
    transfer(pipe, error);
}

Case decode_isolated(const std::string& image) {
  for (int attempt = 1;; ++attempt) {
    const Child child = start_child(image);
    Case c;
    std::string error;
    bool complete = false;
    try {
      complete = receive_reply(child.fd, c, error);
    } catch (const std::bad_alloc&) {  // of this process: nothing is wrong with the file
      close(child.fd);
      kill(child.pid, SIGKILL);
      wait_for(child.pid);
      throw;
    }
    close(child.fd);
    if (!complete) kill(child.pid, SIGKILL);
    const Ending ending = wait_for(child.pid);
    if (complete && error.empty()) return c;
    if (complete) throw FileError(error);
    // Out of time without using it, the child waited: for a busy CPU, or for a lock that some thread held at the fork
    // (sanitizers have such locks). That says nothing about the file.
    const bool waited = ending.out_of_time() && ending.cpu_seconds < kBusySeconds;
    if (waited && attempt < kAttempts) continue;
    if (ending.out_of_time()) throw FileError("HDF5 did not finish reading in time; the file is damaged");
    if (WIFSIGNALED(ending.status))
      throw FileError(
          fmt::format("HDF5 crashed while reading ({}); the file is damaged", strsignal(WTERMSIG(ending.status))));
    throw FileError("HDF5 ended the reading process; the file is damaged");
  }
}

}  // namespace mlstm::verify
