// SPDX-License-Identifier: Apache-2.0
// ctest-labels: gpu
// Plugins on a GPU: kernels that leave the device's context unusable, among kernels that are right; the example. The
// built program is looked for in the build folder, or in that of the environment variable MLSTM_BUILD (bin/mlstm,
// plugins/).
#include "gpu.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <set>

#include "program.hpp"

namespace mlstm::test {
namespace {

using verify::Item;
using verify::Status;

std::string build_folder() {
  const char* const given = std::getenv("MLSTM_BUILD");
  return given != nullptr ? given : MLSTM_BINARY_DIR;
}

BOOST_FIXTURE_TEST_CASE(a_kernel_that_breaks_the_device_costs_its_own_runs, Workplace) {
  std::string command = fmt::format(
      "'{0}/bin/mlstm' verify --report report --timeout 10 --plugin '{0}/plugins/libhostile_cuda.so' "
      "--variant 'hostile_*_cuda,*_cuda_ownbw'",
      build_folder());
  for (int seed = 0; seed < 3; ++seed)
    command += " --case regime=standard,S=32,DHQK=16,DHV=16,L=16,dtype=float32,seed=" + std::to_string(seed);
  const Result result = shell(command);
  BOOST_TEST(result.status == 1, result.err);
  std::map<std::string, std::multiset<Status>> statuses;
  std::map<std::string, std::string> notes;
  for (const Item& item : report("report")) {
    statuses[item.variant].insert(item.status);
    notes[item.variant] = item.note;
  }
  const auto expect = [&](const std::string& name, Status status, const std::string& note) {
    BOOST_TEST_CONTEXT(name) {
      BOOST_TEST(statuses["recurrent--" + name].size() == 3u);
      for (const Status found : statuses["recurrent--" + name]) BOOST_TEST((found == status), to_string(found));
      BOOST_TEST(contains(notes["recurrent--" + name], note), notes["recurrent--" + name]);
    }
  };
  expect("hostile_illegal_address_cuda", Status::FAIL, "illegal memory access");
  expect("hostile_trap_cuda", Status::FAIL, "cuda");
  expect("hostile_endless_cuda", Status::TIMEOUT, "took longer than");
  BOOST_TEST(statuses.size() == 7u);
  for (const auto& [variant, all] : statuses)
    if (!contains(variant, "hostile"))
      for (const Status status : all) BOOST_TEST((status == Status::PASS), variant << ": " << notes[variant]);
}

// A workspace that belongs to the library is right as long as calls take turns.
BOOST_FIXTURE_TEST_CASE(static_memory_of_the_device_shows_where_calls_meet_on_two_streams, Workplace) {
  const auto verify = [&](const char* shares, const char* properties) {
    return shell(
        fmt::format("MLSTM_TEST_SHARES={1} '{0}/bin/mlstm' verify --plugin '{0}/plugins/libsharing_cuda.so' "
                    "--variant '*sharing_cuda' --property '{2}'",
                    build_folder(), shares, properties));
  };
  const Result alone = verify("workspace", "determinism,interleaving,permutation");
  BOOST_TEST(alone.status == 0, alone.out << alone.err);
  const Result honest = verify("nothing", "concurrency");
  BOOST_TEST(honest.status == 0, honest.out << honest.err);
  const Result shared = verify("workspace", "concurrency");
  BOOST_TEST(shared.status == 1, shared.out << shared.err);
  BOOST_TEST(contains(shared.out, "h: error_ratio"), shared.out);
  BOOST_TEST((contains(shared.out, "beside calls on another stream (a problem of B=") ||
              contains(shared.out, "beside calls in another thread (a problem of B=")),
             shared.out);
}

BOOST_FIXTURE_TEST_CASE(the_example_in_cuda_passes, Workplace) {
  for (const char* where : {"", " --in-process"}) {
    const Result result = shell(
        fmt::format("'{0}/bin/mlstm' verify --suite smoke --report report --plugin '{0}/plugins/libparallel.so'{1}",
                    build_folder(), where));
    BOOST_TEST(result.status == 0, result.out << result.err);
    const auto items = report("report");
    BOOST_TEST(items.size() > 10u);
    for (const Item& item : items) {
      BOOST_TEST(item.variant == "parallel--rows_cuda");
      BOOST_TEST((item.status == Status::PASS), item.note);
    }
    std::filesystem::remove_all(path / "report");
  }
}

}  // namespace
}  // namespace mlstm::test
