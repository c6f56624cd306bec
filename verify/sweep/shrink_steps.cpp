// SPDX-License-Identifier: Apache-2.0
#include "sweep/shrink_steps.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace mlstm::verify {
namespace {

using Sizes = std::vector<std::int64_t>;
using Field = std::int64_t& (*)(ProblemSpec&);

std::int64_t& batch(ProblemSpec& spec) { return spec.problem.shape.B; }
std::int64_t& heads(ProblemSpec& spec) { return spec.problem.shape.NH; }
std::int64_t& steps(ProblemSpec& spec) { return spec.problem.shape.S; }
std::int64_t& dhqk(ProblemSpec& spec) { return spec.problem.shape.DHQK; }
std::int64_t& dhv(ProblemSpec& spec) { return spec.problem.shape.DHV; }
std::int64_t& chunk(ProblemSpec& spec) { return spec.problem.chunk_size; }

/// Whether gates are so far open that their gradients all but vanish.
bool is_saturated(const std::string& regime) {
  constexpr std::array kSaturated{"ones", "impulse", "integers", "remember"};
  return std::find(kSaturated.begin(), kSaturated.end(), regime) != kSaturated.end();
}

class Steps {
 public:
  Steps(const Kernel& kernel, const Failure& failure, const ShrinkTarget& target)
      : target_(target), chunkwise_(kernel.info().module == Module::chunkwise) {
    const auto is_output = [](const std::string& tensor) { return !tensor.starts_with('d'); };
    // A run that stopped may have stopped in the forward pass.
    needs_gradients_ =
        !failure.tensors.empty() && std::none_of(failure.tensors.begin(), failure.tensors.end(), is_output);
    const auto is_gate = [](const std::string& tensor) { return tensor == "di" || tensor == "df"; };
    needs_open_gates_ =
        !failure.tensors.empty() && std::all_of(failure.tensors.begin(), failure.tensors.end(), is_gate);
  }

  /// All changes once; whether one was accepted.
  bool round() {
    const ProblemSpec before = target_.current();
    switch_off();
    for (const Field field : {batch, heads}) shorten(field, {1, 2});
    shorten_dimensions();  // before the steps, which are cheaper with small dimensions
    shorten(steps, step_ladder());
    shorten_chunks();
    simplify_function();
    simplify_values();
    return !(target_.current() == before);
  }

 private:
  template <class Change>
  bool attempt(Change change) {
    ProblemSpec spec = target_.current();
    change(spec);
    return !(spec == target_.current()) && target_.accept(spec);
  }

  void switch_off() {
    if (!needs_gradients_) attempt([](ProblemSpec& spec) { spec.cotangents = spec.last_state_cotangents = false; });
    attempt([](ProblemSpec& spec) { spec.last_state_cotangents = false; });
    attempt([](ProblemSpec& spec) { spec.problem.has_initial_state = false; });
    if (!chunkwise_) attempt([](ProblemSpec& spec) { spec.problem.chunk_size = 0; });
  }

  ProblemSpec with(Field field, std::int64_t value) const {
    ProblemSpec spec = target_.current();
    field(spec) = value;
    return spec;
  }

  /// The values up to the current one that the variant takes, ascending.
  Sizes admitted(Field field) const {
    ProblemSpec now = target_.current();
    Sizes values;
    for (std::int64_t value = 1; value < field(now); ++value)
      if (target_.supported(with(field, value))) values.push_back(value);
    values.push_back(field(now));
    return values;
  }

  /// Tries the values of `ladder` in order, then bisects between the first that fails and the last that did not.
  void shorten(Field field, const Sizes& ladder) {
    const Sizes values = admitted(field);
    std::ptrdiff_t right = -1, wrong = std::ssize(values) - 1;  // positions in `values`
    for (const std::int64_t value : ladder) {
      const auto at = std::lower_bound(values.begin(), values.end(), value) - values.begin();
      if (at >= wrong || at <= right) continue;
      if (target_.accept(with(field, values[static_cast<std::size_t>(at)])))
        wrong = at;
      else
        right = at;
      if (wrong == at) break;
    }
    while (wrong - right > 1) {
      const std::ptrdiff_t middle = right + (wrong - right) / 2;
      (target_.accept(with(field, values[static_cast<std::size_t>(middle)])) ? wrong : right) = middle;
    }
  }

  /// One step, and around the ends of the first chunks.
  Sizes step_ladder() const {
    const std::int64_t L = target_.current().problem.chunk_size;
    Sizes ladder{1, 2, 3};
    if (chunkwise_)
      for (const std::int64_t value : {L - 1, L, L + 1, 2 * L, 2 * L + 1, 3 * L, 3 * L + 1})
        if (value > ladder.back()) ladder.push_back(value);
    return ladder;
  }

  void shorten_chunks() {
    if (!chunkwise_) return;
    // Smaller chunks, as many as before, the last one as ragged as before or not.
    for (std::int64_t L = 1; L < target_.current().problem.chunk_size; L = L < 8 ? L + 1 : 2 * L) {
      const ProblemSpec& now = target_.current();
      const std::int64_t old = now.problem.chunk_size, S = now.problem.shape.S;
      const std::int64_t whole = (S - 1) / old, tail = S - whole * old;  // chunks before the last, steps in it
      ProblemSpec spec = now;
      spec.problem.chunk_size = L;
      spec.problem.shape.S = whole * L + std::min(tail, L);
      if (target_.accept(spec)) break;
    }
    shorten(chunk, {1});
  }

  void shorten_dimensions() {
    // Square ones first: a mistake may need DHQK = DHV.
    const Sizes values = admitted(dhqk);
    for (const std::int64_t value : {values.front(), values.size() > 1 ? values[1] : values.front()}) {
      ProblemSpec spec = target_.current();
      if (value > spec.problem.shape.DHV) break;
      spec.problem.shape.DHQK = spec.problem.shape.DHV = value;
      if (spec == target_.current() || target_.accept(spec)) break;
    }
    shorten(dhqk, {values.front()});
    shorten(dhv, {1});
  }

  void simplify_function() {
    const auto rank = [](const Problem& p) { return p.gate == Gate::exp ? 2 : p.normalize ? 1 : 0; };
    for (int simpler = 0; simpler < rank(target_.current().problem); ++simpler)
      if (attempt([&](ProblemSpec& spec) {
            spec.problem.gate = Gate::sigmoid;
            spec.problem.normalize = simpler == 1;
          }))
        break;
    attempt([](ProblemSpec& spec) { spec.problem.stabilizer_init = StabilizerInit::zero; });
    for (const double eps : {0.0, 1.0, 1e-6}) {
      if (target_.current().problem.eps == eps) break;
      if (attempt([&](ProblemSpec& spec) { spec.problem.eps = eps; })) break;
    }
  }

  void simplify_values() {
    for (const std::string& regime : regimes_by_simplicity()) {
      if (regime == target_.current().regime) break;
      if (needs_open_gates_ && is_saturated(regime)) continue;
      if (attempt([&](ProblemSpec& spec) {
            spec.regime = regime;
            spec.seed = 0;
          }))
        break;
    }
    attempt([](ProblemSpec& spec) { spec.seed = 0; });
  }

  const ShrinkTarget& target_;
  bool chunkwise_, needs_gradients_;
  bool needs_open_gates_;  ///< gate gradients of saturated gates are right or wrong by 1e-18, which explains nothing
};

}  // namespace

void shrink_steps(const Kernel& kernel, const Failure& failure, const ShrinkTarget& target) {
  Steps steps_of(kernel, failure, target);
  while (steps_of.round()) {
  }
}

const std::vector<std::string>& regimes_by_simplicity() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> names;
    for (const Regime& regime : simple_regimes()) names.push_back(regime.name);
    for (const char* name : {"integers", "remember", "forget0", "forget3", "forget6", "positive", "repeated"})
      names.emplace_back(name);
    for (const Regime& regime : regimes())
      if (std::find(names.begin(), names.end(), regime.name) == names.end()) names.push_back(regime.name);
    return names;
  }();
  return all;
}

}  // namespace mlstm::verify
