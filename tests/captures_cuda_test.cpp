// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// The captures of the CUDA variants, taken on a GPU of compute capability 9.0 (Hopper): complete, of this tree's
// source, and right.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <set>

#include "cases/source_digest.hpp"
#include "mlstm/kernel.hpp"
#include "program.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::verify;
using test::contains, test::Result, test::Workplace;
namespace fs = std::filesystem;

const fs::path kFolder = fs::path(MLSTM_SOURCE_DIR) / "data/captures/cuda";
constexpr std::uintmax_t kLargestFile = 4 << 20, kLargestFolder = 12 << 20;

/// The files, or a message where there are none.
std::vector<fs::path> captures() {
  std::vector<fs::path> files;
  if (fs::exists(kFolder)) files = find_case_files({kFolder});
  if (files.empty()) BOOST_TEST_MESSAGE("SKIPPED: there are no captures in " << kFolder);
  return files;
}

bool is_gpu_variant(const std::string& key) { return contains(key, "_cuda") || contains(key, "_cublas"); }

/// "<variant> <dtype> <gate> <convention>"; a variant with no backward pass has one capture, of no convention.
std::string words(const std::string& key, DType dtype, const Problem& problem, std::optional<Convention> convention) {
  return key + " " + std::string(to_string(dtype)) + " " + std::string(to_string(problem.gate)) +
         (problem.normalized() ? "" : " unnormalized") + " " +
         (convention ? std::string(to_string(*convention)) : "forward");
}

/// What has to be there for one variant. A build without CUDA does not know what a variant declares: then the dtypes
/// and conventions that every variant has.
std::set<std::string> wanted(const std::string& key) {
  std::vector<DType> dtypes{DType::float32, DType::bfloat16, DType::float16};
  std::vector<Convention> conventions;
  if (key.ends_with("_ownbw")) conventions = {Convention::exact, Convention::detached};
  if (const Kernel* kernel = find_kernel(key)) {
    dtypes = kernel->info().dtypes;
    conventions = kernel->info().gradient_conventions;
  }
  std::set<std::string> all;
  for (const DType dtype : dtypes)
    for (const auto& [gate, normalize] : {std::pair{Gate::exp, true}, {Gate::sigmoid, true}, {Gate::sigmoid, false}}) {
      Problem problem;
      problem.gate = gate;
      problem.normalize = normalize;
      if (conventions.empty()) all.insert(words(key, dtype, problem, {}));
      for (const Convention convention : conventions) all.insert(words(key, dtype, problem, convention));
    }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_variant_is_recorded_in_every_dtype_gate_and_convention) {
  const auto files = captures();
  if (files.empty()) return;
  std::set<std::string> found, missing;
  for (const fs::path& file : files) {
    const Case c = read_case(file);
    BOOST_REQUIRE_MESSAGE(c.kernel, file);
    found.insert(words(c.kernel->variant, c.problem.dtype, c.problem, c.kernel->convention));
  }
  for (const auto& [key, digest] : source_digests())
    if (is_gpu_variant(key))
      for (const std::string& line : wanted(key))
        if (!found.contains(line)) missing.insert(line);
  for (const std::string& line : missing) BOOST_ERROR("not recorded: " + line);
}

BOOST_AUTO_TEST_CASE(every_capture_says_what_it_was_taken_on_and_from) {
  for (const fs::path& file : captures()) {
    const KernelData kernel = read_case(file).kernel.value();
    for (const char* name : {"source", "source_sha256", "device", "device_name", "compute_capability", "driver_version",
                             "cuda_runtime_version"})
      BOOST_TEST(kernel.attributes.contains(name), file << " lacks " << name);
    BOOST_TEST(is_gpu_variant(kernel.variant), file);
    // The newest kernels are compiled for it alone.
    BOOST_TEST(std::get<std::string>(kernel.attributes.at("compute_capability")) == "9.0", file);
  }
}

BOOST_AUTO_TEST_CASE(the_captures_are_small) {
  std::uintmax_t total = 0;
  for (const fs::path& file : captures()) {
    BOOST_TEST(fs::file_size(file) <= kLargestFile, file);
    total += fs::file_size(file);
  }
  BOOST_TEST(total <= kLargestFolder);
}

BOOST_FIXTURE_TEST_CASE(none_is_stale_and_all_pass, Workplace) {
  if (captures().empty()) return;
  const Result outcome = run("verify --captures '" + kFolder.string() + "' --report report");
  std::map<std::string, std::set<std::string>> stale;
  for (const Item& item : report("report"))
    if (item.status == Status::STALE)
      stale[item.variant].insert(item.note.substr(0, item.note.find(", judged")));
    else if (item.status != Status::PASS)
      BOOST_ERROR(std::string(to_string(item.status))
                  << " " << item.case_name << " " << item.tensor << ": " << item.note);
  for (const auto& [variant, reasons] : stale)
    BOOST_ERROR("STALE: " << variant << ": " << *reasons.begin() << "; its captures have to be recorded again");
  BOOST_TEST(outcome.status == 0, outcome.err);
}

BOOST_FIXTURE_TEST_CASE(published_and_own_captures_are_judged_together, Workplace) {
  if (captures().empty()) return;
  const fs::path all = kFolder.parent_path();
  const Result outcome = run("verify --captures '" + all.string() + "' --expect '" +
                             (all / "published/expected.json").string() + "' --report report");
  BOOST_TEST(outcome.status == 0, outcome.err);
  BOOST_TEST(contains(outcome.out, "verdicts are as expected"));
}
