// SPDX-License-Identifier: Apache-2.0
#include "mlstm/reference/autograd.hpp"

#include <algorithm>
#include <deque>
#include <stdexcept>
#include <string>

#include "mlstm/reference/evaluate_head.hpp"
#include "mlstm/reference/fields.hpp"
#include "mlstm/reference/forward.hpp"
#include "mlstm/reference/hot.hpp"
#include "mlstm/reference/tape.hpp"

namespace mlstm::reference {

Tape& Tape::current() {
  thread_local Tape tape;
  return tape;
}

void Tape::refuse_growth() {
  throw std::invalid_argument("backward is \"autograd\", but one head needs more than " + std::to_string(kMaxNodes) +
                              " recorded operations; expected a smaller problem, or \"ownbw\"");
}

namespace {

/// The inputs of a head as leaves of the tape.
class Leaves {
 public:
  Leaves(const Shape& shape, const Inputs<double>& given) : shape_(shape) {
    for (std::size_t at = 0; const auto& field : fields_of(given)) {
      const double* source = given.*(field.member);
      const auto target = fields_of(inputs)[at++];
      if (!source) continue;
      std::vector<Var>& buffer = buffers_.emplace_back();
      std::transform(source, source + mlstm::size_of(field.tensor, shape_), std::back_inserter(buffer), Var::leaf);
      inputs.*(target.member) = buffer.data();
    }
  }

  void read(const std::vector<double>& adjoints, const Gradients<double>& wanted) const {
    for (std::size_t at = 0; const auto& field : fields_of(wanted)) {
      const Var* leaves = inputs.*(fields_of(inputs)[at++].member);
      double* target = wanted.*(field.member);
      if (!target) continue;
      std::transform(leaves, leaves + mlstm::size_of(field.tensor, shape_), target,
                     [&](const Var& leaf) { return adjoints[leaf.id()]; });
    }
  }

  Inputs<Var> inputs;

 private:
  Shape shape_;
  std::deque<std::vector<Var>> buffers_;
};

template <class Values>
void seed(std::vector<double>& adjoints, const Values& values, const double* cotangent) {
  if (!cotangent) return;
  for (Index e = 0; e < values.size(); ++e) adjoints[values.data()[e].id()] += cotangent[e];
}

std::vector<double> pull_back(const Forward<Var>& fw, const Cotangents<double>& cotangents) {
  std::vector<double> adjoints(Tape::current().size(), 0.0);
  seed(adjoints, *fw.h, cotangents.h);
  seed(adjoints, fw.last.C, cotangents.c_last);
  seed(adjoints, fw.last.n, cotangents.n_last);
  if (cotangents.m_last) adjoints[fw.m_last.id()] += *cotangents.m_last;
  Tape::current().sweep(adjoints);
  return adjoints;
}

/// Leaves an empty tape behind, also when an exception passes.
struct Recording {
  Recording() { Tape::current().clear(); }
  ~Recording() { Tape::current().clear(); }
};

bool all_finite(const Gradients<double>& gradients, const Shape& shape) {
  for (const auto& field : fields_of(gradients)) {
    const double* data = gradients.*(field.member);
    if (data &&
        !std::all_of(data, data + mlstm::size_of(field.tensor, shape), [](double x) { return std::isfinite(x); }))
      return false;
  }
  return true;
}

}  // namespace

bool evaluate_head_autograd(const HeadProblem& problem, const Inputs<double>& inputs,
                            const HeadRequest<double>& request) {
  HeadRequest<double> outputs_only;
  outputs_only.outputs = request.outputs;
  outputs_only.intermediates = request.intermediates;
  if (!hot::evaluate_head(problem, inputs, outputs_only)) return false;
  if (!any_wanted(request.exact) && !any_wanted(request.detached)) return true;

  const Shape shape{1, 1, problem.S, problem.DHQK, problem.DHV};
  const Recording recording;
  Frozen<Var> frozen;
  {
    const Leaves leaves(shape, inputs);
    const Forward<Var> fw = forward(Head<Var>(problem, leaves.inputs));
    if (any_wanted(request.exact)) leaves.read(pull_back(fw, request.cotangents), request.exact);
    const auto constant = [](const Var& x) { return Var(x.value()); };
    frozen = {fw.m.unaryExpr(constant), fw.inverse_d.unaryExpr(constant)};
  }
  if (any_wanted(request.detached)) {
    Tape::current().clear();
    const Leaves leaves(shape, inputs);
    const Forward<Var> fw = forward(Head<Var>(problem, leaves.inputs), &frozen);
    leaves.read(pull_back(fw, request.cotangents), request.detached);
  }
  return all_finite(request.exact, shape) && all_finite(request.detached, shape);
}

}  // namespace mlstm::reference
