// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// Sweeps that are killed again and again, at random moments and at the most delicate ones, and resumed: no acknowledged
// result is lost, none is computed twice, and the report is that of a sweep that was left in peace.
//
// MLSTM_KILLS sets how often (default 50).
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <random>

#include "base/files.hpp"
#include "program.hpp"

namespace fs = std::filesystem;
using namespace mlstm;
using namespace mlstm::test;
using verify::read_text_file;

namespace {

constexpr int kDefaultKills = 50;
const std::vector<std::string> kSweep{"verify",    "--suite",    "golden",    "--dtype", "float32,bfloat16",
                                      "--variant", "recurrent*", "--threads", "2",       "--report"};
const std::vector<std::string> kReports{"report.json", "junit.xml", "summary.txt"};

/// A running `mlstm`, which is killed at the latest when this object ends.
class Process {
 public:
  explicit Process(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), MLSTM_BINARY_DIR "/bin/mlstm");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const int null = open("/dev/null", O_WRONLY);
      dup2(null, STDOUT_FILENO);
      dup2(null, STDERR_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  ~Process() { kill_and_wait(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  bool ended() {
    if (!ended_) ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
    return ended_;
  }

  /// The exit status, -1 if SIGKILL came first.
  int kill_and_wait() {
    if (!ended()) {
      kill(pid_, SIGKILL);
      waitpid(pid_, &status_, 0);
      ended_ = true;
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
  }

  int wait() {
    if (!ended_) waitpid(pid_, &status_, 0);
    ended_ = true;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
  }

  /// Waits until it has ended, but leaves its account open for `work()`.
  void wait_for_the_end() const {
    siginfo_t info;
    waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }

  /// How much it has computed so far, in nanoseconds of all its threads: a busy machine makes it slow, not larger. 0
  /// when it has ended and has been waited for.
  std::int64_t work() const {
    clockid_t account;
    timespec used{};
    if (clock_getcpuclockid(pid_, &account) != 0 || clock_gettime(account, &used) != 0) return 0;
    return std::int64_t{1000000000} * used.tv_sec + used.tv_nsec;
  }

  /// Stops it where it is, until `resume`. False if it has ended before.
  bool suspend() {
    kill(pid_, SIGSTOP);
    ended_ = waitpid(pid_, &status_, WUNTRACED) == pid_ && !WIFSTOPPED(status_);
    return !ended_;
  }
  void resume() const { kill(pid_, SIGCONT); }

 private:
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

std::vector<std::string> sweep_in(const fs::path& directory, bool resume) {
  std::vector<std::string> arguments = kSweep;
  arguments.push_back(directory.string());
  if (resume) arguments.push_back("--resume");
  return arguments;
}

std::string text_or_nothing(const fs::path& path) { return fs::exists(path) ? read_text_file(path) : ""; }

/// The lines of a journal that are complete.
std::string acknowledged(const fs::path& directory) {
  const std::string text = text_or_nothing(directory / "journal.jsonl");
  return text.substr(0, text.rfind('\n') + 1);
}

std::size_t lines_of(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

std::size_t entries_of(const fs::path& directory) {
  std::error_code ignored;
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(directory, ignored), fs::directory_iterator()));
}

std::uintmax_t size_of(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

class Killer {
 public:
  /// `whole`: Process::work() of a sweep that is left in peace.
  Killer(fs::path directory, std::int64_t whole) : directory_(std::move(directory)), whole_(whole) {}

  /// Lets the sweep run until a moment of one of three kinds: after any part of its work, just after the journal has
  /// grown, or just after a file has appeared or vanished (the journal itself, temporary files, parts of the report).
  void wait_for_a_bad_moment(Process& process) {
    const auto kind = random_() % 3;
    const auto part = std::uniform_int_distribution<std::int64_t>(0, whole_)(random_);
    auto changes = 1 + random_() % 6;
    for (auto before = state(kind); !process.ended();) {
      if (kind == 0) {
        if (process.work() >= part) return;
        usleep(200);
      } else if (const auto now = state(kind); now != before) {
        before = now;
        if (--changes == 0) return;
      }
    }
  }

 private:
  std::uintmax_t state(std::uint64_t kind) const {
    return kind == 1 ? size_of(directory_ / "journal.jsonl") : kind == 2 ? entries_of(directory_) : 0;
  }

  fs::path directory_;
  std::int64_t whole_;
  std::mt19937_64 random_{20};
};

struct Tally {
  int kills = 0, finished = 0, sweeps = 0, before_journal = 0, cut_lines = 0, with_temporaries = 0, in_report = 0;
};

/// One sweep, killed and resumed until it ends by itself.
void torture(const fs::path& directory, const std::map<std::string, std::string>& expected, std::size_t lines,
             Killer& killer, Tally& tally) {
  ++tally.sweeps;
  std::string before;
  bool begun = false;
  for (int starts = 0;; ++starts) {
    BOOST_REQUIRE(starts < 1000);
    Process process(sweep_in(directory, begun));
    killer.wait_for_a_bad_moment(process);
    const int status = process.kill_and_wait();
    const std::string text = text_or_nothing(directory / "journal.jsonl"), after = acknowledged(directory);
    // A sweep begins when its own journal has replaced that of the sweep before, whose report then goes.
    begun = begun || status == 0 ||
            (lines_of(after) > 0 && (lines_of(after) < lines || !fs::exists(directory / "report.json")));
    if (begun) {
      BOOST_REQUIRE(after.starts_with(before));
      before = after;
    }
    int present = 0;
    for (const auto& [name, bytes] : expected)
      if (fs::exists(directory / name)) {
        ++present;
        BOOST_REQUIRE(read_text_file(directory / name) == bytes);
      }
    if (status == -1) {
      ++tally.kills;
      tally.before_journal += !begun;
      tally.cut_lines += text.size() != after.size();
      tally.in_report += begun && lines_of(after) == lines;
      for (const auto& entry : fs::directory_iterator(directory))
        tally.with_temporaries += entry.path().extension() == ".tmp";
      continue;
    }
    ++tally.finished;
    BOOST_REQUIRE(status == 0);
    BOOST_REQUIRE(present == 3);
    BOOST_REQUIRE(lines_of(after) == lines);
    for (const auto& entry : fs::directory_iterator(directory)) BOOST_TEST(entry.path().extension() != ".tmp");
    return;
  }
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(a_sweep_that_is_killed_and_resumed_loses_nothing, Workplace) {
  const char* wanted = std::getenv("MLSTM_KILLS");
  const int kills = wanted != nullptr ? std::atoi(wanted) : kDefaultKills;
  BOOST_REQUIRE(kills > 0);
  Process undisturbed(sweep_in(path / "undisturbed", false));
  undisturbed.wait_for_the_end();
  const std::int64_t whole = undisturbed.work();
  BOOST_REQUIRE(undisturbed.wait() == 0);
  BOOST_REQUIRE(whole > 0);
  std::map<std::string, std::string> expected;
  for (const std::string& name : kReports) expected[name] = read_text_file(path / "undisturbed" / name);
  const std::size_t lines = lines_of(acknowledged(path / "undisturbed"));
  BOOST_REQUIRE(lines > 10u);

  Killer killer(path / "killed", whole);
  Tally tally;
  while (tally.kills < kills) torture(path / "killed", expected, lines, killer, tally);
  fmt::print(
      "{} kills in {} sweeps of {} problems: {} before the journal was begun, {} in the middle of a line, {} that left "
      "temporary files, {} when all problems were done; every report as without kills\n",
      tally.kills, tally.sweeps, lines - 1, tally.before_journal, tally.cut_lines, tally.with_temporaries,
      tally.in_report);
  BOOST_TEST(tally.kills >= kills);
  BOOST_TEST(tally.finished == tally.sweeps);
}

BOOST_FIXTURE_TEST_CASE(two_sweeps_never_write_into_the_same_directory, Workplace) {
  Process first(sweep_in(path / "shared", false));
  while (!first.ended() && !fs::exists(path / "shared/journal.jsonl")) usleep(200);
  BOOST_REQUIRE(first.suspend());  // it is not to be over before the second begins
  const Result second = run("verify --suite smoke --variant 'recurrent--step*' --report shared");
  first.resume();
  BOOST_TEST(first.wait() == 0);
  BOOST_TEST(second.status == 2);
  BOOST_TEST(contains(second.err, "shared: another sweep (process"));
  BOOST_TEST(run("verify --suite smoke --variant 'recurrent--step*' --report shared").status == 0);
}
