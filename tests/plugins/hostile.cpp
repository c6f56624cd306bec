// SPDX-License-Identifier: Apache-2.0
// Kernels that compute the right thing, and then misbehave in every way that should cost one run and no more. Left out
// is what nobody survives where a worker has no namespaces and no seccomp filter: kill(-1, SIGKILL), say.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "mlstm_kernel.h"

extern "C" const mlstm_kernel_library* honest_kernels(std::uint32_t abi_version);

namespace {

const mlstm_kernel& honest() { return *honest_kernels(MLSTM_KERNEL_ABI_VERSION)->kernels[0]; }

volatile int sink = 0;
volatile int* volatile nowhere = nullptr;

[[noreturn]] void spin() {
  for (;;) sink = sink + 1;
}
[[noreturn]] void sleep_on() {
  for (;;) pause();
}

struct Call {
  const mlstm_problem& problem;
  const mlstm_forward_args& args;
  std::size_t bytes_of_h() const {
    return static_cast<std::size_t>(problem.B * problem.NH * problem.S * problem.DHV) * sizeof(float);
  }
};

using Misdeed = int (*)(const Call&);

// ------------------------------------------------------------------------------------------------ ends the process
int crash() {
  *nowhere = 1;
  return 0;
}

int segfault(const Call&) { return crash(); }
int aborts(const Call&) {
  std::fputs("about to abort\n", stderr);
  std::abort();
}
int exits_with_0(const Call&) { std::exit(0); }
int exits_with_3(const Call&) { _exit(3); }
int overflow(volatile char* above) {
  volatile char here[4096];
  here[0] = *above;
  if (sink < 0) return 0;  // never
  return overflow(here) + here[0];
}
int overflows_stack(const Call&) {
  volatile char start = 1;
  return overflow(&start);
}
int kills_its_group(const Call&) {
  kill(0, SIGKILL);
  sleep_on();
}
int kills_its_parent(const Call&) {
  kill(getppid(), SIGKILL);
  sleep_on();
}
int throws_int(const Call&) { throw 42; }
int throws_exception(const Call&) { throw std::runtime_error("of a standard type"); }

// ------------------------------------------------------------------------------------------------ does not end
int loops(const Call&) { spin(); }
int ignores_signals(const Call&) {
  for (int number = 1; number < NSIG; ++number) std::signal(number, SIG_IGN);
  sleep_on();
}
int handles_its_crash(const Call&) {
  std::signal(SIGSEGV, [](int) { sleep_on(); });
  return crash();
}
int stops_itself(const Call&) { return raise(SIGSTOP), 0; }
int deadlocks(const Call&) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&mutex);
  pthread_mutex_lock(&mutex);
  return 0;
}

// ------------------------------------------------------------------------------------------------ leaves something
/// Children, and children of these that belong to a session of their own and to nobody.
void start_children() {
  for (int n = 0; n < 3; ++n) {
    if (fork() != 0) continue;
    for (int number = 1; number < NSIG; ++number) std::signal(number, SIG_IGN);
    if (n > 0) setsid();
    if (n == 2 && fork() != 0) _exit(0);
    fork();
    sleep_on();
  }
}
int leaves_children(const Call&) {
  start_children();
  return 0;
}
int hangs_with_children(const Call&) {
  start_children();
  sleep_on();
}
int leaves_threads(const Call& call) {
  static std::atomic<bool> is_busy;
  is_busy = false;
  volatile float* const h = static_cast<float*>(call.args.h);
  std::thread([h, n = call.bytes_of_h() / sizeof(float)] {
    for (;; is_busy = true)
      for (std::size_t x = 0; x < n; ++x) h[x] = static_cast<float>(x);
  }).detach();
  while (!is_busy) std::this_thread::yield();
  return 0;
}

// ------------------------------------------------------------------------------------------------ takes too much
int fills_memory(const Call&) {
  for (;;) {
    constexpr std::size_t bytes = 16 << 20;
    std::memset(std::malloc(bytes), 1, bytes);
  }
}
int fills_shared_memory(const Call&) {
  for (;;) {
    constexpr std::size_t bytes = 16 << 20;
    void* const more = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (more == MAP_FAILED) sleep_on();
    std::memset(more, 1, bytes);
  }
}
int floods_output(const Call&) {
  for (;;) std::puts("all work and no play");
}

// ------------------------------------------------------------------------------------------------ damages something
int smashes_heap(const Call& call) {
  std::memset(static_cast<char*>(call.args.h) + call.bytes_of_h(), 0x5a, 1 << 20);
  return 0;
}
int writes_past_the_end(const Call& call) {
  static_cast<char*>(call.args.h)[call.bytes_of_h()] = 0;
  return 0;
}
int damages_input(const Call& call) {
  *static_cast<float*>(const_cast<void*>(call.args.q)) += 1;
  return 0;
}
int differs_from_run_to_run(const Call& call) {
  static std::mt19937 random(std::random_device{}());
  *static_cast<float*>(call.args.h) += static_cast<float>(random()) * 1e-12f;
  return 0;
}
int is_wrong(const Call& call) {
  *static_cast<float*>(call.args.h) += 1;
  return 0;
}

/// Everything that is open, and is a socket.
std::vector<int> sockets() {
  std::vector<int> found;
  for (int number = 0; number < 256; ++number)
    if (struct stat about{}; fstat(number, &about) == 0 && S_ISSOCK(about.st_mode)) found.push_back(number);
  return found;
}
int closes_everything(const Call&) {
  for (int number = 0; number < 256; ++number) close(number);
  return 0;
}
int writes_to_the_protocol(const Call&) {
  const std::vector<char> garbage(1000, 'x');
  for (const int socket : sockets()) (void)!write(socket, garbage.data(), garbage.size());
  return 0;
}
int reads_from_the_protocol(const Call&) {
  std::array<char, 1000> taken;
  for (const int socket : sockets()) (void)!read(socket, taken.data(), taken.size());
  return 0;
}
int says_it_is_done(const Call&) {
  // a frame as mlstm sends them: magic, token, kind 101 (done), no fields, no data
  const std::array<std::uint64_t, 4> frame{0x316b72776d74736dULL, 0, 101, 0};
  for (const int socket : sockets()) (void)!write(socket, frame.data(), sizeof frame);
  _exit(0);
}
int returns_an_error(const Call&) { return 7; }

// ------------------------------------------------------------------------------------------------ forges verdicts
std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Every process that can be seen and runs `mlstm verify`.
std::vector<pid_t> verifiers() {
  constexpr std::string_view words("mlstm\0verify\0", 13);
  std::vector<pid_t> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") == std::string::npos &&
        contents("/proc/" + name + "/cmdline").find(words) != std::string::npos)
      found.push_back(std::stoi(name));
  }
  return found;
}

struct Mapping {
  unsigned long begin = 0, end = 0;
  std::string access, name;
};

std::vector<Mapping> mappings(pid_t process) {
  std::vector<Mapping> found;
  std::ifstream file("/proc/" + std::to_string(process) + "/maps");
  for (std::string line; std::getline(file, line);) {
    Mapping mapping;
    char access[8] = {}, name[4096] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %7s %*s %*s %*s %4095s", &mapping.begin, &mapping.end, access, name) < 3)
      continue;
    mapping.access = access;
    mapping.name = name;
    found.push_back(mapping);
  }
  return found;
}

/// Has the verifier say PASS where it would say FAIL: such memory is read-only, which does not keep `write` from it.
template <class Write>
void turn_failures_into_passes(pid_t verifier, const Write& write) {
  const int file = open(("/proc/" + std::to_string(verifier) + "/mem").c_str(), O_RDONLY);
  if (file < 0) return;
  for (const Mapping& mapping : mappings(verifier)) {
    if (mapping.access != "r--p" || mapping.name.find("mlstm") == std::string::npos) continue;
    std::string text(mapping.end - mapping.begin, '\0');
    if (pread(file, text.data(), text.size(), static_cast<off_t>(mapping.begin)) < 0) continue;
    for (std::size_t at = 0; (at = text.find("FAIL", at)) != std::string::npos; ++at) write(mapping.begin + at);
  }
  close(file);
}

void forge_by_memory_file() {
  for (const pid_t verifier : verifiers())
    turn_failures_into_passes(verifier, [&](unsigned long address) {
      const int file = open(("/proc/" + std::to_string(verifier) + "/mem").c_str(), O_WRONLY);
      (void)!pwrite(file, "PASS", 4, static_cast<off_t>(address));
      close(file);
    });
}

void forge_by_trace() {
  for (const pid_t verifier : verifiers()) {
    if (ptrace(PTRACE_ATTACH, verifier, nullptr, nullptr) != 0) continue;
    waitpid(verifier, nullptr, __WALL);
    turn_failures_into_passes(verifier, [&](unsigned long address) {
      long word = ptrace(PTRACE_PEEKDATA, verifier, address, nullptr);
      std::memcpy(&word, "PASS", 4);
      ptrace(PTRACE_POKEDATA, verifier, address, word);
    });
    ptrace(PTRACE_DETACH, verifier, nullptr, nullptr);
  }
}

/// What may be written, it fills with nonsense.
void ruin_by_vm_writev() {
  for (const pid_t verifier : verifiers())
    for (const Mapping& mapping : mappings(verifier)) {
      if (mapping.name != "[heap]") continue;
      std::string nonsense(mapping.end - mapping.begin, '\x5a');
      const iovec from{nonsense.data(), nonsense.size()}, to{reinterpret_cast<void*>(mapping.begin), nonsense.size()};
      process_vm_writev(verifier, &from, 1, &to, 1, 0);
    }
}

int forges_by_memory_file(const Call& call) { return forge_by_memory_file(), is_wrong(call); }
int forges_by_trace(const Call& call) { return forge_by_trace(), is_wrong(call); }
int ruins_by_vm_writev(const Call& call) { return ruin_by_vm_writev(), is_wrong(call); }
int forges_by_grandchild(const Call& call) {
  int ends[2];
  if (pipe(ends) != 0) return is_wrong(call);
  if (const pid_t child = fork(); child == 0) {
    const pid_t parent = getpid();
    if (fork() != 0) _exit(0);
    setsid();
    while (getppid() == parent) usleep(1000);
    forge_by_memory_file();
    forge_by_trace();
    ruin_by_vm_writev();
    _exit(0);
  }
  wait(nullptr);
  close(ends[1]);
  char byte;
  (void)!read(ends[0], &byte, 1);  // until the grandchild has ended
  close(ends[0]);
  return is_wrong(call);
}
/// The report's journal, where the test has it.
int forges_files(const Call& call) {
  std::string journal = contents("report/journal.jsonl");
  for (std::size_t at = 0; (at = journal.find("FAIL", at)) != std::string::npos;) journal.replace(at, 4, "PASS");
  std::ofstream("report/journal.jsonl", std::ios::binary) << journal << "forged";
  std::ofstream("report/journal.new", std::ios::binary) << journal << "forged";
  std::rename("report/journal.new", "report/journal.jsonl");
  return is_wrong(call);
}
/// Libraries that judge, and this one: what is written to their files shows up in processes that use them.
int opens_libraries(const Call&) {
  for (const Mapping& mapping : mappings(getpid()))
    if (mapping.name.find("/libmlstm_") != std::string::npos || mapping.name.find("/libhostile") != std::string::npos)
      if (const int file = open(mapping.name.c_str(), O_WRONLY); file >= 0) return close(file), 8;
  return 0;
}

struct Hostile {
  const char* name;
  Misdeed misdeed;
};
constexpr Hostile kHostile[] = {{"segfault", segfault},
                                {"abort", aborts},
                                {"exit_0", exits_with_0},
                                {"exit_3", exits_with_3},
                                {"stack_overflow", overflows_stack},
                                {"kill_group", kills_its_group},
                                {"kill_parent", kills_its_parent},
                                {"throw_int", throws_int},
                                {"throw_exception", throws_exception},
                                {"loop", loops},
                                {"ignore_signals", ignores_signals},
                                {"handle_crash", handles_its_crash},
                                {"stop_itself", stops_itself},
                                {"deadlock", deadlocks},
                                {"leave_children", leaves_children},
                                {"hang_with_children", hangs_with_children},
                                {"leave_threads", leaves_threads},
                                {"fill_memory", fills_memory},
                                {"fill_shared_memory", fills_shared_memory},
                                {"flood_output", floods_output},
                                {"smash_heap", smashes_heap},
                                {"write_past_end", writes_past_the_end},
                                {"damage_input", damages_input},
                                {"differ", differs_from_run_to_run},
                                {"wrong", is_wrong},
                                {"close_all", closes_everything},
                                {"write_protocol", writes_to_the_protocol},
                                {"read_protocol", reads_from_the_protocol},
                                {"forge_done", says_it_is_done},
                                {"forge_mem", forges_by_memory_file},
                                {"forge_ptrace", forges_by_trace},
                                {"ruin_vm_writev", ruins_by_vm_writev},
                                {"forge_grandchild", forges_by_grandchild},
                                {"forge_files", forges_files},
                                {"open_libraries", opens_libraries},
                                {"return_error", returns_an_error}};
constexpr std::size_t kCount = std::size(kHostile);

int forward(const mlstm_kernel* self, const mlstm_problem* problem, const mlstm_forward_args* args, char* message,
            std::size_t message_size) {
  const int status = honest().forward(&honest(), problem, args, message, message_size);
  if (status != 0) return status;
  const int own = static_cast<const Hostile*>(self->user)->misdeed({*problem, *args});
  if (own != 0) std::snprintf(message, message_size, "cannot\ndo that\x1b");
  return own;
}

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(std::uint32_t abi_version) {
  static std::array<mlstm_kernel, kCount> kernels;
  static std::array<const mlstm_kernel*, kCount> pointers;
  static std::array<std::string, kCount> names;
  for (std::size_t n = 0; n < kCount; ++n) {
    mlstm_kernel& kernel = kernels[n] = honest();
    names[n] = std::string("hostile_") + kHostile[n].name;
    kernel.name = names[n].c_str();
    kernel.description = "misbehaves";
    kernel.gradients = 0;
    kernel.backward = nullptr;
    kernel.saved_size = nullptr;
    kernel.user = &kHostile[n];
    kernel.forward = forward;
    pointers[n] = &kernel;
  }
  static const mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, kCount, pointers.data()};
  return abi_version == MLSTM_KERNEL_ABI_VERSION ? &library : nullptr;
}
