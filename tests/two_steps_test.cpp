// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// The example of two steps that can be followed by hand (two_steps.hpp): the reference and every kernel for the CPU.
#include <boost/test/unit_test.hpp>

#include "reference_tools.hpp"
#include "two_steps.hpp"

using namespace mlstm;
using namespace mlstm::test;

BOOST_AUTO_TEST_CASE(the_reference_gives_what_is_computed_by_hand) {
  for (const Example& example : two_step_examples())
    for (const reference::Options& options : all_options({1, 2})) {
      const verify::Case c = case_of(example, DType::float64, 0);
      const verify::ReferenceData r = verify::evaluate_reference(c, options);
      for (const verify::TensorMap* gradients : {&r.exact, &r.detached}) {
        const std::string wrong = wrong_elements(example, c.problem, r.outputs, gradients);
        BOOST_TEST(wrong.empty(), describe(options) << ", " << example.name << ":\n" << wrong);
      }
    }
}

BOOST_AUTO_TEST_CASE(every_kernel_for_the_cpu_gives_what_is_computed_by_hand) {
  int kernels = 0;
  for (const Kernel* kernel : registered_kernels()) {
    if (kernel->info().device != Device::cpu) continue;
    const int runs = run_two_steps(*kernel, [](const std::string& what, const std::string& wrong) {
      BOOST_TEST(wrong.empty(), what << ":\n" << wrong);
    });
    BOOST_TEST(runs > 0, kernel->info().key());
    ++kernels;
  }
  BOOST_TEST(kernels > 0);
}

BOOST_AUTO_TEST_CASE(a_wrong_element_is_found) {
  const Example& example = two_step_examples().front();
  const verify::Case c = case_of(example, DType::float32, 0);
  verify::ReferenceData r = verify::evaluate_reference(c, {});
  const auto wrong = [&] { return wrong_elements(example, c.problem, r.outputs, &r.exact); };
  BOOST_TEST(wrong() == "");
  r.exact.at("v").data()[9] = 1e-3;
  BOOST_TEST(wrong() == "dv[9] is 0.001000, expected 0.000000\n");
  r.exact.at("v").data()[9] = std::nan("");
  BOOST_TEST(wrong() == "dv[9] is nan, expected 0.000000\n");
  r.exact.erase("v");
  BOOST_TEST(wrong() == "dv is missing\n");
}
