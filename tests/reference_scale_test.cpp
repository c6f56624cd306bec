// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Long sequences: memory and operations of the chunkwise formulation grow with S, the memory of the recurrent backward
// with sqrt(S).
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <compare>

#include "mlstm/reference/evaluate_head.hpp"
#include "reference_tools.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::test;

/// Inputs, cotangent of h and gradients of one head; gates made without libm.
class LongSequence {
 public:
  explicit LongSequence(const Shape& shape) {
    problem_.shape = shape;
    Random random(31);
    const auto array = [&](const char* name, double scale, double offset) {
      std::vector<double>& values = arrays_.emplace_back(static_cast<std::size_t>(mlstm::size_of(name, shape)));
      for (double& x : values) x = scale * random() + offset;
      return values.data();
    };
    arrays_.reserve(12);
    inputs_ = {.q = array("q", 1, 0),
               .k = array("k", 1, 0),
               .v = array("v", 1, 0),
               .i = array("i", 1, 0),
               .f = array("f", 2, 4)};
    request_.cotangents.h = array("h", 1, 0);
    request_.outputs.h = array("h", 0, 0);
    request_.exact = {.q = array("q", 0, 0),
                      .k = array("k", 0, 0),
                      .v = array("v", 0, 0),
                      .i = array("i", 0, 0),
                      .f = array("f", 0, 0)};
  }

  void evaluate(Module formulation) const {
    reference::evaluate(problem_, inputs_, request_, {formulation, reference::Backward::ownbw, 64, 1});
  }

  std::vector<double> df() const { return arrays_.back(); }

 private:
  Problem problem_;
  std::vector<std::vector<double>> arrays_;
  Inputs<double> inputs_;
  reference::Request request_;
};

/// Growth of the peak resident memory, in MiB, that one evaluation causes; measured in a child process.
double extra_mebibytes(const Shape& shape, Module formulation) {
  int channel[2];
  BOOST_REQUIRE(pipe(channel) == 0);
  const pid_t child = fork();
  BOOST_REQUIRE(child >= 0);
  if (child == 0) {
    const LongSequence work(shape);
    rusage before{}, after{};
    getrusage(RUSAGE_SELF, &before);
    work.evaluate(formulation);
    getrusage(RUSAGE_SELF, &after);
    const double kibibytes = static_cast<double>(after.ru_maxrss - before.ru_maxrss);
    const bool written = write(channel[1], &kibibytes, sizeof kibibytes) == sizeof kibibytes;
    _exit(written ? 0 : 1);
  }
  close(channel[1]);
  double kibibytes = 0;
  const bool received = read(channel[0], &kibibytes, sizeof kibibytes) == sizeof kibibytes;
  close(channel[0]);
  int status = 0;
  waitpid(child, &status, 0);
  BOOST_REQUIRE(received);
  return kibibytes / 1024;
}

#ifdef __SANITIZE_ADDRESS__
constexpr bool kMeasurable = false;  // the sanitizer keeps freed memory
#else
constexpr bool kMeasurable = true;
#endif

/// A number that counts what is computed with it, in this thread.
struct Counted {
  Counted() = default;
  Counted(double number) : value(number) {}
  Counted(int number) : value(number) {}
  double value = 0;
  static inline thread_local std::int64_t operations = 0;

  static Counted of(double number) {
    ++operations;
    return number;
  }
  friend Counted operator+(Counted a, Counted b) { return of(a.value + b.value); }
  friend Counted operator-(Counted a, Counted b) { return of(a.value - b.value); }
  friend Counted operator*(Counted a, Counted b) { return of(a.value * b.value); }
  friend Counted operator/(Counted a, Counted b) { return of(a.value / b.value); }
  friend Counted operator-(Counted a) { return of(-a.value); }
  Counted& operator+=(Counted b) { return *this = *this + b; }
  Counted& operator-=(Counted b) { return *this = *this - b; }
  Counted& operator*=(Counted b) { return *this = *this * b; }
  Counted& operator/=(Counted b) { return *this = *this / b; }
  friend bool operator==(Counted a, Counted b) { return a.value == b.value; }
  friend std::partial_ordering operator<=>(Counted a, Counted b) { return a.value <=> b.value; }
  friend Counted exp(Counted a) { return of(std::exp(a.value)); }
  friend Counted log1p(Counted a) { return of(std::log1p(a.value)); }
  friend Counted sqrt(Counted a) { return of(std::sqrt(a.value)); }
  friend Counted abs(Counted a) { return of(std::abs(a.value)); }
};

/// Operations of one head, forward and backward in both conventions, with chunks of 16 steps.
double operations(Module formulation, std::int64_t S) {
  const Shape shape{.S = S, .DHQK = 8, .DHV = 16};
  Random random(7);
  std::vector<std::vector<Counted>> arrays;
  arrays.reserve(18);
  const auto array = [&](const char* name) {
    std::vector<Counted>& values = arrays.emplace_back(static_cast<std::size_t>(mlstm::size_of(name, shape)));
    for (Counted& x : values) x = random();
    return values.data();
  };
  const auto gradients = [&] {
    return Gradients<Counted>{.q = array("q"), .k = array("k"), .v = array("v"), .i = array("i"), .f = array("f")};
  };
  const Inputs<Counted> inputs{.q = array("q"), .k = array("k"), .v = array("v"), .i = array("i"), .f = array("f")};
  reference::HeadRequest<Counted> request;
  request.outputs.h = array("h");
  request.cotangents.h = array("h");
  request.exact = gradients();
  request.detached = gradients();
  const reference::HeadProblem problem{
      .S = S, .DHQK = shape.DHQK, .DHV = shape.DHV, .formulation = formulation, .L = 16};
  Counted::operations = 0;
  reference::evaluate_head(problem, inputs, request);
  return static_cast<double>(Counted::operations);
}

constexpr Shape long_head(std::int64_t S) { return {.S = S, .DHQK = 64, .DHV = 128}; }

}  // namespace

template <>
struct Eigen::NumTraits<Counted> : Eigen::GenericNumTraits<double> {
  using Real = Counted;
  using NonInteger = Counted;
  using Nested = Counted;
  enum { RequireInitialization = 1 };
};

BOOST_AUTO_TEST_CASE(chunkwise_memory_is_that_of_rows_and_chunk_states, *boost::unit_test::enable_if<kMeasurable>()) {
  // states: 8 DHQK DHV / L = 1 KiB per step; aligned copies of q, k, v, dh, h and the gradients: 6 KiB per step
  const double short_one = extra_mebibytes(long_head(4096), Module::chunkwise);
  const double long_one = extra_mebibytes(long_head(16384), Module::chunkwise);
  BOOST_TEST_MESSAGE("chunkwise: " << short_one << " MiB at S=4096, " << long_one << " MiB at S=16384");
  BOOST_TEST(short_one < 2 * 4 + 24 + 8.0);
  BOOST_TEST(long_one < 2 * 16 + 96 + 8.0);  // S x S would be 2048 MiB
}

BOOST_AUTO_TEST_CASE(recurrent_backward_keeps_no_state_per_step, *boost::unit_test::enable_if<kMeasurable>()) {
  // 2 sqrt(4096) states of 64 KiB = 8 MiB, and 24 MiB of aligned copies; a state per step would be 256 MiB
  const double extra = extra_mebibytes(long_head(4096), Module::recurrent);
  BOOST_TEST_MESSAGE("recurrent: " << extra << " MiB at S=4096");
  BOOST_TEST(extra < 48.0);
}

BOOST_AUTO_TEST_CASE(chunkwise_operations_grow_linearly) {
  const double short_one = operations(Module::chunkwise, 256), long_one = operations(Module::chunkwise, 2048);
  BOOST_TEST_MESSAGE("8 times the steps take " << long_one / short_one << " times the operations");
  // products, exponentials and sums: no fewer than the 4 DHQK DHV of the state and h, forward, in each step
  BOOST_TEST(short_one > 256.0 * 4 * 8 * 16);
  BOOST_TEST(long_one > 7.9 * short_one);
  BOOST_TEST(long_one < 8.1 * short_one);
  // so this would be seen
  BOOST_TEST(operations(Module::parallel, 2048) > 32 * operations(Module::parallel, 256));
}

BOOST_AUTO_TEST_CASE(long_chunkwise_and_recurrent_gradients_agree) {
  const LongSequence a(long_head(4096)), b(long_head(4096));
  a.evaluate(Module::chunkwise);
  b.evaluate(Module::recurrent);
  const std::vector<double> x = a.df(), y = b.df();
  double error = 0, norm = 0;
  for (std::size_t t = 0; t < x.size(); ++t) {
    error += (x[t] - y[t]) * (x[t] - y[t]);
    norm += y[t] * y[t];
  }
  BOOST_TEST(norm > 0);
  BOOST_TEST(std::sqrt(error / norm) <= 1e-12);
}
