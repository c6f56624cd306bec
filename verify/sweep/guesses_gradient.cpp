// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <xtensor/xview.hpp>

#include "sweep/guesses.hpp"

namespace mlstm::verify {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// df with other values of d(log sigmoid(f)): `change` gets those of one head, at steps 0 ... S - 1.
TensorMap with_log_gate_gradients(const Case& c, const TensorMap& right,
                                  const std::function<void(std::vector<double>&)>& change) {
  TensorMap result;
  Array& df = result["f"] = right.at("f");
  const Array& f = c.inputs.at("f");
  const auto S = static_cast<std::size_t>(c.problem.shape.S);
  for (std::size_t begin = 0; begin < df.size(); begin += S) {
    std::vector<double> gradient(S);
    for (std::size_t t = 0; t < S; ++t) gradient[t] = df.data()[begin + t] / sigmoid(-f.data()[begin + t]);
    change(gradient);
    for (std::size_t t = 0; t < S; ++t) df.data()[begin + t] = gradient[t] * sigmoid(-f.data()[begin + t]);
  }
  return result;
}

/// The reverse sum that gives df, without what comes from chunks after `begins`' chunks: at each of these steps the sum
/// begins anew.
void restart(std::vector<double>& gradient, const std::vector<std::size_t>& begins) {
  const std::vector<double> whole = gradient;
  std::size_t first = 0;
  for (const std::size_t begin : begins) {
    for (std::size_t t = first; t < begin; ++t) gradient[t] = whole[t] - whole[begin];
    first = begin;
  }
}

/// What the stabiliser passes on (contract §3): dm_t = -(dh_t.h_t) eps / d_t goes to the arg max of m_t.
struct StabilizerPart {
  Array di, df;
};

/// `to_oldest`: it goes to the oldest candidate instead.
StabilizerPart stabilizer_part(const Case& c, const ReferenceData& right, int threads, bool to_oldest = false) {
  const Problem& p = c.problem;
  const std::int64_t S = p.shape.S, DHV = p.shape.DHV;
  const auto rows = static_cast<std::size_t>(p.shape.heads() * S);
  std::vector<double> m(rows), l(rows), d(rows);
  reference::Request request;
  Array h = right.outputs.at("h");
  request.outputs.h = h.data();
  request.intermediates = {m.data(), l.data(), d.data()};
  reference::Options options;
  options.threads = threads;
  reference::evaluate(p, inputs_of(c.inputs), request, options);
  const double *i = c.inputs.at("i").data(), *f = c.inputs.at("f").data(), *dh = c.cotangents.at("h").data();
  StabilizerPart part{xt::zeros_like(c.inputs.at("i")), xt::zeros_like(c.inputs.at("f"))};
  for (std::int64_t head = 0; head < p.shape.heads(); ++head) {
    std::int64_t newest = -1;  // arg max; -1: the initial m
    for (std::int64_t t = 0; t < S; ++t) {
      const std::int64_t row = head * S + t;
      if (m[static_cast<std::size_t>(row)] == i[row] && (t == 0 || !to_oldest)) newest = t;
      double product = 0;
      for (std::int64_t b = 0; b < DHV; ++b) product += dh[row * DHV + b] * h.data()[row * DHV + b];
      const double dm = -product * p.eps / d[static_cast<std::size_t>(row)];
      if (newest >= 0) part.di.data()[head * S + newest] += dm;
      for (std::int64_t r = newest + 1; r <= t; ++r) part.df.data()[head * S + r] += dm * sigmoid(-f[head * S + r]);
    }
  }
  return part;
}

/// Numbers of leading columns that a kernel may stop at.
std::set<std::int64_t> column_counts(std::int64_t columns) {
  std::set<std::int64_t> counts{columns / 2, columns - 1};
  for (const std::int64_t tile : {8, 16, 32, 64, 128}) counts.insert((columns - 1) / tile * tile);
  std::erase_if(counts, [&](std::int64_t count) { return count <= 0 || count >= columns; });
  return counts;
}

}  // namespace

std::vector<Mistake> gradient_mistakes(const Case& c, const ReferenceData& right, int threads) {
  if (c.cotangents.empty()) return {};
  const Problem& p = c.problem;
  const Shape& s = p.shape;
  std::vector<Mistake> all;
  for (const char* name : {"c_last", "n_last", "m_last"})
    if (c.cotangents.contains(name))
      all.push_back(
          {fmt::format("d{} is ignored", name), answer_to(c, threads, [name](Case& d) { d.cotangents.erase(name); })});
  // exact - detached is what comes through the denominator and the stabiliser
  const auto combine = [&right](double factor) {
    return [&right, factor] {
      ReferenceData data;
      for (const auto& [name, exact] : right.exact) {
        const Array& detached = right.detached.at(name);
        data.exact[name] = detached + factor * (exact - detached);
      }
      return data;
    };
  };
  if (p.normalized() && !right.exact.empty()) {
    all.push_back({"the denominator's part of the gradient has the wrong sign", combine(-1)});
    const double root = std::sqrt(static_cast<double>(s.DHQK));
    if (root != 1)
      all.push_back({"the denominator's part of dq is not scaled by 1/sqrt(DHQK)", [combine, root] {
                       ReferenceData data = combine(root)();
                       std::erase_if(data.exact, [](const auto& entry) { return entry.first != "q"; });
                       return data;
                     }});
  }
  const auto both = [](const ReferenceData& from, const std::function<TensorMap(const TensorMap&)>& change) {
    ReferenceData data;
    data.exact = change(from.exact);
    data.detached = change(from.detached);
    return data;
  };
  const auto add_df = [&](const std::string& name, std::function<void(std::vector<double>&)> change) {
    all.push_back({name, [&c, &right, both, change = std::move(change)] {
                     return both(right, [&](const TensorMap& gradients) {
                       return with_log_gate_gradients(c, gradients, change);
                     });
                   }});
  };
  const auto S = static_cast<std::size_t>(s.S), L = static_cast<std::size_t>(p.chunk_size);
  if (p.chunk_size > 0 && p.chunk_size < s.S) {
    std::vector<std::size_t> begins;
    for (std::size_t begin = L; begin < S; begin += L) begins.push_back(begin);
    if (S % L != 0)
      add_df("the carry of df from the ragged last chunk is lost",
             [last = begins.back()](std::vector<double>& gradient) { restart(gradient, {last}); });
    add_df("the reverse sum of df begins anew in every chunk",
           [begins](std::vector<double>& gradient) { restart(gradient, begins); });
  }
  const auto add_factor = [&](const std::string& name, const std::string& gate, double (*factor)(double x)) {
    all.push_back({name, [&c, &right, both, gate, factor] {
                     return both(right, [&](const TensorMap& gradients) {
                       TensorMap result;
                       Array& values = result[gate] = gradients.at(gate);
                       for (std::size_t n = 0; n < values.size(); ++n)
                         values.data()[n] *= factor(c.inputs.at(gate).data()[n]);
                       return result;
                     });
                   }});
  };
  add_factor("df lacks the factor sigmoid(-f)", "f", [](double f) { return 1 / sigmoid(-f); });
  add_factor("df has the factor sigmoid(f) for sigmoid(-f)", "f", [](double f) { return sigmoid(f) / sigmoid(-f); });
  if (!p.has_m()) add_factor("di lacks the factor sigmoid(-i)", "i", [](double i) { return 1 / sigmoid(-i); });
  if (s.S > 1)
    all.push_back({"df is written one step late", [&right, both] {
                     return both(right, [](const TensorMap& gradients) {
                       TensorMap result;
                       Array& df = result["f"] = xt::zeros_like(gradients.at("f"));
                       const auto steps = static_cast<std::ptrdiff_t>(df.shape(2));
                       xt::view(df, xt::all(), xt::all(), xt::range(1, steps)) =
                           xt::view(gradients.at("f"), xt::all(), xt::all(), xt::range(0, steps - 1));
                       return result;
                     });
                   }});
  if (p.has_m() && p.eps > 0) {
    const std::pair<const char*, double> factors[] = {
        {"eps enters only the forward pass: the stabiliser's part of di and df is missing", 0},
        {"the stabiliser's part of di and df has the wrong sign", -1},
        {"the stabiliser's part of di and df lacks the factor eps", 1 / p.eps}};
    for (const auto& [name, factor] : factors)
      all.push_back({name, [&c, &right, threads, factor = factor] {
                       const StabilizerPart part = stabilizer_part(c, right, threads);
                       ReferenceData data;
                       data.exact["i"] = right.exact.at("i") + (factor - 1) * part.di;
                       data.exact["f"] = right.exact.at("f") + (factor - 1) * part.df;
                       return data;
                     }});
  }
  if (p.has_m() && p.eps > 0)
    all.push_back(
        {"the stabiliser's part of di and df goes to the oldest candidate, not to the arg max", [&c, &right, threads] {
           const StabilizerPart part = stabilizer_part(c, right, threads),
                                moved = stabilizer_part(c, right, threads, true);
           ReferenceData data;
           data.exact["i"] = right.exact.at("i") - part.di + moved.di;
           data.exact["f"] = right.exact.at("f") - part.df + moved.df;
           return data;
         }});
  if (p.has_m() && p.has_initial_state && !right.exact.empty()) {
    // exp(m_initial) multiplies c_initial and n_initial
    const auto product = [&c, &right] {
      Array sums = xt::zeros_like(right.exact.at("m_initial"));
      for (const char* name : {"c_initial", "n_initial"}) {
        const Array &gradient = right.exact.at(name), &state = c.inputs.at(name);
        const std::size_t size = state.size() / sums.size();
        for (std::size_t n = 0; n < state.size(); ++n) sums.data()[n / size] += gradient.data()[n] * state.data()[n];
      }
      return sums;
    };
    const auto add_dm = [&](const char* name, std::function<Array()> value) {
      all.push_back({name, [value = std::move(value)] {
                       ReferenceData data;
                       data.exact["m_initial"] = value();
                       return data;
                     }});
    };
    add_dm("dm_initial lacks the products of dc_initial and c_initial, dn_initial and n_initial",
           [&right, product] { return Array(right.exact.at("m_initial") - product()); });
    add_dm("dm_initial has nothing but the products of dc_initial and c_initial, dn_initial and n_initial", product);
  }
  // dq is linear in dh; the denominator's part takes all columns
  for (const std::int64_t count : column_counts(s.DHV))
    all.push_back({fmt::format("dq takes the first {} of {} columns of v", count, s.DHV), [&c, &right, threads, count] {
                     const ReferenceData lost = answer_to(c, threads, [count](Case& d) {
                       xt::view(d.cotangents.at("h"), xt::all(), xt::all(), xt::all(), xt::range(0, count)) = 0.0;
                       for (const char* name : {"c_last", "n_last", "m_last"}) d.cotangents.erase(name);
                     })();
                     ReferenceData data;
                     data.exact["q"] = right.exact.at("q") - lost.detached.at("q");
                     data.detached["q"] = right.detached.at("q") - lost.detached.at("q");
                     return data;
                   }});
  return all;
}

}  // namespace mlstm::verify
