// SPDX-License-Identifier: Apache-2.0
#include "mlstm/verify/mutants.hpp"

#include <stdexcept>

namespace mlstm::verify {

const std::vector<Mutant>& mutants() {
  static const std::vector<Mutant> all;
  return all;
}

const std::vector<const Kernel*>& specimens() {
  static const std::vector<const Kernel*> all;
  return all;
}

const Kernel& specimen_of(const Mutant& mutant) {
  const std::string key = mutant.kernel->info().key();
  for (const Kernel* specimen : specimens())
    if (key.starts_with(specimen->info().key() + "+")) return *specimen;
  throw std::logic_error(mutant.name + " has no specimen");
}

}  // namespace mlstm::verify
