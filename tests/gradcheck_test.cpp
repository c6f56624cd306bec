// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Hand-written gradients = automatic differentiation = differences in extended precision.
#include "studies/gradcheck/gradcheck.hpp"

#include <boost/test/unit_test.hpp>
#include <stdexcept>

#include "reference_tools.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::test;

double worst_of(const verify::Case& c, const std::string& what) {
  double worst = 0;
  for (const auto formulation : {Module::recurrent, Module::parallel, Module::chunkwise}) {
    for (const verify::GradcheckResult& r : verify::gradcheck(c, {formulation, reference::Backward::ownbw, 3, 0})) {
      BOOST_TEST_CONTEXT(what << " " << to_string(r.formulation) << " " << to_string(r.convention) << " " << r.tensor
                              << " autograd " << r.ownbw_vs_autograd << " differences " << r.ownbw_vs_differences) {
        BOOST_TEST(r.passed);
      }
      worst = std::max({worst, r.ownbw_vs_autograd, r.ownbw_vs_differences});
    }
  }
  BOOST_TEST_MESSAGE(what << ": " << worst);
  return worst;
}

}  // namespace

BOOST_AUTO_TEST_CASE(three_ways_agree_to_1e_12_with_the_exp_gate) {
  for (const auto init : {StabilizerInit::zero, StabilizerInit::neg_inf}) {
    for (const double eps : {0.0, 1e-6, 0.5}) {
      const Problem problem{.shape = {1, 1, 5, 2, 3}, .eps = eps, .stabilizer_init = init};
      BOOST_TEST(worst_of(random_case(problem, 21), "exp") <= 1e-12);
    }
  }
}

BOOST_AUTO_TEST_CASE(three_ways_agree_to_1e_12_with_states_and_their_cotangents) {
  const Problem exp{.shape = {2, 1, 5, 2, 2}, .eps = 0.1, .has_initial_state = true};
  verify::Case c = random_case(exp, 22);
  BOOST_TEST(worst_of(c, "states") <= 1e-12);
  c.inputs["m_initial"].fill(30.0);  // the arg max of every step is m_initial
  BOOST_TEST(worst_of(c, "m_initial wins") <= 1e-12);
  const Problem sigmoid{.shape = {1, 2, 5, 2, 2}, .gate = Gate::sigmoid, .eps = 0.1, .has_initial_state = true};
  BOOST_TEST(worst_of(random_case(sigmoid, 23), "sigmoid states") <= 1e-12);
}

BOOST_AUTO_TEST_CASE(three_ways_agree_to_1e_12_without_normalisation) {
  const Problem problem{.shape = {1, 1, 7, 3, 2}, .gate = Gate::sigmoid, .normalize = false};
  BOOST_TEST(worst_of(random_case(problem, 24), "unnormalized") <= 1e-12);
}

BOOST_AUTO_TEST_CASE(the_two_conventions_are_told_apart) {
  verify::Case c = random_case({.shape = {1, 1, 5, 2, 2}, .eps = 0.1}, 25);
  c.inputs["q"] *= 10.0;  // |n.q| is the denominator
  const verify::ReferenceData r = verify::evaluate_reference(c);
  for (const char* name : {"q", "k", "i", "f"}) {
    BOOST_TEST(relative_frobenius(r.exact.at(name), r.detached.at(name)) > 1e-2);
  }
  BOOST_TEST(relative_frobenius(r.exact.at("v"), r.detached.at("v")) == 0.0);
}

BOOST_AUTO_TEST_CASE(a_case_without_cotangents_is_refused) {
  verify::Case c = random_case({.shape = {1, 1, 2, 1, 1}}, 26);
  c.cotangents.clear();
  BOOST_CHECK_THROW(verify::gradcheck(c), std::invalid_argument);
}
