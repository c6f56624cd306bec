// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Progress through a pipe: one line every few seconds by the clock, however many problems are done meanwhile.
#include <unistd.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <memory>
#include <string>

#include "cli/progress.hpp"

using mlstm::cli::Progress;
using std::chrono::milliseconds;

namespace {

/// What 1000 problems write to a pipe when each takes `each`.
std::string written(milliseconds each, bool count_failures) {
  int ends[2];
  BOOST_REQUIRE_EQUAL(pipe(ends), 0);
  std::string text;
  std::chrono::steady_clock::time_point now{};
  {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(fdopen(ends[1], "w"), std::fclose);
    BOOST_REQUIRE(out != nullptr);
    Progress progress(
        "problems", 1000, count_failures, [&] { return now; }, out.get());
    for (int n = 0; n < 1000; ++n) {
      now += each;
      progress.advance(n == 7 ? 2 : 0);
    }
  }
  for (char byte; read(ends[0], &byte, 1) == 1;) text += byte;
  close(ends[0]);
  return text;
}

std::ptrdiff_t lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

}  // namespace

BOOST_AUTO_TEST_CASE(quick_problems_say_nothing) { BOOST_TEST(written(milliseconds(4), true) == ""); }

BOOST_AUTO_TEST_CASE(one_line_in_five_seconds) {
  BOOST_TEST(written(milliseconds(10), true) ==
             "500 of 1000 problems done, 2 tensors did not pass\n1000 of 1000 problems done, 2 tensors did not pass\n");
  BOOST_TEST(written(milliseconds(10), false) == "500 of 1000 problems done\n1000 of 1000 problems done\n");
  BOOST_TEST(lines(written(milliseconds(100), true)) == 20);
}

BOOST_AUTO_TEST_CASE(slow_problems_have_a_line_each) { BOOST_TEST(lines(written(milliseconds(6000), true)) == 1000); }
