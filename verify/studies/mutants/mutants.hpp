// SPDX-License-Identifier: Apache-2.0
// Planted bugs: kernels that are wrong in one known way each, to measure what a verifier finds.
#pragma once

#include <string>
#include <vector>

#include "mlstm/kernel.hpp"

namespace mlstm::verify {

/// An honest kernel with one bug in it.
struct Mutant {
  std::string name;         ///< unique: "<specimen>.<bug>", e.g. "chunkwise.state_decayed_twice"
  std::string family;       ///< what kind of bug: "state", "stabilizer", "eps", "denominator", "mask", "stride", ...
  std::string description;  ///< one line: what goes wrong
  const Kernel* kernel = nullptr;  ///< the variant with this one bug; its key is that of the specimen + "+<bug>"
  /// RunOptions::repeats with which a single problem finds it, with a probability of at least 99 %: 1 but for races.
  int repeats = 1;
  std::string needs;       ///< line of a problem that shows what ordinary ones do not; empty: ordinary ones do
  std::string equivalent;  ///< proof that no input can tell it from the honest kernel; empty: it is a real bug
};

/// All mutants, grouped by specimen. None is among registered_kernels(); they live as long as the program.
const std::vector<Mutant>& mutants();

/// The honest kernels that mutants() are made from, on the CPU: plain loops in all formulations, dtypes, gates and
/// conventions. They have to pass what every variant has to pass.
const std::vector<const Kernel*>& specimens();

/// The same kernels with habits of others' kernels, also right: other roundings and other orders of sums.
const std::vector<const Kernel*>& other_specimens();

/// The specimen that `mutant` was made from.
const Kernel& specimen_of(const Mutant& mutant);

}  // namespace mlstm::verify
