// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Kernels in worker processes. This program is its own worker: `workers_test worker` serves the variants below too.
#define BOOST_TEST_NO_MAIN
#include "runner/workers.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <new>
#include <random>
#include <set>
#include <thread>

#include "base/memory.hpp"
#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "fake_kernels.hpp"
#include "mlstm/parallel_for.hpp"
#include "runner/worker_process.hpp"
#include "small_case.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::FakeKernel;
using namespace std::chrono_literals;

namespace {

/// Forward only; fills h with what its deed returns.
FakeKernel fake(const char* name, double (*deed)()) {
  return FakeKernel(test::fake_info(Module::recurrent, name, {DType::float64}),
                    [deed](const Problem& problem, const ForwardArgs& args) {
                      const double value = deed();
                      for (std::int64_t n = 0; n < size_of("h", problem.shape); ++n)
                        static_cast<double*>(args.h)[n] = value;
                    });
}

bool is_sabotaged = false;  // in this process

/// Which process it is. In namespaces of their own all have the same number.
const FakeKernel pid = fake("pid", [] {
  static const double number = std::random_device{}();
  return number;
});
const FakeKernel saboteur = fake("saboteur", [] {
  is_sabotaged = true;
  return 1.0;
});
const FakeKernel innocent = fake("innocent", [] {
  if (is_sabotaged) std::abort();
  return 2.0;
});
const FakeKernel guilty = fake("guilty", []() -> double { std::abort(); });
const FakeKernel sleeper = fake("sleeper", [] {
  std::this_thread::sleep_for(1h);
  return 0.0;
});
const FakeKernel printer = fake("printer", [] {
  std::puts("three words here");
  return 3.0;
});
const FakeKernel thrower = fake("thrower", []() -> double { throw std::runtime_error("a finding"); });
const FakeKernel no_memory = fake("no_memory", []() -> double { throw std::bad_alloc(); });
const FakeKernel fortytwo = fake("fortytwo", []() -> double { throw 42; });

// ---- kernels that reach for the process which started their worker, for what MLSTM_TEST_TARGET says: its number, and
// where in it a number is kept; or for the file MLSTM_TEST_FILE

constexpr std::uint64_t kRight = 0x5217a3b4c5d6e7f8, kForged = 1;
volatile std::uint64_t kept = kRight;  // stands for a verdict
std::atomic<int> signals_taken = 0;

struct Target {
  pid_t process = -1;
  std::uintptr_t address = 0;
};

Target target() {
  Target found;
  std::sscanf(std::getenv("MLSTM_TEST_TARGET"), "%d %lx", &found.process, &found.address);
  return found;
}

void write_to_memory_file() {
  const auto [process, address] = target();
  const int file = open(("/proc/" + std::to_string(process) + "/mem").c_str(), O_RDWR);
  if (file < 0) return;
  (void)!pwrite(file, &kForged, sizeof kForged, static_cast<off_t>(address));
  close(file);
}

void write_to_other_process() {
  const auto [process, address] = target();
  std::uint64_t forged = kForged;
  const iovec from{&forged, sizeof forged}, to{reinterpret_cast<void*>(address), sizeof forged};
  process_vm_writev(process, &from, 1, &to, 1, 0);
}

void trace_other_process() {
  const auto [process, address] = target();
  if (ptrace(PTRACE_ATTACH, process, nullptr, nullptr) != 0) return;
  int status = 0;
  waitpid(process, &status, __WALL);
  ptrace(PTRACE_POKEDATA, process, address, kForged);
  ptrace(PTRACE_DETACH, process, nullptr, nullptr);
}

/// The same by a process that has left its parent, and its session.
void leave_it_to_a_grandchild() {
  int ends[2];
  if (pipe(ends) != 0) return;
  if (const pid_t child = fork(); child == 0) {
    const pid_t parent = getpid();
    if (fork() == 0) {
      setsid();
      while (getppid() == parent) std::this_thread::sleep_for(1ms);
      write_to_memory_file();
      write_to_other_process();
      trace_other_process();
      (void)!write(ends[1], "x", 1);
    }
    _exit(0);
  }
  wait(nullptr);
  char byte = 0;
  close(ends[1]);
  (void)!read(ends[0], &byte, 1);
  close(ends[0]);
}

template <void (*deed)()>
double harmless() {
  deed();
  return 1.0;
}

const FakeKernel forger_by_file = fake("forger_by_file", harmless<write_to_memory_file>);
const FakeKernel forger_by_vm = fake("forger_by_vm", harmless<write_to_other_process>);
const FakeKernel forger_by_trace = fake("forger_by_trace", harmless<trace_other_process>);
const FakeKernel forger_by_grandchild = fake("forger_by_grandchild", harmless<leave_it_to_a_grandchild>);
const FakeKernel signaller = fake("signaller", [] {
  kill(target().process, SIGUSR1);
  return 1.0;
});
const FakeKernel overwriter = fake("overwriter", [] {
  const std::string path = std::getenv("MLSTM_TEST_FILE");
  std::ofstream(path) << "forged";
  std::ofstream(path + ".new") << "forged";
  std::error_code ignored;
  std::filesystem::rename(path + ".new", path, ignored);
  std::filesystem::remove(path, ignored);
  return 1.0;
});
/// 1 if it can use a temporary file, and devices.
const FakeKernel honest_writer = fake("honest_writer", [] {
  std::FILE* const file = std::fopen((std::filesystem::temp_directory_path() / "x").c_str(), "w+");
  std::ofstream nothing("/dev/null"), shared("/dev/shm/mlstm_workers_test");
  const bool good = file != nullptr && (nothing << "x").flush() && (shared << "x").flush();
  if (file != nullptr) std::fclose(file);
  std::filesystem::remove("/dev/shm/mlstm_workers_test");
  return good ? 1.0 : 0.0;
});
/// 0 if this process has no capabilities, and cannot have any.
const FakeKernel privileged = fake("privileged", [] {
  std::ifstream status("/proc/self/status");
  double found = 0;
  for (std::string key, value; status >> key >> value; status.ignore(1 << 20, '\n'))
    if (key == "CapPrm:" || key == "CapEff:" || key == "CapAmb:")
      found += std::stoull(value, nullptr, 16) == 0 ? 0 : 1;
    else if (key == "NoNewPrivs:")
      found += value == "1" ? 0 : 10;
  return found;
});

const Kernel* find(std::string_view key) {
  for (const FakeKernel* one :
       {&pid, &saboteur, &innocent, &guilty, &sleeper, &printer, &thrower, &no_memory, &fortytwo, &forger_by_file,
        &forger_by_vm, &forger_by_trace, &forger_by_grandchild, &signaller, &overwriter, &honest_writer, &privileged})
    if (one->info().key() == key) return one;
  return find_kernel(key);
}

Case case_of(const std::string& line) { return make_case(parse_spec(line)); }
Case small() { return case_of("dtype=float64,S=2,DHQK=2,DHV=3,cotangents=0"); }

KernelData run(WorkerPool& pool, const Kernel& kernel) { return pool.run(kernel, small(), {}, {}); }

double value(const KernelData& data) { return data.outputs.at("h").flat(0); }

/// "type: text" of what `call` throws.
template <class Call>
std::string thrown_by(const Call& call) {
  try {
    call();
  } catch (const TimeoutError& error) {
    return std::string("timeout: ") + error.what();
  } catch (const WorkerError& error) {
    return std::string("worker: ") + error.what();
  } catch (const std::invalid_argument& error) {
    return std::string("argument: ") + error.what();
  } catch (const std::runtime_error& error) {
    return std::string("runtime: ") + error.what();
  }
  return "nothing";
}

bool has_children() { return waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD; }

bool begins(const std::string& text, const std::string& begin) { return text.rfind(begin, 0) == 0; }

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[1], "worker") == 0) {
    if (std::strcmp(argv[2], "--probe") == 0) return probe_main();
    WorkerLimits limits;
    for (int n = 2; n < argc; ++n) std::sscanf(argv[n], "--without=%lu", &limits.without);
    return worker_main(limits, find);
  }
  return boost::unit_test::unit_test_main([] { return true; }, argc, argv);
}

BOOST_AUTO_TEST_CASE(a_worker_gives_what_run_kernel_gives) {
  WorkerPool pool({});
  int runs = 0;
  for (const Kernel* kernel : registered_kernels()) {
    if (kernel->info().device != Device::cpu) continue;
    for (const char* line :
         {"dtype=float32,S=9,DHQK=4,DHV=3,L=4,initial_states=1,last_state_cotangents=1",
          "dtype=float16,S=1,DHQK=3,DHV=2,L=4,initial_states=1", "dtype=bfloat16,gate=sigmoid,S=5,DHQK=2,DHV=2,L=2",
          "dtype=float64,S=7,DHQK=2,DHV=5,L=3,cotangents=0"}) {
      const Case c = case_of(line);
      if (!kernel->unsupported(c.problem).empty()) continue;
      if (c.cotangents.size() > 1 && !kernel->info().last_state_cotangents) continue;
      for (const std::optional<Convention> convention :
           {std::optional<Convention>(), std::optional(Convention::exact)}) {
        if (convention && kernel->info().gradient_conventions.empty()) continue;
        for (const bool guarded : {true, false}) {
          const RunOptions how{.repeats = 1, .guarded = guarded};
          const KernelData there = pool.run(*kernel, c, convention, how),
                           here = run_kernel(*kernel, c, convention, how);
          BOOST_TEST_CONTEXT(kernel->info().key() << " " << line) {
            BOOST_TEST(test::same(there.outputs, here.outputs));
            BOOST_TEST(test::same(there.gradients, here.gradients));
            BOOST_TEST((there.attributes == here.attributes));
            BOOST_TEST(there.variant == here.variant);
            BOOST_TEST((there.convention == here.convention));
            BOOST_TEST((there.operand_dtype == here.operand_dtype && there.state_dtype == here.state_dtype));
            BOOST_TEST((there.gate_dtype == here.gate_dtype && there.product_dtype == here.product_dtype));
          }
          ++runs;
        }
      }
    }
  }
  BOOST_TEST(runs > 20);
}

BOOST_AUTO_TEST_CASE(null_arguments_and_company_come_across) {
  WorkerPool pool({});
  const Kernel& kernel = *find_kernel("chunkwise--native_eigen_ownbw");
  const Case c = case_of("dtype=float32,S=9,DHQK=4,DHV=3,L=4,initial_states=1,last_state_cotangents=1");
  const auto other = std::make_shared<const Case>(
      case_of("dtype=float32,S=5,DHQK=4,DHV=7,L=4,initial_states=1,last_state_cotangents=1"));
  std::vector<RunOptions> all{{.nulls = {"c_last", "dn_initial", "dh"}}};
  for (const Company company : {Company::interleaved, Company::moved, Company::streams, Company::threads})
    all.push_back({.nulls = {"m_last"}, .company = company, .other = other});
  for (const RunOptions& how : all) {
    const KernelData there = pool.run(kernel, c, Convention::exact, how),
                     here = run_kernel(kernel, c, Convention::exact, how);
    BOOST_TEST(test::same(there.outputs, here.outputs));
    BOOST_TEST(test::same(there.gradients, here.gradients));
  }
}

BOOST_AUTO_TEST_CASE(refusals_and_findings_come_across) {
  WorkerPool pool({});
  const Kernel& step = *find_kernel("recurrent--step_fused_eigen");
  const auto refused = [&](const Case& c, std::optional<Convention> convention) {
    const std::string here = thrown_by([&] { run_kernel(step, c, convention); });
    BOOST_TEST(begins(here, "argument: "));
    BOOST_TEST(thrown_by([&] { pool.run(step, c, convention, {}); }) == here);
  };
  refused(small(), {});
  refused(case_of("dtype=float32,S=1,DHQK=2,DHV=2"), Convention::exact);
  Case damaged = case_of("dtype=float32,S=1,DHQK=2,DHV=2");
  damaged.inputs.erase("q");
  refused(damaged, {});
  damaged = case_of("dtype=float32,S=1,DHQK=2,DHV=2");
  damaged.inputs["k"].flat(0) = 0.1;  // no float32
  refused(damaged, {});
  BOOST_TEST(thrown_by([&] { run(pool, thrower); }) == "runtime: recurrent--thrower: a finding");
  BOOST_TEST(
      thrown_by([&] { run(pool, no_memory); }) ==
      "worker: recurrent--no_memory: the kernel ran out of memory while it ran forward; --memory-limit gives that "
      "process " +
          verify::bytes_text(verify::default_memory_limit()));
  BOOST_TEST(thrown_by([&] { run(pool, fortytwo); }) == "worker: recurrent--fortytwo: an exception of an unknown type");
}

BOOST_AUTO_TEST_CASE(a_worker_is_used_again_until_something_goes_wrong_in_it) {
  WorkerPool pool({});
  const double first = value(run(pool, pid));
  BOOST_TEST(first != static_cast<double>(getpid()));
  BOOST_TEST(value(run(pool, pid)) == first);
  thrown_by([&] { run(pool, *find_kernel("recurrent--step_fused_eigen")); });  // a refusal is nothing wrong
  BOOST_TEST(value(run(pool, pid)) == first);
  thrown_by([&] { run(pool, thrower); });
  const double second = value(run(pool, pid));
  BOOST_TEST(second != first);
  thrown_by([&] { run(pool, guilty); });
  BOOST_TEST(value(run(pool, pid)) != second);
}

BOOST_AUTO_TEST_CASE(what_others_left_behind_is_not_blamed_on_a_variant) {
  std::vector<std::string> notices;
  WorkerOptions options;
  options.on_notice = [&](const std::string& line) { notices.push_back(line); };
  WorkerPool pool(options);
  run(pool, saboteur);
  BOOST_TEST(value(run(pool, innocent)) == 2.0);
  BOOST_REQUIRE(notices.size() == 1u);
  BOOST_TEST(begins(notices.front(), "recurrent--innocent: crashed: SIGABRT (Aborted); once more in a fresh process"));
  // after innocent ran in it, a crash may be its fault; so guilty gets a second try, and no third
  BOOST_TEST(begins(thrown_by([&] { run(pool, guilty); }), "worker: recurrent--guilty: crashed: SIGABRT"));
  BOOST_TEST(notices.size() == 2u);
  // in a process of its own there is nobody else to blame
  BOOST_TEST(begins(thrown_by([&] { run(pool, guilty); }), "worker: recurrent--guilty: crashed: SIGABRT"));
  BOOST_TEST(notices.size() == 2u);
}

// Only a run that would take an hour is given a short time: how long the others take says nothing.
BOOST_AUTO_TEST_CASE(a_run_that_takes_too_long_is_stopped) {
  WorkerOptions options;
  options.timeout = 0.3;
  WorkerPool pool(options);
  BOOST_TEST(thrown_by([&] { run(pool, sleeper); }) ==
             "timeout: recurrent--sleeper: took longer than 0.3 s and was stopped");
  BOOST_TEST(!has_children());
}

BOOST_AUTO_TEST_CASE(what_a_kernel_prints_is_kept) {
  std::string key, text;
  WorkerOptions options;
  options.on_output = [&](const std::string& who, const std::string& what) { key = who, text = what; };
  WorkerPool pool(options);
  BOOST_TEST(value(run(pool, printer)) == 3.0);
  BOOST_TEST(key == "recurrent--printer");
  BOOST_TEST(text == "three words here\nthree words here\n");  // once for each poison
}

BOOST_AUTO_TEST_CASE(threads_use_workers_of_their_own_and_none_outlives_the_pool) {
  {
    WorkerPool pool({});
    std::mutex mutex;
    std::set<double> pids;
    parallel_for(40, 4, [&](std::int64_t) {
      const double value_of_run = value(run(pool, pid));
      const std::lock_guard lock(mutex);
      pids.insert(value_of_run);
    });
    BOOST_TEST(pids.size() >= 1u);
    BOOST_TEST(pids.size() <= 4u);
    BOOST_TEST(has_children());
  }
  BOOST_TEST(!has_children());
}

namespace {

/// Parts of Confinement that this system has.
std::uint32_t available() {
  static const std::uint32_t found = kAllConfinement & ~probe_confinement("/proc/self/exe");
  return found;
}

/// Whether `kernel`, in a worker that is confined by `parts` alone, changes what this process keeps.
bool forges(const Kernel& kernel, std::uint32_t parts, bool traceable) {
  WorkerOptions options;
  options.without = kAllConfinement & ~parts;
  WorkerPool pool(options);
  prctl(PR_SET_DUMPABLE, traceable ? 1 : 0);
  kept = kRight;
  BOOST_TEST(value(run(pool, kernel)) == 1.0);
  return kept != kRight;
}

/// Without Yama a process may trace any other of the same user; with it, not even an unconfined forger gets far.
bool has_yama() {
  std::ifstream scope("/proc/sys/kernel/yama/ptrace_scope");
  int value = 0;
  return scope >> value && value > 0;
}

std::string target_here() {
  char text[64];
  std::snprintf(text, sizeof text, "%d %lx", getpid(), reinterpret_cast<unsigned long>(&kept));
  return text;
}

}  // namespace

BOOST_AUTO_TEST_CASE(no_kernel_reaches_the_memory_of_the_verifier) {
  setenv("MLSTM_TEST_TARGET", target_here().c_str(), 1);
  for (const std::string& word : exposed_by(kAllConfinement & ~available()))
    BOOST_TEST_MESSAGE("NOT TESTED, since this system does not have it: " << word);
  for (const FakeKernel* kernel : {&forger_by_file, &forger_by_vm, &forger_by_trace, &forger_by_grandchild}) {
    BOOST_TEST_CONTEXT(kernel->info().key()) {
      BOOST_TEST(!forges(*kernel, available(), false));
      // each alone keeps them out; kept privileges are those of root, if this is root
      BOOST_TEST(!forges(*kernel, kPrivileges, false));
      for (const std::uint32_t part : {kNamespaces, kFiles})
        if ((available() & part) != 0) BOOST_TEST(!forges(*kernel, part, true), part);
      if ((available() & kCalls) != 0 && (kernel == &forger_by_vm || kernel == &forger_by_trace))
        BOOST_TEST(!forges(*kernel, kCalls, true));
      // and nothing else does: a test that cannot fail would be none
      if (has_yama())
        BOOST_TEST_MESSAGE("NOT TESTED, since Yama forbids it: an unconfined kernel forges");
      else
        BOOST_TEST(forges(*kernel, 0, true));
    }
  }
  BOOST_TEST(prctl(PR_GET_DUMPABLE) == 1);
  WorkerPool pool({});
  BOOST_TEST(prctl(PR_GET_DUMPABLE) == 0);
  BOOST_TEST(value(run(pool, privileged)) == 0.0);
}

BOOST_AUTO_TEST_CASE(no_kernel_sends_the_verifier_signals) {
  setenv("MLSTM_TEST_TARGET", target_here().c_str(), 1);
  std::signal(SIGUSR1, [](int) { ++signals_taken; });
  const auto arrives = [](std::uint32_t parts) {
    const int before = signals_taken;
    forges(signaller, parts, false);
    return signals_taken > before;
  };
  BOOST_TEST(!arrives(available()));
  for (const std::uint32_t part : {kNamespaces, kCalls})
    if ((available() & part) != 0) BOOST_TEST(!arrives(part), part);
  BOOST_TEST(arrives(0));
  std::signal(SIGUSR1, SIG_DFL);
}

BOOST_AUTO_TEST_CASE(no_kernel_writes_files_but_temporary_ones) {
  const test::TemporaryDirectory directory;
  const std::filesystem::path file = directory.path() / "report.json", temporary = directory.path() / "temporary";
  std::filesystem::create_directory(temporary);
  setenv("MLSTM_TEST_FILE", file.c_str(), 1);
  setenv("TMPDIR", temporary.c_str(), 1);
  const auto survives = [&](std::uint32_t parts) {
    std::ofstream(file) << "right";
    forges(overwriter, parts, false);
    return std::filesystem::exists(file) && read_text_file(file) == "right" &&
           !std::filesystem::exists(file.string() + ".new");
  };
  if ((available() & kFiles) != 0) {
    BOOST_TEST(survives(available()));
    BOOST_TEST(survives(kFiles));
  } else {
    BOOST_TEST_MESSAGE("NOT TESTED, since this system has no Landlock: that kernels cannot write files");
  }
  BOOST_TEST(!survives(0));
  for (const std::uint32_t parts : {available(), std::uint32_t{0}}) BOOST_TEST(!forges(honest_writer, parts, false));
  unsetenv("TMPDIR");
  BOOST_TEST(std::filesystem::is_empty(temporary));
}

BOOST_AUTO_TEST_CASE(what_is_missing_is_named) {
  WorkerOptions options;
  BOOST_TEST(WorkerPool(options).exposed() == exposed_by(kAllConfinement & ~available()));
  options.without = kFiles | kNamespaces;
  const auto missing = WorkerPool(options).exposed();
  BOOST_REQUIRE(missing.size() >= 2u);
  BOOST_TEST(missing[0] == "processes");
  BOOST_TEST(missing[1] == "files");
}

BOOST_AUTO_TEST_CASE(a_program_that_is_no_worker_is_an_error) {
  WorkerOptions options;
  options.program = "/no/such/program";
  WorkerPool nobody(options);
  BOOST_TEST(begins(thrown_by([&] { run(nobody, pid); }),
                    "worker: recurrent--pid: a worker cannot be started: /no/such/program: "));
  options.program = "/bin/true";
  WorkerPool truth(options);
  BOOST_TEST(begins(thrown_by([&] { run(truth, pid); }), "worker: recurrent--pid: "));
  BOOST_TEST(thrown_by([] { worker_main({}, find); }).find("runtime: worker: to be started by mlstm itself") == 0u);
}

BOOST_AUTO_TEST_CASE(damaged_replies_are_errors_and_nothing_more) {
  WorkerOptions options;
  options.program = MLSTM_BINARY_DIR "/plugins/mlstm_rogue_worker";
  WorkerPool pool(options);
  setenv("MLSTM_TEST_SIZE", std::to_string(2 * 3 * sizeof(double)).c_str(), 1);
  const auto answer = [&](const std::string& how) {
    setenv("MLSTM_TEST_ROGUE", how.c_str(), 1);
    return thrown_by([&] { run(pool, pid); });
  };
  const std::string no_reply = "sent the verifier something that is no reply";
  const std::pair<const char*, std::string> damaged[] = {
      {"nothing", "the process that watches the worker was killed"},
      {"half a header", "the process that watches the worker was killed"},
      {"zeros", no_reply},
      {"other token", no_reply},
      {"request back", no_reply},
      {"huge meta", "sent 4294967295 bytes of fields; expected at most 8388608"},
      {"huge data", "sent 18446744073709551615 bytes of results; expected 48"},
      {"too little data", "sent 40 bytes of results; expected 48"},
      {"data cut off", "the process that watches the worker was killed"},
      {"no fields", "sent the verifier a damaged reply: its fields end early"},
      {"data of an error", "sent 8 bytes of results; expected 0"},
      {"text without end",
       "sent the verifier a damaged reply: a text has 9187201950435737471 bytes; expected at most 65536"}};
  for (const auto& [how, message] : damaged) BOOST_TEST(answer(how) == "worker: recurrent--pid: " + message);
  options.timeout = 1;
  WorkerPool hurried(options);
  setenv("MLSTM_TEST_ROGUE", "then hangs", 1);
  BOOST_TEST(begins(thrown_by([&] { run(hurried, pid); }), "timeout: recurrent--pid: took longer than 1 s"));
  // Random ones: an error of some kind, or numbers, which would then be judged.
  int errors = 0;
  for (int seed = 0; seed < 200; ++seed) errors += answer("seed " + std::to_string(seed)) != "nothing" ? 1 : 0;
  BOOST_TEST(errors > 100);
  BOOST_TEST(!has_children());
}
