// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include "cases/case_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

#include "mlstm/parallel_for.hpp"
#include "small_case.hpp"
#include "text.hpp"

namespace fs = std::filesystem;
using namespace mlstm;
using namespace mlstm::verify;
using test::message_of, test::small_case;

namespace {

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void run_h5py(const std::string& arguments) {
  const std::string command = fmt::format("/usr/bin/python3 {}/tests/h5py_files.py {}", MLSTM_SOURCE_DIR, arguments);
  BOOST_REQUIRE_MESSAGE(std::system(command.c_str()) == 0, "failed (it needs python3-h5py): " << command);
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_kind_of_case_survives_writing_and_reading) {
  const test::TemporaryDirectory directory;
  const fs::path path = directory.path() / "case.h5";
  for (const DType dtype : {DType::float64, DType::float32, DType::float16, DType::bfloat16})
    for (const Gate gate : {Gate::exp, Gate::sigmoid})
      for (const bool states : {false, true}) {
        const Case c = small_case(dtype, gate, states);
        write_case(c, path);
        BOOST_TEST(test::same(read_case(path), c), to_string(dtype) << " " << to_string(gate) << " states " << states);
      }
}

BOOST_AUTO_TEST_CASE(a_case_of_inputs_alone_survives_writing_and_reading) {
  const test::TemporaryDirectory directory;
  Case c = small_case(DType::float32, Gate::sigmoid, false, {1, 1, 1, 1, 1});
  c.problem.normalize = false;
  c.problem.eps = 0;
  c.cotangents.clear();
  c.reference.reset();
  c.kernel.reset();
  c.attributes.clear();
  write_case(c, directory.path() / "case.h5");
  BOOST_TEST(test::same(read_case(directory.path() / "case.h5"), c));
}

BOOST_AUTO_TEST_CASE(tensors_of_many_chunks_survive_writing_and_reading) {
  const test::TemporaryDirectory directory;
  const Case c = small_case(DType::float64, Gate::exp, true, {3, 2, 700, 65, 33});
  write_case(c, directory.path() / "case.h5");
  BOOST_TEST(test::same(read_case(directory.path() / "case.h5"), c));
}

BOOST_AUTO_TEST_CASE(tensors_that_compress_a_thousandfold_survive_writing_and_reading) {
  const test::TemporaryDirectory directory;
  Case c = small_case(DType::float64, Gate::exp, false, {1, 1, 8192, 64, 64});
  c.reference.reset();
  c.kernel.reset();
  for (TensorMap* tensors : {&c.inputs, &c.cotangents})
    for (auto& [name, array] : *tensors) array.fill(0);
  write_case(c, directory.path() / "case.h5");
  BOOST_TEST(fs::file_size(directory.path() / "case.h5") < 100000u);
  BOOST_TEST(test::same(read_case(directory.path() / "case.h5"), c));
}

BOOST_AUTO_TEST_CASE(the_same_case_gives_the_same_bytes) {
  const test::TemporaryDirectory directory;
  const Case c = small_case(DType::bfloat16, Gate::exp, true);
  write_case(c, directory.path() / "a.h5");
  // HDF5 counts times in seconds: until the next one
  for (const std::time_t written = std::time(nullptr); std::time(nullptr) == written;) std::this_thread::yield();
  write_case(c, directory.path() / "b.h5");
  BOOST_TEST((read_text(directory.path() / "a.h5") == read_text(directory.path() / "b.h5")));
}

BOOST_AUTO_TEST_CASE(kernel_outputs_that_need_float64_keep_it) {
  const test::TemporaryDirectory directory;
  Case c = small_case(DType::float32, Gate::exp, false);
  c.kernel->outputs["h"].flat(3) = 0.1;
  write_case(c, directory.path() / "case.h5");
  BOOST_TEST(read_case(directory.path() / "case.h5").kernel->outputs["h"].flat(3) == 0.1);
}

BOOST_AUTO_TEST_CASE(another_program_sees_row_major_arrays_with_labels_and_checksums) {
  const test::TemporaryDirectory directory;
  const fs::path path = directory.path() / "case.h5";
  write_case(small_case(DType::float32, Gate::exp, true), path);
  run_h5py("view " + path.string());
}

BOOST_AUTO_TEST_CASE(files_that_another_program_writes_in_its_own_way_are_read) {
  const test::TemporaryDirectory directory;
  const fs::path original = directory.path() / "original", ways = directory.path() / "ways";
  fs::create_directory(ways);
  const Case c = small_case(DType::float32, Gate::exp, true);
  write_case(c, original);
  run_h5py(fmt::format("rewrite {} {}", original.string(), ways.string()));
  const std::vector<fs::path> files = find_case_files({ways});
  BOOST_TEST(files.size() == 8u);
  for (const fs::path& file : files) {
    const Case read = read_case(file);
    BOOST_TEST(test::same_data(read, c), file);
    BOOST_TEST((read.problem == c.problem && read.name == c.name), file);
    BOOST_TEST((read.kernel->variant == c.kernel->variant && read.kernel->attributes == c.kernel->attributes), file);
    for (const auto& [name, value] : c.attributes)
      BOOST_TEST(test::same({{name, read.attributes.at(name)}}, {{name, value}}), file << " " << name);
    // What is neither number nor string is still there after writing.
    write_case(read, directory.path() / "again.h5");
    const Case again = read_case(directory.path() / "again.h5");
    BOOST_TEST(test::same_data(again, read), file);
    const auto data = [](const Case& from) { return std::get<OpaqueAttribute>(from.attributes.at("blocks")).data; };
    BOOST_TEST((data(again) == data(read) && data(read).size() == 4 * sizeof(std::int16_t)), file);
    BOOST_TEST(std::get<OpaqueAttribute>(again.attributes.at("names")).data == std::string("a\0\0\0\0\0longer", 12));
  }
}

BOOST_AUTO_TEST_CASE(every_bad_file_gives_one_line_that_names_file_object_value_and_expectation) {
  const test::TemporaryDirectory directory;
  const fs::path original = directory.path() / "original", spoiled = directory.path() / "spoiled";
  fs::create_directory(spoiled);
  write_case(small_case(DType::bfloat16, Gate::exp, true), original);
  run_h5py(fmt::format("spoil {} {}", original.string(), spoiled.string()));
  const std::vector<fs::path> files = find_case_files({spoiled});
  BOOST_TEST(files.size() > 50u);
  for (const fs::path& file : files) {
    const std::string message = message_of<FileError>([&] { read_case(file); });
    const std::string expected = read_text(fs::path(file).replace_extension(".txt"));
    BOOST_TEST(message.starts_with(file.string() + ": "), message);
    BOOST_TEST(message.find(expected) != std::string::npos, "\"" << message << "\" lacks \"" << expected << "\"");
    BOOST_TEST(message.find('\n') == std::string::npos, message);
  }
}

BOOST_AUTO_TEST_CASE(a_path_that_is_no_file_is_an_error_that_names_it) {
  BOOST_TEST(message_of<FileError>([] { read_case("/nonexistent/x.h5"); }) ==
             "/nonexistent/x.h5: cannot open: No such file or directory");
  BOOST_TEST(message_of<FileError>([] { read_case("/"); }) == "/: is not a regular file; expected one");
  BOOST_TEST(message_of<FileError>([] { find_case_files({"/nonexistent"}); }) ==
             "/nonexistent: does not exist; expected a file or directory");
  BOOST_TEST(message_of<FileError>([] { replace_file("/nonexistent/x", "text"); }) ==
             "/nonexistent/x: cannot create: No such file or directory");
  const std::string message =
      message_of<FileError>([] { write_case(small_case(DType::float32, Gate::exp, false), "/nonexistent/x.h5"); });
  BOOST_TEST(message.starts_with("/nonexistent/x.h5: cannot create: "), message);
}

BOOST_AUTO_TEST_CASE(a_case_that_is_not_valid_is_not_written) {
  const test::TemporaryDirectory directory;
  Case c = small_case(DType::bfloat16, Gate::exp, true);
  c.inputs["q"].flat(0) = 0.1;
  BOOST_CHECK_THROW(write_case(c, directory.path() / "case.h5"), std::invalid_argument);
  c = small_case(DType::bfloat16, Gate::exp, true);
  c.attributes["gate"] = std::string("exp");
  BOOST_CHECK_THROW(write_case(c, directory.path() / "case.h5"), std::invalid_argument);
  BOOST_TEST(fs::is_empty(directory.path()));
}

BOOST_AUTO_TEST_CASE(case_files_are_found_below_directories_and_by_name) {
  const test::TemporaryDirectory directory;
  const fs::path& root = directory.path();
  fs::create_directories(root / "b" / "c");
  for (const char* name : {"b/c/2.h5", "1.h5", "b/readme.txt", ".1.h5.7.0.tmp", "other.hdf5"})
    std::ofstream(root / name);
  const std::vector<fs::path> below{root / "1.h5", root / "b/c/2.h5"};
  BOOST_TEST((find_case_files({root, root / "1.h5"}) == below));
  BOOST_TEST((find_case_files({root / "other.hdf5"}) == std::vector<fs::path>{root / "other.hdf5"}));
}

BOOST_AUTO_TEST_CASE(sha256_agrees_with_the_standard) {
  BOOST_TEST(sha256_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  BOOST_TEST(sha256_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

BOOST_AUTO_TEST_CASE(a_file_that_a_manifest_lists_has_to_match_it) {
  const test::TemporaryDirectory directory;
  const fs::path below = directory.path() / "below";
  fs::create_directory(below);
  const Case c = small_case(DType::float32, Gate::exp, false);
  write_case(c, below / "listed.h5");
  write_manifest(directory.path());
  BOOST_TEST(read_text(directory.path() / "MANIFEST.sha256") ==
             sha256_of_file(below / "listed.h5") + "  below/listed.h5\n");
  BOOST_CHECK_NO_THROW(read_case(below / "listed.h5"));
  write_case(c, below / "unlisted.h5");
  BOOST_CHECK_NO_THROW(read_case(below / "unlisted.h5"));

  Case other = c;
  other.name = "other";
  write_case(other, below / "listed.h5");
  const std::string message = message_of<FileError>([&] { read_case(below / "listed.h5"); });
  BOOST_TEST(message.find("SHA-256 is " + sha256_of_file(below / "listed.h5")) != std::string::npos, message);
  BOOST_CHECK_THROW(check_manifest(below / "listed.h5"), FileError);

  replace_file(directory.path() / "MANIFEST.sha256", "0123  below/listed.h5\n");
  BOOST_TEST(message_of<FileError>([&] {
               read_case(below / "listed.h5");
             }).find("MANIFEST.sha256: line 1 is malformed") != std::string::npos);
}

namespace {

/// A file that is written again and again, each time as the next version, by processes that are killed.
class Versions {
 public:
  Versions() : path_(directory_.path() / "case.h5") { write(0); }

  fs::path path() const { return path_; }
  /// Only what calls this changes: a writer knows the version that it began with.
  void write(std::int64_t version) {
    case_.attributes["version"] = version;
    write_case(case_, path_);
  }
  std::int64_t last() const { return last_; }

  /// What the file holds must be a complete version; returns which.
  std::int64_t check() {
    const Case found = read_case(path_);
    last_ = std::get<std::int64_t>(found.attributes.at("version"));
    case_.attributes["version"] = last_;
    BOOST_TEST(test::same(found, case_));
    return last_;
  }
  /// Removes what writers that were killed have left, which must not count as a case. Returns how many files.
  int clear_leftovers() {
    BOOST_TEST((find_case_files({directory_.path()}) == std::vector<fs::path>{path_}));
    int leftovers = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory_.path()))
      if (entry.path() != path_) {
        ++leftovers;
        fs::remove(entry.path());
      }
    return leftovers;
  }

 private:
  test::TemporaryDirectory directory_;
  fs::path path_;
  Case case_ = small_case(DType::float32, Gate::exp, true, {1, 2, 64, 16, 16});
  std::int64_t last_ = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_writer_that_is_killed_at_any_byte_leaves_the_old_file) {
  Versions versions;
  const std::uintmax_t size = fs::file_size(versions.path());
  constexpr std::uintmax_t kParts = 16;
  for (std::uintmax_t part = 0; part < kParts; ++part) {
    const pid_t writer = fork();
    BOOST_REQUIRE(writer >= 0);
    if (writer == 0) {  // the system kills it at the first byte beyond the limit
      const rlimit size_limit{part * size / kParts, part * size / kParts}, no_core{0, 0};
      setrlimit(RLIMIT_CORE, &no_core);
      setrlimit(RLIMIT_FSIZE, &size_limit);
      std::signal(SIGXFSZ, SIG_DFL);
      versions.write(1);
      _exit(0);
    }
    int status = 0;
    waitpid(writer, &status, 0);
    BOOST_TEST((WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ));
    BOOST_TEST(versions.check() == 0);
    BOOST_TEST(versions.clear_leftovers() == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_writer_that_is_killed_at_any_moment_leaves_the_old_file_or_the_new_one) {
  Versions versions;
  for (int round = 1; round <= 15; ++round) {
    int written[2];
    BOOST_REQUIRE(pipe(written) == 0);
    const std::int64_t before = versions.last();
    const pid_t writer = fork();
    BOOST_REQUIRE(writer >= 0);
    if (writer == 0) {
      for (std::int64_t version = before + 1;; ++version) {
        versions.write(version);
        if (write(written[1], "w", 1) != 1) _exit(1);
      }
    }
    char done = 0;  // after so many versions it is at some place in the next ones
    for (int n = 0; n < round; ++n) BOOST_REQUIRE(read(written[0], &done, 1) == 1);
    kill(writer, SIGKILL);
    waitpid(writer, nullptr, 0);
    close(written[0]);
    close(written[1]);
    BOOST_TEST(versions.check() >= before + round);
    versions.clear_leftovers();
  }
}

BOOST_AUTO_TEST_CASE(threads_may_read_and_write_at_the_same_time) {
  const test::TemporaryDirectory directory;
  const Case c = small_case(DType::float32, Gate::exp, true);
  std::vector<char> good(24, false);
  parallel_for(24, 4, [&](std::int64_t n) {
    const fs::path path = directory.path() / fmt::format("{}.h5", n);
    write_case(c, path);
    good[static_cast<std::size_t>(n)] = test::same(read_case(path), c);
  });
  BOOST_TEST(std::count(good.begin(), good.end(), true) == 24);
}

BOOST_AUTO_TEST_CASE(reading_leaves_no_child_and_no_open_file_behind) {
  const test::TemporaryDirectory directory;
  write_case(small_case(DType::float32, Gate::exp, false), directory.path() / "good.h5");
  replace_file(directory.path() / "bad.h5", "bad");
  const auto open_files = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = open_files();
  for (int n = 0; n < 5; ++n) {
    read_case(directory.path() / "good.h5");
    BOOST_CHECK_THROW(read_case(directory.path() / "bad.h5"), FileError);
  }
  BOOST_TEST(open_files() == before);
  BOOST_TEST(waitpid(-1, nullptr, WNOHANG) == -1);  // no children
}

BOOST_AUTO_TEST_CASE(the_recorded_captures_and_oracle_files_are_read) {
  const fs::path data = fs::path(MLSTM_SOURCE_DIR) / "data";
  const std::vector<fs::path> captures = find_case_files({data / "captures" / "published"});
  BOOST_TEST(captures.size() == 8u);
  for (const fs::path& path : captures) {
    const Case c = read_case(path);
    BOOST_TEST(c.name == path.stem().string());
    BOOST_TEST((c.kernel && c.kernel->outputs.contains("h") && c.kernel->attributes.contains("device")));
  }
  const std::vector<fs::path> oracle = find_case_files({data / "oracle"});
  BOOST_TEST(oracle.size() == 7u);
  for (const fs::path& path : oracle) {
    const Case c = read_case(path);
    BOOST_TEST((c.reference && c.reference->exact.size() == c.inputs.size()), path);
  }
}
