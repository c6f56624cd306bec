// SPDX-License-Identifier: Apache-2.0
// How much host memory the verifier takes for a problem, before any of it is taken.
#pragma once

#include <cstdint>

#include "mlstm/problem.hpp"

namespace mlstm::verify {

/// Bytes that this process has for one problem: float64 throughout.
struct VerifierNeeds {
  std::uint64_t inputs = 0;           ///< inputs and cotangents
  std::uint64_t reference = 0;        ///< outputs and both gradients
  std::uint64_t bounds = 0;           ///< of all of them
  std::uint64_t results = 0;          ///< of the kernel
  std::uint64_t scratch = 0;          ///< of the reference or of the bounds, whichever is more
  std::uint64_t until_reference = 0;  ///< inputs, reference and its scratch: what there is before results and bounds

  std::uint64_t total() const { return inputs + reference + bounds + results + scratch; }
};

/// For a problem with or without `gradients`, whose heads are spread over `threads` threads (0: one per core), and a
/// kernel of this formulation.
VerifierNeeds verifier_needs(const Problem& problem, bool gradients, int threads, Module formulation);

}  // namespace mlstm::verify
