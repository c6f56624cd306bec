// SPDX-License-Identifier: Apache-2.0
// The gradient of a kernel against differences of its own outputs.
//
// For a direction u in one input x, w the cotangents and F the forward pass,
//
//     D(t) = (<w, F(x + t u)> - <w, F(x - t u)>) / 2t  ->  <w, J u> = <J^T w, u>
//
// and J^T w is what the backward pass returns. The right-hand side needs no reference, so this sees a forward and a
// backward pass that disagree, whatever they compute. How far D(t) and <J^T w, u> of an honest kernel may be apart:
//
//     noise       sum |w| (b(x + t u) + b(x - t u)) / 2t, b the bounds of the outputs: the rounding errors of F
//     truncation  D(t) = <w, J u> + a + b + O(t^6), a ~ t^2, b ~ t^4. So D(2t) - D(t) = 3a + 15b and
//                 (D(4t) - D(2t)) / 4 = 3a + 60b, of which the larger is never below 1.95 |a + b|. It is taken whole.
//                 Noise may hide a part of it: a third of the noise in the difference is added.
//     backward    sum |u| b', b' the bounds of the gradient
//
// Inputs are made multiples of a power of two, and u has steps of 1/4, so that x +- t u are exact in the dtype; sums
// over elements are long double. So nothing else enters.
//
// t balances noise, which falls with t, and truncation, which grows: of the steps of a ladder the one is taken for
// which the reference expects the smallest part of <w, J u> to be allowed.
//
// F has kinks, where |n.q| crosses its floor or the arg max of m changes. Rows of h (and last states) in which one of
// the points x +- t u, x +- 2t u, x +- 4t u is on another branch get no cotangent, and heads in which branches are
// closer than rounding errors (open_rows) get none at all.
//
// In the detached convention only dv and dc_initial are derivatives of F, in which it is linear.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "base/random.hpp"
#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

/// Steps t from the first to the last, each twice the one before; inputs are multiples of the grid.
struct Ladder {
  double first, last, grid;
};
Ladder ladder_of(DType dtype) {
  return dtype == DType::float64 ? Ladder{0x1p-15, 0x1p-10, 0x1p-20} : Ladder{0x1p-7, 0x1p-2, 0x1p-10};
}

/// Which piece of F a row is on.
struct Branch {
  std::int64_t arg_max = 0;  ///< step that defines m_t, -1: the initial state
  int denominator = 0;       ///< 0: the floor, else the sign of n.q
  bool operator==(const Branch&) const = default;
};

double log_sigmoid(double x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }

/// The reference at one point.
struct Truth {
  TensorMap outputs;
  std::vector<Branch> branches;  ///< (B, NH, S)
};

std::vector<Branch> branches_of(const Case& c, const std::vector<double>& m, const std::vector<double>& l) {
  const Problem& problem = c.problem;
  const auto S = static_cast<std::size_t>(problem.shape.S);
  const Array &i = c.inputs.at("i"), &f = c.inputs.at("f");
  std::vector<Branch> branches(m.size());
  for (std::size_t row = 0; row < branches.size(); ++row) {
    Branch& branch = branches[row];
    const double floor = problem.has_m() ? std::exp(-m[row]) : 1;
    if (problem.normalized() && std::abs(l[row]) >= floor) branch.denominator = l[row] < 0 ? -1 : 1;
    if (!problem.has_m()) continue;
    const std::size_t t = row % S;
    const double start = problem.has_initial_state                         ? c.inputs.at("m_initial").data()[row / S]
                         : problem.stabilizer_init == StabilizerInit::zero ? 0.0
                                                                           : -std::numeric_limits<double>::infinity();
    const bool newest = i.data()[row] >= log_sigmoid(f.data()[row]) + (t == 0 ? start : m[row - 1]);
    branch.arg_max = newest ? static_cast<std::int64_t>(t) : t == 0 ? -1 : branches[row - 1].arg_max;
  }
  return branches;
}

Truth truth_at(const Case& c) {
  const auto rows = static_cast<std::size_t>(size_of("i", c.problem.shape));
  std::vector<double> m(rows), l(rows);
  Truth truth;
  const auto room = [&](const std::string& name) {
    const auto shape = shape_of(name, c.problem.shape);
    return (truth.outputs[name] = Array::from_shape({shape.begin(), shape.end()})).data();
  };
  reference::Request request;
  request.outputs = {.h = room("h"), .c_last = room("c_last"), .n_last = room("n_last")};
  if (c.problem.has_m()) request.outputs.m_last = room("m_last");
  request.intermediates.m = m.data();
  request.intermediates.l = l.data();
  reference::Options options;
  options.threads = 1;
  reference::evaluate(c.problem, inputs_of(c.inputs), request, options);
  truth.branches = branches_of(c, m, l);
  return truth;
}

/// Random multiples of 1/4 up to 1, with the signs of the gradient, so that <gradient, u> does not cancel.
Array direction_along(const Array& gradient, const RandomStream& random) {
  Array u = gradient;
  for (std::size_t n = 0; n < u.size(); ++n)
    u.data()[n] = (gradient.data()[n] < 0 ? -0.25 : 0.25) *
                  static_cast<double>(random.integer(1, 4, {0, static_cast<std::int64_t>(n), 0}));
  return u;
}

Case base_case(const PropertyCheck& check) {
  Case c = make_case(check.spec());
  const double grid = ladder_of(c.problem.dtype).grid;
  for (auto& [name, values] : c.inputs)
    for (double& value : values) value = std::round(value / grid) * grid;
  if (!check.kernel().info().last_states)
    std::erase_if(c.cotangents, [](const auto& cotangent) { return cotangent.first != "h"; });
  return c;
}

Case moved(const Case& base, const std::string& input, const Array& by) {
  Case point = base;
  point.inputs.at(input) += by;
  point.cotangents.clear();
  return point;
}

/// sum a b
long double inner(const Array& a, const Array& b) {
  long double sum = 0;
  for (std::size_t n = 0; n < a.size(); ++n)
    sum += static_cast<long double>(a.data()[n]) * static_cast<long double>(b.data()[n]);
  return sum;
}

/// (<w, above> - <w, below>) / 2t
double central_difference(const TensorMap& below, const TensorMap& above, const TensorMap& w, double t) {
  long double change = 0;
  for (const auto& [name, cotangent] : w) change += inner(cotangent, above.at(name)) - inner(cotangent, below.at(name));
  return static_cast<double>(change / (2 * t));
}

/// sum over all outputs of |w| times their bounds
double rounding_of(const TensorMap& bounds, const TensorMap& w) {
  double sum = 0;
  for (const auto& [name, cotangent] : w)
    for (std::size_t n = 0; n < cotangent.size(); ++n)
      if (cotangent.data()[n] != 0) sum += std::abs(cotangent.data()[n]) * bounds.at(name).data()[n];
  return sum;
}

/// The steps of which differences are taken, over t.
constexpr std::array<double, 3> kFactors{1, 2, 4};

struct Difference {
  double value, noise;
};

/// How far the difference with the smallest step may be from the derivative: its noise and its truncation.
double allowance(const std::array<Difference, kFactors.size()>& d) {
  const double near = std::abs(d[1].value - d[0].value), far = std::abs(d[2].value - d[1].value) / 4;
  return d[0].noise + std::max(near, far) + (d[0].noise + d[1].noise) / 3;
}

/// What differences with step t see.
struct Step {
  double t = 0, expected = 0, allowed = std::numeric_limits<double>::infinity();
  TensorMap cotangents;    ///< w: those of the problem, but 0 near kinks
  std::size_t smooth = 0;  ///< rows that have a cotangent
  /// What is allowed of <w, J u>, more where less is looked at.
  double blur() const { return allowed / std::abs(expected) / static_cast<double>(smooth); }
};

/// Rows that are at no kink, as differences between these points see it.
std::vector<bool> smooth_rows(const Truth& base, const std::vector<const Truth*>& points, const Array& open_rows) {
  std::vector<bool> smooth(base.branches.size(), true);
  const std::size_t S = smooth.size() / open_rows.size();
  for (std::size_t row = 0; row < smooth.size(); ++row) {
    if (open_rows.data()[row / S] > 0) smooth[row] = false;
    for (const Truth* point : points)
      if (point->branches[row] != base.branches[row]) smooth[row] = false;
  }
  return smooth;
}

/// A direction in one input of a case; the base's bounds tell open rows and the size of rounding errors.
class Direction {
 public:
  Direction(const Case& base, const Truth& truth, const Solved& solved, std::string name, Array along)
      : input(std::move(name)), u(std::move(along)), base_(base), truth_(truth), solved_(solved) {}

  Case point(double by) const { return moved(base_, input, by * u); }

  Step best_step() {
    const Ladder ladder = ladder_of(base_.problem.dtype);
    Step best;
    for (double t = ladder.first; t <= ladder.last; t *= 2)
      if (const Step step = step_of(t); best.t == 0 || step.blur() < best.blur()) best = step;
    return best;
  }

  const std::string input;
  const Array u;

 private:
  const Truth& at(double by) {
    const auto known = truths_.find(by);
    return known != truths_.end() ? known->second : truths_.emplace(by, truth_at(point(by))).first->second;
  }

  Step step_of(double t) {
    const Problem& problem = base_.problem;
    const auto S = static_cast<std::size_t>(problem.shape.S);
    std::vector<const Truth*> points;
    for (const double factor : kFactors)
      for (const double sign : {-1, 1}) points.push_back(&at(sign * factor * t));
    const std::vector<bool> smooth = smooth_rows(
        truth_, points, solved_.bounds.at(std::string(to_string(*solved_.c.kernel->convention)) + "/open_rows"));
    Step step;
    step.t = t;
    step.smooth = static_cast<std::size_t>(std::count(smooth.begin(), smooth.end(), true));
    step.cotangents = base_.cotangents;
    for (auto& [name, values] : step.cotangents) {
      const std::size_t width = name == "h" ? elements_per_step(name, problem) : elements_per_head(name, problem);
      for (std::size_t n = 0; n < values.size(); ++n)
        if (!smooth[name == "h" ? n / width : (n / width + 1) * S - 1]) values.data()[n] = 0;
    }
    std::array<Difference, kFactors.size()> differences;
    const double rounding = rounding_of(solved_.bounds, step.cotangents);
    for (std::size_t n = 0; n < kFactors.size(); ++n)
      differences[n] = {
          central_difference(points[2 * n]->outputs, points[2 * n + 1]->outputs, step.cotangents, kFactors[n] * t),
          rounding / (kFactors[n] * t)};
    step.expected = differences[0].value;
    step.allowed = allowance(differences);
    return step;
  }

  const Case& base_;
  const Truth& truth_;
  const Solved& solved_;
  std::map<double, Truth> truths_;
};

bool is_linear_input(std::string_view name) { return name == "v" || name == "c_initial"; }

}  // namespace

std::string dot_product_refusal(const Kernel& kernel, const ProblemSpec& spec) {
  if (kernel.info().gradient_conventions.empty()) return "it has no backward pass";
  if (is_16_bit(spec.problem.dtype)) return "16 bits are too few for differences";
  if (!spec.cotangents) return "the problem has no cotangents";
  return unsupported_reason(kernel, spec);
}

void check_dot_product(PropertyCheck& check) {
  const auto& conventions = check.conventions();
  if (conventions.empty()) return;
  const bool exact = std::find(conventions.begin(), conventions.end(), Convention::exact) != conventions.end();
  const Case base = base_case(check);
  check.compares(base);
  const Truth truth = truth_at(base);
  const Solved solved = check.solve(base, exact ? Convention::exact : Convention::detached);
  const std::size_t rows = truth.branches.size();
  for (const std::string& input : input_names(base.problem)) {
    if (!exact && !is_linear_input(input)) continue;
    const Array& guide = (exact ? solved.reference.exact : solved.reference.detached).at(input);
    Direction direction(base, truth, solved, input,
                        direction_along(guide, RandomStream(check.spec().seed, "direction in " + input)));
    const Step step = direction.best_step();
    std::array<Difference, kFactors.size()> differences;
    for (std::size_t n = 0; n < kFactors.size(); ++n) {
      const double t = kFactors[n] * step.t;
      const Solved below = check.solve(direction.point(-t), {}), above = check.solve(direction.point(t), {});
      differences[n] = {
          central_difference(below.c.kernel->outputs, above.c.kernel->outputs, step.cotangents, t),
          (rounding_of(below.bounds, step.cotangents) + rounding_of(above.bounds, step.cotangents)) / (2 * t)};
    }
    const double derivative = differences[0].value;
    for (const Convention convention : conventions) {
      if (convention == Convention::detached && !is_linear_input(input)) continue;
      Case smooth = base;
      smooth.cotangents = step.cotangents;
      const Solved backward = check.solve(smooth, convention);
      const ResultName name{input, convention};
      const auto rounding = static_cast<double>(inner(xt::abs(direction.u), backward.bound(name)));
      const auto product = static_cast<double>(inner(direction.u, backward.value(name)));
      const double allowed = allowance(differences) + rounding;
      check.compare(name, kNoIndex, product, derivative, allowed, "<gradient, direction> against differences");
      if (const DType operand = precision_of(backward.c).operand; operand != base.problem.dtype)
        check.cannot_see(name, fmt::format("differences of outputs whose products read {} are too coarse to see it",
                                           to_string(operand)));
      check.remark(name,
                   fmt::format("sees errors from {:.2g} % of {:.3g} on; t = {:.2g}, {} of {} rows away from kinks",
                               100 * allowed / std::abs(derivative), derivative, step.t, step.smooth, rows));
    }
  }
}

}  // namespace mlstm::verify
