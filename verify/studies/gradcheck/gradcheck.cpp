// SPDX-License-Identifier: Apache-2.0
#include "studies/gradcheck/gradcheck.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "mlstm/reference/differences.hpp"

namespace mlstm::verify {
namespace {

double norm(const Array& a) {
  double sum = 0;
  for (const double x : a) sum += x * x;
  return std::sqrt(sum);
}

double relative_difference(const Array& a, const Array& b, double scale) {
  double sum = 0;
  for (std::size_t e = 0; e < a.size(); ++e) {
    const double difference = a.data()[e] - b.data()[e];
    sum += difference * difference;
  }
  if (sum == 0) return 0;
  return scale > 0 ? std::sqrt(sum) / scale : std::numeric_limits<double>::infinity();
}

TensorMap by_differences(const Case& c, Convention convention, const reference::Options& options) {
  TensorMap result;
  const auto room = [&](const char* name) -> double* {
    const auto input = c.inputs.find(name);
    if (input == c.inputs.end()) return nullptr;
    return result.insert_or_assign(name, Array(xt::zeros_like(input->second))).first->second.data();
  };
  const Gradients<double> wanted{.q = room("q"),
                                 .k = room("k"),
                                 .v = room("v"),
                                 .i = room("i"),
                                 .f = room("f"),
                                 .c_initial = room("c_initial"),
                                 .n_initial = room("n_initial"),
                                 .m_initial = room("m_initial")};
  reference::differences(c.problem, inputs_of(c.inputs), cotangents_of(c.cotangents), convention, wanted, options);
  return result;
}

}  // namespace

std::vector<GradcheckResult> gradcheck(const Case& c, const reference::Options& options, double tolerance) {
  validate(c);
  if (c.cotangents.empty()) throw std::invalid_argument("case has no cotangents, expected at least that of h");
  reference::Options ownbw = options, autograd = options;
  ownbw.backward = reference::Backward::ownbw;
  autograd.backward = reference::Backward::autograd;
  const ReferenceData by_hand = evaluate_reference(c, ownbw), by_tape = evaluate_reference(c, autograd);

  std::vector<GradcheckResult> results;
  for (const Convention convention : {Convention::exact, Convention::detached}) {
    const bool exact = convention == Convention::exact;
    const TensorMap differences = by_differences(c, convention, ownbw);
    for (const std::string& name : input_names(c.problem)) {
      const Array& value = (exact ? by_hand.exact : by_hand.detached).at(name);
      const double scale = std::max(norm(differences.at(name)), exact ? norm(by_hand.detached.at(name)) : 0.0);
      GradcheckResult& r = results.emplace_back();
      r.formulation = options.formulation;
      r.convention = convention;
      r.tensor = "d" + name;
      r.ownbw_vs_autograd = relative_difference(value, (exact ? by_tape.exact : by_tape.detached).at(name), scale);
      r.ownbw_vs_differences = relative_difference(value, differences.at(name), scale);
      r.tolerance = tolerance;
      r.passed = r.ownbw_vs_autograd <= tolerance && r.ownbw_vs_differences <= tolerance;
    }
  }
  return results;
}

}  // namespace mlstm::verify
