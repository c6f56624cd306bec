// SPDX-License-Identifier: Apache-2.0
// One target (MLSTM_FUZZ_TARGET) for libFuzzer. If the environment names a folder in MLSTM_FUZZ_SEEDS, the target's
// seeds are written there before anything is read.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "targets.hpp"

namespace {

const mlstm::fuzz::Target& target() {
  static const mlstm::fuzz::Target& chosen =
      *std::find_if(mlstm::fuzz::targets().begin(), mlstm::fuzz::targets().end(),
                    [](const auto& candidate) { return candidate.name == MLSTM_FUZZ_TARGET; });
  return chosen;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (const char* folder = std::getenv("MLSTM_FUZZ_SEEDS"); folder != nullptr) {
    int number = 0;
    for (const std::string& seed : target().seeds())
      std::ofstream(std::string(folder) + "/seed" + std::to_string(number++), std::ios::binary) << seed;
    for (const std::string& word : target().words)
      std::ofstream(std::string(folder) + "/seed" + std::to_string(number++), std::ios::binary) << word;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  target().run({reinterpret_cast<const char*>(data), size});
  return 0;
}
