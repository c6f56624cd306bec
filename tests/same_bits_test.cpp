// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "golden_bits_problem.hpp"

namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(MLSTM_BINARY_DIR) / "same_bits";

bool runs(const std::string& command) { return std::system((command + " > /dev/null 2>&1").c_str()) == 0; }

/// What a program prints when it is compiled like this; empty if it does not compile or run.
std::string output_of(const std::string& compiler, const std::string& flags,
                      const std::string& name = "same_bits_program.cpp") {
  const std::string source = fs::path(MLSTM_SOURCE_DIR) / "tests" / name;
  const std::string include = fs::path(MLSTM_SOURCE_DIR) / "reference/include",
                    verify = fs::path(MLSTM_SOURCE_DIR) / "verify";
  const fs::path program = kFolder / "program", output = kFolder / "output";
  fs::remove(output);
  const std::string command = compiler + " -std=c++20 -ffp-contract=off " + flags + " -I'" + include + "' -I'" +
                              verify + "' '" + source + "' -o '" + program.string() + "' && '" + program.string() +
                              "' > '" + output.string() + "'";
  if (std::system(command.c_str()) != 0) return {};
  std::ifstream stream(output);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace

BOOST_AUTO_TEST_CASE(problems_are_the_same_bits_with_gcc_and_clang_unoptimised_and_optimised_with_and_without_fma) {
  fs::create_directories(kFolder);
  const std::string expected = output_of("g++", "-O0");
  BOOST_TEST_REQUIRE(expected.size() > 1000u);
  std::string optimised = "-O3";
#if defined(__x86_64__)
  if (__builtin_cpu_supports("fma")) optimised += " -march=x86-64-v3";  // with instructions that could contract
#endif
  BOOST_TEST(output_of("g++", optimised) == expected);
  if (runs("clang++ --version")) {
    BOOST_TEST(output_of("clang++", "-O0") == expected);
    BOOST_TEST(output_of("clang++", optimised) == expected);
  } else {
    BOOST_TEST_MESSAGE("SKIPPED: clang++ is not installed; its bits were not compared");
  }
}

BOOST_AUTO_TEST_CASE(golden_results_are_the_same_bits_with_gcc_and_clang_unoptimised_and_optimised_on_1_and_2_threads) {
  fs::create_directories(kFolder);
  const std::string expected = mlstm::test::golden_bits(1);  // this build: optimised, one thread
  BOOST_TEST_REQUIRE(std::count(expected.begin(), expected.end(), '\n') == 3 * (20 + 17));
  BOOST_TEST(mlstm::test::golden_bits(2) == expected);
  const std::string program = "golden_bits_program.cpp",
                    eigen = " -DEIGEN_DONT_PARALLELIZE -isystem " MLSTM_EIGEN_INCLUDE;
  BOOST_TEST(output_of("g++", "-O0" + eigen, program) == expected);
  if (runs("clang++ --version")) {
    BOOST_TEST(output_of("clang++", "-O0" + eigen, program) == expected);
    BOOST_TEST(output_of("clang++", "-O3" + eigen, program) == expected);
  } else {
    BOOST_TEST_MESSAGE("SKIPPED: clang++ is not installed; its bits were not compared");
  }
}
