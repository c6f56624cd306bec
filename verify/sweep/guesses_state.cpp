// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <xtensor/xview.hpp>

#include "sweep/guesses.hpp"

namespace mlstm::verify {
namespace {

constexpr double kNothingForgotten = 40;  // a forget gate, in float64

/// How a recurrence departs from the function (contract §2).
struct Departure {
  double (*log_forget)(double f) = nullptr;  ///< absent: log(sigmoid(f))
  bool keeps_state = false;                  ///< a head begins with the last state of the head before
  bool late = false;                         ///< h reads the state before its own step
  bool sees_next = false;                    ///< h sees the key of the next step (of its chunk)
  bool decays_input = false;                 ///< a step's own forget gate acts on its key
  /// Not cleared by a forget gate of nearly 0.
  bool keeps_C = false, keeps_n = false, keeps_m = false;
};

constexpr double kReset = -20;  // log(sigmoid(f)) of a step that begins a new document, or below

double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

/// h and last states of that recurrence, step by step.
ReferenceData recurrence(const Case& c, const Departure& departure) {
  const Problem& p = c.problem;
  const Shape& s = p.shape;
  const auto read = [&](const char* name) { return c.inputs.at(name).data(); };
  const double *q = read("q"), *k = read("k"), *v = read("v"), *i = read("i"), *f = read("f");
  ReferenceData result;
  const auto make = [&](const std::string& name) {
    const auto extents = shape_of(name, s);
    return (result.outputs[name] = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()))).data();
  };
  double *h = make("h"), *c_last = make("c_last"), *n_last = make("n_last");
  double* const m_last = p.has_m() ? make("m_last") : nullptr;
  const double scale = 1 / std::sqrt(static_cast<double>(s.DHQK));
  const double m_start = p.stabilizer_init == StabilizerInit::zero ? 0.0 : -std::numeric_limits<double>::infinity();
  std::vector<double> C(static_cast<std::size_t>(s.DHQK * s.DHV)), n(static_cast<std::size_t>(s.DHQK)),
      numerator(static_cast<std::size_t>(s.DHV));
  const bool chunked = formulation_of(*c.kernel) == Module::chunkwise && p.chunk_size < s.S;
  const std::int64_t L = chunked ? p.chunk_size : 0;
  double m = 0;
  for (std::int64_t head = 0; head < s.heads(); ++head) {
    if (head == 0 || !departure.keeps_state) {
      std::fill(C.begin(), C.end(), 0.0);
      std::fill(n.begin(), n.end(), 0.0);
      m = m_start;
      if (p.has_initial_state) {
        std::copy_n(read("c_initial") + head * s.DHQK * s.DHV, C.size(), C.begin());
        std::copy_n(read("n_initial") + head * s.DHQK, n.size(), n.begin());
        if (p.has_m()) m = read("m_initial")[head];
      }
    }
    for (std::int64_t t = head * s.S; t < (head + 1) * s.S; ++t) {
      const double forget = departure.log_forget != nullptr ? departure.log_forget(f[t]) : log_sigmoid(f[t]);
      const bool resets = forget < kReset, sees_next = departure.sees_next && t + 1 < (head + 1) * s.S &&
                                                       (L == 0 || (t + 1 - head * s.S) % L != 0);
      const double own = departure.decays_input ? forget : 0;
      double F = std::exp(forget), I = std::exp(log_sigmoid(i[t]) + own);
      double next = sees_next ? std::exp(log_sigmoid(i[t + 1])) : 0;
      if (p.has_m()) {
        const double now = std::max((departure.keeps_m && resets ? 0 : forget) + m, i[t]);
        F = std::exp(forget + m - now), I = std::exp(i[t] + own - now);
        if (sees_next) next = std::exp(i[t + 1] - now);
        m = now;
      }
      const double F_C = departure.keeps_C && resets ? 1 : F, F_n = departure.keeps_n && resets ? 1 : F;
      double l = 0;
      std::fill(numerator.begin(), numerator.end(), 0.0);
      for (std::int64_t a = 0; a < s.DHQK; ++a) {
        const auto row = static_cast<std::size_t>(a);
        const double key = I * k[t * s.DHQK + a], query = scale * q[t * s.DHQK + a],
                     seen = sees_next ? next * k[(t + 1) * s.DHQK + a] : 0;
        const double n_before = n[row];
        n[row] = F_n * n[row] + key;
        l += query * (departure.late ? n_before : n[row] + seen);
        for (std::int64_t b = 0; b < s.DHV; ++b) {
          double& state = C[static_cast<std::size_t>(a * s.DHV + b)];
          const double before = state;
          state = F_C * state + key * v[t * s.DHV + b];
          numerator[static_cast<std::size_t>(b)] += query * (departure.late ? before
                                                             : sees_next    ? state + seen * v[(t + 1) * s.DHV + b]
                                                                            : state);
        }
      }
      const double d = !p.normalized() ? 1 : std::max(std::abs(l), p.has_m() ? std::exp(-m) : 1.0) + p.eps;
      for (std::int64_t b = 0; b < s.DHV; ++b) h[t * s.DHV + b] = numerator[static_cast<std::size_t>(b)] / d;
    }
    std::copy(C.begin(), C.end(), c_last + head * s.DHQK * s.DHV);
    std::copy(n.begin(), n.end(), n_last + head * s.DHQK);
    if (m_last != nullptr) m_last[head] = m;
  }
  return result;
}

/// Outputs alone.
Guess outputs_of(Guess guess) {
  return [guess = std::move(guess)] {
    ReferenceData data = guess();
    data.exact.clear();
    data.detached.clear();
    return data;
  };
}

/// Last states of the sequence with zeros at its end, up to whole chunks, but for gates of `input` and `forget`.
ReferenceData padded(const Case& c, int threads, double input, double forget) {
  Case whole = without_results(c);
  whole.cotangents.clear();
  std::int64_t& S = whole.problem.shape.S;
  const std::int64_t before = S, L = c.problem.chunk_size;
  S = (S + L - 1) / L * L;
  for (const char* name : {"q", "k", "v", "i", "f"}) {
    const auto extents = shape_of(name, whole.problem.shape);
    Array longer = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()));
    if (name[0] == 'i') longer.fill(input);
    if (name[0] == 'f') longer.fill(forget);
    xt::view(longer, xt::all(), xt::all(), xt::range(0, before)) = whole.inputs.at(name);
    whole.inputs[name] = longer;
  }
  reference::Options options;
  options.threads = threads;
  ReferenceData data = evaluate_reference(whole, options);
  data.outputs.erase("h");
  return data;
}

/// The one number that m_last of `c`'s kernel is wherever it differs from the right one by more than 1; absent if it is
/// several, or none.
std::optional<double> common_wrong_m(const Case& c, const ReferenceData& right) {
  const auto values = c.kernel->outputs.find("m_last"), expected = right.outputs.find("m_last");
  if (values == c.kernel->outputs.end() || expected == right.outputs.end()) return {};
  std::optional<double> common;
  for (std::size_t n = 0; n < values->second.size(); ++n) {
    const double m = values->second.data()[n];
    if (!(std::abs(m - expected->second.data()[n]) > 1)) continue;
    if (common && *common != m) return {};
    common = m;
  }
  return common && std::isfinite(*common) ? common : std::nullopt;
}

/// tensor of head `head` = that of head from(head).
void readdress(Case& c, const std::string& name, const std::function<std::int64_t(std::int64_t head)>& from) {
  const Array before = c.inputs.at(name);
  const std::int64_t heads = c.problem.shape.heads();
  const std::int64_t size = static_cast<std::int64_t>(before.size()) / heads;
  for (std::int64_t head = 0; head < heads; ++head)
    std::copy_n(before.data() + from(head) * size, size, c.inputs.at(name).data() + head * size);
}

/// The heads of a tensor `size` elements apart; it is read in a circle.
void restride(Case& c, const char* name, std::int64_t size) {
  const Array before = c.inputs.at(name);
  const auto total = static_cast<std::int64_t>(before.size());
  const std::int64_t per_head = total / c.problem.shape.heads();
  for (std::int64_t n = 0; n < total; ++n)
    c.inputs.at(name).data()[n] = before.data()[(n / per_head * size + n % per_head) % total];
}

void transpose_initial_c(Case& c) {
  Array& state = c.inputs.at("c_initial");
  const std::int64_t d = c.problem.shape.DHQK;
  for (std::int64_t head = 0; head < c.problem.shape.heads(); ++head)
    for (std::int64_t a = 0; a < d; ++a)
      for (std::int64_t b = 0; b < a; ++b)
        std::swap(state.data()[(head * d + a) * d + b], state.data()[(head * d + b) * d + a]);
}

void begin_with(Case& c, const TensorMap& states) {
  c.problem.has_initial_state = true;
  for (const char* name : {"c", "n", "m"})
    if (const auto found = states.find(std::string(name) + "_last"); found != states.end())
      c.inputs[std::string(name) + "_initial"] = found->second;
}

}  // namespace

Case without_results(const Case& c) {
  Case copy;
  copy.name = c.name;
  copy.problem = c.problem;
  copy.inputs = c.inputs;
  copy.cotangents = c.cotangents;
  return copy;
}

Guess answer_to(const Case& c, int threads, std::function<void(Case&)> change) {
  return [&c, threads, change = std::move(change)] {
    Case copy = without_results(c);
    change(copy);
    reference::Options options;
    options.threads = threads;
    return evaluate_reference(copy, options);
  };
}

namespace {

/// Mistakes in addresses and in the range of gates, of which there are many: those that begin where `first` says.
std::vector<Mistake> limit_mistakes(const Case& c, const FirstWrong& first, int threads) {
  const Shape& s = c.problem.shape;
  std::vector<Mistake> all;
  const auto add = [&](std::string name, std::function<void(Case&)> change) {
    all.push_back({std::move(name), answer_to(c, threads, std::move(change))});
  };
  const auto is_power_of_2 = [](std::int64_t n) { return std::has_single_bit(static_cast<std::uint64_t>(n)); };
  struct Group {
    const char* name;
    std::vector<const char*> tensors;
  };
  const Group groups[] = {{"the gates", {"i", "f"}}, {"k and v", {"k", "v"}}, {"q", {"q"}}, {"k", {"k"}}, {"v", {"v"}}};
  if (const std::int64_t N = first.head; N >= 8 && is_power_of_2(N))
    for (const Group& group : groups)
      add(fmt::format("heads from {} on read {} of heads from 0 on", N, group.name), [N, group](Case& d) {
        for (const char* name : group.tensors) readdress(d, name, [N](std::int64_t head) { return head % N; });
      });
  if (const std::int64_t N = first.step; N >= 64 && is_power_of_2(N))
    for (const Group& group : groups)
      add(fmt::format("steps from {} on read {} of steps from 0 on", N, group.name), [N, group, S = s.S](Case& d) {
        for (const char* name : group.tensors) {
          const Array before = d.inputs.at(name);
          for (std::int64_t t = N; t < S; ++t)
            xt::view(d.inputs.at(name), xt::all(), xt::all(), t) = xt::view(before, xt::all(), xt::all(), t % N);
        }
      });
  if (!first.m) return all;
  for (const std::string gate : {"f", "i"}) {
    const Array& values = c.inputs.at(gate);
    const double smallest = *std::min_element(values.begin(), values.end());
    for (const double limit : {-1000.0, -150.0, -100.0, -88.0, -50.0, -30.0, -20.0, -10.0})
      if (smallest < limit)
        add(fmt::format("{} gates below {} are taken for it", gate == "f" ? "forget" : "input", limit),
            [gate, limit](Case& d) {
              for (double& value : d.inputs.at(gate)) value = std::max(value, limit);
            });
  }
  return all;
}

}  // namespace

std::vector<Mistake> state_mistakes(const Case& c, const ReferenceData& right, const FirstWrong& first, int threads) {
  const Problem& p = c.problem;
  const Shape& s = p.shape;
  std::vector<Mistake> all;
  const auto add = [&](std::string name, std::function<void(Case&)> change) {
    all.push_back({std::move(name), answer_to(c, threads, std::move(change))});
  };
  const auto add_outputs = [&](std::string name, std::function<void(Case&)> change) {
    all.push_back({std::move(name), outputs_of(answer_to(c, threads, std::move(change)))});
  };
  const auto add_recurrence = [&](std::string name, Departure departure) {
    all.push_back({std::move(name), [&c, departure] { return recurrence(c, departure); }});
  };
  if (p.has_initial_state) {
    for (const char* name : {"c_initial", "n_initial", "m_initial"})
      if (c.inputs.contains(name))
        add(std::string(name) + " is taken for 0", [name](Case& d) { d.inputs.at(name).fill(0.0); });
    add("c_initial and n_initial are taken for 0", [](Case& d) {
      for (const char* name : {"c_initial", "n_initial"}) d.inputs.at(name).fill(0.0);
    });
    if (s.DHQK == s.DHV) add("c_initial is read transposed", transpose_initial_c);
  } else if (!p.has_m() || p.stabilizer_init == StabilizerInit::zero) {
    add_outputs("n begins with 1, not with 0", [](Case& d) {
      d.problem.has_initial_state = true;
      for (const char* name : {"c_initial", "n_initial", "m_initial"}) {
        if (name[0] == 'm' && !d.problem.has_m()) continue;
        const auto extents = shape_of(name, d.problem.shape);
        d.inputs[name] = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()));
        d.inputs[name].fill(name[0] == 'n' ? 1.0 : 0.0);
      }
    });
  }
  if (right.outputs.contains("c_last"))
    add_outputs("the states of the call before are kept", [&right](Case& d) { begin_with(d, right.outputs); });
  add_outputs("i and f are swapped", [](Case& d) { std::swap(d.inputs.at("i"), d.inputs.at("f")); });
  add_recurrence("the forget gate is exp(f), not sigmoid(f)", {.log_forget = [](double f) { return f; }});
  add_recurrence("the logarithm of the forget gate is min(f, 0)",
                 {.log_forget = [](double f) { return std::min(f, 0.0); }});
  if (s.S > 1) {
    add_recurrence("h reads the state of the step before", {.late = true});
    add_recurrence("each step sees the key of the next one", {.sees_next = true});
    add_recurrence("the forget gate of a step acts on its own key", {.decays_input = true});
  }
  const Array& f = c.inputs.at("f");
  if (std::any_of(f.begin(), f.end(), [](double x) { return log_sigmoid(x) < kReset; })) {
    add_recurrence("a forget gate of nearly 0 does not clear C", {.keeps_C = true});
    add_recurrence("a forget gate of nearly 0 does not clear n", {.keeps_n = true});
    if (p.has_m()) add_recurrence("a forget gate of nearly 0 does not lower m", {.keeps_m = true});
  }
  if (s.heads() > 1) {
    add_recurrence("a head begins with the last state of the head before", {.keeps_state = true});
    add_outputs("all heads read v of the first one",
                [NH = s.NH](Case& d) { readdress(d, "v", [NH](std::int64_t head) { return head / NH * NH; }); });
    if (s.DHQK != s.DHV) {
      add_outputs("heads of k are S DHV elements apart", [&s](Case& d) { restride(d, "k", s.S * s.DHV); });
      add_outputs("heads of v are S DHQK elements apart", [&s](Case& d) { restride(d, "v", s.S * s.DHQK); });
    }
    add_outputs("every second head reads k and v of the head before", [](Case& d) {
      for (const char* name : {"k", "v"}) readdress(d, name, [](std::int64_t head) { return head / 2 * 2; });
    });
  }
  if (s.B > 1) {
    const std::int64_t B = s.B, NH = s.NH;
    add_outputs("every batch entry uses the gates of the first", [NH](Case& d) {
      for (const char* name : {"i", "f"}) readdress(d, name, [NH](std::int64_t head) { return head % NH; });
    });
    if (NH > 1)
      add_outputs("gates are addressed as (NH, B, S)", [B, NH](Case& d) {
        for (const char* name : {"i", "f"})
          readdress(d, name, [B, NH](std::int64_t head) { return head % NH * B + head / NH; });
      });
  }
  if (p.chunk_size > 0 && s.S % p.chunk_size != 0) {
    all.push_back({"the last chunk is padded with zeros, which alter the last states",
                   [&c, threads] { return padded(c, threads, 0, 0); }});
    if (const auto m = common_wrong_m(c, right); m && *m != 0)
      all.push_back(
          {fmt::format("the last chunk is padded with input gates of {:.4g}, which alter the last states", *m),
           [&c, threads, m = *m] { return padded(c, threads, m, kNothingForgotten); }});
  }
  for (Mistake& mistake : limit_mistakes(c, first, threads)) all.push_back(std::move(mistake));
  return all;
}

}  // namespace mlstm::verify
