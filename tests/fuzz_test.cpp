// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Every target of tests/fuzz with its seeds and with mutations of them, the same ones each time and with any compiler.
// MLSTM_FUZZ_RUNS sets how many mutations each gets, MLSTM_FUZZ_TARGET chooses one.
#include <fmt/format.h>

#include <boost/test/unit_test.hpp>
#include <cstdlib>

#include "damage.hpp"
#include "fuzz/targets.hpp"

namespace {

using namespace mlstm;
using fuzz::Target;
using test::below;

constexpr int kRuns = 4000;
constexpr std::size_t kLongest = 1 << 14;

/// One of the seeds after a few changes.
std::string mutated(const Target& target, const std::vector<std::string>& seeds, test::Random& random) {
  std::string bytes = seeds[below(random, seeds.size())];
  for (std::size_t changes = 1 + below(random, 6); changes > 0; --changes) {
    const auto place = static_cast<std::ptrdiff_t>(below(random, bytes.size() + 1));
    switch (random() % 5) {
      case 0:
        if (!bytes.empty()) bytes = test::damaged(bytes, random);
        break;
      case 1:
        bytes.insert(static_cast<std::size_t>(place), target.words[below(random, target.words.size())]);
        break;
      case 2: {  // a word over what is there
        const std::string& word = target.words[below(random, target.words.size())];
        bytes.replace(static_cast<std::size_t>(place), word.size(), word);
        break;
      }
      case 3: {  // the beginning of one, the end of another
        const std::string& other = seeds[below(random, seeds.size())];
        bytes = bytes.substr(0, static_cast<std::size_t>(place)) + other.substr(below(random, other.size() + 1));
        break;
      }
      default:
        for (std::size_t length = below(random, 12); length > 0; --length)
          bytes.insert(bytes.begin() + place, static_cast<char>(random()));
    }
  }
  return bytes.substr(0, kLongest);
}

std::string readable(std::string_view bytes) {
  std::string text;
  for (const char c : bytes)
    text += c >= 0x20 && c < 0x7f && c != '\\' ? std::string(1, c)
                                               : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

int runs_of(const Target& target) {
  const char* wanted = std::getenv("MLSTM_FUZZ_RUNS");
  if (wanted != nullptr) return std::atoi(wanted);
  return target.name == "case" ? kRuns / 4 : kRuns;
}

}  // namespace

BOOST_AUTO_TEST_CASE(no_target_breaks_its_promise) {
  const char* only = std::getenv("MLSTM_FUZZ_TARGET");
  int tested = 0;
  for (const Target& target : fuzz::targets()) {
    if (only != nullptr && target.name != only) continue;
    ++tested;
    const std::vector<std::string> seeds = target.seeds();
    BOOST_TEST(!seeds.empty());
    const int runs = runs_of(target);
    BOOST_REQUIRE(runs > 0);
    int taken = 0;
    test::Random random(7);
    for (int n = -static_cast<int>(seeds.size()); n < runs; ++n) {
      const std::string bytes =
          n < 0 ? seeds[static_cast<std::size_t>(n + static_cast<int>(seeds.size()))] : mutated(target, seeds, random);
      try {
        const bool accepted = target.run(bytes);
        if (n >= 0) taken += accepted;
      } catch (const std::exception& error) {
        BOOST_ERROR(fmt::format("{}: {}: {}", target.name, error.what(), readable(bytes)));
        break;
      }
    }
    fmt::print("{}: {} seeds, {} mutations, {} of them accepted\n", target.name, seeds.size(), runs, taken);
    // Else nothing behind the first check is tested.
    BOOST_TEST(taken > runs / 200, target.name);
  }
  BOOST_TEST(tested > 0);
}

BOOST_AUTO_TEST_CASE(a_broken_promise_is_found) {
  BOOST_CHECK_THROW(fuzz::require(false, "x"), fuzz::Violation);
  BOOST_CHECK_THROW(fuzz::require_message("two\nlines"), fuzz::Violation);
  BOOST_CHECK_THROW(fuzz::require_message(""), fuzz::Violation);
  fuzz::require(true, "x");
}
