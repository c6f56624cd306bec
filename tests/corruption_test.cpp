// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Damaged files: every one is refused, or gives exactly the data of the undamaged file.
// MLSTM_DAMAGED_FILES sets how many go through the program (default 2000).
#include <fmt/format.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include "cases/case_file.hpp"
#include "damage.hpp"
#include "mlstm/parallel_for.hpp"
#include "program.hpp"
#include "small_case.hpp"

namespace fs = std::filesystem;
using namespace mlstm;
using namespace mlstm::verify;

namespace {

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

struct Tally {
  int copies = 0, refused = 0, unharmed = 0, changed = 0, crashed = 0, hung = 0;
};

/// Reads `count` damaged copies of `original`; each of its threads overwrites one file in `directory` again and again.
Tally read_damaged(const fs::path& original, const fs::path& directory, int count, std::uint64_t seed) {
  const Case expected = read_case(original);
  const std::string bytes = bytes_of(original);
  Tally tally;
  std::mutex mutex;
  constexpr int kThreads = 2;
  parallel_for(kThreads, kThreads, [&](std::int64_t thread) {
    const fs::path path = directory / fmt::format("{}.h5", thread);
    for (int n = static_cast<int>(thread); n < count; n += kThreads) {
      test::Random random(seed + static_cast<std::uint64_t>(n));
      write_bytes(path, test::damaged(bytes, random));
      std::string error;
      bool equal = false;
      try {
        equal = test::same(read_case(path), expected);
      } catch (const FileError& refusal) {
        error = refusal.what();
      }
      const std::lock_guard lock(mutex);
      ++tally.copies;
      ++(!error.empty() ? tally.refused : equal ? tally.unharmed : tally.changed);
      tally.crashed += error.find("crashed") != std::string::npos;
      tally.hung += error.find("in time") != std::string::npos;
      if (error.find('\n') != std::string::npos) ++tally.changed;
    }
  });
  fmt::print(
      "{}: {} damaged copies: {} refused ({} crashes and {} hangs of HDF5 among them), {} unharmed, {} changed\n",
      original.filename().string(), tally.copies, tally.refused, tally.crashed, tally.hung, tally.unharmed,
      tally.changed);
  return tally;
}

void require_safe(const Tally& tally) {
  BOOST_TEST(tally.changed == 0);
  BOOST_TEST(tally.refused > tally.copies / 2);
}

}  // namespace

BOOST_AUTO_TEST_CASE(damaged_copies_of_our_files_are_refused_or_unharmed_even_without_a_manifest) {
  const test::TemporaryDirectory directory;
  const fs::path path = directory.path() / "everything.h5";
  write_case(test::small_case(DType::bfloat16, Gate::exp, true), path);
  require_safe(read_damaged(path, directory.path(), 800, 1));
  Case plain = test::small_case(DType::float64, Gate::sigmoid, false, {1, 2, 16, 8, 8});
  plain.reference.reset();
  write_case(plain, directory.path() / "plain.h5");
  require_safe(read_damaged(directory.path() / "plain.h5", directory.path(), 800, 2000));
  Case chunks = test::small_case(DType::float32, Gate::exp, false, {3, 1, 1100, 64, 1});
  chunks.reference.reset();
  chunks.kernel.reset();
  write_case(chunks, directory.path() / "chunks.h5");
  require_safe(read_damaged(directory.path() / "chunks.h5", directory.path(), 100, 4000));
}

BOOST_AUTO_TEST_CASE(damaged_copies_of_files_of_other_programs_are_refused_by_their_manifest) {
  const fs::path source = fs::path(MLSTM_SOURCE_DIR) / "data" / "oracle" / "exp_neg_inf_active.h5";
  const test::TemporaryDirectory directory;
  for (const char* name : {"original.h5", "0.h5", "1.h5"}) fs::copy_file(source, directory.path() / name);
  write_manifest(directory.path());
  const Tally tally = read_damaged(directory.path() / "original.h5", directory.path(), 600, 6000);
  require_safe(tally);
  BOOST_TEST(tally.crashed + tally.hung == 0);
}

BOOST_AUTO_TEST_CASE(damaged_files_of_other_programs_never_crash_or_hang_the_reader) {
  const fs::path source = fs::path(MLSTM_SOURCE_DIR) / "data" / "oracle" / "exp_neg_inf_active.h5";
  const test::TemporaryDirectory directory;
  fs::copy_file(source, directory.path() / "unlisted.h5");
  // Contiguous data have no checksums, so that values may change unseen: only the manifest protects them.
  const Tally tally = read_damaged(directory.path() / "unlisted.h5", directory.path(), 300, 8000);
  BOOST_TEST(tally.copies == 300);
}

namespace {

constexpr int kBatch = 200;

struct Original {
  std::string name, bytes;
  Case c;
  bool in_manifest;  ///< of another program, whose files have no checksums inside
};

struct ProgramTally {
  int files = 0, refused = 0, unharmed = 0, changed = 0, crashed = 0, hung = 0, died = 0;
};

/// Judges a directory of damaged copies, each of which is called after the damage's seed.
void judge_batch(const test::Workplace& place, const Original& original, std::uint64_t seed, ProgramTally& tally) {
  const fs::path folder = place.path / "damaged";
  fs::remove_all(folder);
  fs::create_directory(folder);
  std::string manifest;
  for (int n = 0; n < kBatch; ++n) {
    test::Random random(seed + static_cast<std::uint64_t>(n));
    const std::string name = fmt::format("{}.h5", n);
    write_bytes(folder / name, test::damaged(original.bytes, random));
    manifest += sha256_of(original.bytes) + "  " + name + "\n";
  }
  if (original.in_manifest) write_bytes(folder / "MANIFEST.sha256", manifest);
  const test::Result result = place.run("verify --captures damaged --report report");
  tally.files += kBatch;
  tally.died += result.status > 3;
  std::istringstream lines(result.err);
  std::map<std::string, std::string> refusals;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("mlstm: damaged/")) refusals[line.substr(15, line.find(".h5: ") + 3 - 15)] = line;
  if (!refusals.empty() && result.status != 2) ++tally.died;
  for (int n = 0; n < kBatch; ++n) {
    const auto refusal = refusals.find(fmt::format("{}.h5", n));
    if (refusal != refusals.end()) {
      ++tally.refused;
      tally.crashed += refusal->second.find("crashed") != std::string::npos;
      tally.hung += refusal->second.find("in time") != std::string::npos;
      continue;
    }
    // Taken by the program: it has to hold what it held before.
    try {
      ++(test::same(read_case(folder / fmt::format("{}.h5", n)), original.c) ? tally.unharmed : tally.changed);
    } catch (const FileError&) {
      ++tally.changed;
    }
  }
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(the_program_takes_no_damaged_file_for_another, test::Workplace) {
  const char* wanted = std::getenv("MLSTM_DAMAGED_FILES");
  const int files = wanted != nullptr ? std::atoi(wanted) : 2000;
  BOOST_REQUIRE(files > 0);
  BOOST_REQUIRE(run("capture --suite golden --dtype float32 --regime forget3 --variant 'recurrent--sequence_eigen*' "
                    "--convention exact --out ours")
                    .status == 0);
  const fs::path ours = find_case_files({path / "ours"}).front();
  const fs::path theirs = fs::path(MLSTM_SOURCE_DIR) / "data/oracle/exp_neg_inf_active.h5";
  const std::vector<Original> originals{
      {"of this program", bytes_of(ours), read_case(ours), false},
      {"of another program, in a manifest", bytes_of(theirs), read_case(theirs), true}};
  for (const Original& original : originals) {
    ProgramTally tally;
    for (std::uint64_t seed = 10000; tally.files < files / 2; seed += kBatch) judge_batch(*this, original, seed, tally);
    fmt::print(
        "{}: {} damaged files through the program: {} refused ({} crashes and {} hangs of HDF5 among them), {} "
        "unharmed, {} changed; it died {} times\n",
        original.name, tally.files, tally.refused, tally.crashed, tally.hung, tally.unharmed, tally.changed,
        tally.died);
    BOOST_TEST(tally.files >= files / 2);
    BOOST_TEST(tally.changed == 0);
    BOOST_TEST(tally.died == 0);
    BOOST_TEST(tally.refused > tally.files / 2);
  }
}
