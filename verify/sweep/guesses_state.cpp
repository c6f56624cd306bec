// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <xtensor/xview.hpp>

#include "sweep/guesses.hpp"

namespace mlstm::verify {
namespace {

/// How a recurrence departs from the function (contract §2).
struct Departure {
  double (*log_forget)(double f) = nullptr;  ///< absent: log(sigmoid(f))
  bool keeps_state = false;                  ///< a head begins with the last state of the head before
};

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
      double F = std::exp(forget), I = std::exp(log_sigmoid(i[t]));
      if (p.has_m()) {
        const double now = std::max(forget + m, i[t]);
        F = std::exp(forget + m - now), I = std::exp(i[t] - now);
        m = now;
      }
      double l = 0;
      std::fill(numerator.begin(), numerator.end(), 0.0);
      for (std::int64_t a = 0; a < s.DHQK; ++a) {
        const auto row = static_cast<std::size_t>(a);
        const double key = I * k[t * s.DHQK + a], query = scale * q[t * s.DHQK + a];
        n[row] = F * n[row] + key;
        l += query * n[row];
        for (std::int64_t b = 0; b < s.DHV; ++b) {
          double& state = C[static_cast<std::size_t>(a * s.DHV + b)];
          state = F * state + key * v[t * s.DHV + b];
          numerator[static_cast<std::size_t>(b)] += query * state;
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

/// Last states of the sequence with zeros at its end, up to whole chunks.
ReferenceData padded_with_zeros(const Case& c, int threads) {
  Case padded = without_results(c);
  padded.cotangents.clear();
  std::int64_t& S = padded.problem.shape.S;
  const std::int64_t before = S, L = c.problem.chunk_size;
  S = (S + L - 1) / L * L;
  for (const char* name : {"q", "k", "v", "i", "f"}) {
    const auto extents = shape_of(name, padded.problem.shape);
    Array longer = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()));
    xt::view(longer, xt::all(), xt::all(), xt::range(0, before)) = padded.inputs.at(name);
    padded.inputs[name] = longer;
  }
  reference::Options options;
  options.threads = threads;
  ReferenceData data = evaluate_reference(padded, options);
  data.outputs.erase("h");
  return data;
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

std::vector<Mistake> state_mistakes(const Case& c, const ReferenceData& right, int threads) {
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
  if (p.chunk_size > 0 && s.S % p.chunk_size != 0)
    all.push_back({"the last chunk is padded with zeros, which alter the last states",
                   [&c, threads] { return padded_with_zeros(c, threads); }});
  return all;
}

}  // namespace mlstm::verify
