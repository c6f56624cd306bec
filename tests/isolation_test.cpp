// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// Hostile kernels among honest ones: each costs its own runs, gets the right status, and leaves no process behind.
// MLSTM_HOSTILE_RUNS=100 runs each of them so often; MLSTM_HOSTILE_THREADS side by side.
#include <signal.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <thread>

#include "cases/case_file.hpp"
#include "program.hpp"

namespace {
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::Result, mlstm::test::Workplace;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

const std::string kProgram = MLSTM_BINARY_DIR "/bin/mlstm", kPlugins = MLSTM_BINARY_DIR "/plugins/";
const std::string kCase = "regime=standard,dtype=float32,NH=2,S=24,DHQK=8,DHV=4,L=8,seed=";

int setting(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::stoi(text);
}

/// Processes with `mark` in their environment: whatever a command has started, wherever it has gone.
std::set<std::string> processes_with(const std::string& mark) {
  std::set<std::string> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(entry.path() / "environ", std::ios::binary);
    const std::string environment{std::istreambuf_iterator<char>(file), {}};
    if (contains(environment, mark)) found.insert(name);
  }
  return found;
}

/// True as soon as `condition` holds; false after minutes, which only something that never happens takes.
bool soon(const std::function<bool()>& condition) {
  for (int attempt = 0; attempt < 30000; ++attempt, std::this_thread::sleep_for(10ms))
    if (condition()) return true;
  return condition();
}

struct Marked : Workplace {
  std::string mark = "MLSTM_TEST_MARK=" + path.string();
  Result run(const std::string& arguments, const std::string& before = "") const {
    return shell("env '" + mark + "' " + before + " '" + kProgram + "' " + arguments);
  }
  bool leaves_nothing() const {
    return soon([&] { return processes_with(mark).empty(); });
  }
};

struct Expected {
  std::set<Status> statuses;  ///< one of these in every run
  std::string note;           ///< part of it
  std::string check = {};     ///< Item::check, if it is one
};

/// What each hostile kernel gets. Where memory is damaged, what happens first is up to chance.
const std::map<std::string, Expected> kExpected{
    {"segfault", {{Status::ERROR}, "crashed: SIGSEGV"}},
    {"abort", {{Status::ERROR}, "crashed: SIGABRT (Aborted); last output: \"about to abort\""}},
    {"exit_0", {{Status::ERROR}, "ended its process with exit status 0"}},
    {"exit_3", {{Status::ERROR}, "ended its process with exit status 3"}},
    {"stack_overflow", {{Status::ERROR}, "crashed: SIGSEGV"}},
    {"kill_group", {{Status::ERROR}, "crashed: SIGKILL"}},
    // nothing happens: its parent is the init process of its namespace, or the filter forbids it
    {"kill_parent", {{Status::TIMEOUT}, "took longer than"}},
    {"throw_int", {{Status::ERROR}, "an exception of type int left forward"}},
    {"throw_exception", {{Status::ERROR}, "an exception of type std::runtime_error left forward"}},
    {"loop", {{Status::TIMEOUT}, "took longer than", "timeout"}},
    {"ignore_signals", {{Status::TIMEOUT}, "took longer than"}},
    {"handle_crash", {{Status::TIMEOUT}, "took longer than"}},
    {"stop_itself", {{Status::TIMEOUT}, "took longer than"}},
    {"deadlock", {{Status::TIMEOUT}, "took longer than"}},
    {"leave_children", {{Status::PASS}, ""}},
    {"hang_with_children", {{Status::TIMEOUT}, "took longer than"}},
    {"leave_threads", {{Status::FAIL, Status::ERROR}, ""}},
    {"fill_memory", {{Status::ERROR}, "of memory"}},
    {"fill_shared_memory", {{Status::ERROR}, "used more than 256 MiB of memory and was stopped"}},
    {"flood_output", {{Status::ERROR}, "wrote more than 1024 KiB to its output"}},
    {"smash_heap", {{Status::FAIL, Status::ERROR}, ""}},
    {"write_past_end", {{Status::FAIL}, "h was written past its end", "red zone"}},
    {"damage_input", {{Status::FAIL}, "q was changed, though it is an input", "input damage"}},
    {"differ", {{Status::FAIL}, "differs from run to run", "repeat"}},
    {"wrong", {{Status::FAIL}, ""}},
    {"close_all", {{Status::ERROR}, "lost its connection to the verifier"}},
    {"write_protocol", {{Status::ERROR}, "sent the verifier something that is no reply"}},
    {"read_protocol", {{Status::TIMEOUT}, "took longer than"}},
    {"forge_done", {{Status::ERROR}, "sent the verifier something that is no reply"}},
    {"forge_mem", {{Status::FAIL}, ""}},
    {"forge_ptrace", {{Status::FAIL}, ""}},
    {"ruin_vm_writev", {{Status::FAIL}, ""}},
    {"forge_grandchild", {{Status::FAIL}, ""}},
    {"forge_files", {{Status::FAIL}, ""}},
    {"open_libraries", {{Status::PASS}, ""}},
    {"return_error", {{Status::FAIL}, "forward returned 7: cannot do that "}}};

/// The worst status of a run: its items may be several.
Status worst(const std::vector<Item>& items) {
  Status status = Status::PASS;
  for (const Item& item : items)
    if (item.status != Status::PASS) status = item.status;
  return status;
}

/// Runs hostile variants of some names, and honest ones, over several problems; adds what they got to `items`.
void sweep(const Marked& here, const std::vector<std::string>& names, const std::string& timeout, int seeds,
           std::vector<Item>& items) {
  std::string command = "verify --report report --memory-limit 256M --timeout " + timeout + " --threads " +
                        std::to_string(setting("MLSTM_HOSTILE_THREADS", 4)) + " --plugin " + kPlugins +
                        "libhostile.so --plugin " + kPlugins + "librecurrent.so --variant '*eigen*,sequence_c'";
  for (const std::string& name : names) command += " --variant hostile_" + name;
  for (int seed = 0; seed < seeds; ++seed) command += " --case " + kCase + std::to_string(seed);
  const Result result = here.run(command);
  BOOST_TEST(result.status == 1, result.err);
  BOOST_TEST(here.leaves_nothing());
  for (const Item& item : here.report("report"))
    if (!is_declined(item)) items.push_back(item);  // the decoding step takes none of these problems
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(each_hostile_kernel_costs_its_own_runs, Marked) {
  const int seeds = setting("MLSTM_HOSTILE_RUNS", 2);
  std::vector<std::string> endless, others;
  for (const auto& [name, expected] : kExpected)
    (expected.statuses.contains(Status::TIMEOUT) ? endless : others).push_back(name);
  std::vector<Item> items;
  sweep(*this, endless, "5", seeds, items);  // of which the honest ones need little, on a busy machine too
  sweep(*this, others, "60", seeds, items);
  std::map<std::string, std::map<std::string, std::vector<Item>>> runs;  // variant -> case -> items
  std::map<std::string, std::map<Status, int>> counts;
  for (const Item& item : items) runs[item.variant][item.case_name].push_back(item);
  for (const auto& [variant, cases] : runs) {
    BOOST_TEST(cases.size() == static_cast<std::size_t>(seeds), variant);
    const std::string prefix = "recurrent--hostile_";
    const bool is_hostile = variant.starts_with(prefix);
    for (const auto& [name, of_run] : cases) {
      const Status status = worst(of_run);
      ++counts[variant][status];
      if (!is_hostile) {
        for (const Item& item : of_run) BOOST_TEST((item.status == Status::PASS), variant << " " << item.note);
        continue;
      }
      const Expected& expected = kExpected.at(variant.substr(prefix.size()));
      BOOST_TEST(expected.statuses.contains(status), variant << " is " << to_string(status));
      if (status != Status::PASS) {
        BOOST_TEST(contains(of_run.front().note, expected.note), variant << ": " << of_run.front().note);
        if (!expected.check.empty()) BOOST_TEST(of_run.front().check == expected.check, variant);
        BOOST_TEST(contains(of_run.front().repro, "--plugin " + kPlugins + "libhostile.so"));
      }
    }
  }
  BOOST_TEST(runs.size() == kExpected.size() + 4u);  // the example, and three registered variants take these problems
  for (const auto& [variant, of_variant] : counts) {
    std::ostringstream line;
    for (const auto& [status, count] : of_variant) line << " " << count << " " << to_string(status);
    BOOST_TEST_MESSAGE(variant << ":" << line.str());
  }
}

BOOST_FIXTURE_TEST_CASE(a_kernel_cannot_write_the_report, Marked) {
  const Result result =
      run("verify --report report --plugin " + kPlugins +
          "libhostile.so --variant hostile_wrong --variant hostile_forge_files --case " + kCase + "1");
  BOOST_TEST(result.status == 1);
  for (const Item& item : report("report")) {
    // where the system has no Landlock, that is said instead
    if (contains(result.out, "files, those of this report among them")) {
      BOOST_TEST((item.exposed == std::vector<std::string>{"files"} || item.exposed.size() > 1));
      continue;
    }
    const std::string journal = read_text_file(path / "report/journal.jsonl");
    BOOST_TEST(contains(journal, "FAIL"));
    BOOST_TEST(!contains(journal, "forged"));
    BOOST_TEST(!fs::exists(path / "report/journal.new"));
  }
}

BOOST_FIXTURE_TEST_CASE(kernels_in_the_verifiers_process_are_said_to_be_able_to_do_anything, Marked) {
  const std::string command = "verify --variant sequence_eigen_ownbw --report report --case " + kCase + "1";
  Result result = run(command);
  for (const Item& item : report("report"))
    BOOST_TEST(std::count(item.exposed.begin(), item.exposed.end(), "verifier") == 0);
  fs::remove_all(path / "report");
  result = run(command + " --in-process");
  BOOST_TEST(result.status == 0, result.err);
  BOOST_TEST(contains(result.out,
                      "Exposed: what a kernel that means harm could have reached\n"
                      "  the verifier's memory, and with it every verdict:"),
             result.out);
  BOOST_TEST(contains(read_text_file(path / "report/summary.txt"), "Exposed: "));
  const auto items = report("report");
  BOOST_TEST(!items.empty());
  for (const Item& item : items) BOOST_TEST(item.exposed == std::vector<std::string>{"verifier"});
}

BOOST_FIXTURE_TEST_CASE(the_example_passes_and_its_head_says_how_to_build_it, Marked) {
  std::ifstream source(MLSTM_SOURCE_DIR "/verify/examples/recurrent_plugin.c");
  std::string command;
  while (std::getline(source, command) && !contains(command, "cc -O2")) {
  }
  command = command.substr(command.find("cc -O2"));
  BOOST_TEST(shell("cd '" MLSTM_SOURCE_DIR "' && " +
                   command.replace(command.find("librecurrent.so"), 15, path.string() + "/librecurrent.so"))
                 .status == 0);
  const Result result = run("verify --plugin ./librecurrent.so --suite smoke --report report");
  BOOST_TEST(result.status == 0, result.out);
  const auto items = report("report");
  BOOST_TEST(items.size() > 100u);
  for (const Item& item : items) BOOST_TEST(item.variant == "recurrent--sequence_c");
  BOOST_TEST(contains(run("list --plugin ./librecurrent.so").out, "recurrent--sequence_c\n"));
  // beside registered variants, in this process too
  const std::string selection = " --plugin ./librecurrent.so --variant 'sequence*' --case " + kCase + "1";
  for (const char* where : {"", " --in-process", " --in-process --unguarded", " --unguarded"}) {
    const Result both = run("verify" + selection + where);
    BOOST_TEST(both.status == 0, both.out);
    BOOST_TEST(contains(both.out, "recurrent--sequence_c: 9 PASS"));
    BOOST_TEST(contains(both.out, "recurrent--sequence_eigen_ownbw: 14 PASS"));
  }
  // captures of a plugin are never stale
  BOOST_TEST(run("capture --out captures" + selection).status == 0);
  BOOST_TEST(run("verify --captures captures").status == 0);
}

BOOST_FIXTURE_TEST_CASE(plugins_that_cannot_be_used_are_one_line_and_status_2, Marked) {
  write("text.so", "no library");
  const std::string broken = kPlugins + "libbroken.so";
  const auto refusal = [&](const std::string& plugin, const std::string& mistake, const std::string& more = "") {
    const std::string timeout = contains(mistake, "hangs") ? "1.5" : "60";
    const Result result =
        run("verify --plugin '" + plugin + "' --timeout " + timeout + " --case " + kCase + "1 " + more,
            "'MLSTM_TEST_BROKEN=" + mistake + "'");
    BOOST_TEST(result.status == 2, mistake << " ends with " << result.status << ": " << result.out);
    BOOST_TEST(std::count(result.err.begin(), result.err.end(), '\n') == 1, result.err);
    BOOST_TEST(contains(result.err, "mlstm: plugin " + plugin), result.err);
    return result.err;
  };
  const auto check = [&](const std::string& mistake, const std::string& message) {
    const std::string text = refusal(broken, mistake);
    BOOST_TEST(contains(text, message), mistake << ": " << text);
  };
  BOOST_TEST(contains(refusal("absent.so", ""), "cannot be loaded"));
  BOOST_TEST(contains(refusal("text.so", ""), "cannot be loaded"));
  BOOST_TEST(contains(refusal(MLSTM_BINARY_DIR "/lib/libmlstm_contract.so", ""), "exports no function mlstm_kernels"));
  BOOST_TEST(contains(refusal(broken, "", "--plugin " + broken), "variant recurrent--broken is there already"));
  check("constructor crashes", "while it was loaded, it crashed: SIGABRT");
  check("constructor exits", "while it was loaded, it ended its process with exit status 0");
  check("constructor hangs", "while it was loaded, it took longer than 1.5 s");
  check("entry crashes", "while it was loaded, it crashed: SIGABRT");
  check("entry throws", "an exception of type int left mlstm_kernels");
  check("no library", "mlstm_kernels returned null");
  check("other version", "abi_version is 99; expected 1");
  check("small library", "struct_size of mlstm_kernel_library is 8; expected at least");
  check("no kernels", "kernel_count is 0");
  check("too many kernels", "kernel_count is 18446744073709551615; expected 1 to 1024");
  check("null array", "kernels is null");
  check("null kernel", "kernel 0: mlstm_kernel is null");
  check("same name", "kernel 1 (broken): is named recurrent--broken as kernel 0 is");
  check("small kernel", "kernel 0: struct_size of mlstm_kernel is 16; expected at least");
  check("no module", "kernel 0 (broken): module is 0; expected one of MLSTM_RECURRENT, ");
  check("no name", "kernel 0: name is null");
  check("bad name", "name is \"../x y\"; expected 1 to 100 letters");
  check("taken name", "variant recurrent--sequence_eigen_ownbw is there already, from mlstm itself");
  check("long name", "name is longer than");
  check("no description", "description is null");
  check("two lines", "expected one line of UTF-8 text");
  check("no device", "device is 9; expected one of MLSTM_DEVICE_CPU, MLSTM_DEVICE_CUDA");
  check("no dtypes", "dtypes is \"0\"; expected at least one");
  check("unknown dtypes", "dtypes is 1048576; expected a set of MLSTM_FLOAT64, ");
  check("tfloat32", "dtypes is \"tfloat32\"; expected storage formats only");
  check("no gates", "gates is \"0\"");
  check("no stabilizer", "stabilizer_inits is \"0\"; expected at least one with the exp gate");
  check("operand dtype", "operand_dtype is 3; expected one of");
  check("gate dtype", "gate_dtype is 3; expected one of");
  check("product dtype", "product_dtype is 5; expected one of");
  check("unknown flags", "flags is 1073741824");
  check("cotangents", "last_state_cotangents is \"1\"; expected it only of");
  check("empty limit", "the limit of DHQK is \"9 to 15 in multiples of 8\"");
  check("negative limit", "the limit of S is \"-4 to ");
  check("null forward", "forward is null; expected a function");
  check("null backward", "backward is null; expected a function");
  check("spare backward", "backward is given, but gradients is 0");
  // in this process the same is said
  BOOST_TEST(contains(run("verify --in-process --plugin " + broken, "'MLSTM_TEST_BROKEN=no gates'").err,
                      "kernel 0 (broken): gates is \"0\"; expected at least one"));
  BOOST_TEST(leaves_nothing());
}

BOOST_FIXTURE_TEST_CASE(a_plugin_is_asked_what_it_supports, Marked) {
  const auto verify = [&](const std::string& mistake, const std::string& more = "") {
    const std::string timeout = contains(mistake, "hangs") ? "1" : "60";
    return run("verify --plugin " + kPlugins + "libbroken.so --timeout " + timeout + " --convention detached --case " +
                   kCase + "1 " + more,
               "'MLSTM_TEST_BROKEN=" + mistake + "'");
  };
  BOOST_TEST(verify("").status == 0);
  Result result = verify("no even S");
  BOOST_TEST(result.status == 1, result.out);
  BOOST_TEST(contains(result.err, "not run, supports no selected problem: recurrent--broken: S has to be odd"));
  BOOST_TEST(contains(result.out, "declined 1 of 1 problems, though its declaration admits them: S has to be odd"));
  result = verify("no even S", "--case regime=standard,dtype=float32,S=3,DHQK=1,DHV=1");
  BOOST_TEST(result.status == 1, result.out);
  BOOST_TEST(contains(result.out, "declined 1 of 2 problems, though its declaration admits them: S has to be odd"));
  BOOST_TEST(contains(verify("supports says nothing").err, "recurrent--broken: supports returned 5"));
  BOOST_TEST(contains(verify("supports fills its message").err, "recurrent--broken: xxxxxxxx"));
  // one that cannot be asked is run, and fails there
  result = verify("supports crashes");
  BOOST_TEST(result.status == 1);
  BOOST_TEST(contains(result.out, "1 ERROR"));
  BOOST_TEST(contains(result.out, "crashed: SIGABRT"));
  BOOST_TEST(contains(verify("supports throws").out, "an exception of type int left supports"));
  BOOST_TEST(contains(verify("supports hangs").out, "1 TIMEOUT"));
  result = verify("cuda");
  BOOST_TEST((contains(result.out, "SKIPPED") || access("/dev/nvidia0", F_OK) == 0), result.out);
  BOOST_TEST(leaves_nothing());
}

BOOST_FIXTURE_TEST_CASE(a_resumed_sweep_wants_the_same_plugin, Marked) {
  fs::copy(kPlugins + "librecurrent.so", path / "mine.so");
  const std::string sweep = "verify --plugin ./mine.so --report r --case " + kCase;
  BOOST_TEST(run(sweep + "1").status == 0);
  BOOST_TEST(run(sweep + "1 --resume").status == 0);
  std::ofstream(path / "mine.so", std::ios::app) << "more";
  const Result result = run(sweep + "1 --resume");
  BOOST_TEST(result.status == 2);
  BOOST_TEST(contains(result.err, "belongs to another selection"), result.err);
}

/// Starts the program in the background, sends it a signal when `condition` (of a shell) holds, and returns how it
/// ended.
Result interrupt(const Marked& here, const std::string& arguments, const std::string& signal,
                 const std::string& condition) {
  // monitor mode, because else a shell has what is in the background ignore SIGINT
  here.write("interrupt.sh", "set -m\nenv '" + here.mark + "' '" + kProgram + "' " + arguments +
                                 " &\nfor n in $(seq 30000); do " + condition + " && break; sleep 0.01; done\nkill -" +
                                 signal + " $!\nwait $!\nexit $?\n");
  return here.shell("bash interrupt.sh");
}

BOOST_FIXTURE_TEST_CASE(workers_end_with_the_verifier_whatever_ends_it, Marked) {
  const std::string sweep = "verify --threads 2 --report r --plugin " + kPlugins +
                            "libhostile.so --variant 'hostile_*_children' --case " + kCase + "1 --case " + kCase + "2";
  // the verifier, and in each of two workers that hang two processes and at least four that the kernel has started
  const std::string all_there = "[ $(grep -lsz '" + mark + "' /proc/[0-9]*/environ | wc -l) -gt 12 ]";
  for (const auto& [signal, status] : {std::pair{"INT", 130}, std::pair{"TERM", 143}, std::pair{"KILL", 137}}) {
    const Result result = interrupt(*this, sweep, signal, all_there);
    BOOST_TEST(result.status == status, signal << " gives " << result.status << ": " << result.err);
    BOOST_TEST(leaves_nothing(), signal);
    BOOST_TEST((status == 137 || contains(result.err, "mlstm: interrupted")), result.err);
  }
}

BOOST_FIXTURE_TEST_CASE(an_interrupted_sweep_goes_on, Marked) {
  const std::string sweep =
      "verify --plugin " + kPlugins + "librecurrent.so --report r --suite smoke --variant '*eigen*,*_c'";
  const Result whole = run(sweep);
  const std::string expected = read_text_file(path / "r/report.json");
  fs::remove_all(path / "r");
  const Result cut = interrupt(*this, sweep, "INT", "[ $(wc -l < r/journal.jsonl || echo 0) -gt 5 ] 2>/dev/null");
  BOOST_TEST((cut.status == 130 || cut.status == whole.status));
  BOOST_TEST(leaves_nothing());
  BOOST_TEST(run(sweep + " --resume").status == whole.status);
  BOOST_TEST(read_text_file(path / "r/report.json") == expected);
}

BOOST_FIXTURE_TEST_CASE(limits_are_checked, Marked) {
  const std::pair<const char*, const char*> bad[] = {
      {"--timeout soon", "--timeout is \"soon\"; expected a number of seconds"},
      {"--timeout -1", "--timeout is \"-1\""},
      {"--timeout nan", "--timeout is \"nan\""},
      {"--memory-limit lots", "--memory-limit is \"lots\"; expected bytes, as in 4G"},
      {"--memory-limit 4X", "--memory-limit is \"4X\""},
      {"--memory-limit 99999999T", "--memory-limit is \"99999999T\""},
      {"--timeout 1 --in-process", "--in-process"},
      {"--captures x --timeout 1", "--timeout"}};
  for (const auto& [options, message] : bad) {
    const Result result = run(std::string("verify ") + options);
    BOOST_TEST(result.status == 2, options);
    BOOST_TEST(contains(result.err, message), result.err);
  }
  // without limits, with enough, and with too little memory to start
  const std::string honest = "verify --variant sequence_eigen_ownbw --case " + kCase + "1 ";
  for (const char* options : {"--timeout 0 --memory-limit 0", "--timeout 1e3 --memory-limit 1G"})
    BOOST_TEST(run(honest + options).status == 0, options);
  const Result result = run(honest + "--memory-limit 1K");
  BOOST_TEST(result.status == 1, result.err);
  BOOST_TEST(contains(result.out, "ERROR"), result.out);
  BOOST_TEST(run("worker").status == 2);
  BOOST_TEST(!contains(run("--help").out, "worker"));
}
