// SPDX-License-Identifier: Apache-2.0
// Drawing the tensors of a problem. Free of xtensor, libm and contracted arithmetic: see random.hpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.hpp"
#include "mlstm/problem.hpp"

namespace mlstm::verify {

/// Row-major values by tensor name.
using Values = std::map<std::string, std::vector<double>, std::less<>>;

/// What to draw: a ProblemSpec without its arrays.
struct DrawRequest {
  std::string regime;
  Problem problem;
  std::uint64_t seed = 0;
  bool cotangents = true;
  bool last_state_cotangents = false;
};

/// A problem while it is being drawn. Values are rounded to their storage dtype as soon as they are final.
class Drawing {
 public:
  explicit Drawing(DrawRequest request);

  const Problem& problem() const { return request_.problem; }
  const Shape& shape() const { return request_.problem.shape; }
  Values& inputs() { return inputs_; }
  Values& cotangents() { return cotangents_; }

  /// The stream of this seed and regime with that name.
  RandomStream stream(std::string_view name) const;
  /// Storage of an input, created on first use.
  std::vector<double>& input(std::string_view name);
  /// One row of an input or cotangent: the values of (head, t) of q, k, v, i, f, h, of c(head, row), of n or m(head).
  double* row(std::vector<double>& values, std::string_view name, std::int64_t head, std::int64_t t) const;
  /// Rounds to what `name` is stored in.
  void round(std::vector<double>& values, std::string_view name) const;

 private:
  DrawRequest request_;
  Values inputs_, cotangents_;
};

/// Normal with this mean and standard deviation.
struct GateLaw {
  double mean = 0, deviation = 1;
};

/// How a regime draws. Everything starts as independent normal numbers; `structure` then changes what it wants.
struct Recipe {
  std::string name, description;
  GateLaw i, f;
  /// Called with unrounded inputs and cotangents.
  void (*structure)(Drawing&) = nullptr;
  /// Called when all but q is rounded: q that depends on the exact numerators of the others.
  void (*steer_q)(Drawing&) = nullptr;
};

/// All regimes of the suites in their fixed order.
const std::vector<Recipe>& recipes();

/// Regimes of values that a person can follow, simplest first; in no suite (problems_simple.cpp).
const std::vector<Recipe>& simple_recipes();

/// Moves q along n where |n.q| is below an eighth of its usual size and above the floor. Exact gradients grow with the
/// inverse square of the denominator, and would leave the range of float16 in such rows.
void keep_denominators_wide(Drawing& drawing);

/// Inputs and cotangents (keyed by the output's name) of the request. Throws std::invalid_argument for an unknown
/// regime.
struct Drawn {
  Values inputs, cotangents;
};
Drawn draw(const DrawRequest& request);

}  // namespace mlstm::verify
