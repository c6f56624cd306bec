// SPDX-License-Identifier: Apache-2.0
// ctest-labels: gpu
// The example of two steps that can be followed by hand (two_steps.hpp): every kernel for the GPU.
#include "gpu.hpp"
#include "two_steps.hpp"

using namespace mlstm;

BOOST_AUTO_TEST_CASE(every_kernel_for_the_gpu_gives_what_is_computed_by_hand) {
  int kernels = 0;
  for (const Kernel* kernel : registered_kernels()) {
    if (kernel->info().device != Device::cuda) continue;
    const int runs = test::run_two_steps(*kernel, [](const std::string& what, const std::string& wrong) {
      BOOST_TEST(wrong.empty(), what << ":\n" << wrong);
    });
    BOOST_TEST(runs > 0, kernel->info().key());
    ++kernels;
  }
  BOOST_TEST(kernels > 0);
}
