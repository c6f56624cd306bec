// SPDX-License-Identifier: Apache-2.0
// A worker's processes that run no kernel. The first one has a folder for temporary files and waits. The second, where
// there are namespaces the init process of its own, watches the one that runs kernels; it can be relied on to clean up.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "runner/confinement.hpp"
#include "runner/worker_ends.hpp"

extern char** environ;

namespace mlstm::verify {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kMemoryInterval{50};
constexpr std::chrono::seconds kKillTime{5};  // beyond it a process hangs in the kernel, in a device's driver, say

bool is_socket(int descriptor) {
  struct stat about {};
  return fstat(descriptor, &about) == 0 && S_ISSOCK(about.st_mode);
}

/// Pages of /proc/PID/statm, in bytes: 1 resident, 5 data and stack.
std::uint64_t memory_of(const std::string& pid, std::size_t field) {
  std::ifstream file("/proc/" + pid + "/statm");
  std::uint64_t pages = 0;
  for (std::size_t n = 0; n <= field; ++n) file >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// Lets this process have `bytes` beside the data that it begins with: with CUDA, libraries bring hundreds of MiB
/// along.
void limit_data(std::uint64_t bytes) {
  if (bytes == 0) return;
#if !defined(__SANITIZE_ADDRESS__)  // its shadow is beyond any limit
  rlimit limit{};
  getrlimit(RLIMIT_DATA, &limit);
  limit.rlim_cur = std::min<rlim_t>(memory_of("self", 5) + bytes, limit.rlim_max);
  setrlimit(RLIMIT_DATA, &limit);
#endif
}

/// Confines this process, in which other people's code is about to run.
void confine(std::uint64_t without, const std::string& folder) {
  if ((without & kPrivileges) == 0) give_up_privileges();
  if ((without & kFiles) == 0) protect_files(folder);
  if ((without & kCalls) == 0) forbid_calls((without & kNamespaces) == 0);
  // Where nothing else keeps other kernels out. Debuggers and profilers have to be kept out with them.
  if ((without & kNamespaces) != 0 && (without & kFiles) != 0) refuse_tracing();
}

/// The process that runs kernels, from here on.
[[noreturn]] void run_kernels(pid_t watcher, const WorkerLimits& limits, const std::string& folder,
                              const FindKernel& find) {
  setpgid(0, 0);  // kill(0, ...) is a kernel's own affair
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != watcher) _exit(EXIT_FAILURE);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  // where memory runs out, it is this process that has to go
  if (std::FILE* score = std::fopen("/proc/self/oom_score_adj", "w"); score != nullptr) {
    std::fputs("1000", score);
    std::fclose(score);
  }
  limit_data(limits.data);
  if (!folder.empty()) setenv("TMPDIR", folder.c_str(), 1);
  confine(limits.without, folder);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // the last line before a crash is the one that matters
  serve_frames(kFramesDescriptor, find);
  _exit(EXIT_SUCCESS);
}

std::uint64_t memory_held_by(pid_t pid) { return memory_of(std::to_string(pid), 1); }

/// The process that runs kernels, and how it ended.
struct Runner {
  pid_t pid;
  bool has_ended = false;
  int status = 0;
  std::uint64_t peak_memory = 0;
};

/// Reaps what has ended of the runner and of what has been left to this process. False if there is nothing any more.
bool reap(Runner& runner) {
  int status = 0;
  rusage used{};
  pid_t ended;
  while ((ended = wait4(-1, &status, WNOHANG, &used)) > 0)
    if (ended == runner.pid) {
      runner.has_ended = true;
      runner.status = status;
      runner.peak_memory = static_cast<std::uint64_t>(used.ru_maxrss) << 10;
    }
  return ended == 0 || errno != ECHILD;
}

/// Kills what this process has started, and what has been left to it, until there is nothing any more.
void end_everything(Runner& runner) {
  const Clock::time_point deadline = Clock::now() + kKillTime;
  kill(-runner.pid, SIGKILL);
  do {
    std::ifstream children("/proc/thread-self/children");
    for (pid_t child = 0; children >> child;) kill(child, SIGKILL);
    if (!runner.has_ended) kill(runner.pid, SIGKILL);
    if (!reap(runner)) return;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  } while (Clock::now() < deadline);
}

/// Waits for a reason to end.
WorkerEnding::Reason watch(Runner& runner, int signals, const WorkerLimits& limits) {
  const int interval = limits.memory > 0 ? static_cast<int>(kMemoryInterval.count()) : -1;
  for (;;) {
    std::array<pollfd, 2> events{{{kControlDescriptor, POLLIN, 0}, {signals, POLLIN, 0}}};
    poll(events.data(), events.size(), interval);
    if (events[1].revents != 0) {
      signalfd_siginfo ignored;
      while (read(signals, &ignored, sizeof ignored) > 0) {
      }
      reap(runner);
      if (runner.has_ended) return WorkerEnding::Reason::by_itself;
    }
    if (events[0].revents != 0) return WorkerEnding::Reason::ordered;
    if (limits.memory > 0 && memory_held_by(runner.pid) > limits.memory) return WorkerEnding::Reason::memory;
  }
}

/// The process that watches. One thread, and nothing of CUDA: a fork is safe here.
int watch_over(const WorkerLimits& limits, const std::string& folder, const FindKernel& find) {
  if ((limits.without & kNamespaces) == 0) see_own_processes();
  if ((limits.without & kPrivileges) == 0) give_up_privileges();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t child_signal;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_signal, nullptr);
  const int signals = signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK);
  const pid_t watcher = getpid();
  Runner runner{fork()};
  if (runner.pid == 0) {
    close(signals);
    close(kControlDescriptor);
    run_kernels(watcher, limits, folder, find);
  }
  if (signals < 0 || runner.pid < 0) throw std::runtime_error(std::string("worker: ") + std::strerror(errno));
  refuse_tracing();
  close(kFramesDescriptor);
  WorkerEnding ending;
  ending.reason = watch(runner, signals, limits);
  end_everything(runner);
  ending.status = runner.status;
  ending.peak_memory = runner.peak_memory;
  // The verifier may be gone.
  [[maybe_unused]] const ssize_t sent = send(kControlDescriptor, &ending, sizeof ending, MSG_NOSIGNAL);
  return EXIT_SUCCESS;
}

/// A folder for a worker's temporary files, which is gone with it. Where none can be made, the path is empty.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code error;
    const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
    if (error) return;
    std::string path = (parent / "mlstm-worker-XXXXXX").string();
    if (mkdtemp(path.data()) != nullptr) path_ = path;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Where the driver is loaded but has not made its devices yet, as before the first use of a GPU: the CUDA library
/// would call this program, which belongs to the driver, and in a confined process it has no rights.
void make_devices() {
  std::error_code ignored;
  if (!std::filesystem::exists("/proc/driver/nvidia/version", ignored) ||
      std::filesystem::exists("/dev/nvidia-uvm", ignored))
    return;
  std::vector<std::string> words{"nvidia-modprobe", "-u"};
  std::size_t gpus = 0;
  for ([[maybe_unused]] const auto& gpu : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", ignored)) {
    words.emplace_back("-c");
    words.push_back(std::to_string(gpus++));
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = -1;
  if (posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ) == 0) waitpid(child, nullptr, 0);
}

#if defined(__SANITIZE_ADDRESS__)
bool is_worker = false;
#endif

}  // namespace

#if defined(__SANITIZE_ADDRESS__)
/// LeakSanitizer traces the process that it looks at, which workers refuse.
extern "C" int __lsan_is_turned_off() { return is_worker ? 1 : 0; }
#endif

int probe_main() { return kProbed + static_cast<int>(missing_confinement()); }

int worker_main(const WorkerLimits& limits, const FindKernel& find) {
  if (!is_socket(kFramesDescriptor) || !is_socket(kControlDescriptor))
    throw std::runtime_error("worker: to be started by mlstm itself, which gives it two sockets");
#if defined(__SANITIZE_ADDRESS__)
  is_worker = true;
#endif
  const TemporaryFolder folder;
  make_devices();
  if ((limits.without & kNamespaces) == 0) enter_namespaces();
  const pid_t watcher = fork();
  if (watcher == 0) {
    int status = EXIT_FAILURE;
    try {
      status = watch_over(limits, folder.path(), find);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    _exit(status);
  }
  if (watcher < 0) throw std::runtime_error(std::string("worker: ") + std::strerror(errno));
  if ((limits.without & kPrivileges) == 0) give_up_privileges();
  refuse_tracing();
  close(kFramesDescriptor);
  close(kControlDescriptor);
  int status = 0;
  while (waitpid(watcher, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

}  // namespace mlstm::verify
