// SPDX-License-Identifier: Apache-2.0
// The stage that goes wrong first. Nothing of a kernel is looked into: it is run on parts of the problem, whose last
// states (forward) and gradients of given states (backward) are what passes from one stage to the next.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "sweep/probe.hpp"
#include "sweep/stages.hpp"

namespace mlstm::verify {
namespace {

class Prober {
 public:
  Prober(const Kernel& kernel, const Case& c, std::optional<Convention> convention, const RunFunction& runner,
         std::int64_t most_runs)
      : kernel_(kernel), case_(c), convention_(convention), runner_(runner), left_(most_runs) {}

  const Case& whole() const { return case_; }
  std::int64_t runs() const { return runs_; }
  bool has_runs_left() const { return left_ > 0; }

  /// The run on the first `length` steps; null if the kernel does not take that, or no runs are left.
  const Probe* prefix(std::int64_t length) {
    return remembered(
        prefixes_, length, [&] { return std::optional(prefix_of(case_, length)); }, std::nullopt);
  }
  /// The run on the steps from `first` on, backward too.
  const Probe* suffix(std::int64_t first) {
    return remembered(
        suffixes_, first, [&] { return suffix_of(case_, first); }, convention_);
  }
  const std::map<std::int64_t, std::optional<Probe>>& prefixes() const { return prefixes_; }

 private:
  template <class Make>
  const Probe* remembered(std::map<std::int64_t, std::optional<Probe>>& probes, std::int64_t key, const Make& make,
                          std::optional<Convention> convention) {
    auto found = probes.find(key);
    if (found == probes.end()) {
      if (left_ == 0) return nullptr;
      std::optional<Probe> result;
      if (const std::optional<Case> part = make(); part && kernel_.unsupported(part->problem).empty()) {
        --left_;
        ++runs_;
        result = probe(kernel_, *part, convention, runner_);
      }
      found = probes.emplace(key, std::move(result)).first;
    }
    return found->second ? &*found->second : nullptr;
  }

  const Kernel& kernel_;
  const Case& case_;
  std::optional<Convention> convention_;
  const RunFunction& runner_;
  std::int64_t left_, runs_ = 0;
  std::map<std::int64_t, std::optional<Probe>> prefixes_, suffixes_;
};

bool is_chunked(const Kernel& kernel, const Problem& problem) {
  return kernel.info().module == Module::chunkwise && problem.chunk_size > 0 && problem.chunk_size < problem.shape.S;
}

std::string step_name(const Kernel& kernel, const Problem& problem, std::int64_t t) {
  if (!is_chunked(kernel, problem)) return fmt::format("t = {}", t);
  return fmt::format("t = {} (chunk {}, step {} of it)", t, t / problem.chunk_size, t % problem.chunk_size);
}

std::string heads_name(const Shape& shape, const std::vector<std::int64_t>& heads) {
  if (shape.heads() == 1 || heads.empty()) return "";
  if (static_cast<std::int64_t>(heads.size()) == shape.heads()) return ", in every head";
  std::vector<std::string> names;
  for (std::size_t n = 0; n < heads.size() && n < 4; ++n)
    names.push_back(fmt::format("[{}, {}]", heads[n] / shape.NH, heads[n] % shape.NH));
  return fmt::format(", in head{} {}{}", heads.size() > 1 ? "s" : "", fmt::join(names, ", "),
                     heads.size() > 4 ? fmt::format(" and {} more", heads.size() - 4) : "");
}

/// Lengths at which to look for a first failure before bisecting: everything, around the first wrong row, and the ends
/// of up to eight chunks, because a state that is wrong may be forgotten later.
std::vector<std::int64_t> first_lengths(const Problem& problem, std::optional<std::int64_t> first_wrong_row) {
  const std::int64_t S = problem.shape.S;
  std::vector<std::int64_t> lengths{S};
  if (first_wrong_row) {
    lengths.push_back(*first_wrong_row + 1);
    if (*first_wrong_row > 0) lengths.push_back(*first_wrong_row);
  }
  const std::int64_t L =
      problem.chunk_size > 0 && problem.chunk_size < S ? problem.chunk_size : std::max<std::int64_t>(1, S / 8);
  const std::int64_t stride = std::max<std::int64_t>(1, (S / L + 7) / 8) * L;
  for (std::int64_t length = stride; length < S; length += stride) lengths.push_back(length);
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

/// The shortest length at which `wrong`, next to a length at which not: by bisection below the first probed one that
/// is. 0 if none is.
template <class Wrong>
std::int64_t shortest(Prober& prober, const Wrong& wrong) {
  std::int64_t right = 0, bad = 0;
  for (const auto& [length, result] : prober.prefixes()) {
    if (!result) continue;
    if (wrong(*result)) {
      bad = length;
      break;
    }
    right = length;
  }
  if (bad == 0) return 0;
  for (std::int64_t end = bad; end - right > 1 && prober.has_runs_left();) {
    const std::int64_t middle = right + (end - right) / 2;
    // Lengths that the kernel does not take are passed over.
    std::int64_t length = middle;
    const Probe* result = prober.prefix(length);
    while (result == nullptr && length + 1 < end) result = prober.prefix(++length);
    if (result == nullptr) {
      end = middle;
    } else if (wrong(*result)) {
      bad = end = length;
    } else {
      right = length;
    }
  }
  return bad;
}

/// How C and n of step t of one head follow from those of step t - 1 in the kernel itself: the best F and I of
/// C_t = F C_{t-1} + I k_t v_t^T, n_t = F n_{t-1} + I k_t, beside what the gates and the kernel's own m give.
std::string fit_gates(const Case& c, const KernelData& before, const KernelData& now, std::int64_t t,
                      std::int64_t head) {
  const Problem& problem = c.problem;
  const Shape& s = problem.shape;
  const auto at = [&](const KernelData& data, const char* name) {
    const Array& array = data.outputs.at(name);
    return array.data() + head * (static_cast<std::int64_t>(array.size()) / s.heads());
  };
  const auto row = [&](const char* name, std::int64_t columns) {
    return c.inputs.at(name).data() + (head * s.S + t) * columns;
  };
  const double *k = row("k", s.DHQK), *v = row("v", s.DHV), i = *row("i", 1), f = *row("f", 1);
  double pp = 0, pn = 0, nn = 0, py = 0, ny = 0, yy = 0;
  const auto add = [&](double past, double fresh, double result) {
    pp += past * past, pn += past * fresh, nn += fresh * fresh;
    py += past * result, ny += fresh * result, yy += result * result;
  };
  for (std::int64_t a = 0; a < s.DHQK; ++a) {
    add(at(before, "n_last")[a], k[a], at(now, "n_last")[a]);
    for (std::int64_t b = 0; b < s.DHV; ++b)
      add(at(before, "c_last")[a * s.DHV + b], k[a] * v[b], at(now, "c_last")[a * s.DHV + b]);
  }
  const double determinant = pp * nn - pn * pn;
  if (!(determinant > 1e-6 * pp * nn)) return "";
  const double F = (py * nn - ny * pn) / determinant, I = (ny * pp - py * pn) / determinant;
  const double log_forget = -(std::max(-f, 0.0) + std::log1p(std::exp(-std::abs(f))));
  double expected_F = std::exp(log_forget), expected_I = 1 / (1 + std::exp(-i));
  if (problem.has_m()) {
    const double m_before = *at(before, "m_last"), m_now = *at(now, "m_last");
    expected_F = std::exp(log_forget + m_before - m_now);
    expected_I = std::exp(i - m_now);
  }
  // What is left of C and n has to be little beside both what they are and what the right factors would leave.
  const auto left_by = [&](double by_F, double by_I) {
    return std::max(0.0, yy + by_F * by_F * pp + by_I * by_I * nn - 2 * (by_F * py + by_I * ny - by_F * by_I * pn));
  };
  if (!(left_by(F, I) < 1e-4 * std::min(yy, 100 * left_by(expected_F, expected_I)))) return "";
  // A factor is known no better than the larger of the two terms is.
  const double tolerance = std::max(1e-3, 8 * unit_roundoff(problem.dtype));
  const double past = std::sqrt(pp), fresh = std::sqrt(nn),
               error = tolerance * std::max({std::abs(F) * past, std::abs(I) * fresh});
  const bool forget = std::abs(F - expected_F) > std::max(tolerance * std::max(1.0, expected_F), error / past),
             input = std::abs(I - expected_I) > std::max(tolerance * std::max(1.0, expected_I), error / fresh);
  if (!forget && !input) return "";
  const bool is_lost = !input && std::abs(F) <= 0.01 * expected_F;
  return fmt::format(
      "gates: there C and n are {:.4g} times those before plus {:.4g} times the new key; the gates give {:.4g} and "
      "{:.4g}: the {}",
      F, I, expected_F, expected_I,
      is_lost           ? "state before is lost"
      : forget && input ? "factors of forget and input gate are wrong"
      : forget          ? "factor of the forget gate is wrong"
                        : "factor of the input gate is wrong");
}

void find_forward(const Kernel& kernel, Prober& prober, Stages& stages) {
  const Case& c = prober.whole();
  const Problem& problem = c.problem;
  const std::int64_t S = problem.shape.S;
  const Probe* all = prober.prefix(S);
  if (all == nullptr) return;
  if (!all->stopped.empty()) {
    const auto stops = [](const Probe& result) { return !result.stopped.empty(); };
    for (const std::int64_t length : first_lengths(problem, {})) prober.prefix(length);
    const std::int64_t length = shortest(prober, stops);
    stages.text = fmt::format("forward pass: stops on the first {} of {} steps{}: {}\n", length, S,
                              length > 1 ? ", not on fewer" : "", prober.prefix(length)->stopped);
    return;
  }
  if (all->all_right()) return;
  std::optional<std::int64_t> first_row;
  if (all->wrong("h")) first_row = all->tensors.at("h").rows.front();
  for (const std::int64_t length : first_lengths(problem, first_row)) prober.prefix(length);

  const auto wrong_in = [](const std::string& tensor) {
    return [tensor](const Probe& result) { return result.wrong(tensor); };
  };
  std::vector<std::string> right;
  for (const auto& [name, tensor] :
       {std::pair{"m", "m_last"}, std::pair{"n", "n_last"}, std::pair{"C", "c_last"}, std::pair{"h", "h"}}) {
    if (!all->tensors.contains(tensor)) continue;
    Stage stage{name, {}, {}};
    if (const std::int64_t length = shortest(prober, wrong_in(tensor)); length > 0) {
      const Location& where = prober.prefix(length)->tensors.at(tensor);
      // h of a short problem may be wrong before its last step.
      stage.at = tensor == std::string("h") ? where.rows.front() : length - 1;
      stage.heads = where.heads;
    }
    stages.forward.push_back(stage);
  }
  const auto any_wrong = [](const Probe& result) { return !result.all_right(); };
  const std::int64_t shortest_wrong = shortest(prober, any_wrong);
  if (!all->tensors.contains("c_last")) stages.why_not = "the variant returns no states, so only h can be followed";

  std::vector<const Stage*> wrong;
  for (const Stage& stage : stages.forward) stage.at ? wrong.push_back(&stage) : right.push_back(stage.name);
  std::stable_sort(wrong.begin(), wrong.end(), [](const Stage* a, const Stage* b) { return *a->at < *b->at; });
  const Stage& first = *wrong.front();
  std::string text = fmt::format("forward pass: {} is wrong first, at {}{}", first.name,
                                 step_name(kernel, problem, *first.at), heads_name(problem.shape, first.heads));
  for (std::size_t n = 1; n < wrong.size(); ++n)
    text += fmt::format("{}{} at t = {}", n == 1 ? "; then " : ", ", wrong[n]->name, *wrong[n]->at);
  if (!right.empty()) text += fmt::format("; right at every probed length: {}", fmt::join(right, ", "));
  text += "\n";
  if (first_row && *first_row + 1 < shortest_wrong)
    text += fmt::format(
        "the mistake depends on the number of steps: {} steps alone are wrong, {} are not, though t = {} is among "
        "them\n",
        shortest_wrong, shortest_wrong - 1, *first_row);
  const std::int64_t t = *first.at;
  const bool state_too = std::any_of(wrong.begin(), wrong.end(), [&](const Stage* stage) {
    return (stage->name == "n" || stage->name == "C") && *stage->at == t;
  });
  if (t > 0 && state_too) {
    const Probe *before = prober.prefix(t), *now = prober.prefix(t + 1);
    if (before != nullptr && now != nullptr && before->stopped.empty() && now->stopped.empty())
      if (const std::string gates = fit_gates(c, before->data, now->data, t, first.heads.front()); !gates.empty())
        text += gates + "\n";
  }
  stages.text = text;
}

/// Where suffixes may start: for a variant that works in chunks at their boundaries, so that chunks stay what they are.
std::int64_t start_at_or_after(const Kernel& kernel, const Problem& problem, std::int64_t t) {
  if (!is_chunked(kernel, problem)) return t;
  return (t + problem.chunk_size - 1) / problem.chunk_size * problem.chunk_size;
}

void find_backward(const Kernel& kernel, Prober& prober, const Probe& whole, Stages& stages) {
  const Problem& problem = prober.whole().problem;
  const std::int64_t S = problem.shape.S;
  const std::int64_t unit = is_chunked(kernel, problem) ? problem.chunk_size : 1;
  std::int64_t last_row = -1;
  std::vector<std::string> right;
  std::vector<Stage> wrong;
  for (const std::string name : {"dv", "dk", "dq", "di", "df"}) {
    const auto found = whole.tensors.find(name);
    if (found == whole.tensors.end()) continue;
    Stage stage{name, {}, {}};
    if (found->second.failing > 0) {
      stage.at = found->second.rows.back();
      stage.heads = found->second.heads;
      last_row = std::max(last_row, *stage.at);
    }
    stage.at ? wrong.push_back(stage) : right.push_back(name);
    stages.backward.push_back(stage);
  }
  std::stable_sort(wrong.begin(), wrong.end(), [](const Stage& a, const Stage& b) { return *a.at > *b.at; });

  // dC and dn at the latest start at which they are wrong.
  const auto state_wrong = [&](std::int64_t first) {
    const Probe* result = first < S ? prober.suffix(first) : nullptr;
    return result != nullptr && (result->wrong("dc_initial") || result->wrong("dn_initial"));
  };
  Stage state{"dC and dn", {}, {}};
  std::string state_text;
  std::vector<std::int64_t> probed;
  if (!kernel.info().initial_states) {
    stages.why_not = "the variant takes no states, so dC and dn cannot be followed";
  } else {
    const std::int64_t above = last_row < 0 ? 0 : start_at_or_after(kernel, problem, last_row + 1);
    std::int64_t bad = -1;
    if (state_wrong(above)) {
      bad = above;
    } else if (last_row >= 0) {
      const std::int64_t below = last_row / unit * unit;
      if (state_wrong(below)) bad = below;
    }
    if (bad >= 0) {
      std::int64_t good = start_at_or_after(kernel, problem, S);
      while (good - bad > unit && prober.has_runs_left()) {
        const std::int64_t middle = bad + (good - bad) / unit / 2 * unit;
        (state_wrong(middle) ? bad : good) = middle;
      }
      const Probe& result = *prober.suffix(bad);
      const bool dC = result.wrong("dc_initial"), dn = result.wrong("dn_initial");
      state.name = dC && dn ? "dC and dn" : dC ? "dC" : "dn";
      state.at = bad;
      state.heads = result.tensors.at(dC ? "dc_initial" : "dn_initial").heads;
    }
    stages.backward.insert(stages.backward.begin(), state);
  }
  if (wrong.empty() && !state.at) return;

  std::string text = "backward pass, from the last step down: ";
  const bool state_first = state.at && (wrong.empty() || *wrong.front().at < *state.at + unit);
  if (state_first)
    text += fmt::format("{} wrong first, at {} and not at {}{}", state.name + (state.name.size() > 2 ? " are" : " is"),
                        step_name(kernel, problem, *state.at),
                        *state.at + unit < S ? fmt::format("t = {}", *state.at + unit) : std::string("the end"),
                        heads_name(problem.shape, state.heads));
  for (std::size_t n = 0; n < wrong.size(); ++n) {
    const bool begins = n == 0 && !state_first;
    text += begins ? fmt::format("{} is wrong first, at {}{}", wrong[n].name, step_name(kernel, problem, *wrong[n].at),
                                 heads_name(problem.shape, wrong[n].heads))
                   : fmt::format("{}{} from t = {}", n == (state_first ? 0u : 1u) ? "; then " : ", ", wrong[n].name,
                                 *wrong[n].at);
  }
  if (!right.empty()) text += fmt::format("; right: {}", fmt::join(right, ", "));
  if (!state.at && kernel.info().initial_states && prober.runs() > 1) text += "; dC and dn are right where probed";
  text += "\n";
  // The same steps from the right state: if they are right then, what backward knows of the past is wrong.
  if (!state_first && !wrong.empty() && kernel.info().initial_states) {
    const std::int64_t first = *wrong.front().at / unit * unit;
    const Probe* result = first > 0 ? prober.suffix(first) : nullptr;
    if (result != nullptr && result->stopped.empty() && !result->wrong(wrong.front().name))
      text += fmt::format(
          "{} is right if the steps from t = {} on are run alone from the reference's state before them: either what "
          "the "
          "backward pass knows of C, n or m from before is wrong, or the mistake depends on the number of steps\n",
          wrong.front().name, first);
  }
  stages.text += text;
}

}  // namespace

Stages find_stages(const Kernel& kernel, const Case& c, std::optional<Convention> convention, const RunFunction& runner,
                   std::int64_t most_runs) {
  Stages stages;
  Prober prober(kernel, c, convention, runner, most_runs);
  find_forward(kernel, prober, stages);
  if (stages.text.empty() && convention && !c.cotangents.empty()) {
    const Probe whole = probe(kernel, c, convention, runner);
    if (whole.stopped.empty())
      find_backward(kernel, prober, whole, stages);
    else
      stages.text = "backward pass: stops: " + whole.stopped + "\n";
  }
  stages.runs = prober.runs();
  if (!prober.has_runs_left()) stages.why_not = fmt::format("{} runs were allowed", most_runs);
  return stages;
}

}  // namespace mlstm::verify
