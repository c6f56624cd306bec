// SPDX-License-Identifier: Apache-2.0
// The regimes: what each draws, and which mistakes it makes visible.
#include <algorithm>
#include <cmath>
#include <set>

#include "cases/problems.hpp"
#include "cases/problems_draw.hpp"

namespace mlstm::verify {
namespace {

/// Position of a head between 0 and 1.
double spread(const Shape& s, std::int64_t head) {
  return s.NH == 1 ? 0.0 : static_cast<double>(head % s.NH) / static_cast<double>(s.NH - 1);
}

/// value = change(value, cell) for every element of a sequence input.
template <class Change>
void for_each(Drawing& drawing, std::string_view name, Change change) {
  auto& values = drawing.input(name);
  const Shape& s = drawing.shape();
  const std::int64_t columns = size_of(name, s) / (s.heads() * s.S);
  std::size_t index = 0;
  for (std::int64_t head = 0; head < s.heads(); ++head)
    for (std::int64_t t = 0; t < s.S; ++t)
      for (std::int64_t column = 0; column < columns; ++column, ++index)
        values[index] = change(values[index], Cell{head, t, column});
}

void forget_spread(Drawing& drawing) {
  const Shape& s = drawing.shape();
  for_each(drawing, "f", [&](double f, const Cell& cell) { return f + (s.NH == 1 ? 3 : 6 * spread(s, cell.head)); });
}

void underflow(Drawing& drawing) {
  for_each(drawing, "f", [](double f, const Cell&) { return std::min(f, -89.0); });
}

void spikes(Drawing& drawing) {
  const RandomStream stream = drawing.stream("spikes");
  for_each(drawing, "i",
           [&](double i, const Cell& cell) { return cell.row == 2 || stream.uniform(cell) < 1.0 / 24 ? i + 30 : i; });
}

void large_m(Drawing& drawing) {
  for_each(drawing, "i", [](double i, const Cell& cell) { return cell.head % 2 == 0 ? i + 40 : i - 15; });
  if (drawing.problem().has_initial_state && drawing.problem().has_m()) {
    auto& m = drawing.input("m_initial");
    for (std::size_t head = 0; head < m.size(); ++head) m[head] += head % 2 == 0 ? 40 : -15;
  }
}

// Equal candidates for the maximum: heads take turns between all gates equal (and equal to m_0 = 0), few different
// input gates with nothing forgotten, and constant gates that forget.
void ties(Drawing& drawing) {
  const RandomStream stream = drawing.stream("ties");
  for_each(drawing, "i", [&](double, const Cell& cell) {
    return cell.head % 3 == 0 ? 0.0 : cell.head % 3 == 1 ? static_cast<double>(stream.integer(-1, 1, cell)) : 0.5;
  });
  for_each(drawing, "f", [](double, const Cell& cell) { return cell.head % 3 == 2 ? 3.0 : 40.0; });
}

// With these gates F_t = I_t = 1, to every dtype: states are sums of small integers.
void integers(Drawing& drawing) {
  const auto make_integer = [&](std::vector<double>& values, std::string_view name) {
    const RandomStream stream = drawing.stream(std::string(name) + " integer");
    for (std::size_t index = 0; index < values.size(); ++index) {
      const auto cell = static_cast<std::int64_t>(index);
      values[index] = static_cast<double>(stream.integer(-2, 2, {0, cell >> 20, cell & 0xfffff}));
    }
  };
  for (auto& [name, values] : drawing.inputs()) make_integer(values, name);
  for (auto& [name, values] : drawing.cotangents()) make_integer(values, "d" + name);
  const double open = drawing.problem().gate == Gate::exp ? 0 : 40;
  for_each(drawing, "i", [&](double, const Cell&) { return open; });
  for_each(drawing, "f", [](double, const Cell&) { return 40.0; });
  if (drawing.problem().has_initial_state && drawing.problem().has_m())
    for (double& m : drawing.input("m_initial")) m = 0;
}

void xlstm7b(Drawing& drawing) {
  const Shape& s = drawing.shape();
  const auto soft_cap = [](double x) { return 15 * portable_tanh(x / 15); };
  for_each(drawing, "i", [&](double i, const Cell&) { return soft_cap(i); });
  for_each(drawing, "f", [&](double f, const Cell& cell) { return soft_cap(f + 3 + 3 * spread(s, cell.head)); });
}

void repeat_first_row(Drawing& drawing, std::string_view name) {
  const Shape& s = drawing.shape();
  auto& values = drawing.input(name);
  const std::int64_t columns = size_of(name, s) / (s.heads() * s.S);
  for (std::int64_t head = 0; head < s.heads(); ++head)
    for (std::int64_t t = 1; t < s.S; ++t)
      std::copy_n(drawing.row(values, name, head, 0), columns, drawing.row(values, name, head, t));
}

void repeated(Drawing& drawing) {
  repeat_first_row(drawing, "k");
  repeat_first_row(drawing, "v");
}

void positive(Drawing& drawing) {
  const auto magnitude = [](std::vector<double>& values) {
    for (double& value : values) value = std::abs(value);
  };
  for (auto& [name, values] : drawing.inputs())
    if (name != "i" && name != "f" && name != "m_initial") magnitude(values);
  for (auto& [name, values] : drawing.cotangents()) magnitude(values);
}

void retrieval(Drawing& drawing) {
  const Shape& s = drawing.shape();
  auto& k = drawing.input("k");
  const RandomStream stream = drawing.stream("retrieval");
  for_each(drawing, "q", [&](double q, const Cell& cell) {
    const std::int64_t past = stream.integer(0, cell.row, {cell.head, cell.row, 0});
    return 0.1 * q + drawing.row(k, "k", cell.head, past)[cell.column];
  });
  for_each(drawing, "f", [&](double f, const Cell& cell) { return f + 2 * spread(s, cell.head); });
}

void heavy_tails(Drawing& drawing) {
  for (const std::string_view name : {"q", "k", "v"}) {
    const RandomStream stream = drawing.stream(std::string(name) + " tail");
    for_each(drawing, name, [&](double value, const Cell& cell) {
      return std::clamp(value / std::sqrt(2 * stream.uniform(cell)), -24.0, 24.0);
    });
  }
}

void zero_q(Drawing& drawing) {
  for_each(drawing, "q", [](double q, const Cell& cell) { return cell.row % 3 == 1 ? q : 0.0; });
}

void zero_q_open(Drawing& drawing) {
  zero_q(drawing);
  for_each(drawing, "v", [](double v, const Cell&) { return v / 256; });
}

// Packed documents: the forget gate resets the state in their first steps.
void reset(Drawing& drawing) {
  const std::vector<std::int64_t> starts = document_starts(drawing.problem());
  for_each(drawing, "f", [&](double f, const Cell& cell) {
    const bool starts_here = std::binary_search(starts.begin(), starts.end(), cell.row);
    return !starts_here ? f : cell.head % 2 == 0 ? -1000.0 : -30.0;
  });
}

// The last quarter is padding, as users pad: nothing is forgotten, next to nothing enters.
void padded(Drawing& drawing) {
  const std::int64_t S = drawing.shape().S, first = S - S / 4;
  for_each(drawing, "f", [&](double f, const Cell& cell) { return cell.row < first ? f : 25.0; });
  for_each(drawing, "i", [&](double i, const Cell& cell) { return cell.row < first ? i : -25.0; });
}

// The last steps forget everything and let little in. A kernel that pads a ragged end with i = -25 finds its maximum in
// the padding there, and one that clamps gates finds it elsewhere. By turns of heads: m is about -40; it is about -200,
// and the forget gate of the last step takes it to -500; it is about -500, rises to 900 for one step, and the forget
// gate of the last takes it to -600 (a single step: its input gate, to -1200). States are still of the usual size, and
// exp(-m) within float64.
void tail_closed(Drawing& drawing) {
  const std::int64_t S = drawing.shape().S, last = S - 1, first = S - std::min<std::int64_t>((S + 1) / 2, 24);
  constexpr double kInput[] = {-40, -200, -500}, kForget[] = {-60, -300, -1500};
  for_each(drawing, "f", [&](double f, const Cell& cell) {
    const bool lowest = S == 1 && cell.head % 3 == 2;
    return cell.row < first ? f : lowest ? -3000 : kForget[cell.head % 3] + f;
  });
  for_each(drawing, "i", [&](double i, const Cell& cell) {
    const std::int64_t kind = cell.head % 3;
    if (cell.row < first) return i;
    if (kind == 2 && S == 1) return -1200.0;
    if (kind == 2 && cell.row == last - 1) return 900.0;
    return kind != 0 && cell.row == last ? -2000.0 : kInput[kind] + i;
  });
}

// Calls visit(q_t, s e^{m_t} n_t, cell of the row) for every row: the normaliser without its stabiliser, whose floor
// is 1.
template <class Visit>
void for_each_normaliser(Drawing& drawing, Visit visit) {
  const Shape& s = drawing.shape();
  const bool has_exp_gate = drawing.problem().gate == Gate::exp;
  const double scale = 1 / std::sqrt(static_cast<double>(s.DHQK));
  auto &q = drawing.input("q"), &k = drawing.input("k"), &i = drawing.input("i"), &f = drawing.input("f");
  std::vector<double> n(static_cast<std::size_t>(s.DHQK));
  for (std::int64_t head = 0; head < s.heads(); ++head) {
    std::fill(n.begin(), n.end(), 0.0);
    if (drawing.problem().has_initial_state) {
      const double weight = has_exp_gate ? portable_exp(drawing.input("m_initial")[static_cast<std::size_t>(head)]) : 1;
      const double* n_initial = drawing.row(drawing.input("n_initial"), "n_initial", head, 0);
      for (std::size_t a = 0; a < n.size(); ++a) n[a] = scale * weight * n_initial[a];
    }
    for (std::int64_t t = 0; t < s.S; ++t) {
      const double gate = *drawing.row(i, "i", head, t);
      const double forget = portable_sigmoid(*drawing.row(f, "f", head, t));
      const double input = has_exp_gate ? portable_exp(gate) : portable_sigmoid(gate);
      const double* key = drawing.row(k, "k", head, t);
      for (std::size_t a = 0; a < n.size(); ++a) n[a] = forget * n[a] + scale * input * key[a];
      visit(drawing.row(q, "q", head, t), n, Cell{head, t, 0});
    }
  }
}

double dot(const double* a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t index = 0; index < b.size(); ++index) sum += a[index] * b[index];
  return sum;
}

/// 1, 1/2, ... 2^-(count-1), by turns.
double by_turns(std::int64_t row, std::int64_t count) {
  return 1.0 / static_cast<double>(std::int64_t{1} << row % count);
}

// Rows are scaled so that |n.q| is the floor times 1 + delta, with delta of both signs and of sizes from 1/2 to 2^-8.
void crossover(Drawing& drawing) {
  const RandomStream stream = drawing.stream("crossover");
  for_each_normaliser(drawing, [&](double* q, const std::vector<double>& n, const Cell& cell) {
    const double l = std::abs(dot(q, n));
    const double target = 1 + (2 * stream.uniform(cell) - 1) * by_turns(cell.row, 8);
    const double factor = l > 0 ? std::clamp(target / l, 0x1p-6, 16.0) : 1;
    for (std::size_t a = 0; a < n.size(); ++a) q[a] *= factor;
  });
}

// q nearly orthogonal to n: the numerator keeps its size while the denominator shrinks.
void denominator_zero(Drawing& drawing) {
  for_each_normaliser(drawing, [&](double* q, const std::vector<double>& n, const Cell& cell) {
    const double length = dot(n.data(), n);
    const double kept = by_turns(cell.row, 6) / 4;
    const double projection = length > 0 ? (1 - kept) * dot(q, n) / length : 0;
    for (std::size_t a = 0; a < n.size(); ++a) q[a] -= projection * n[a];
  });
}

}  // namespace

void keep_denominators_wide(Drawing& drawing) {
  for_each_normaliser(drawing, [&](double* q, const std::vector<double>& n, const Cell&) {
    const double nn = dot(n.data(), n), l = dot(q, n);
    double qq = 0;
    for (std::size_t a = 0; a < n.size(); ++a) qq += q[a] * q[a];
    const double least = std::sqrt(qq * nn / static_cast<double>(n.size())) / 8;
    if (nn == 0 || std::max(std::abs(l), 1.0) >= least) return;
    const double shift = ((l < 0 ? -least : least) - l) / nn;
    for (std::size_t a = 0; a < n.size(); ++a) q[a] += shift * n[a];
  });
}

std::vector<std::int64_t> document_starts(const Problem& problem) {
  const std::int64_t S = problem.shape.S, L = problem.chunk_size > 0 ? problem.chunk_size : 16;
  std::set<std::int64_t> starts;
  for (const std::int64_t start : {std::int64_t{0}, L / 2 + 1, L, L + 1, 2 * L + L / 3, 3 * S / 4, S - 1})
    if (start < S) starts.insert(start);
  return {starts.begin(), starts.end()};
}

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all{
      {"standard",
       "forget offsets from 0 to 6 across heads: short and long memories side by side",
       {0, 1},
       {0, 1},
       forget_spread},
      {"forget0", "forget offset 0: memory of two steps; errors within a chunk", {0, 1}, {0, 1}},
      {"forget3", "forget offset 3: memory of twenty steps", {0, 1}, {3, 1}},
      {"forget6", "forget offset 6: memory of hundreds of steps; errors in the state between chunks", {0, 1}, {6, 1}},
      {"remember", "forget gate 40: nothing is forgotten", {0, 1}, {40, 0}},
      {"forget_all", "forget gate about -30: only the newest step counts; masks and shifts", {0, 1}, {-30, 5}},
      {"forget_underflow",
       "forget gate about -100: log(sigmoid(f)) underflows unless it is stable",
       {0, 1},
       {-100, 10},
       underflow},
      {"input_closed", "input gate about -10: the floor exp(-m) is the denominator", {-10, 1}, {4.5, 1}},
      {"input_open", "input gate about 10: large m, eps weighs more", {10, 1}, {3, 1}},
      {"spikes", "a few input gates 30 higher: the stabiliser jumps", {0, 1}, {4, 1}, spikes},
      {"large_m",
       "input gates about 40 and -15 by turns of heads: stabilisers that 16 bits cannot hold",
       {0, 1},
       {5, 1},
       large_m},
      {"crossover",
       "|n.q| at the floor, from half its size to 2^-8 away: the branch of the maximum",
       {-1, 0.5},
       {3, 1},
       nullptr,
       crossover},
      {"denominator_zero",
       "q nearly orthogonal to n while exp(-m) is tiny: small denominators, large h",
       {10, 1},
       {3, 1},
       nullptr,
       denominator_zero},
      {"ties", "constant and few-valued gates: ties of the maximum that defines m", {0, 0}, {0, 0}, ties},
      {"integers", "small integers and gates that multiply by one: states are exact", {0, 0}, {0, 0}, integers},
      {"xlstm7b",
       "gates of xLSTM-7B: soft-capped at 15, input bias -10, forget bias 3 to 6 across heads",
       {-10, 3},
       {0, 1.5},
       xlstm7b},
      {"extreme",
       "forget gate -60 +- 30 and input gate 0 +- 30: exponents over and under the range",
       {0, 30},
       {-60, 30}},
      {"wide", "both gates 0 +- 10", {0, 10}, {0, 10}},
      {"repeated", "one key and one value for all steps: sums without cancellation", {0, 1}, {4, 1}, repeated},
      {"positive", "q, k, v, states and cotangents positive: aligned sums", {0, 1}, {3, 1}, positive},
      {"retrieval", "q is a past key: one step outweighs the rest", {0, 1}, {4, 1}, retrieval},
      {"heavy_tails", "q, k, v with rare large values", {0, 1}, {3, 1}, heavy_tails},
      {"zero_q", "q zero in two rows of three: h is 0 there, by any denominator", {0, 1}, {3, 1}, zero_q},
      {"zero_q_open",
       "the same with input gates about 10 and small v: where q is 0, dh/d is beyond float16 although dq is not",
       {10, 1},
       {3, 1},
       zero_q_open},
      {"reset",
       "packed documents, one of a single step: forget gates of -1000 and -30 (by turns of heads) reset the state",
       {0, 1},
       {4, 1},
       reset},
      {"padded", "the last quarter is padding with f = 25 and i = -25: the state has to stay", {0, 1}, {4, 1}, padded},
      {"tail_closed",
       "the last steps forget all, with input gates about -40, -200 and -500: padding and clamps win the maximum",
       {0, 1},
       {3, 1},
       tail_closed},
  };
  return all;
}

}  // namespace mlstm::verify
