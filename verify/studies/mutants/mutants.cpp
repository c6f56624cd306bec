// SPDX-License-Identifier: Apache-2.0
#include <deque>
#include <stdexcept>

#include "studies/mutants/mutants.hpp"
#include "studies/mutants/specimen.hpp"

namespace mlstm::verify {
namespace {

std::vector<Mutant> plant_all() {
  static std::deque<planted::Specimen> kernels;
  std::vector<Mutant> mutants;
  for (const planted::Kind& kind : planted::kinds())
    for (const planted::BugInfo& bug : planted::kBugs)
      for (const planted::Place& place : bug.places())
        if ((place.specimens & kind.set) != 0)
          mutants.push_back({std::string(kind.label) + "." + bug_name(bug, place),
                             std::string(place.family.empty() ? bug.family : place.family),
                             std::string(place.description), &kernels.emplace_back(kind, bug, place), bug.repeats,
                             std::string(bug.needs), std::string(bug.equivalent)});
  return mutants;
}

/// A kernel of each kind, kept in `kernels`.
std::vector<const Kernel*> honest(const std::vector<planted::Kind>& kinds, std::deque<planted::Specimen>& kernels) {
  std::vector<const Kernel*> pointers;
  for (const planted::Kind& kind : kinds) pointers.push_back(&kernels.emplace_back(kind));
  return pointers;
}

}  // namespace

const std::vector<Mutant>& mutants() {
  static const std::vector<Mutant> all = plant_all();
  return all;
}

const std::vector<const Kernel*>& specimens() {
  static std::deque<planted::Specimen> kernels;
  static const std::vector<const Kernel*> all = honest(planted::kinds(), kernels);
  return all;
}

const std::vector<const Kernel*>& other_specimens() {
  static std::deque<planted::Specimen> kernels;
  static const std::vector<const Kernel*> all = honest(planted::other_kinds(), kernels);
  return all;
}

const Kernel& specimen_of(const Mutant& mutant) {
  const std::string key = mutant.kernel->info().key();
  for (const Kernel* specimen : specimens())
    if (key.starts_with(specimen->info().key() + "+")) return *specimen;
  throw std::logic_error(mutant.name + " has no specimen");
}

}  // namespace mlstm::verify
