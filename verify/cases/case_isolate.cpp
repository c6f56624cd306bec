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
#include <deque>
#include <fstream>
#include <limits>
#include <new>
#include <type_traits>

#include <fmt/format.h>

#include "cases/case_file.hpp"
#include "cases/case_image.hpp"

namespace mlstm::verify {
namespace {

constexpr unsigned kPatienceSeconds = 4;  // for one step, beside its bytes
constexpr double kBusySeconds = 1;        // of CPU time; a child that ran out of time with less did not loop
constexpr int kAttempts = 2;
constexpr std::uint64_t kBytesPerSecond = 20'000'000;             // the slowest honest reading
constexpr std::uint64_t kWorkingMemory = std::uint64_t{1} << 29;  // beside the data
constexpr std::size_t kPiece = std::size_t{1} << 16;  // of bytes or numbers, for which memory is taken at once
constexpr std::size_t kLargestRank = 32;              // HDF5's
enum class Reply { none, result, error };

class Sender {
 public:
  static constexpr bool kReceives = false;
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

struct Interrupted : std::exception {};
struct Nonsense : std::exception {};  // from a child whose memory is damaged

class Receiver {
 public:
  static constexpr bool kReceives = true;
  explicit Receiver(int fd) : fd_(fd) {}
  void bytes(void* data, std::size_t size) {
    char* next = static_cast<char*>(data);
    while (size > 0) {
      const ssize_t got = read(fd_, next, size);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw Interrupted();
      next += got;
      size -= static_cast<std::size_t>(got);
    }
  }

 private:
  int fd_;
};

template <class T>
constexpr T kLast = T{};
template <>
constexpr Reply kLast<Reply> = Reply::error;
template <>
constexpr Gate kLast<Gate> = Gate::sigmoid;
template <>
constexpr StabilizerInit kLast<StabilizerInit> = StabilizerInit::neg_inf;
template <>
constexpr Convention kLast<Convention> = Convention::detached;
template <>
constexpr DType kLast<DType> = DType::bfloat16;

// One description of the format serves both directions. Both ends are the same program, so that the representation of
// plain values is free; but the receiving one believes no size, and takes no value that its type does not have.
template <class Pipe, class T>
requires std::is_arithmetic_v<T>
void transfer(Pipe& pipe, T& value) { pipe.bytes(&value, sizeof value); }

template <class Pipe, class T>
requires std::is_enum_v<T>
void transfer(Pipe& pipe, T& value) {
  auto number = static_cast<int>(value);
  transfer(pipe, number);
  if (number < 0 || number > static_cast<int>(kLast<T>)) throw Nonsense();
  value = static_cast<T>(number);
}

template <class Pipe>
void transfer(Pipe& pipe, bool& value) {
  char byte = value ? 1 : 0;
  transfer(pipe, byte);
  if (byte != 0 && byte != 1) throw Nonsense();
  value = byte == 1;
}

template <class Pipe, class T>
void transfer(Pipe& pipe, std::optional<T>& value) {
  bool present = value.has_value();
  transfer(pipe, present);
  if (!present) return;
  if constexpr (Pipe::kReceives) value.emplace();
  transfer(pipe, *value);
}

template <class Pipe>
void transfer(Pipe& pipe, std::string& text) {
  std::size_t size = text.size();
  transfer(pipe, size);
  if constexpr (Pipe::kReceives) text.clear();
  for (std::size_t done = 0, piece; done < size; done += piece) {
    piece = std::min(size - done, kPiece);
    if constexpr (Pipe::kReceives) text.resize(done + piece);
    pipe.bytes(text.data() + done, piece);
  }
}

template <class Pipe>
void transfer(Pipe& pipe, Problem& problem) {
  Shape& shape = problem.shape;
  for (std::int64_t* extent : {&shape.B, &shape.NH, &shape.S, &shape.DHQK, &shape.DHV}) transfer(pipe, *extent);
  transfer(pipe, problem.gate);
  transfer(pipe, problem.normalize);
  transfer(pipe, problem.eps);
  transfer(pipe, problem.dtype);
  transfer(pipe, problem.stabilizer_init);
  transfer(pipe, problem.chunk_size);
  transfer(pipe, problem.has_initial_state);
}

template <class Pipe>
void transfer(Pipe& pipe, Array& array) {
  std::size_t rank = array.dimension();
  transfer(pipe, rank);
  if (rank > kLargestRank) throw Nonsense();
  std::vector<std::size_t> shape(array.shape().begin(), array.shape().end());
  shape.resize(rank);
  pipe.bytes(shape.data(), rank * sizeof(std::size_t));
  std::size_t count = 1, stride = 1;  // strides are computed from the other extents if one is zero
  for (const std::size_t extent : shape) {
    if (__builtin_mul_overflow(stride, std::max<std::size_t>(extent, 1), &stride)) throw Nonsense();
    count *= extent;
  }
  if (stride > std::numeric_limits<std::ptrdiff_t>::max() / sizeof(double)) throw Nonsense();
  if constexpr (Pipe::kReceives) {
    // No memory is taken before there is something to fill it; what is too large for one piece is put together later.
    std::deque<std::vector<double>> pieces;
    for (std::size_t done = 0; done < count; done += pieces.back().size()) {
      pieces.emplace_back(std::min(count - done, kPiece));
      pipe.bytes(pieces.back().data(), pieces.back().size() * sizeof(double));
    }
    array = Array::from_shape({shape.begin(), shape.end()});
    for (double* next = array.data(); !pieces.empty(); pieces.pop_front())
      next = std::copy(pieces.front().begin(), pieces.front().end(), next);
  } else {
    pipe.bytes(array.data(), array.size() * sizeof(double));
  }
}

template <class Pipe>
void transfer(Pipe& pipe, OpaqueAttribute& attribute) {
  transfer(pipe, attribute.type);
  transfer(pipe, attribute.space);
  transfer(pipe, attribute.data);
}

template <class Pipe>
void transfer(Pipe& pipe, Attribute& attribute) {
  std::size_t index = attribute.index();
  transfer(pipe, index);
  if constexpr (Pipe::kReceives) {
    switch (index) {
      case 0:
        attribute = std::int64_t{};
        break;
      case 1:
        attribute = double{};
        break;
      case 2:
        attribute = std::string{};
        break;
      case 3:
        attribute = OpaqueAttribute{};
        break;
      default:
        throw Nonsense();
    }
  }
  std::visit([&](auto& value) { transfer(pipe, value); }, attribute);
}

template <class Pipe, class T>
void transfer(Pipe& pipe, std::map<std::string, T>& map) {
  std::size_t size = map.size();
  transfer(pipe, size);
  if constexpr (Pipe::kReceives) {
    for (std::size_t n = 0; n < size; ++n) {
      std::string key;
      transfer(pipe, key);
      transfer(pipe, map[key]);
    }
  } else {
    for (auto& [key, value] : map) {
      std::string name = key;
      transfer(pipe, name);
      transfer(pipe, value);
    }
  }
}

template <class Pipe>
void transfer(Pipe& pipe, ReferenceData& reference) {
  for (TensorMap* tensors : {&reference.outputs, &reference.exact, &reference.detached, &reference.bounds})
    transfer(pipe, *tensors);
  transfer(pipe, reference.attributes);
}

template <class Pipe>
void transfer(Pipe& pipe, KernelData& kernel) {
  transfer(pipe, kernel.variant);
  transfer(pipe, kernel.convention);
  transfer(pipe, kernel.operand_dtype);
  transfer(pipe, kernel.state_dtype);
  transfer(pipe, kernel.outputs);
  transfer(pipe, kernel.gradients);
  transfer(pipe, kernel.attributes);
}

template <class Pipe>
void transfer(Pipe& pipe, Case& c) {
  transfer(pipe, c.name);
  transfer(pipe, c.problem);
  transfer(pipe, c.inputs);
  transfer(pipe, c.cotangents);
  transfer(pipe, c.reference);
  transfer(pipe, c.kernel);
  transfer(pipe, c.attributes);
}

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
  Receiver pipe(fd);
  Reply reply = Reply::none;
  transfer(pipe, reply);
  if (reply == Reply::result) transfer(pipe, c);
  if (reply == Reply::error) transfer(pipe, error);
  return reply == Reply::result || reply == Reply::error;
} catch (const std::exception&) {  // cut off, or damaged
  return false;
}

void send_reply(int fd, Case& c, std::string& error) {
  Sender pipe(fd);
  Reply reply = error.empty() ? Reply::result : Reply::error;
  transfer(pipe, reply);
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
    const bool complete = receive_reply(child.fd, c, error);
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
