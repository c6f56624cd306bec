// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// The reference on problems that can be checked by hand, its formulations against each other, and its refusals.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <deque>
#include <stdexcept>
#include <vector>

#include "reference_tools.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::test;

constexpr double kTolerance = 1e-12;

verify::ReferenceData recurrent_extended(const verify::Case& c) {
  return verify::evaluate_reference(c, {Module::recurrent, reference::Backward::ownbw, 0, 0}, true);
}

/// All formulations and backward passes against the recurrence in extended precision.
void check_all(const verify::Case& c, const std::vector<std::int64_t>& chunk_sizes) {
  const verify::ReferenceData expected = recurrent_extended(c);
  for (const reference::Options& options : all_options(chunk_sizes)) {
    const verify::ReferenceData value = verify::evaluate_reference(c, options);
    for (const Difference& d : differences(value, expected)) {
      BOOST_TEST_CONTEXT(describe(options) << " " << d.tensor) { BOOST_TEST(d.relative <= kTolerance); }
    }
  }
}

/// One head, one step, dimensions of one, all inputs given.
struct OneStep {
  double q, k, v, i, f;
};

verify::Case scalar_case(Gate gate, const std::vector<OneStep>& steps, double eps) {
  Problem problem;
  problem.shape.S = static_cast<std::int64_t>(steps.size());
  problem.gate = gate;
  problem.eps = eps;
  verify::Case c = random_case(problem, 1, false);
  for (std::size_t t = 0; t < steps.size(); ++t) {
    c.inputs["q"].data()[t] = steps[t].q;
    c.inputs["k"].data()[t] = steps[t].k;
    c.inputs["v"].data()[t] = steps[t].v;
    c.inputs["i"].data()[t] = steps[t].i;
    c.inputs["f"].data()[t] = steps[t].f;
    c.cotangents["h"].data()[t] = 1.0;
  }
  return c;
}

double at(const verify::TensorMap& tensors, const std::string& name, std::size_t e) {
  return tensors.at(name).data()[e];
}

}  // namespace

BOOST_AUTO_TEST_CASE(one_step_below_the_floor_is_k_v_q_over_the_floor) {
  // m = 0 (zero init: log sigmoid(40) + 0 = -4e-18 < i = 0), l = 0.5, d = max(0.5, 1) + 1 = 2, h = 0.5 * 3 / 2
  const verify::Case c = scalar_case(Gate::exp, {{0.5, 1.0, 3.0, 0.0, 40.0}}, 1.0);
  for (const reference::Options& options : all_options({1, 8})) {
    const verify::ReferenceData r = verify::evaluate_reference(c, options);
    BOOST_TEST(at(r.outputs, "h", 0) == 0.75);
    BOOST_TEST(at(r.outputs, "c_last", 0) == 3.0);
    BOOST_TEST(at(r.outputs, "n_last", 0) == 1.0);
    BOOST_TEST(at(r.outputs, "m_last", 0) == 0.0);
    BOOST_TEST(at(r.exact, "q", 0) == 1.5);
    BOOST_TEST(at(r.exact, "v", 0) == 0.25);
    BOOST_TEST(at(r.detached, "i", 0) == 0.75);
    // h = e^i q k v / (1 + e^i): the derivative at i = 0 is 1.5 / 4
    BOOST_TEST(at(r.exact, "i", 0) == 0.375);
  }
}

BOOST_AUTO_TEST_CASE(one_step_above_the_floor_is_v_and_does_not_depend_on_q) {
  const verify::Case c = scalar_case(Gate::exp, {{-4.0, 1.0, 3.0, 0.0, 40.0}}, 0.0);
  for (const reference::Options& options : all_options({1})) {
    const verify::ReferenceData r = verify::evaluate_reference(c, options);
    BOOST_TEST(at(r.outputs, "h", 0) == -3.0);
    BOOST_TEST(at(r.exact, "q", 0) == 0.0);
    BOOST_TEST(at(r.exact, "k", 0) == 0.0);
    BOOST_TEST(at(r.exact, "i", 0) == 0.0);
    BOOST_TEST(at(r.exact, "v", 0) == -1.0);
    BOOST_TEST(at(r.detached, "q", 0) == 0.75);
    BOOST_TEST(at(r.detached, "i", 0) == -3.0);
  }
}

BOOST_AUTO_TEST_CASE(two_steps_with_the_sigmoid_gate_add_up) {
  // sigmoid(0) = 1/2: C_1 = 1/2 * 2 = 1, C_2 = 1/2 * 1 + 1/2 * 4 = 2.5, n_2 = 1/4 + 1/2; d_2 = 1 (floor)
  const verify::Case c = scalar_case(Gate::sigmoid, {{1, 1, 2, 0, 0}, {1, 1, 4, 0, 0}}, 0.0);
  for (const reference::Options& options : all_options({1, 2})) {
    const verify::ReferenceData r = verify::evaluate_reference(c, options);
    BOOST_TEST(at(r.outputs, "h", 0) == 1.0, boost::test_tools::tolerance(1e-15));
    BOOST_TEST(at(r.outputs, "h", 1) == 2.5, boost::test_tools::tolerance(1e-15));
    BOOST_TEST(at(r.outputs, "n_last", 0) == 0.75, boost::test_tools::tolerance(1e-15));
    // d(h_1 + h_2)/df_2 = sigma'(0) C_1 = 1/4
    BOOST_TEST(at(r.exact, "f", 1) == 0.25, boost::test_tools::tolerance(1e-15));
  }
}

BOOST_AUTO_TEST_CASE(on_equality_the_newest_candidate_of_the_maximum_gets_the_gradient) {
  // f = 60: log sigmoid(f) is lost beside i = 1 in float64, so all candidates are equal; |l| > floor, eps > 0
  const verify::Case c = scalar_case(Gate::exp, {{2, 1, 3, 1, 60}, {2, 1, -1, 1, 60}, {2, 1, 5, 1, 60}}, 0.5);
  const verify::ReferenceData expected = recurrent_extended(c);
  for (const reference::Options& options : all_options({1, 2, 3})) {
    BOOST_TEST(worst(differences(verify::evaluate_reference(c, options), expected)) <= kTolerance);
  }
}

BOOST_AUTO_TEST_CASE(formulations_agree_with_the_exp_gate) {
  for (const auto init : {StabilizerInit::zero, StabilizerInit::neg_inf}) {
    for (const bool states : {false, true}) {
      Problem problem{.shape = {1, 2, 13, 3, 5}, .eps = 1e-2, .stabilizer_init = init, .has_initial_state = states};
      check_all(random_case(problem, 7), {1, 4, 13, 50});
    }
  }
}

BOOST_AUTO_TEST_CASE(formulations_agree_with_the_sigmoid_gate_with_and_without_normalize) {
  for (const bool normalize : {true, false}) {
    for (const bool states : {false, true}) {
      Problem problem{
          .shape = {2, 1, 11, 4, 3}, .gate = Gate::sigmoid, .normalize = normalize, .has_initial_state = states};
      check_all(random_case(problem, 8), {1, 5, 64});
    }
  }
}

BOOST_AUTO_TEST_CASE(formulations_agree_beyond_one_block_of_a_matrix_product) {
  const Problem problem{.shape = {1, 2, 150, 24, 40}, .has_initial_state = true};
  const verify::Case c = random_case(problem, 9);
  const verify::ReferenceData expected =
      verify::evaluate_reference(c, {Module::recurrent, reference::Backward::ownbw, 0, 0});
  for (const reference::Options& options : all_options({32, 64, 100})) {
    BOOST_TEST_CONTEXT(describe(options)) {
      BOOST_TEST(worst(differences(verify::evaluate_reference(c, options), expected)) <= kTolerance);
    }
  }
}

BOOST_AUTO_TEST_CASE(the_chunk_size_comes_from_the_options_then_the_problem_then_64) {
  const Problem problem{.shape = {1, 1, 80, 4, 4}};
  verify::Case c = random_case(problem, 10);
  const auto h = [&](std::int64_t of_problem, std::int64_t option) {
    c.problem.chunk_size = of_problem;
    return verify::evaluate_reference(c, {Module::chunkwise, reference::Backward::ownbw, option, 0}).outputs.at("h");
  };
  BOOST_TEST((h(0, 0) == h(0, 64)));
  BOOST_TEST((h(16, 0) == h(0, 16)));
  BOOST_TEST((h(16, 8) == h(0, 8)));
  BOOST_TEST((h(0, 16) != h(0, 64)));
}

BOOST_AUTO_TEST_CASE(results_have_the_same_bits_wherever_the_callers_memory_lies) {
  const verify::Case c = random_case({.shape = {1, 1, 45, 7, 9}}, 13);
  const std::int64_t n = mlstm::size_of("h", c.problem.shape);
  for (const reference::Options& options : all_options({8, 16})) {
    std::vector<double> first;
    for (std::size_t shift = 0; shift < 8; ++shift) {  // all positions within 64 bytes
      std::deque<std::vector<double>> copies;
      const auto moved = [&](const double* values, std::string_view tensor) -> const double* {
        std::vector<double>& copy =
            copies.emplace_back(static_cast<std::size_t>(mlstm::size_of(tensor, c.problem.shape)) + 8);
        std::copy_n(values, copy.size() - 8, copy.begin() + static_cast<std::ptrdiff_t>(shift));
        return copy.data() + shift;
      };
      Inputs<double> in = verify::inputs_of(c.inputs);
      in = {.q = moved(in.q, "q"),
            .k = moved(in.k, "k"),
            .v = moved(in.v, "v"),
            .i = moved(in.i, "i"),
            .f = moved(in.f, "f")};
      std::vector<double> h(static_cast<std::size_t>(n) + 8),
          dk(static_cast<std::size_t>(mlstm::size_of("k", c.problem.shape)) + 8);
      reference::Request request;
      request.outputs.h = h.data() + shift;
      request.cotangents.h = moved(verify::cotangents_of(c.cotangents).h, "h");
      request.exact.k = dk.data() + shift;
      reference::evaluate(c.problem, in, request, options);
      std::vector<double> all(h.begin() + static_cast<std::ptrdiff_t>(shift),
                              h.begin() + static_cast<std::ptrdiff_t>(shift) + n);
      all.insert(all.end(), dk.begin() + static_cast<std::ptrdiff_t>(shift),
                 dk.end() - 8 + static_cast<std::ptrdiff_t>(shift));
      if (shift == 0) first = all;
      BOOST_TEST((all == first), describe(options) << " at offset " << shift);
    }
  }
}

BOOST_AUTO_TEST_CASE(results_have_the_same_bits_for_any_thread_count) {
  for (reference::Options options : all_options({16})) {
    const verify::Case c = random_case({.shape = {2, 3, 50, 8, 12}, .has_initial_state = true}, 11);
    options.threads = 1;
    const verify::ReferenceData one = verify::evaluate_reference(c, options);
    for (const int threads : {2, 5, 0}) {
      options.threads = threads;
      BOOST_TEST(worst(differences(verify::evaluate_reference(c, options), one)) == 0.0);
    }
  }
}

BOOST_AUTO_TEST_CASE(intermediates_are_those_of_the_definition) {
  verify::Case c = random_case({.shape = {1, 1, 9, 1, 1}, .eps = 0.25}, 12);
  std::vector<double> m(9), l(9), d(9), h(9);
  for (const auto formulation : {Module::recurrent, Module::parallel, Module::chunkwise}) {
    reference::Request request;
    request.outputs.h = h.data();
    request.intermediates = {m.data(), l.data(), d.data()};
    reference::evaluate(c.problem, verify::inputs_of(c.inputs), request,
                        {formulation, reference::Backward::ownbw, 4, 0});
    double C = 0, n = 0, past = 0;
    for (std::size_t t = 0; t < 9; ++t) {
      const auto in = [&](const char* name) { return at(c.inputs, name, t); };
      const double lf = -std::log1p(std::exp(-in("f"))), now = std::max(lf + past, in("i"));
      const double F = std::exp(lf + past - now), I = std::exp(in("i") - now);
      C = F * C + I * in("k") * in("v");
      n = F * n + I * in("k");
      past = now;
      BOOST_TEST(m[t] == now, boost::test_tools::tolerance(1e-13));
      BOOST_TEST(l[t] == n * in("q"), boost::test_tools::tolerance(1e-12));
      BOOST_TEST(d[t] == std::max(std::abs(n * in("q")), std::exp(-now)) + 0.25, boost::test_tools::tolerance(1e-12));
      BOOST_TEST(h[t] == C * in("q") / d[t], boost::test_tools::tolerance(1e-12));
    }
  }
}

BOOST_AUTO_TEST_CASE(bad_arguments_are_refused_by_name_and_value) {
  const auto refusal = [](const verify::Case& c,
                          const std::function<void(Inputs<double>&, reference::Request&, reference::Options&)>& spoil) {
    Inputs<double> in = verify::inputs_of(c.inputs);
    std::vector<double> h(1000, 7.0);
    reference::Request request;
    request.outputs.h = h.data();
    request.cotangents = verify::cotangents_of(c.cotangents);
    reference::Options options;
    spoil(in, request, options);
    try {
      reference::evaluate(c.problem, in, request, options);
    } catch (const std::invalid_argument& error) {
      BOOST_TEST(std::all_of(h.begin(), h.end(), [](double x) { return x == 7.0; }));
      return std::string(error.what());
    }
    return std::string("no refusal");
  };
  const auto mentions = [](const std::string& text, const std::string& word) {
    BOOST_TEST_CONTEXT(text) { BOOST_TEST(text.find(word) != std::string::npos); }
  };
  const verify::Case plain = random_case({.shape = {1, 1, 5, 2, 2}}, 13);
  const verify::Case states = random_case({.shape = {1, 1, 5, 2, 2}, .has_initial_state = true}, 13);
  verify::Case sigmoid = random_case({.shape = {1, 1, 5, 2, 2}, .gate = Gate::sigmoid, .has_initial_state = true}, 13);
  double m = 0;

  mentions(refusal(plain, [](auto& in, auto&, auto&) { in.k = nullptr; }), "k is missing");
  mentions(refusal(plain, [&](auto& in, auto&, auto&) { in.m_initial = &m; }), "m_initial is given");
  mentions(refusal(states, [](auto& in, auto&, auto&) { in.n_initial = nullptr; }), "n_initial is missing");
  mentions(refusal(sigmoid, [&](auto& in, auto&, auto&) { in.m_initial = &m; }), "no m_initial with the sigmoid gate");
  mentions(refusal(sigmoid, [&](auto&, auto& r, auto&) { r.cotangents.m_last = &m; }), "cotangent m_last");
  mentions(refusal(plain, [&](auto&, auto& r, auto&) { r.exact.m_initial = &m; }), "initial state");
  mentions(refusal(plain, [](auto&, auto&, auto& o) { o.chunk_size = -3; }), "chunk_size is -3");
  mentions(refusal(plain, [](auto&, auto&, auto& o) { o.threads = -1; }), "threads is -1");
  verify::Case spoiled = plain;
  spoiled.inputs["f"].data()[3] = std::nan("");
  mentions(refusal(spoiled, [](auto&, auto&, auto&) {}), "f[3] is nan");
  spoiled = plain;
  spoiled.cotangents["h"].data()[1] = HUGE_VAL;
  mentions(refusal(spoiled, [](auto&, auto&, auto&) {}), "cotangent h[1] is inf");
  spoiled = plain;
  spoiled.problem.eps = -1;
  mentions(refusal(spoiled, [](auto&, auto&, auto&) {}), "eps");
  BOOST_CHECK_THROW(reference::parse_backward("custbw"), std::invalid_argument);
  BOOST_CHECK_THROW(verify::evaluate_reference(plain, {Module::parallel, reference::Backward::autograd, 0, 0}, true),
                    std::invalid_argument);
}
