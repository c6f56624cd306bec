// SPDX-License-Identifier: Apache-2.0
#include "runner/kernel_needs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <string_view>

namespace mlstm::verify {

std::optional<KernelNeeds> kernel_needs(const Kernel& kernel, const Problem& problem, bool gradients) try {
  const Shape& shape = problem.shape;
  const auto stored = [&](std::string_view tensor) {
    return static_cast<double>(size_of(tensor, shape)) * static_cast<double>(size_of(storage_dtype(tensor, problem)));
  };
  double inputs = 0, outputs = 0, elements = 0, result_elements = 0;
  for (const std::string& name : input_names(problem)) {
    inputs += stored(name);
    elements += static_cast<double>(size_of(name, shape));
    if (gradients) outputs += stored(name), result_elements += static_cast<double>(size_of(name, shape));
  }
  for (const std::string& name : output_names(problem)) {
    if (name != "h" && !kernel.info().last_states) continue;
    outputs += stored(name);
    result_elements += static_cast<double>(size_of(name, shape));
  }
  if (gradients) inputs += stored("h"), elements += static_cast<double>(size_of("h", shape));
  const bool on_host = kernel.info().device == Device::cpu;
  const double saved = gradients ? static_cast<double>(kernel.saved_size(problem)) : 0;
  double scratch = static_cast<double>(kernel.workspace_size(problem, false));
  if (gradients) scratch += static_cast<double>(kernel.workspace_size(problem, true));
  KernelNeeds needs;
  const auto bytes = [](double count) { return static_cast<std::uint64_t>(std::min(count, 0x1p62)); };
  needs.inputs = bytes(8 * elements + inputs);
  needs.saved = bytes((on_host ? 2 : 1) * saved);
  needs.buffers = needs.saved + bytes(on_host ? inputs + outputs + scratch : 0);
  needs.results = bytes(2 * outputs);
  needs.reply = bytes(outputs + 8 * result_elements);
  return needs;
} catch (const std::exception&) {  // a plugin may throw anything; if it does so in a run, that is the run's result
  return {};
}

std::string needs_text(const VerifierNeeds& verifier, const std::optional<KernelNeeds>& kernel) {
  std::string text =
      fmt::format("{} in the verifier (inputs {}, reference {}, bounds {}, results {}, scratch {})",
                  bytes_text(verifier.total()), bytes_text(verifier.inputs), bytes_text(verifier.reference),
                  bytes_text(verifier.bounds), bytes_text(verifier.results), bytes_text(verifier.scratch));
  if (kernel)
    text +=
        fmt::format(" and {} where the kernel runs (inputs {}, buffers {}, of which saved for backward {}, results {})",
                    bytes_text(kernel->total()), bytes_text(kernel->inputs), bytes_text(kernel->buffers),
                    bytes_text(kernel->saved), bytes_text(kernel->results));
  return text;
}

std::string why_too_large(const VerifierNeeds& verifier, const std::optional<KernelNeeds>& kernel,
                          const MemoryLimits& limits) {
  const std::uint64_t own = verifier.total(), others = kernel ? kernel->total() : 0;
  const auto refuse = [&](const std::string& available) {
    return fmt::format("not run: needs about {}; {}", needs_text(verifier, kernel), available);
  };
  if (limits.worker && *limits.worker != 0 && others > *limits.worker)
    return refuse(fmt::format("--memory-limit gives the process that runs the kernel {}", bytes_text(*limits.worker)));
  // A limit of one process does not count what another one has; the machine and control groups do.
  const bool apart = limits.worker && limits.room.limited_by.starts_with("the limit");
  if ((apart ? std::max(own, others) : own + others) > limits.room.bytes)
    return refuse(fmt::format("{} leaves {}", limits.room.limited_by, bytes_text(limits.room.bytes)));
  return {};
}

}  // namespace mlstm::verify
