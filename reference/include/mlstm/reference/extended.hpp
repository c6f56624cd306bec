// SPDX-License-Identifier: Apache-2.0
// The extended-precision scalar: 50 decimal digits of binary floating point in integer arithmetic, so that a result
// has the same bits on every machine and with every compiler.
#pragma once

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <boost/multiprecision/eigen.hpp>
#include <cstdint>
#include <deque>
#include <vector>

#include "mlstm/reference/fields.hpp"
#include "mlstm/reference/head.hpp"

namespace mlstm::reference {

/// 64-bit exponent: exp(-m) neither overflows nor vanishes for |m| up to 3e18.
using Extended = boost::multiprecision::number<
    boost::multiprecision::cpp_bin_float<50, boost::multiprecision::digit_base_10, void, std::int64_t>,
    boost::multiprecision::et_off>;

/// Extended-precision images of the float64 arrays of one head.
class ExtendedBuffers {
 public:
  explicit ExtendedBuffers(const HeadProblem& p) : shape_{1, 1, p.S, p.DHQK, p.DHV} {}

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

/// Forward and hand-written backward of one head in extended precision, rounded to float64 at the end.
void evaluate_head_extended(const HeadProblem&, const Inputs<double>&, const HeadRequest<double>&);

/// `differences` (differences.hpp) of one head.
void evaluate_head_differences(const HeadProblem&, const Inputs<double>&, const Cotangents<double>&, Convention,
                               const Gradients<double>& wanted);

}  // namespace mlstm::reference
