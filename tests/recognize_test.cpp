// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// What errors within the bounds of single elements have in common is named where they have it, and nowhere else.
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <xtensor/xbuilder.hpp>

#include "judge/locate.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains;

namespace {

constexpr std::size_t kHeads = 2, kSteps = 128, kColumns = 32;
using Place = std::array<std::size_t, 3>;  // head, step, column

/// What is said of h whose element x at a place is value(x, place), rounded to bfloat16 unless it is `stored`, where
/// five roundoffs are allowed.
std::string said_of(const std::function<double(double x, const Place&)>& value, bool stored = false) {
  JudgedTensor judged;
  judged.tensor = "h";
  judged.problem.shape = {.B = 1, .NH = kHeads, .S = kSteps, .DHQK = 16, .DHV = kColumns};
  judged.problem.dtype = DType::bfloat16;
  const std::vector<std::size_t> extents{1, kHeads, kSteps, kColumns};
  Array values = xt::zeros<double>(extents), expected = values, bound = values;
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  std::size_t at = 0;
  for (std::size_t head = 0; head < kHeads; ++head)
    for (std::size_t t = 0; t < kSteps; ++t)
      for (std::size_t column = 0; column < kColumns; ++column, ++at) {
        const double x = normal(random), y = value(x, {head, t, column});
        expected.data()[at] = x;
        values.data()[at] = stored ? y : round_to(DType::bfloat16, y);
        bound.data()[at] = 5 * unit_roundoff(DType::bfloat16) * std::abs(x) + 1e-3;
      }
  judged.values = &values, judged.reference = &expected, judged.bound = &bound;
  const std::string text = recognize_average(judged);
  BOOST_TEST_MESSAGE(text);
  return text;
}

/// Rounded to bfloat16 toward zero.
double truncated(double x) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::trunc(std::ldexp(fraction, 8)), exponent - 8);
}

/// A number in [-1, 1) that depends on the place alone.
double noise(const Place& place, std::size_t seed) {
  std::size_t x = (place[0] * 1000 + place[1]) * 1000 + place[2] + seed * 1000003 + 1;
  x = (x ^ (x >> 12)) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
  return static_cast<double>(x >> 11) * 0x1p-52 - 1;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_factor_that_no_element_shows_is_named_where_it_is) {
  const std::string everywhere = said_of([](double x, auto&) { return 1.0156 * x; });
  BOOST_TEST(contains(everywhere, "the expected values times 1.01"), everywhere);
  BOOST_TEST((!contains(everywhere, "alone") && contains(everywhere, "on average")), everywhere);
  BOOST_TEST(contains(said_of([](double x, const Place& at) { return at[0] == 1 ? 0.99 * x : x; }),
                      "on average, in head [0, 1] alone"));
  BOOST_TEST(contains(said_of([](double x, const Place& at) { return at[1] >= 50 && at[1] < 80 ? 1.01 * x : x; }),
                      "on average, at t = 50 ... 79 alone"));
}

BOOST_AUTO_TEST_CASE(errors_without_a_common_factor_have_none) {
  BOOST_TEST(said_of([](double x, auto&) { return x; }) == "");
  BOOST_TEST(said_of([](double x, const Place& at) { return x * (1 + 0.015 * noise(at, 1)); }) == "");
  // a factor for each step
  BOOST_TEST(said_of([](double x, const Place& at) { return x * (1 + 0.015 * noise({0, at[1], 0}, 2)); }) == "");
  // of one step alone, of which one number would be the cause
  BOOST_TEST(said_of([](double x, const Place& at) { return at[1] == 40 ? 1.015 * x : x; }) == "");
  // a factor that is not the same in the second half
  BOOST_TEST(said_of([](double x, const Place& at) { return x * (at[1] < 64 ? 1.004 : 1.014); }) == "");
  BOOST_TEST(said_of([](auto, auto&) { return std::nan(""); }) == "");
}

BOOST_AUTO_TEST_CASE(truncation_is_told_from_a_factor_and_from_rounding) {
  const std::string name = "rounded toward zero, as it is or in what it is made of";
  BOOST_TEST(said_of([](double x, auto&) { return truncated(x); }, true) == name);
  // of sums of truncated terms
  BOOST_TEST(said_of([](double x, const Place& at) { return truncated(x * (1 + 0.002 * noise(at, 3))); }, true) ==
             name);
  BOOST_TEST(!contains(said_of([](double x, auto&) { return 0.985 * x; }), name));
  BOOST_TEST(!contains(said_of([](double x, auto&) { return 1.003 * x; }), name));
  // a little too small in one head alone
  BOOST_TEST(!contains(
      said_of([](double x, const Place& at) { return at[0] == 0 ? truncated(x) : 2 * x - truncated(x); }, true), name));
  // every step too small by a factor of its own
  BOOST_TEST(!contains(said_of([](double x, const Place& at) {
                         return x * (1 + 0.012 * (noise({0, at[1], 0}, 4) - 0.5));
                       }),
                       name));
}
