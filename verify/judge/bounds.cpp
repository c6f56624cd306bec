// SPDX-License-Identifier: Apache-2.0
#include "judge/bounds.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/memory.hpp"
#include "judge/bound_constants.hpp"
#include "judge/hot/head_bounds.hpp"
#include "mlstm/parallel_for.hpp"
#include "mlstm/reference/fields.hpp"

namespace mlstm::verify {
namespace {

// TF32 operands lose 13 bits by truncation, so their error is a whole step and not half of one; a product of float32
// operands costs a few roundings of its accumulator instead.
double operand_roundoff(DType operand) {
  switch (operand) {
    case DType::tfloat32:
      return 2 * unit_roundoff(operand);
    case DType::float32:
    case DType::float64:
      return 4 * unit_roundoff(operand);
    default:
      return unit_roundoff(operand);
  }
}

// Half the spacing of the subnormal numbers of a 16-bit operand; elsewhere the smallest normal number, since
// kernels may flush below it.
double smallest_step(DType dtype) {
  switch (dtype) {
    case DType::float16:
      return 0x1p-25;
    case DType::float64:
      return 0x1p-1022;
    default:
      return 0x1p-126;
  }
}

/// The coarsest format that anything is rounded to on its way: constants are those for it.
DType coarsest(const Precision& precision) {
  DType result = precision.operand;
  for (const std::optional<DType> one : {std::optional(precision.state), precision.gate, precision.product})
    if (one && unit_roundoff(*one) > unit_roundoff(result)) result = *one;
  return result;
}

Roundoffs roundoffs(const Precision& precision) {
  const double accumulator = precision.storage == DType::float64 ? 0x1p-53 : 0x1p-24;
  const double steps = precision.truncates ? 2 : 1;  // truncation errs by up to a whole step, rounding by half of one
  const double operand = (precision.operand == DType::tfloat32 ? 1 : steps) * operand_roundoff(precision.operand);
  // A term that is rounded is as wrong as its operands and its own roundings together, and it comes through two
  // products (k v and q C).
  const double product = precision.product ? std::sqrt(2.0) * steps * unit_roundoff(*precision.product) : 0;
  return {.operand = std::hypot(operand, product > accumulator ? product : 0),
          .output = steps * unit_roundoff(precision.storage),
          .saved = steps * unit_roundoff(precision.saved),
          .state = steps * unit_roundoff(precision.state),
          .accumulator = accumulator,
          .gate = precision.gate ? std::max(unit_roundoff(*precision.gate), accumulator) : accumulator,
          .step = std::max({smallest_step(precision.operand), smallest_step(precision.storage),
                            smallest_step(precision.product.value_or(precision.operand))}),
          .flush = precision.storage == DType::float64 ? 0x1p-1022 : 0x1p-126};
}

double constant_of(const BoundConstants& c, std::string_view tensor) {
  const std::pair<std::string_view, double> table[] = {{"h", c.h},
                                                       {"c_last", c.c_last},
                                                       {"n_last", c.n_last},
                                                       {"m_last", c.m_last},
                                                       {"q", c.q},
                                                       {"k", c.k},
                                                       {"v", c.v},
                                                       {"i", c.i},
                                                       {"f", c.f},
                                                       {"f_straddling", c.f},
                                                       {"c_initial", c.c_initial},
                                                       {"n_initial", c.n_initial},
                                                       {"m_initial", c.m_initial},
                                                       {"open_rows", 1}};
  for (const auto& [name, value] : table)
    if (name == tensor) return value;
  throw std::logic_error("no bound constant for " + std::string(tensor));
}

// The head's slice of a tensor; null if the map does not hold it.
template <class Map>
auto* slice(Map& map, const std::string& name, std::int64_t heads, std::int64_t head) {
  const auto found = map.find(name);
  using Pointer = decltype(found->second.data());
  if (found == map.end()) return Pointer{};
  return found->second.data() + head * (static_cast<std::int64_t>(found->second.size()) / heads);
}

/// The head's slices of the tensors that the map holds under the names of a structure, behind `prefix`.
template <class Struct, class Map>
Struct slices(Map& map, const std::string& prefix, std::int64_t heads, std::int64_t head) {
  return reference::pointers_by_name<Struct>([&](std::string_view name) {
    // a structure for results may be read only here
    return const_cast<double*>(slice(map, prefix + std::string(name), heads, head));
  });
}

template <class Map>
GradientBounds gradient_bound_slices(Map& map, const std::string& prefix, std::int64_t heads, std::int64_t head) {
  GradientBounds out;
  static_cast<Gradients<double>&>(out) = slices<Gradients<double>>(map, prefix, heads, head);
  out.f_straddling = slice(map, prefix + "f_straddling", heads, head);
  out.open_rows = slice(map, prefix + "open_rows", heads, head);
  return out;
}

Array zeros(const std::vector<std::int64_t>& shape) {
  return xt::zeros<double>(std::vector<std::size_t>(shape.begin(), shape.end()));
}

TensorMap bounds_in_memory(const Case& c, const ReferenceData& reference, const Precision& precision, int threads);

}  // namespace

Precision precision_of(const Case& c) {
  Precision p{.storage = c.problem.dtype,
              .operand = c.problem.dtype,
              .state = state_dtype_of(c.problem.dtype),
              .saved = c.problem.dtype,
              .window = c.problem.chunk_size > 0 ? c.problem.chunk_size : c.problem.shape.S};
  if (!c.kernel) return p;
  p.operand = c.kernel->operand_dtype.value_or(p.operand);
  p.state = c.kernel->state_dtype.value_or(p.state);
  p.gate = c.kernel->gate_dtype;
  p.product = c.kernel->product_dtype;
  if (const auto saved = c.kernel->attributes.find("saved_dtype"); saved != c.kernel->attributes.end())
    p.saved = parse_dtype(std::get<std::string>(saved->second), "saved_dtype");
  if (const auto rounding = c.kernel->attributes.find("rounding"); rounding != c.kernel->attributes.end())
    p.truncates = std::get<std::string>(rounding->second) == "truncate";
  const std::optional<Module> formulation = formulation_of(*c.kernel);
  if (formulation == Module::recurrent) p.window = 0;
  if (!formulation || formulation == Module::parallel) p.window = c.problem.shape.S;
  return p;
}

double bound_constant(DType operand, std::string_view tensor) {
  return constant_of(bound_constants(operand), tensor.substr(tensor.starts_with('d') ? 1 : 0));
}

double bias_constant(DType operand, std::string_view tensor) {
  return constant_of(bias_constants(operand), tensor.substr(tensor.starts_with('d') ? 1 : 0));
}

TensorMap error_bounds(const Case& c, const ReferenceData& reference, const Precision& precision, int threads) {
  return naming_who_ran_out("the verifier", "it computed the error bounds",
                            [&] { return bounds_in_memory(c, reference, precision, threads); });
}

namespace {

TensorMap bounds_in_memory(const Case& c, const ReferenceData& reference, const Precision& precision, int threads) {
  const Problem& problem = c.problem;
  const Shape& shape = problem.shape;
  const bool gradients = !c.cotangents.empty();
  TensorMap bounds;
  for (const std::string& name : output_names(problem)) {
    if (!reference.outputs.contains(name)) throw std::invalid_argument("reference lacks " + name);
    bounds[name] = zeros(shape_of(name, shape));
  }
  for (const std::string prefix : {"exact/", "detached/"}) {
    if (!gradients) break;
    for (const std::string& name : input_names(problem)) {
      const TensorMap& values = prefix == "exact/" ? reference.exact : reference.detached;
      if (!values.contains(name)) throw std::invalid_argument("reference lacks the gradient " + prefix + name);
      bounds[prefix + name] = zeros(shape_of(name, shape));
    }
    bounds[prefix + "f_straddling"] = zeros(shape_of("f", shape));
    bounds[prefix + "open_rows"] = zeros({shape.B, shape.NH});
  }

  const std::int64_t reference_window =
      problem.chunk_size > 0 ? problem.chunk_size : 64;  // as reference::Options has it
  const std::int64_t heads = shape.heads();
  // A case may come without dh and still have cotangents of the last states.
  const Array no_dh = gradients && !c.cotangents.contains("h") ? zeros(shape_of("h", shape)) : Array();
  parallel_for(heads, threads, [&](std::int64_t head) {
    HeadProblem p{.S = shape.S,
                  .DHQK = shape.DHQK,
                  .DHV = shape.DHV,
                  .gate = problem.gate,
                  .normalize = problem.normalized(),
                  .eps = problem.eps,
                  .stabilizer_init = problem.stabilizer_init,
                  // The reference is float64 too, with sums of gates over its own chunks.
                  .window = std::max(precision.window, precision.operand == DType::float64 ? reference_window : 1),
                  .sums_every_step = precision.window <= 1,
                  // Large chunks are cut to keep S x L small.
                  .chunk = precision.window == 0 ? 64 : std::min<std::int64_t>(precision.window, 128),
                  .u = roundoffs(precision),
                  .in = slices<Inputs<double>>(c.inputs, "", heads, head),
                  .out = slices<Outputs<double>>(reference.outputs, "", heads, head),
                  .cotangents = slices<Cotangents<double>>(c.cotangents, "", heads, head),
                  .exact = slices<Gradients<double>>(reference.exact, "", heads, head),
                  .detached = slices<Gradients<double>>(reference.detached, "", heads, head)};
    if (no_dh.size() > 1) p.cotangents.h = no_dh.data() + head * shape.S * shape.DHV;
    const HeadBounds out{slices<Outputs<double>>(bounds, "", heads, head),
                         gradient_bound_slices(bounds, "exact/", heads, head),
                         gradient_bound_slices(bounds, "detached/", heads, head)};
    head_bounds(p, out);
  });
  const BoundConstants constants = bound_constants(coarsest(precision));
  for (auto& [name, bound] : bounds) {
    bound *= constant_of(constants, name.substr(name.find('/') + 1));
    // Squares of float64 numbers below this are zero, and so is a bound that is made of them.
    if (precision.operand == DType::float64 && !name.ends_with("open_rows")) bound = xt::maximum(bound, 0x1p-511);
  }
  return bounds;
}

}  // namespace

}  // namespace mlstm::verify
