// SPDX-License-Identifier: Apache-2.0
#include "runner/worker_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "base/text.hpp"

extern char** environ;

namespace mlstm::verify {
namespace {

constexpr std::chrono::milliseconds kLastWords{2000};    // for how it ended, when it has closed its connection
constexpr std::chrono::milliseconds kWatcherTime{8000};  // more than the watcher takes to end everything
constexpr std::chrono::seconds kTransferTime{60};        // beyond the time limit, for a reply that is on its way

/// A descriptor that is closed, unless it is released.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

[[noreturn]] void fail(const char* call, int error) {
  throw WorkerError(fmt::format("a worker cannot be started: {}: {}", call, std::strerror(error)));
}

/// The same, above the numbers that the child's descriptors get.
Descriptor moved_up(int number) {
  const Descriptor old(number);
  const int moved = fcntl(number, F_DUPFD_CLOEXEC, 16);
  if (moved < 0) fail("fcntl", errno);
  return Descriptor(moved);
}

struct Ends {
  Descriptor here, there;
};

Ends make_socket() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) fail("socketpair", errno);
  Descriptor here(ends[0]);
  return {std::move(here), moved_up(ends[1])};
}

Ends make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) fail("pipe", errno);
  Descriptor here(ends[0]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return {std::move(here), moved_up(ends[1])};
}

/// Starts `program worker ...` in a session of its own, with nothing of this process but the environment and
/// `descriptors`, which get the numbers 1, 2, 3, ... there.
pid_t spawn(const std::filesystem::path& program, std::vector<std::string> options,
            const std::vector<int>& descriptors) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  int next = STDOUT_FILENO;
  for (const int descriptor : descriptors) posix_spawn_file_actions_adddup2(&files, descriptor, next++);
  posix_spawn_file_actions_addclosefrom_np(&files, next);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  sigset_t signals;
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  options.insert(options.begin(), {program.string(), "worker"});
  std::vector<char*> arguments;
  for (std::string& option : options) arguments.push_back(option.data());
  arguments.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, program.c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) fail(program.c_str(), error);
  return pid;
}

struct ProcessStatus {
  pid_t parent = 0, session = 0;
  char state = 0;
};

std::optional<ProcessStatus> status_of(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t end_of_name = line.rfind(')');  // a name may hold anything
  if (end_of_name == std::string::npos) return {};
  ProcessStatus status;
  int group = 0;
  if (std::sscanf(line.c_str() + end_of_name + 1, " %c %d %d %d", &status.state, &status.parent, &group,
                  &status.session) != 4)
    return {};
  return status;
}

/// The children of all threads of a process.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  std::error_code ignored;
  for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", parent), ignored)) {
    std::ifstream of_task(task.path() / "children");
    for (pid_t child = 0; of_task >> child;) children.push_back(child);
  }
  return children;
}

/// Ends what is left of a session whose watcher was killed.
void end_session(pid_t session) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    bool found = false;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const auto status = status_of(name);
      if (!status || status->session != session) continue;
      const pid_t pid = std::stoi(name);
      kill(pid, SIGKILL);
      if (status->parent == getpid()) waitpid(pid, nullptr, WNOHANG);
      found |= status->state != 'Z' || status->parent == getpid();
    }
    if (!found) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

std::uint64_t random_token() {
  static thread_local std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

bool is_readable(int descriptor) {
  pollfd event{descriptor, POLLIN, 0};
  return poll(&event, 1, 0) > 0;
}

std::string seconds_text(double seconds) { return fmt::format("{:g} s", seconds); }

std::string memory_text(std::uint64_t bytes) { return fmt::format("{:.4g} MiB", static_cast<double>(bytes) / 0x1p20); }

}  // namespace

void CapturedOutput::add(std::string_view text) {
  total_ += text.size();
  head_ += text.substr(0, kKept - std::min(kKept, head_.size()));
  tail_ += text;
  if (tail_.size() > kKept) tail_.erase(0, tail_.size() - kKept);
}

std::string CapturedOutput::beginning() const {
  return to_utf8(head_) + (total_ > kKept ? fmt::format("... ({} bytes)\n", total_) : "");
}

std::string CapturedOutput::last_line() const {
  constexpr std::size_t longest = 200;
  std::string_view text = tail_;
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  if (text.empty()) return {};
  return fmt::format("; last output: \"{}\"", one_line(text.substr(text.find_last_of("\n\r") + 1).substr(0, longest)));
}

std::uint32_t probe_confinement(const std::filesystem::path& program) {
  const Ends output = make_pipe();
  const pid_t pid = spawn(program, {"--probe"}, {output.there.get(), output.there.get()});
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  const int missing = WIFEXITED(status) ? WEXITSTATUS(status) - kProbed : -1;
  if (missing < 0 || missing > static_cast<int>(kAllConfinement))
    throw WorkerError(
        fmt::format("a worker cannot be started: {}: does not say how workers can be confined (status {:#x})",
                    program.string(), status));
  return static_cast<std::uint32_t>(missing);
}

WorkerProcess::WorkerProcess(const std::filesystem::path& program, const WorkerLimits& limits) : limits_(limits) {
  Ends frames = make_socket(), control = make_socket(), output = make_pipe();
  static_assert(kFramesDescriptor == STDERR_FILENO + 1 && kControlDescriptor == kFramesDescriptor + 1);
  pid_ = spawn(program,
               {fmt::format("--data-limit={}", limits.data), fmt::format("--memory-limit={}", limits.memory),
                fmt::format("--without={}", limits.without)},
               {output.there.get(), output.there.get(), frames.there.get(), control.there.get()});
  frames_ = frames.here.release();
  control_ = control.here.release();
  output_ = output.here.release();
}

WorkerProcess::~WorkerProcess() {
  end(std::chrono::milliseconds(0));
  for (const int descriptor : {frames_, control_, output_}) close(descriptor);
}

void WorkerProcess::read_output() {
  std::array<char, 65536> part;
  for (ssize_t got; !captured_.too_much() && (got = read(output_, part.data(), part.size())) > 0;)
    captured_.add({part.data(), static_cast<std::size_t>(got)});
}

std::optional<WorkerEnding> WorkerProcess::end(std::chrono::milliseconds patience) {
  if (pid_ < 0) return {};
  pollfd event{control_, POLLIN, 0};
  if (patience.count() == 0 || poll(&event, 1, static_cast<int>(patience.count())) <= 0) shutdown(control_, SHUT_WR);
  const auto deadline = Clock::now() + kWatcherTime;
  std::optional<WorkerEnding> ending;
  if (poll(&event, 1, static_cast<int>(kWatcherTime.count())) > 0) {
    WorkerEnding report;
    if (recv(control_, &report, sizeof report, MSG_DONTWAIT) == static_cast<ssize_t>(sizeof report)) ending = report;
  }
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  if (Clock::now() >= deadline) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &status, 0);
  }
  if (!ending) end_session(pid_);
  read_output();
  pid_ = -1;
  return ending;
}

std::string WorkerProcess::describe(const std::optional<WorkerEnding>& ending) const {
  if (!ending) return "the process that watches the worker was killed";
  const int status = ending->status;
  if (ending->reason == WorkerEnding::Reason::memory)
    return fmt::format("used more than {} of memory and was stopped", memory_text(limits_.memory));
  if (ending->reason == WorkerEnding::Reason::ordered || (WIFEXITED(status) && WEXITSTATUS(status) == kHungUp))
    return "lost its connection to the verifier";
  // Code that does not expect to be refused memory ends in many ways.
  std::string memory;
  if (limits_.data > 0 && ending->peak_memory > limits_.data / 2)
    memory = fmt::format(", after it had used {} of at most {} of memory", memory_text(ending->peak_memory),
                         memory_text(limits_.data));
  if (WIFEXITED(status)) return fmt::format("ended its process with exit status {}{}", WEXITSTATUS(status), memory);
  const int number = WTERMSIG(status);
  const char* const name = sigabbrev_np(number);
  return fmt::format("crashed: {} ({}){}",
                     name == nullptr ? fmt::format("signal {}", number) : fmt::format("SIG{}", name), strsignal(number),
                     memory);
}

/// One request and its reply.
class WorkerProcess::Exchange {
 public:
  Exchange(WorkerProcess& worker, const FrameHeader& header, std::string_view meta, const Source& source,
           const Target& target)
      : worker_(worker), request_(header), target_(target) {
    outgoing_.push_back(std::as_bytes(std::span(&request_, 1)));
    outgoing_.push_back(std::as_bytes(std::span(meta)));
    outgoing_.insert(outgoing_.end(), source.begin(), source.end());
    incoming_.push_back(std::as_writable_bytes(std::span(&reply_, 1)));
  }

  Reply run(std::optional<double> seconds) {
    const auto begin = Clock::now();
    while (!complete_) {
      int wait = -1;
      if (seconds) {
        const double left = *seconds - std::chrono::duration<double>(Clock::now() - begin).count();
        wait = left <= 0 ? 0 : static_cast<int>(std::min(1e3 * left + 1, 1e6));
      }
      const short sending = out_ < outgoing_.size() ? POLLOUT : 0;
      std::array<pollfd, 3> events{{{worker_.frames_, static_cast<short>(POLLIN | sending), 0},
                                    {worker_.control_, POLLIN, 0},
                                    {output_open_ ? worker_.output_ : -1, POLLIN, 0}}};
      poll(events.data(), events.size(), wait);
      if (events[2].revents != 0) take_output(events[2].revents);
      const bool moved = events[0].revents != 0 && transfer();
      if (complete_) break;
      if (events[1].revents != 0) {
        while (!complete_ && receive()) {
        }
        if (complete_) break;
        lost();
      }
      if (!seconds) continue;
      const auto late = Clock::now() - begin - std::chrono::duration<double>(*seconds);
      if (late > std::chrono::seconds(0) && (!moved || late > kTransferTime)) timed_out(*seconds);
    }
    worker_.read_output();
    return {reply_.kind, std::move(meta_), worker_.captured_.beginning()};
  }

 private:
  [[noreturn]] void stop(const std::string& what) {
    worker_.end(std::chrono::milliseconds(0));
    throw WorkerError(what + worker_.captured_.last_line());
  }

  [[noreturn]] void timed_out(double seconds) {
    worker_.end(std::chrono::milliseconds(0));
    throw TimeoutError("took longer than " + seconds_text(seconds) + " and was stopped" +
                       worker_.captured_.last_line());
  }

  /// The connection is closed, or its process has ended.
  [[noreturn]] void lost() {
    const auto ending = worker_.end(kLastWords);
    throw WorkerError(worker_.describe(ending) + worker_.captured_.last_line());
  }

  void take_output(short events) {
    worker_.read_output();
    if (worker_.captured_.too_much())
      stop(fmt::format("wrote more than {} KiB to its output and was stopped", CapturedOutput::kMost >> 10));
    if ((events & POLLIN) == 0) output_open_ = false;
  }

  /// True if some bytes went either way.
  bool transfer() {
    bool moved = false;
    while (out_ < outgoing_.size() && send()) moved = true;
    while (!complete_ && receive()) moved = true;
    return moved;
  }

  bool send() {
    const auto& bytes = outgoing_[out_];
    if (bytes.empty()) return ++out_, true;
    const ssize_t sent = ::send(worker_.frames_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (sent < 0) {
      out_ = outgoing_.size();  // what it said before may still be read
      return false;
    }
    outgoing_[out_] = bytes.subspan(static_cast<std::size_t>(sent));
    return true;
  }

  bool receive() {
    auto& bytes = incoming_[in_];
    if (!bytes.empty()) {
      const ssize_t got = recv(worker_.frames_, bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
      if (got <= 0) lost();
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    }
    if (bytes.empty() && ++in_ == incoming_.size()) {
      if (in_ > 1)
        complete_ = true;
      else
        expect_the_rest();
    }
    return true;
  }

  /// The header is there: what else has to come, if it is the reply to this request.
  void expect_the_rest() {
    const bool is_reply = reply_.magic == FrameHeader::kMagic && reply_.token == request_.token;
    const FrameKind kind = reply_.kind;
    const bool is_done = is_reply && kind == FrameKind::done;
    const bool is_other = kind == FrameKind::refused || kind == FrameKind::failed || kind == FrameKind::error ||
                          kind == FrameKind::no_memory || kind == FrameKind::found;
    if (!is_reply || (!is_done && !is_other)) stop("sent the verifier something that is no reply");
    if (const std::uint64_t expected = is_done ? size_of(target_) : 0; reply_.data_size != expected)
      stop(fmt::format("sent {} bytes of results; expected {}", reply_.data_size, expected));
    if (reply_.meta_size > kLargestMeta)
      stop(fmt::format("sent {} bytes of fields; expected at most {}", reply_.meta_size, kLargestMeta));
    meta_.resize(reply_.meta_size);
    incoming_.push_back(std::as_writable_bytes(std::span(meta_)));
    if (is_done) incoming_.insert(incoming_.end(), target_.begin(), target_.end());
  }

  WorkerProcess& worker_;
  FrameHeader request_, reply_;
  const Target& target_;
  std::vector<std::span<const std::byte>> outgoing_;
  std::vector<std::span<std::byte>> incoming_;
  std::size_t out_ = 0, in_ = 0;
  std::string meta_;
  bool complete_ = false, output_open_ = true;
};

WorkerProcess::Reply WorkerProcess::exchange(FrameKind kind, std::string_view meta, const Source& source,
                                             const Target& target, std::optional<double> seconds) {
  captured_ = {};
  FrameHeader header;
  header.token = random_token();
  header.kind = kind;
  header.meta_size = static_cast<std::uint32_t>(meta.size());
  header.data_size = size_of(source);
  return Exchange(*this, header, meta, source, target).run(seconds);
}

bool WorkerProcess::is_usable() const {
  if (pid_ < 0 || is_readable(control_) || is_readable(frames_)) return false;
  // The first process has one child, which watches and has one child, which runs kernels and has none.
  const std::vector<pid_t> watchers = children_of(pid_);
  if (watchers.empty()) return true;  // yet
  const std::vector<pid_t> runners = children_of(watchers.front());
  if (watchers.size() > 1 || runners.size() > 1) return false;
  return runners.empty() || children_of(runners.front()).empty();
}

}  // namespace mlstm::verify
