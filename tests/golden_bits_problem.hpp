// SPDX-License-Identifier: Apache-2.0
// One small problem with everything in it, solved in extended precision: checksums of all results.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>

#include "cases/problems_draw.hpp"
#include "mlstm/parallel_for.hpp"
#include "mlstm/reference/evaluate_head.hpp"
#include "mlstm/reference/extended.hpp"

namespace mlstm::test {

/// One line per gate, formulation and tensor.
inline std::string golden_bits(int threads) {
  std::string lines;
  for (const Gate gate : {Gate::exp, Gate::sigmoid})
    for (const Module formulation : {Module::recurrent, Module::parallel, Module::chunkwise}) {
      verify::DrawRequest request{"standard", {}, 11, true, true};
      request.problem = {.shape = {1, 2, 7, 3, 4}, .gate = gate, .eps = 0.01, .has_initial_state = true};
      const verify::Drawn drawn = verify::draw(request);
      std::deque<std::vector<double>> results;
      Outputs<double> out;
      Gradients<double> exact, detached;
      const auto reserve = [&](auto& group) {
        for (const auto& field : reference::fields_of(group)) {
          if (gate == Gate::sigmoid && std::string(field.tensor).starts_with("m_")) continue;
          group.*(field.member) =
              results.emplace_back(static_cast<std::size_t>(size_of(field.tensor, request.problem.shape))).data();
        }
      };
      reserve(out), reserve(exact), reserve(detached);
      const auto at = [&](const verify::Values& values, const auto& field, std::int64_t head) -> const double* {
        const auto found = values.find(std::string(field.tensor));
        return found == values.end() ? nullptr : found->second.data() + head * std::ssize(found->second) / 2;
      };
      parallel_for(2, threads, [&](std::int64_t head) {
        Inputs<double> in;
        for (const auto& field : reference::fields_of(in)) in.*(field.member) = at(drawn.inputs, field, head);
        reference::HeadRequest<double> wanted;
        for (const auto& field : reference::fields_of(wanted.cotangents))
          wanted.cotangents.*(field.member) = at(drawn.cotangents, field, head);
        wanted.outputs = reference::slice(out, request.problem.shape, head);
        wanted.exact = reference::slice(exact, request.problem.shape, head);
        wanted.detached = reference::slice(detached, request.problem.shape, head);
        reference::HeadProblem p{7, 3, 4, gate, true, 0.01, StabilizerInit::zero, formulation, 3};
        reference::evaluate_head_extended(p, in, wanted);
      });
      for (const std::vector<double>& values : results) {
        std::uint64_t sum = 14695981039346656037u;
        for (const double value : values) sum = (sum ^ std::bit_cast<std::uint64_t>(value)) * 1099511628211u;
        char text[32];
        std::snprintf(text, sizeof text, "%016llx\n", static_cast<unsigned long long>(sum));
        lines += std::string(to_string(gate)) + " " + std::string(to_string(formulation)) + " " + text;
      }
    }
  return lines;
}

}  // namespace mlstm::test
