// SPDX-License-Identifier: Apache-2.0
#include "cases/problems_draw.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace mlstm::verify {
namespace {

constexpr std::int64_t kEarlierSteps = 4;  // initial states are what so many steps would have left

const Recipe& recipe_of(std::string_view regime) {
  for (const auto* list : {&recipes(), &simple_recipes()})
    for (const Recipe& recipe : *list)
      if (recipe.name == regime) return recipe;
  throw std::invalid_argument("regime is \"" + std::string(regime) + "\"; expected one of those that the suite knows");
}

struct Extents {
  std::int64_t rows, columns;  // per head
};

Extents extents_of(std::string_view name, const Shape& s) {
  const std::int64_t per_head = size_of(name, s) / s.heads();
  std::int64_t rows = 1;
  if (name.size() == 1) rows = s.S;
  if (name.starts_with("c_")) rows = s.DHQK;
  return {rows, per_head / rows};
}

void fill(Drawing& drawing, std::vector<double>& values, std::string_view name, std::string_view stream_name,
          GateLaw law = {}) {
  const RandomStream stream = drawing.stream(stream_name);
  const Extents extents = extents_of(name, drawing.shape());
  std::size_t index = 0;
  for (std::int64_t head = 0; head < drawing.shape().heads(); ++head)
    for (std::int64_t t = 0; t < extents.rows; ++t)
      for (std::int64_t column = 0; column < extents.columns; ++column)
        values[index++] = law.deviation == 0 ? law.mean : law.mean + law.deviation * stream.normal({head, t, column});
}

// c = sum k v^T and n = sum k over a few earlier steps, so that states are as large and as correlated as real ones.
void fill_initial_states(Drawing& drawing, const Recipe& recipe) {
  const Shape& s = drawing.shape();
  auto& c = drawing.input("c_initial");
  auto& n = drawing.input("n_initial");
  const RandomStream keys = drawing.stream("earlier k"), values = drawing.stream("earlier v");
  for (std::int64_t head = 0; head < s.heads(); ++head)
    for (std::int64_t step = 0; step < kEarlierSteps; ++step)
      for (std::int64_t a = 0; a < s.DHQK; ++a) {
        const double k = keys.normal({head, step, a});
        *(drawing.row(n, "n_initial", head, 0) + a) += k;
        for (std::int64_t b = 0; b < s.DHV; ++b)
          *(drawing.row(c, "c_initial", head, a) + b) += k * values.normal({head, step, b});
      }
  if (drawing.problem().has_m())
    fill(drawing, drawing.input("m_initial"), "m_initial", "m_initial", {recipe.i.mean, 2});
}

}  // namespace

Drawing::Drawing(DrawRequest request) : request_(std::move(request)) {}

RandomStream Drawing::stream(std::string_view name) const {
  return {request_.seed, request_.regime + '/' + std::string(name)};
}

std::vector<double>& Drawing::input(std::string_view name) {
  auto& values = inputs_[std::string(name)];
  if (values.empty()) values.resize(static_cast<std::size_t>(size_of(name, shape())));
  return values;
}

double* Drawing::row(std::vector<double>& values, std::string_view name, std::int64_t head, std::int64_t t) const {
  const Extents extents = extents_of(name, shape());
  return values.data() + (head * extents.rows + t) * extents.columns;
}

void Drawing::round(std::vector<double>& values, std::string_view name) const {
  const DType dtype = storage_dtype(name, problem());
  for (double& value : values) value = round_to(dtype, value);
}

Drawn draw(const DrawRequest& request) {
  const Recipe& recipe = recipe_of(request.regime);
  Drawing drawing(request);
  for (const std::string_view name : kSequenceInputs)
    fill(drawing, drawing.input(name), name, name, name == "i" ? recipe.i : name == "f" ? recipe.f : GateLaw{});
  if (request.problem.has_initial_state) fill_initial_states(drawing, recipe);
  for (const std::string& output : output_names(request.problem)) {
    if (!(output == "h" ? request.cotangents : request.last_state_cotangents)) continue;
    auto& values = drawing.cotangents()[output];
    values.resize(static_cast<std::size_t>(size_of(output, request.problem.shape)));
    fill(drawing, values, output, "d" + output);
  }
  if (recipe.structure != nullptr) recipe.structure(drawing);
  for (auto& [name, values] : drawing.inputs())
    if (name != "q") drawing.round(values, name);
  for (auto& [name, values] : drawing.cotangents()) drawing.round(values, name);
  if (recipe.steer_q != nullptr) recipe.steer_q(drawing);
  if (request.problem.dtype == DType::float16 && request.problem.normalized()) keep_denominators_wide(drawing);
  drawing.round(drawing.input("q"), "q");
  return {std::move(drawing.inputs()), std::move(drawing.cotangents())};
}

}  // namespace mlstm::verify
