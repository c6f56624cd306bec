// SPDX-License-Identifier: Apache-2.0
#include "mlstm/reference/differences.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "mlstm/reference/extended.hpp"
#include "mlstm/reference/forward.hpp"

namespace mlstm::reference {
namespace {

template <class Values>
Extended inner(const Values& values, const Extended* cotangent) {
  Extended sum = 0;
  for (Index e = 0; cotangent && e < values.size(); ++e) sum += values.data()[e] * cotangent[e];
  return sum;
}

Extended loss(const HeadProblem& problem, const Inputs<Extended>& inputs, const Cotangents<Extended>& cotangents,
              const Frozen<Extended>* frozen) {
  const Forward<Extended> fw = forward(Head<Extended>(problem, inputs), frozen);
  Extended sum = inner(*fw.h, cotangents.h) + inner(fw.last.C, cotangents.c_last) + inner(fw.last.n, cotangents.n_last);
  if (cotangents.m_last) sum += fw.m_last * *cotangents.m_last;
  return sum;
}

}  // namespace

void evaluate_head_differences(const HeadProblem& problem, const Inputs<double>& inputs,
                               const Cotangents<double>& cotangents, Convention convention,
                               const Gradients<double>& wanted) {
  const Shape shape{1, 1, problem.S, problem.DHQK, problem.DHV};
  ExtendedBuffers buffers(problem);
  const Cotangents<Extended> wide_cotangents = buffers.widen(cotangents);
  std::array<std::vector<Extended>, 8> values;
  Inputs<Extended> wide;
  const auto fields = fields_of(inputs);
  for (std::size_t at = 0; at < fields.size(); ++at) {
    const double* source = inputs.*(fields[at].member);
    if (!source) continue;
    values[at].assign(source, source + mlstm::size_of(fields[at].tensor, shape));
    wide.*(fields_of(wide)[at].member) = values[at].data();
  }

  Frozen<Extended> frozen;
  if (convention == Convention::detached) {
    Forward<Extended> fw = forward(Head<Extended>(problem, wide));
    frozen = {std::move(fw.m), std::move(fw.inverse_d)};
  }
  const Frozen<Extended>* constants = convention == Convention::detached ? &frozen : nullptr;
  for (std::size_t at = 0; at < fields.size(); ++at) {
    double* target = wanted.*(fields_of(wanted)[at].member);
    if (!target) continue;
    for (Extended& x : values[at]) {
      const Extended kept = x;
      const Extended step = 1e-16 * std::max(1.0, std::abs(kept.convert_to<double>()));
      x = kept + step;
      const Extended above = loss(problem, wide, wide_cotangents, constants);
      x = kept - step;
      const Extended below = loss(problem, wide, wide_cotangents, constants);
      x = kept;
      *target++ = Extended((above - below) / (2 * step)).convert_to<double>();
    }
  }
}

}  // namespace mlstm::reference
