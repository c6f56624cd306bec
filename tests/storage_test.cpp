// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// Full disks, limits on the size of files, read-only directories, unreadable files: the program says which file and
// why, exits with 2, and leaves what was there as it was, with nothing half written beside it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <cstring>
#include <map>

#include "base/files.hpp"
#include "program.hpp"

namespace fs = std::filesystem;
using namespace mlstm;
using namespace mlstm::test;
using verify::read_text_file;

namespace {

const std::string kSelection =
    "--suite golden --dtype float32 --regime forget3 --variant 'recurrent--sequence_eigen*' ";

/// A command that writes below the folder `disk`, what it needs, and what its message has to name.
struct Job {
  std::string name, prepare, command, named;
};

/// `prepare` writes beside the disk, into the folder `in`.
const std::vector<Job>& jobs() {
  static const std::string make_case = "fixtures generate --suite golden --dtype float32 --regime forget3 --out in";
  static const std::vector<Job> all{
      {"verify --report", "", "verify " + kSelection + "--report disk/report", "disk/report"},
      {"verify --captures --report", "capture " + kSelection + "--out in", "verify --captures in --report disk/report",
       "disk/report"},
      {"capture", "", "capture " + kSelection + "--out disk/captures", "disk/captures"},
      {"fixtures generate", "",
       "fixtures generate --suite golden --dtype float32 --regime forget3 --manifest --out disk/fixtures",
       "disk/fixtures"},
      {"reference", make_case, "reference in/*.h5 disk/solved.h5 --bounds", "disk/solved.h5"},
      {"report merge", "verify " + kSelection + "--report in/report", "report merge disk/merged in/report",
       "disk/merged"},
      {"bench --out", "",
       "bench --variant 'recurrent--sequence_eigen*' --dtype float32 --shape 1,1,4,4,4 --repetitions 1 --out "
       "disk/bench.json",
       "disk/bench.json"},
  };
  return all;
}

/// Everything below `root`: contents of files by path. The lock of a sweep is no content.
std::map<std::string, std::string> snapshot(const fs::path& root) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file() && entry.path().filename() != ".lock" && entry.path().filename() != ".filler")
      files[entry.path().lexically_relative(root).string()] = read_text_file(entry.path());
  return files;
}

/// Names of the files that differ, are new or are gone.
std::string changes(const std::map<std::string, std::string>& before, const std::map<std::string, std::string>& after) {
  std::string names;
  for (const auto& [name, bytes] : before)
    if (!after.contains(name)) names += " -" + name;
  for (const auto& [name, bytes] : after)
    if (!before.contains(name) || before.at(name) != bytes) names += " +" + name;
  return names;
}

/// Mounts of this process and its children alone, gone with it. False, and said aloud, where the system forbids them.
bool may_mount() {
  static const bool allowed = [] {
    const bool alone = unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
                       mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    if (!alone) fmt::print("NOT TESTED: full disks and read-only file systems; mounting: {}\n", std::strerror(errno));
    return alone;
  }();
  return allowed;
}

/// A file system of its own in the folder `disk`.
struct Disk : Workplace {
  fs::path root = path / "disk";
  bool mounted = false;

  Disk() {
    fs::create_directory(root);
    fs::create_directory(path / "in");
    mounted = may_mount() && mount("tmpfs", root.c_str(), "tmpfs", 0, "size=2m") == 0;
    if (may_mount()) BOOST_TEST(mounted);
  }
  ~Disk() {
    if (mounted) umount2(root.c_str(), MNT_DETACH);
  }

  void clear() const {
    for (const fs::path& folder : {root, path / "in"})
      for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
  }

  /// Leaves `free` bytes.
  void fill(std::size_t free) const {
    const int file = open((root / ".filler").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    BOOST_REQUIRE(file >= 0);
    const std::string page(4096, '\0');
    off_t size = 0;
    for (ssize_t written; (written = ::write(file, page.data(), page.size())) > 0;) size += written;
    BOOST_TEST(ftruncate(file, std::max<off_t>(0, size - static_cast<off_t>(free))) == 0);
    close(file);
  }

  void prepare(const Job& job) const {
    clear();
    if (!job.prepare.empty()) BOOST_REQUIRE_EQUAL(run(job.prepare).status, 0);
  }
};

void require_refusal(const Result& result, const Job& job, const std::string& why) {
  BOOST_TEST(result.status == 2);
  BOOST_TEST(contains(result.err, job.named));
  BOOST_TEST(contains(result.err, why));
  if (result.status != 2 || !contains(result.err, why)) BOOST_TEST_MESSAGE(result.err);
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(a_full_disk_leaves_old_files_as_they_were, Disk) {
  if (!mounted) return;  // said aloud by may_mount
  for (const Job& job : jobs()) {
    BOOST_TEST_CONTEXT(job.name) {
      // With nothing there.
      prepare(job);
      fill(0);
      require_refusal(run(job.command), job, "No space left on device");
      BOOST_TEST(changes({}, snapshot(root)) == "");
      // With an older result there.
      fs::remove(root / ".filler");
      BOOST_TEST(run(job.command).status == 0);
      const auto before = snapshot(root);
      BOOST_TEST(!before.empty());
      fill(0);
      require_refusal(run(job.command), job, "No space left on device");
      BOOST_TEST(changes(before, snapshot(root)) == "");
    }
  }
}

BOOST_FIXTURE_TEST_CASE(a_disk_that_becomes_full_leaves_whole_files_only, Disk) {
  if (!mounted) return;
  for (const Job& job : jobs()) {
    BOOST_TEST_CONTEXT(job.name) {
      prepare(job);
      BOOST_TEST(run(job.command).status == 0);
      const auto complete = snapshot(root);
      int refused = 0;
      for (std::size_t free = 4096;; free *= 2) {
        for (const auto& entry : fs::directory_iterator(root)) fs::remove_all(entry.path());
        fill(free);
        const Result result = run(job.command);
        if (result.status == 0) break;
        ++refused;
        require_refusal(result, job, "No space left on device");
        for (const auto& [name, bytes] : snapshot(root)) {
          BOOST_TEST(complete.contains(name));                                  // no temporary file
          if (job.name == "bench --out" || !complete.contains(name)) continue;  // times differ
          if (name.ends_with("journal.jsonl"))
            BOOST_TEST(bytes.ends_with('\n'));
          else
            BOOST_TEST(bytes == complete.at(name));
        }
      }
      if (job.name == "verify --report") BOOST_TEST(refused > 1);
    }
  }
}

BOOST_FIXTURE_TEST_CASE(a_sweep_that_a_full_disk_stopped_goes_on_when_there_is_room, Disk) {
  if (!mounted) return;
  const std::string sweep = "verify --suite golden --dtype float32 --variant 'recurrent*' ";
  BOOST_TEST(run(sweep + "--report in/whole").status == 0);
  int stops = 0;
  std::size_t free = 8192;
  for (Result result{2, {}, {}}; result.status != 0; free += 8192) {
    fill(free);
    result = run(sweep + "--resume --report disk/report");
    if (result.status != 0) {
      ++stops;
      require_refusal(result, {"", "", "", "disk/report"}, "No space left on device");
    }
    BOOST_REQUIRE(stops < 200);
    fs::remove(root / ".filler");
  }
  BOOST_TEST(stops > 2);
  for (const char* name : {"report.json", "junit.xml", "summary.txt"})
    BOOST_TEST(read_text_file(root / "report" / name) == read_text_file(path / "in/whole" / name));
}

BOOST_FIXTURE_TEST_CASE(a_limit_on_the_size_of_files_is_like_a_full_disk, Disk) {
  for (const Job& job : jobs()) {
    BOOST_TEST_CONTEXT(job.name) {
      prepare(job);
      BOOST_TEST(run(job.command).status == 0);
      const auto before = snapshot(root);
      // The output that is caught here goes through a pipe, for which there is no limit.
      const Result result = shell("(ulimit -f 0; '" MLSTM_BINARY_DIR "/bin/mlstm' " + job.command +
                                  " 2>&1 >/dev/null; echo status $?) | cat >&2");
      BOOST_TEST(contains(result.err, "status 2"));
      BOOST_TEST(contains(result.err, job.named));
      BOOST_TEST(contains(result.err, "File too large"));
      BOOST_TEST(changes(before, snapshot(root)) == "");
    }
  }
}

BOOST_FIXTURE_TEST_CASE(a_read_only_file_system_is_refused, Disk) {
  if (!mounted) return;
  for (const Job& job : jobs()) {
    BOOST_TEST_CONTEXT(job.name) {
      prepare(job);
      BOOST_TEST(run(job.command).status == 0);
      const auto before = snapshot(root);
      BOOST_TEST(mount("tmpfs", root.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, "size=2m") == 0);
      require_refusal(run(job.command), job, "Read-only file system");
      BOOST_TEST(changes(before, snapshot(root)) == "");
      BOOST_TEST(mount("tmpfs", root.c_str(), "tmpfs", MS_REMOUNT, "size=2m") == 0);
    }
  }
}

BOOST_FIXTURE_TEST_CASE(output_that_nobody_takes_is_an_error, Workplace) {
  for (const char* command : {"list", "--help", "verify --suite smoke --variant 'recurrent--step*' --report report"}) {
    const Result result = shell(fmt::format("'{}/bin/mlstm' {} >/dev/full", MLSTM_BINARY_DIR, command));
    BOOST_TEST(result.status == 2, command);
    BOOST_TEST(contains(result.err, "standard output cannot be written"));
    BOOST_TEST(contains(result.err, "No space left on device"));
  }
  BOOST_TEST(fs::exists(path / "report/report.json"));  // it is worth more than what is printed
}

namespace {

/// Root without its privileges, to which the bits of a file's mode apply as to anybody.
struct Unprivileged : Workplace {
  Result run_without_privileges(const std::string& arguments) const {
    const std::string drop = geteuid() == 0 ? "setpriv --inh-caps=-all --bounding-set=-all " : "";
    return shell(drop + "'" MLSTM_BINARY_DIR "/bin/mlstm' " + arguments);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_CASE(unreadable_files_are_named, Unprivileged) {
  BOOST_REQUIRE(run("capture " + kSelection + "--out captures").status == 0);
  BOOST_REQUIRE(run("verify " + kSelection + "--report report").status == 0);
  const fs::path capture = verify::find_case_files({path / "captures"}).front();
  const std::string name = "captures/" + capture.filename().string();
  write("expected.json", "{}");
  struct Attempt {
    std::string file, command;
  };
  const std::vector<Attempt> attempts{
      {name, "verify --captures captures"},
      {name, "verify --captures " + name},
      {name, "fixtures info captures"},
      {name, "fixtures check captures"},
      {name, "reference " + name + " solved.h5"},
      {"captures/MANIFEST.sha256", "verify --captures captures"},
      {"captures", "verify --captures captures"},
      {"captures", "verify --captures " + name},
      {"expected.json", "verify --captures captures --expect expected.json"},
      {"report/report.json", "report report"},
      {"report", "report report"},
      {"report/journal.jsonl", "report merge merged report"},
      {"report/journal.jsonl", "verify " + kSelection + "--report report --resume"},
      {"expected.json", "bench --peers expected.json"},
  };
  for (const Attempt& attempt : attempts) {
    const fs::path file = path / attempt.file;
    const fs::perms permissions = fs::status(file).permissions();
    fs::permissions(file, fs::perms::none);
    const Result result = run_without_privileges(attempt.command);
    fs::permissions(file, permissions);
    BOOST_TEST_CONTEXT(attempt.command << " without " << attempt.file << ": " << result.err) {
      BOOST_TEST(result.status == 2);
      BOOST_TEST(contains(result.err, attempt.file));
      BOOST_TEST(contains(result.err, "Permission denied"));
    }
  }
  BOOST_TEST(!fs::exists(path / "solved.h5"));
  BOOST_TEST(!fs::exists(path / "merged"));
  BOOST_TEST(run("verify " + kSelection + "--report report --resume").status == 0);
}

BOOST_FIXTURE_TEST_CASE(directories_without_permission_to_write_are_refused, Unprivileged) {
  for (const Job& job : jobs()) {
    BOOST_TEST_CONTEXT(job.name) {
      fs::remove_all(path / "disk");
      fs::remove_all(path / "in");
      fs::create_directory(path / "disk");
      fs::create_directory(path / "in");
      if (!job.prepare.empty()) BOOST_REQUIRE(run(job.prepare).status == 0);
      BOOST_TEST(run(job.command).status == 0);
      const auto before = snapshot(path / "disk");
      std::vector<fs::path> folders{path / "disk"};
      for (const auto& entry : fs::directory_iterator(path / "disk"))
        if (entry.is_directory()) folders.push_back(entry.path());
      for (const fs::path& folder : folders) fs::permissions(folder, fs::perms::owner_read | fs::perms::owner_exec);
      const Result result = run_without_privileges(job.command);
      for (const fs::path& folder : folders) fs::permissions(folder, fs::perms::owner_all);
      // Files that are there may still be written to: a sweep can take its lock, but not replace its journal.
      require_refusal(result, job, "Permission denied");
      BOOST_TEST(changes(before, snapshot(path / "disk")) == "");
    }
  }
}
