// SPDX-License-Identifier: Apache-2.0
#include "mlstm/reference/extended.hpp"

#include <deque>

#include "mlstm/reference/evaluate_head.hpp"
#include "mlstm/reference/fields.hpp"

namespace mlstm::reference {
namespace {

/// Extended-precision images of the float64 arrays of one head.
class Buffers {
 public:
  explicit Buffers(const HeadProblem& p) : shape_{1, 1, p.S, p.DHQK, p.DHV} {}

  /// Widened copies of the given tensors.
  template <template <class> class Struct>
  Struct<Extended> widen(const Struct<double>& given) {
    Struct<Extended> result;
    for (std::size_t at = 0; const auto& field : fields_of(given)) {
      const double* source = given.*(field.member);
      const auto target = fields_of(result)[at++];
      if (!source) continue;
      std::vector<Extended>& buffer = buffers_.emplace_back(source, source + mlstm::size_of(field.tensor, shape_));
      result.*(target.member) = buffer.data();
    }
    return result;
  }

  /// Space for the tensors that are wanted.
  template <template <class> class Struct>
  Struct<Extended> reserve(const Struct<double>& wanted) {
    Struct<Extended> result;
    for (std::size_t at = 0; const auto& field : fields_of(wanted)) {
      const auto target = fields_of(result)[at++];
      if (!(wanted.*(field.member))) continue;
      result.*(target.member) =
          buffers_.emplace_back(static_cast<std::size_t>(mlstm::size_of(field.tensor, shape_))).data();
    }
    return result;
  }

  template <template <class> class Struct>
  void round(const Struct<Extended>& from, const Struct<double>& to) const {
    for (std::size_t at = 0; const auto& field : fields_of(from)) {
      double* target = to.*(fields_of(to)[at++].member);
      const Extended* source = from.*(field.member);
      if (!target) continue;
      for (std::int64_t e = 0; e < mlstm::size_of(field.tensor, shape_); ++e)
        target[e] = source[e].convert_to<double>();
    }
  }

 private:
  Shape shape_;
  std::deque<std::vector<Extended>> buffers_;
};

}  // namespace

void evaluate_head_extended(const HeadProblem& problem, const Inputs<double>& inputs,
                            const HeadRequest<double>& request) {
  Buffers buffers(problem);
  HeadRequest<Extended> wide;
  wide.outputs = buffers.reserve(request.outputs);
  wide.intermediates = buffers.reserve(request.intermediates);
  wide.cotangents = buffers.widen(request.cotangents);
  wide.exact = buffers.reserve(request.exact);
  wide.detached = buffers.reserve(request.detached);
  evaluate_head<Extended>(problem, buffers.widen(inputs), wide);
  buffers.round(wide.outputs, request.outputs);
  buffers.round(wide.intermediates, request.intermediates);
  buffers.round(wide.exact, request.exact);
  buffers.round(wide.detached, request.detached);
}

}  // namespace mlstm::reference
