// SPDX-License-Identifier: Apache-2.0
// For tests that need a GPU: include this first. Without one the program says so and ends with kSkipped, which CTest
// shows as "Skipped".
#pragma once

#define BOOST_TEST_NO_MAIN
#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <string>

#include "runner/runner_memory.hpp"

#ifdef MLSTM_HAVE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace mlstm::test {

constexpr int kSkipped = 77;  ///< SKIP_RETURN_CODE in CMakeLists.txt

inline verify::DeviceMemory& gpu() { return *verify::memory_of(Device::cuda); }

#ifdef MLSTM_HAVE_CUDA
/// Fails the test, with the reason, unless the call of the CUDA runtime succeeded.
inline void require(cudaError_t status) { BOOST_REQUIRE_MESSAGE(status == cudaSuccess, cudaGetErrorString(status)); }
#endif

}  // namespace mlstm::test

int main(int argc, char** argv) {
  if (const std::string reason = mlstm::verify::unavailable(mlstm::Device::cuda); !reason.empty()) {
    std::printf("SKIPPED: %s\n", reason.c_str());
    return mlstm::test::kSkipped;
  }
  return boost::unit_test::unit_test_main(&init_unit_test, argc, argv);
}
