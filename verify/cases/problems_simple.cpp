// SPDX-License-Identifier: Apache-2.0
// Regimes whose values a person can follow through the formulas with a pencil: what failing problems are shrunk to.
#include <algorithm>

#include "cases/problems_draw.hpp"

namespace mlstm::verify {
namespace {

void fill_all(Drawing& drawing, double value) {
  for (auto* tensors : {&drawing.inputs(), &drawing.cotangents()})
    for (auto& [name, values] : *tensors) std::fill(values.begin(), values.end(), value);
}

/// I_t = 1 and F_t = `forget` of {1, 1/2}, to every dtype, with m_t = 0.
void set_gates(Drawing& drawing, double forget) {
  const double open = drawing.problem().gate == Gate::exp ? 0 : 40;
  std::fill(drawing.input("i").begin(), drawing.input("i").end(), open);
  std::fill(drawing.input("f").begin(), drawing.input("f").end(), forget == 1 ? 40.0 : 0.0);
  if (drawing.problem().has_initial_state && drawing.problem().has_m())
    std::fill(drawing.input("m_initial").begin(), drawing.input("m_initial").end(), 0.0);
}

void ones(Drawing& drawing) {
  fill_all(drawing, 1);
  set_gates(drawing, 1);
}

void halving(Drawing& drawing) {
  fill_all(drawing, 1);
  set_gates(drawing, 0.5);
}

/// Clears the rows of a sequence tensor for which `cleared(t)`.
template <class Cleared>
void clear_rows(Drawing& drawing, std::vector<double>& values, std::string_view name, Cleared cleared) {
  const Shape& s = drawing.shape();
  const std::int64_t columns = size_of(name, s) / (s.heads() * s.S);
  for (std::int64_t head = 0; head < s.heads(); ++head)
    for (std::int64_t t = 0; t < s.S; ++t)
      if (cleared(t)) std::fill_n(drawing.row(values, name, head, t), columns, 0.0);
}

void impulse(Drawing& drawing) {
  ones(drawing);
  const std::int64_t last = drawing.shape().S - 1;
  for (const std::string_view name : {"k", "v"})
    clear_rows(drawing, drawing.input(name), name, [](std::int64_t t) { return t > 0; });
  if (const auto dh = drawing.cotangents().find("h"); dh != drawing.cotangents().end())
    clear_rows(drawing, dh->second, "h", [&](std::int64_t t) { return t < last; });
}

// Integers that tell heads, steps and columns apart, different in every tensor; cotangents of both signs.
void counting(Drawing& drawing) {
  ones(drawing);
  const Shape& s = drawing.shape();
  const auto count = [&](std::vector<double>& values, std::string_view name, std::int64_t step, std::int64_t range,
                         std::int64_t first) {
    const std::int64_t columns = size_of(name, s) / (s.heads() * s.S);
    std::size_t index = 0;
    for (std::int64_t head = 0; head < s.heads(); ++head)
      for (std::int64_t t = 0; t < s.S; ++t)
        for (std::int64_t column = 0; column < columns; ++column)
          values[index++] = static_cast<double>(first + (head + t + step * column) % range);
  };
  count(drawing.input("q"), "q", 1, 3, 1);
  count(drawing.input("k"), "k", 2, 5, 1);
  count(drawing.input("v"), "v", 3, 7, 1);
  if (const auto dh = drawing.cotangents().find("h"); dh != drawing.cotangents().end())
    count(dh->second, "h", 2, 3, -1);
  set_gates(drawing, 0.5);
}

}  // namespace

const std::vector<Recipe>& simple_recipes() {
  static const std::vector<Recipe> all{
      {"ones", "every value 1, gates that multiply by one", {0, 0}, {0, 0}, ones},
      {"impulse", "k and v are 1 in the first step, dh in the last, and 0 elsewhere", {0, 0}, {0, 0}, impulse},
      {"halving", "every value 1, and each step halves the state", {0, 0}, {0, 0}, halving},
      {"counting",
       "small integers that tell steps and columns apart; each step halves the state",
       {0, 0},
       {0, 0},
       counting},
  };
  return all;
}

}  // namespace mlstm::verify
