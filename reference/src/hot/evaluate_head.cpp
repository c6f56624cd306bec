// SPDX-License-Identifier: Apache-2.0
#include "mlstm/reference/evaluate_head.hpp"

#include <algorithm>
#include <cstdint>
#include <deque>

#include "mlstm/reference/fields.hpp"
#include "mlstm/reference/hot.hpp"

namespace mlstm::reference::hot {
namespace {

// Eigen's vectorised loops start at the first aligned element, so the order of a sum, and with it the last bit, would
// depend on where the caller's memory happens to lie. Everything is evaluated in aligned memory instead.
class AlignedArguments {
 public:
  explicit AlignedArguments(const HeadProblem& p) : shape_{1, 1, p.S, p.DHQK, p.DHV} {}

  /// The same arguments, with copies in the place of those that are not aligned.
  template <class Struct>
  Struct inputs(Struct arguments) {
    return aligned(arguments, [](const double* from, std::int64_t n, double* to) { std::copy_n(from, n, to); });
  }

  /// The same places for results, with other memory in the place of those that are not aligned.
  template <class Struct>
  Struct results(Struct arguments) {
    return aligned(arguments, [](const double*, std::int64_t, double*) {});
  }

  /// Copies results back to where they are wanted.
  template <class Struct>
  void copy(const Struct& from, const Struct& to) const {
    const auto targets = fields_of(to);
    for (std::size_t at = 0; const auto& field : fields_of(from)) {
      const double* source = from.*(field.member);
      double* target = to.*(targets[at++].member);
      if (source != target) std::copy_n(source, size_of(field.tensor, shape_), target);
    }
  }

  /// Memory of the copies, kept from head to head: new pages cost a sixth of the time of a head.
  static std::deque<Vector<double>>& spare() {
    thread_local std::deque<Vector<double>> copies;
    return copies;
  }

 private:
  template <class Struct, class Fill>
  Struct aligned(Struct arguments, const Fill& fill) {
    for (const auto& field : fields_of(arguments)) {
      auto& pointer = arguments.*(field.member);
      if (pointer == nullptr || reinterpret_cast<std::uintptr_t>(pointer) % EIGEN_MAX_ALIGN_BYTES == 0) continue;
      if (used_ == spare().size()) spare().emplace_back();
      Vector<double>& copy = spare()[used_++];
      set_size(copy, size_of(field.tensor, shape_));
      fill(pointer, copy.size(), copy.data());
      pointer = copy.data();
    }
    return arguments;
  }

  Shape shape_;
  std::size_t used_ = 0;
};

}  // namespace

bool evaluate_head(const HeadProblem& problem, const Inputs<double>& inputs, const HeadRequest<double>& request) {
  AlignedArguments memory(problem);
  const HeadRequest<double> aligned{memory.results(request.outputs), memory.results(request.intermediates),
                                    memory.inputs(request.cotangents), memory.results(request.exact),
                                    memory.results(request.detached)};
  if (!reference::evaluate_head<double>(problem, memory.inputs(inputs), aligned)) return false;
  memory.copy(aligned.outputs, request.outputs);
  memory.copy(aligned.intermediates, request.intermediates);
  memory.copy(aligned.exact, request.exact);
  memory.copy(aligned.detached, request.detached);
  return true;
}

void release_memory() {
  spare_states<double>() = {};
  AlignedArguments::spare() = {};
}

bool all_finite(const double* values, std::int64_t n) { return is_finite(ConstVectorMap<double>(values, n)); }

}  // namespace mlstm::reference::hot
