// SPDX-License-Identifier: Apache-2.0
#include "runner/confinement.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace mlstm::verify {
namespace {

[[noreturn]] void fail(const std::string& call, int error = errno) {
  throw std::runtime_error("worker: cannot be confined: " + call + ": " + std::strerror(error));
}

void require(long result, const char* call) {
  if (result < 0) fail(call);
}

void write_to(const char* path, const std::string& text) {
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) fail(path);
  const bool is_written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  close(file);
  if (!is_written) fail(path, error);
}

// ---- Landlock

// Headers of the kernel name these only since 5.19 and 6.2.
constexpr std::uint64_t kRefer = 1ULL << 13, kTruncate = 1ULL << 14;

constexpr std::uint64_t kToFiles = LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate;
constexpr std::uint64_t kWriting =
    kToFiles | kRefer | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
    LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
    LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;

class Ruleset {
 public:
  Ruleset() {
    const long version = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
    require(version, "landlock_create_ruleset");
    handled_ = kWriting & ~(version < 2 ? kRefer : 0) & ~(version < 3 ? kTruncate : 0);
    landlock_ruleset_attr attributes{};
    attributes.handled_access_fs = handled_;
    number_ =
        static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes.handled_access_fs, 0));
    require(number_, "landlock_create_ruleset");
  }
  ~Ruleset() { close(number_); }
  Ruleset(const Ruleset&) = delete;
  Ruleset& operator=(const Ruleset&) = delete;

  /// What is at `path`, if anything is, may be written, and what is below it.
  void allow(const std::filesystem::path& path, std::uint64_t access = kWriting) const {
    const int file = open(path.c_str(), O_PATH | O_CLOEXEC);
    if (file < 0) return;
    struct stat about {};
    const bool is_directory = fstat(file, &about) == 0 && S_ISDIR(about.st_mode);
    landlock_path_beneath_attr rule{};
    rule.allowed_access = handled_ & access & (is_directory ? kWriting : kToFiles);
    rule.parent_fd = file;
    const long result = syscall(SYS_landlock_add_rule, number_, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    const int error = errno;
    close(file);
    if (result != 0) fail("landlock_add_rule", error);
  }

  void enforce() const { require(syscall(SYS_landlock_restrict_self, number_, 0), "landlock_restrict_self"); }

 private:
  std::uint64_t handled_ = 0;
  int number_ = -1;
};

/// Devices without memory of others in them: no disks, no /dev/mem.
constexpr std::array kDevices{"null", "zero", "full", "random", "urandom",   "tty",
                              "pts",  "ptmx", "shm",  "dri",    "infiniband"};

// ---- seccomp

class Filter {
 public:
  Filter() : context_(seccomp_init(SCMP_ACT_ALLOW)) {
    if (context_ == nullptr) throw std::runtime_error("worker: cannot be confined: seccomp_init");
  }
  ~Filter() { seccomp_release(context_); }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  void forbid(int call) const { require_done(seccomp_rule_add(context_, SCMP_ACT_ERRNO(EPERM), call, 0)); }
  /// Unless the first argument is this.
  void forbid_unless(int call, std::uint64_t first) const {
    require_done(seccomp_rule_add(context_, SCMP_ACT_ERRNO(EPERM), call, 1, SCMP_A0(SCMP_CMP_NE, first)));
  }
  void enforce() const { require_done(seccomp_load(context_)); }

 private:
  static void require_done(int result) {
    if (result != 0) fail("seccomp", -result);
  }

  scmp_filter_ctx context_;
};

/// Whether a child process that does this ends well.
template <class Body>
bool works(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      body();
    } catch (const std::exception&) {
      _exit(EXIT_FAILURE);
    }
    _exit(EXIT_SUCCESS);
  }
  int status = 0;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

}  // namespace

void refuse_tracing() { require(prctl(PR_SET_DUMPABLE, 0), "prctl(PR_SET_DUMPABLE)"); }

std::vector<std::string> exposed_by(std::uint32_t missing) {
  std::vector<std::string> words;
  for (const auto& [part, word] :
       {std::pair{kNamespaces, "processes"}, {kFiles, "files"}, {kCalls, "system calls"}, {kPrivileges, "privileges"}})
    if ((missing & part) != 0) words.emplace_back(word);
  return words;
}

void enter_namespaces() {
  const uid_t user = getuid();
  const gid_t group = getgid();
  require(unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS), "unshare");
  // The same user and group as outside, or new files would belong to nobody.
  write_to("/proc/self/setgroups", "deny");
  write_to("/proc/self/uid_map", std::to_string(user) + " " + std::to_string(user) + " 1\n");
  write_to("/proc/self/gid_map", std::to_string(group) + " " + std::to_string(group) + " 1\n");
}

void see_own_processes() {
  require(mount("", "/", nullptr, MS_REC | MS_SLAVE, nullptr), "mount");
  require(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr), "mount of /proc");
}

void give_up_privileges() {
  // Not allowed without CAP_SETPCAP, and then of no use to anybody: no_new_privs sees to it.
  for (unsigned long n = 0; prctl(PR_CAPBSET_READ, n, 0, 0, 0) >= 0; ++n) prctl(PR_CAPBSET_DROP, n, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  require(syscall(SYS_capset, &header, none.data()), "capset");
  require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
}

void protect_files(const std::string& folder) {
  require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
  const Ruleset rules;
  if (!folder.empty()) rules.allow(folder);
  rules.allow("/proc/self", kToFiles);  // names of threads, say
  const std::filesystem::path devices = "/dev";
  for (const char* name : kDevices) rules.allow(devices / name);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(devices, ignored))
    if (entry.path().filename().string().starts_with("nvidia")) rules.allow(entry.path());
  // Pipes of CUDA's Multi-Process Service, if that runs.
  const char* const pipes = std::getenv("CUDA_MPS_PIPE_DIRECTORY");
  rules.allow(pipes == nullptr ? "/tmp/nvidia-mps" : pipes, kToFiles);
  rules.enforce();
}

void forbid_calls(bool has_namespaces) {
  const Filter filter;  // calls of another architecture end the process
  const auto self = static_cast<std::uint64_t>(getpid());
  for (const int call : {SCMP_SYS(ptrace), SCMP_SYS(pidfd_getfd)}) filter.forbid(call);
  // Some libraries look at their own memory in this way.
  for (const int call : {SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev)}) filter.forbid_unless(call, self);
  if (!has_namespaces) {
    for (const int call :
         {SCMP_SYS(kill), SCMP_SYS(tkill), SCMP_SYS(tgkill), SCMP_SYS(rt_sigqueueinfo), SCMP_SYS(rt_tgsigqueueinfo)})
      filter.forbid_unless(call, self);
    filter.forbid(SCMP_SYS(pidfd_send_signal));
    filter.forbid_unless(SCMP_SYS(prlimit64), 0);
  }
  filter.enforce();
}

std::uint32_t missing_confinement() {
  std::uint32_t missing = 0;
  const auto look = [&](Confinement part, const auto& body) {
    if (!works(body)) missing |= part;
  };
  look(kNamespaces, [] {
    enter_namespaces();
    if (!works(see_own_processes)) throw std::runtime_error("no /proc of its own");
  });
  look(kFiles, [] { protect_files(""); });
  look(kCalls, [] { forbid_calls(false); });
  look(kPrivileges, give_up_privileges);
  return missing;
}

}  // namespace mlstm::verify
