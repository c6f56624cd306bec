// SPDX-License-Identifier: Apache-2.0
#include "mlstm/kernel.hpp"

#include <algorithm>
#include <stdexcept>

namespace mlstm {
namespace {

std::vector<const Kernel*>& registry() {
  static std::vector<const Kernel*> kernels;
  return kernels;
}

template <class T>
bool contains(const std::vector<T>& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

std::string refusal(const std::string& what, std::string_view value) {
  return what + " " + std::string(value) + " is not supported";
}

}  // namespace

std::string_view to_string(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

std::string VariantInfo::key() const { return std::string(to_string(module)) + "--" + name; }

void Kernel::backward(const Problem&, const BackwardArgs&) const {
  throw std::logic_error(info().key() + " is a forward-only variant");
}

std::string Kernel::declared_limits(const Problem& problem) const {
  const VariantInfo& about = info();
  const Shape& shape = problem.shape;
  if (!contains(about.dtypes, problem.dtype)) return refusal("dtype", to_string(problem.dtype));
  if (!contains(about.gates, problem.gate)) return refusal("gate", to_string(problem.gate));
  if (!problem.normalized() && !about.unnormalized) return "normalize 0 is not supported";
  if (problem.has_initial_state && !about.initial_states) return "initial states are not supported";
  if (problem.has_m() && !problem.has_initial_state && !contains(about.stabilizer_init, problem.stabilizer_init))
    return refusal("stabilizer_init", to_string(problem.stabilizer_init));
  struct Size {
    const char* name;
    std::int64_t n;
    const SizeLimit& limit;
  };
  for (const Size& size :
       {Size{"S", shape.S, about.S}, {"DHQK", shape.DHQK, about.DHQK}, {"DHV", shape.DHV, about.DHV}})
    if (!size.limit.admits(size.n))
      return std::string(size.name) + " " + std::to_string(size.n) + " is not supported (from " +
             std::to_string(size.limit.min) + " to " + std::to_string(size.limit.max) + " in multiples of " +
             std::to_string(size.limit.multiple_of) + ")";
  if (about.module == Module::chunkwise) {
    if (problem.chunk_size < 1) return "chunk_size " + std::to_string(problem.chunk_size) + " is not supported";
    if (!about.L.admits(problem.chunk_size))
      return "chunk_size " + std::to_string(problem.chunk_size) + " is not supported (from " +
             std::to_string(about.L.min) + " to " + std::to_string(about.L.max) + " in multiples of " +
             std::to_string(about.L.multiple_of) + ")";
  }
  return {};
}

const std::vector<const Kernel*>& registered_kernels() { return registry(); }

const Kernel* find_kernel(std::string_view key) {
  for (const Kernel* kernel : registry())
    if (kernel->info().key() == key) return kernel;
  return nullptr;
}

void register_kernel(const Kernel* kernel) {
  const std::string key = kernel->info().key();
  if (find_kernel(key) != nullptr) throw std::logic_error("a variant named " + key + " is registered already");
  auto& kernels = registry();
  const auto before = [&](const Kernel* other) { return other->info().key() > key; };
  kernels.insert(std::find_if(kernels.begin(), kernels.end(), before), kernel);
}

}  // namespace mlstm
