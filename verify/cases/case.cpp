// SPDX-License-Identifier: Apache-2.0
#include "cases/case.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string_view>

#include "base/memory.hpp"
#include "cases/case_image.hpp"
#include "cases/memory_needs.hpp"
#include "mlstm/reference/fields.hpp"

namespace mlstm::verify {
namespace {

constexpr std::array<std::string_view, 9> kRootAttributes{
    "schema", "schema_version", "case", "gate", "normalize", "eps", "dtype", "stabilizer_init", "chunk_size"};
constexpr std::array<std::string_view, 7> kKernelAttributes{
    "variant", "formulation", "gradient_convention", "operand_dtype", "state_dtype", "gate_dtype", "product_dtype"};

enum class Values { representable, not_nan, any };

std::string join(const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string index_of(std::size_t flat, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = static_cast<std::int64_t>(flat) % shape[axis];
    flat /= static_cast<std::size_t>(shape[axis]);
  }
  return fmt::format("[{}]", fmt::join(index, ","));
}

void check_tensor(const std::string& path, const Array& array, const std::vector<std::int64_t>& shape, Values values,
                  DType dtype) {
  if (!std::equal(shape.begin(), shape.end(), array.shape().begin(), array.shape().end()))
    throw std::invalid_argument(
        fmt::format("{} has shape ({}); expected ({})", path, fmt::join(array.shape(), ","), fmt::join(shape, ",")));
  if (values == Values::any) return;
  const double* data = array.data();
  for (std::size_t n = 0; n < array.size(); ++n) {
    const bool good = values == Values::not_nan ? !std::isnan(data[n]) : is_representable(dtype, data[n]);
    if (good) continue;
    const std::string expected = values == Values::not_nan ? "a number"
                                 : !std::isfinite(data[n])
                                     ? "a finite value"
                                     : fmt::format("a value representable in {}", to_string(dtype));
    throw std::invalid_argument(fmt::format("{}{} is {}; expected {}", path, index_of(n, shape), data[n], expected));
  }
}

/// Every tensor is one of `names`, is named like one that shape_of knows, and has that shape.
void check_group(const std::string& path, const TensorMap& tensors, const std::vector<std::string>& names,
                 const Problem& problem, Values values) {
  for (const auto& [name, array] : tensors) {
    if (!contains(names, name))
      throw std::invalid_argument(
          fmt::format("{}/{} is no tensor of this problem; expected {}", path, name, join(names)));
    check_tensor(fmt::format("{}/{}", path, name), array, shape_of(name, problem.shape), values,
                 storage_dtype(name, problem));
  }
}

template <std::size_t N>
void check_attributes(const std::string& path, const Attributes& attributes,
                      const std::array<std::string_view, N>& reserved) {
  for (const std::string_view name : reserved)
    if (attributes.contains(std::string(name)))
      throw std::invalid_argument(
          fmt::format("attribute {} of {} is among the free attributes; expected it in its own field", name, path));
}

/// What bounds follow.
void check_declarations(const KernelData& kernel) {
  const std::optional<Module> named = formulation_in(kernel.variant);
  if (named && kernel.formulation && named != kernel.formulation)
    throw std::invalid_argument(
        fmt::format("attribute formulation of /kernel is {}, but the variant is {}; expected {}",
                    to_string(*kernel.formulation), kernel.variant, to_string(*named)));
  const auto text_of = [&](const char* name) -> const std::string* {
    const auto found = kernel.attributes.find(name);
    if (found == kernel.attributes.end()) return nullptr;
    if (const auto* text = std::get_if<std::string>(&found->second)) return text;
    throw std::invalid_argument(fmt::format("attribute {} of /kernel is no string; expected a string", name));
  };
  if (const std::string* saved = text_of("saved_dtype")) parse_dtype(*saved, "attribute saved_dtype of /kernel");
  if (const std::string* rounding = text_of("rounding");
      rounding != nullptr && *rounding != "nearest" && *rounding != "truncate")
    throw std::invalid_argument(
        fmt::format("attribute rounding of /kernel is \"{}\"; expected \"nearest\" or \"truncate\"", *rounding));
  if (const std::string* sums = text_of("gate_gradient"); sums != nullptr && *sums != "straddling")
    throw std::invalid_argument(fmt::format(
        "attribute gate_gradient of /kernel is \"{}\"; expected \"straddling\", or no such attribute", *sums));
}

void check_reference(const ReferenceData& reference, const Problem& problem) {
  const std::vector<std::string> inputs = input_names(problem);
  check_group("/reference/outputs", reference.outputs, output_names(problem), problem, Values::not_nan);
  check_group("/reference/gradients/exact", reference.exact, inputs, problem, Values::not_nan);
  check_group("/reference/gradients/detached", reference.detached, inputs, problem, Values::not_nan);
  const std::vector<std::string> names = bound_names(problem);
  for (const auto& [name, array] : reference.bounds) {
    if (!contains(names, name))
      throw std::invalid_argument(
          fmt::format("/reference/bounds/{} is no bound of this problem; expected {}", name, join(names)));
    check_tensor("/reference/bounds/" + name, array, bound_shape(name, problem.shape), Values::not_nan, DType::float64);
  }
}

/// Pointers to the tensors that a map holds; null for the others.
template <class Struct, class Map>
Struct pointers_into(Map& tensors) {
  return reference::pointers_by_name<Struct>([&](std::string_view name) {
    const auto found = tensors.find(std::string(name));
    return found == tensors.end() ? nullptr : found->second.data();
  });
}

void allocate(TensorMap& tensors, const std::vector<std::string>& names, const Shape& shape) {
  for (const std::string& name : names) {
    const std::vector<std::int64_t> extents = shape_of(name, shape);
    tensors[name] = Array::from_shape({extents.begin(), extents.end()});
  }
}

}  // namespace

std::optional<Module> formulation_in(std::string_view variant) {
  for (const Module module : {Module::recurrent, Module::parallel, Module::chunkwise})
    if (variant.starts_with(std::string(to_string(module)) + "--")) return module;
  return {};
}

std::optional<Module> formulation_of(const KernelData& kernel) {
  return kernel.formulation ? kernel.formulation : formulation_in(kernel.variant);
}

std::vector<std::string> bound_names(const Problem& problem) {
  std::vector<std::string> names = output_names(problem);
  for (const std::string convention : {"exact/", "detached/"}) {
    for (const std::string& input : input_names(problem)) names.push_back(convention + input);
    for (const std::string extra : {"f_straddling", "open_rows"}) names.push_back(convention + extra);
  }
  return names;
}

std::vector<std::int64_t> bound_shape(std::string_view name, const Shape& shape) {
  const std::string_view tensor = name.substr(name.find('/') + 1);  // npos + 1 = 0: no convention
  if (tensor == "f_straddling") return shape_of("f", shape);
  if (tensor == "open_rows") return {shape.B, shape.NH};
  return shape_of(tensor, shape);
}

void validate(const Case& c) {
  validate(c.problem);
  check_attributes("/", c.attributes, kRootAttributes);
  const std::vector<std::string> inputs = input_names(c.problem);
  for (const std::string& name : inputs)
    if (!c.inputs.contains(name))
      throw std::invalid_argument(fmt::format("/inputs/{} is missing; expected {}", name, join(inputs)));
  check_group("/inputs", c.inputs, inputs, c.problem, Values::representable);
  if (!c.cotangents.empty() && !c.cotangents.contains("h"))
    throw std::invalid_argument("/cotangents/h is missing; expected it beside cotangents of the last states");
  check_group("/cotangents", c.cotangents, output_names(c.problem), c.problem, Values::representable);
  if (c.reference) check_reference(*c.reference, c.problem);
  if (c.kernel) {
    check_attributes("/kernel", c.kernel->attributes, kKernelAttributes);
    check_declarations(*c.kernel);
    check_group("/kernel/outputs", c.kernel->outputs, output_names(c.problem), c.problem, Values::any);
    check_group("/kernel/gradients", c.kernel->gradients, inputs, c.problem, Values::any);
  }
}

Inputs<double> inputs_of(const TensorMap& tensors) { return pointers_into<Inputs<double>>(tensors); }
Cotangents<double> cotangents_of(const TensorMap& tensors) { return pointers_into<Cotangents<double>>(tensors); }

namespace {

/// Throws OutOfMemory if the chunkwise reference of a problem cannot fit, rather than be killed while it is computed.
void require_memory(const Case& c, const reference::Options& options) {
  constexpr std::uint64_t kMuch = std::uint64_t{1} << 28;  // what needs less is not looked at
  if (options.formulation != Module::chunkwise) return;
  const VerifierNeeds needs = verifier_needs(c.problem, !c.cotangents.empty(), options.threads, Module::chunkwise);
  const std::uint64_t more = needs.until_reference - needs.inputs;  // the inputs are there
  if (more < kMuch) return;
  const MemoryRoom room = available_memory();
  if (more > room.bytes)
    throw OutOfMemory(fmt::format("the reference needs about {} more memory in the verifier; {} leaves {}",
                                  bytes_text(more), room.limited_by, bytes_text(room.bytes)));
}

ReferenceData evaluate_in_memory(const Case& c, const reference::Options& options, bool extended) {
  require_memory(c, options);
  ReferenceData result;
  reference::Request request;
  allocate(result.outputs, output_names(c.problem), c.problem.shape);
  request.outputs = pointers_into<Outputs<double>>(result.outputs);
  if (!c.cotangents.empty()) {
    allocate(result.exact, input_names(c.problem), c.problem.shape);
    allocate(result.detached, input_names(c.problem), c.problem.shape);
    request.cotangents = cotangents_of(c.cotangents);
    request.exact = pointers_into<Gradients<double>>(result.exact);
    request.detached = pointers_into<Gradients<double>>(result.detached);
  }
  (extended ? reference::evaluate_extended : reference::evaluate)(c.problem, inputs_of(c.inputs), request, options);
  result.attributes["precision"] = std::string(extended ? "extended" : "float64");
  return result;
}

}  // namespace

ReferenceData evaluate_reference(const Case& c, const reference::Options& options, bool extended) {
  return naming_who_ran_out("the verifier", "it computed the reference",
                            [&] { return evaluate_in_memory(c, options, extended); });
}

}  // namespace mlstm::verify
