// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Gates, denominators and sizes at the ends of their ranges: never NaN, and equal to extended precision.
#include <boost/test/unit_test.hpp>
#include <cmath>

#include "reference_tools.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::test;

/// Gates of 1e4 cost 1e4 roundoffs of an exponent.
constexpr double kTolerance = 1e-11;

/// Differences to `expected`. The exact gradient is the detached one plus a term that may cancel it altogether (one
/// dominating step, eps = 0), so the scale of its rounding errors is that of the detached one.
std::vector<Difference> scaled_differences(const verify::ReferenceData& value, const verify::ReferenceData& expected) {
  std::vector<Difference> result;
  append_differences(result, "", value.outputs, expected.outputs);
  append_differences(result, "detached/", value.detached, expected.detached);
  for (const auto& [name, array] : expected.exact) {
    result.push_back({"exact/" + name, relative_frobenius(value.exact.at(name), array, expected.detached.at(name))});
  }
  return result;
}

void check_no_nan(const verify::TensorMap& tensors) {
  for (const auto& [name, array] : tensors) {
    BOOST_TEST_CONTEXT(name) {
      BOOST_TEST(std::none_of(array.begin(), array.end(), [](double x) { return std::isnan(x); }));
    }
  }
}

void check_extreme(const verify::Case& c, const std::string& what) {
  const verify::ReferenceData expected =
      verify::evaluate_reference(c, {Module::recurrent, reference::Backward::ownbw, 0, 0}, true);
  check_no_nan(expected.outputs);
  check_no_nan(expected.exact);
  check_no_nan(expected.detached);
  for (const reference::Options& options : all_options({1, 4})) {
    for (const Difference& d : scaled_differences(verify::evaluate_reference(c, options), expected)) {
      BOOST_TEST_CONTEXT(what << " " << describe(options) << " " << d.tensor << " eps=" << c.problem.eps) {
        BOOST_TEST(d.relative <= kTolerance);
      }
    }
  }
}

/// With both gates, both m_0, with and without states, and eps from 0 to 1.
void for_problems(const std::function<void(const Problem&)>& body) {
  for (const double eps : {0.0, 1e-6, 1.0}) {
    Problem problem{.shape = {1, 1, 10, 2, 3}, .eps = eps};
    body(problem);
    problem.stabilizer_init = StabilizerInit::neg_inf;
    body(problem);
    problem.has_initial_state = true;
    body(problem);
    problem.gate = Gate::sigmoid;
    body(problem);
  }
}

double alternate(std::int64_t t, double a, double b) { return t % 3 == 1 ? a : b; }

}  // namespace

BOOST_AUTO_TEST_CASE(forget_gates_of_1e4_stay_right) {
  for_problems([](const Problem& problem) {
    verify::Case c = random_case(problem, 1);
    for (const double f : {1e4, -1e4}) {
      set_gate(c, "f", [f](std::int64_t) { return f; });
      check_extreme(c, "f=" + std::to_string(f));
    }
    set_gate(c, "f", [](std::int64_t t) { return alternate(t, -1e4, 1e4); });
    check_extreme(c, "f=+-1e4");
    set_gate(c, "f", [](std::int64_t t) { return alternate(t, -1e4, 2.0); });
    check_extreme(c, "f spikes");
  });
}

BOOST_AUTO_TEST_CASE(forget_gates_whose_log_sigmoid_underflows_stay_right) {
  for_problems([](const Problem& problem) {
    verify::Case c = random_case(problem, 2);
    for (const double f : {745.5, 800.0, 40.0}) {
      set_gate(c, "f", [f](std::int64_t) { return f; });
      check_extreme(c, "f=" + std::to_string(f));
    }
  });
}

BOOST_AUTO_TEST_CASE(input_gates_of_700_stay_right) {
  for_problems([](const Problem& problem) {
    verify::Case c = random_case(problem, 3);
    for (const double i : {700.0, -700.0}) {
      set_gate(c, "i", [i](std::int64_t t) { return i - 0.1 * static_cast<double>(t % 4); });
      check_extreme(c, "i=" + std::to_string(i));
    }
    set_gate(c, "i", [](std::int64_t t) { return alternate(t, 700.0, -700.0); });
    check_extreme(c, "i=+-700");
    set_gate(c, "f", [](std::int64_t t) { return alternate(t + 1, -1e4, 1e4); });
    check_extreme(c, "i=+-700, f=+-1e4");
  });
}

BOOST_AUTO_TEST_CASE(gates_beyond_the_range_of_float64_exponentials_stay_right) {
  for (const double eps : {0.0, 1e-6}) {
    verify::Case c = random_case({.shape = {1, 1, 6, 2, 2}, .eps = eps}, 4);
    for (const double i : {720.0, 760.0, 2000.0, -720.0, -760.0, -2000.0}) {
      c.problem.stabilizer_init = StabilizerInit::neg_inf;
      set_gate(c, "i", [i](std::int64_t) { return i; });
      const auto value = verify::evaluate_reference(c), expected = verify::evaluate_reference(c, {}, true);
      check_no_nan(value.outputs);
      check_no_nan(value.exact);
      check_no_nan(value.detached);
      for (const Difference& d : scaled_differences(value, expected)) {
        // around -720 results are subnormal: absolute accuracy only
        if (i > -709 || i < -800) BOOST_TEST_CONTEXT(d.tensor << " i=" << i) {
            BOOST_TEST(d.relative <= kTolerance);
          }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(equal_gates_are_ties_won_by_the_newest) {
  for_problems([](const Problem& problem) {
    verify::Case c = random_case(problem, 5);
    for (const double f : {60.0, 1e4, 0.0}) {
      set_gate(c, "f", [f](std::int64_t) { return f; });
      set_gate(c, "i", [](std::int64_t) { return 0.0; });
      check_extreme(c, "ties, f=" + std::to_string(f));
    }
  });
}

BOOST_AUTO_TEST_CASE(zero_queries_give_zero_outputs_and_finite_gradients) {
  for_problems([](const Problem& problem) {
    verify::Case c = random_case(problem, 6);
    for (std::size_t e = 0; e < c.inputs["q"].size(); ++e) {
      if (e % 4 < 2) c.inputs["q"].data()[e] = 0.0;
    }
    check_extreme(c, "every second query zero");
    c.inputs["q"].fill(0.0);
    check_extreme(c, "all queries zero");
    const verify::ReferenceData zero = verify::evaluate_reference(c);
    for (const double h : zero.outputs.at("h")) BOOST_TEST(h == 0.0);
    c.inputs["k"].fill(0.0);
    c.inputs["v"].fill(0.0);
    check_extreme(c, "all zero");
  });
}

BOOST_AUTO_TEST_CASE(initial_stabilisers_of_1e3_stay_right) {
  for (const double eps : {0.0, 1e-6, 1.0}) {
    verify::Case c = random_case({.shape = {1, 2, 7, 3, 2}, .eps = eps, .has_initial_state = true}, 7);
    for (const double m : {1e3, -1e3}) {
      c.inputs["m_initial"].fill(m);
      check_extreme(c, "m_initial=" + std::to_string(m));
    }
  }
}

BOOST_AUTO_TEST_CASE(single_steps_and_dimensions_of_one_stay_right) {
  for (const Shape shape : {Shape{1, 1, 1, 1, 1}, Shape{2, 1, 1, 3, 2}, Shape{1, 2, 9, 1, 1}, Shape{1, 1, 5, 1, 4}}) {
    for_problems([&](Problem problem) {
      problem.shape = shape;
      check_extreme(random_case(problem, 8), "shape");
    });
  }
}

BOOST_AUTO_TEST_CASE(values_beyond_float64_are_infinite_and_not_nan) {
  // l = 0 and eps = 0: h = e^i C q exceeds float64 where C q is not zero, and is zero where it is
  verify::Case c = random_case({.shape = {1, 1, 2, 2, 2}, .eps = 0.0}, 9);
  set_gate(c, "i", [](std::int64_t) { return 800.0; });
  c.inputs["q"] = {{{{1.0, -1.0}, {0.0, 0.0}}}};
  c.inputs["k"] = {{{{1.0, 1.0}, {1.0, 1.0}}}};
  c.inputs["v"] = {{{{1.0, 0.0}, {1.0, -1.0}}}};
  c.inputs["k"](0, 0, 0, 1) = 1.0;
  for (const reference::Options& options : all_options({1, 4})) {
    const verify::ReferenceData r = verify::evaluate_reference(c, options);
    for (const double h : r.outputs.at("h")) BOOST_TEST(h == 0.0);
    check_no_nan(r.exact);
    check_no_nan(r.detached);
    const auto& dq = r.detached.at("q");
    BOOST_TEST(std::any_of(dq.begin(), dq.end(), [](double x) { return std::isinf(x); }));
  }
  c.cotangents.clear();
  const verify::ReferenceData forward_only = verify::evaluate_reference(c);
  for (const double h : forward_only.outputs.at("h")) BOOST_TEST(h == 0.0);
}
