// SPDX-License-Identifier: Apache-2.0
// Small cases for tests of files: every value is made of its tensor's name and its index.
#pragma once

#include <unistd.h>

#include <bit>
#include <filesystem>
#include <limits>
#include <string>

#include "cases/case.hpp"

namespace mlstm::test {

inline verify::Array numbered(const std::string& tensor, const std::vector<std::int64_t>& shape, DType dtype) {
  verify::Array array = verify::Array::from_shape({shape.begin(), shape.end()});
  std::uint64_t state = static_cast<std::uint64_t>(tensor.front()) * 1000 + tensor.size();
  for (double& value : array) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = round_to(dtype, static_cast<double>(state >> 40) / 0x1p23 - 1);
  }
  return array;
}

inline verify::TensorMap numbered(const std::vector<std::string>& names, const Problem& problem, bool as_stored) {
  verify::TensorMap tensors;
  for (const std::string& name : names)
    tensors[name] =
        numbered(name, shape_of(name, problem.shape), as_stored ? storage_dtype(name, problem) : DType::float64);
  return tensors;
}

/// A case with everything in it, /reference and /kernel included.
inline verify::Case small_case(DType dtype, Gate gate, bool states, Shape shape = {2, 1, 5, 3, 4}) {
  verify::Case c;
  c.name = "small";
  c.problem = {.shape = shape, .gate = gate, .eps = 1e-3, .dtype = dtype, .chunk_size = 2, .has_initial_state = states};
  const auto inputs = input_names(c.problem), outputs = output_names(c.problem);
  c.inputs = numbered(inputs, c.problem, true);
  c.cotangents = numbered(states ? outputs : std::vector<std::string>{"h"}, c.problem, true);
  verify::ReferenceData reference;
  reference.outputs = numbered(outputs, c.problem, false);
  reference.exact = numbered(inputs, c.problem, false);
  reference.detached = numbered(inputs, c.problem, false);
  reference.outputs["h"].flat(reference.outputs["h"].size() - 1) = std::numeric_limits<double>::infinity();
  reference.bounds["h"] = reference.outputs["h"];
  reference.bounds["exact/f"] = reference.exact["f"];
  reference.bounds["exact/f_straddling"] = reference.exact["f"];
  reference.bounds["detached/open_rows"] =
      verify::Array::from_shape({static_cast<std::size_t>(shape.B), static_cast<std::size_t>(shape.NH)});
  reference.bounds["detached/open_rows"].fill(2.0);
  reference.attributes = {{"precision", std::string("extended")}, {"digits", std::int64_t{50}}};
  c.reference = reference;
  verify::KernelData kernel;
  kernel.variant = "chunkwise--native_eigen_ownbw";
  kernel.formulation = Module::chunkwise;
  kernel.convention = Convention::detached;
  kernel.operand_dtype = DType::tfloat32;
  kernel.state_dtype = DType::float32;
  kernel.gate_dtype = DType::bfloat16;
  kernel.product_dtype = DType::float16;
  kernel.outputs = numbered(outputs, c.problem, true);
  kernel.gradients = numbered({"q", "f"}, c.problem, true);
  kernel.outputs["h"].flat(0) = std::numeric_limits<double>::quiet_NaN();
  kernel.outputs["h"].flat(kernel.outputs["h"].size() - 1) = -std::numeric_limits<double>::infinity();
  kernel.attributes = {{"device", std::string("Zürich \"1\"")}, {"milliseconds", 0.1}};
  c.kernel = kernel;
  c.attributes = {{"seed", std::int64_t{-7}},
                  {"note", std::string()},
                  {"temperature", 0.3},
                  {"loss", std::numeric_limits<double>::quiet_NaN()}};
  return c;
}

/// Equal bits; NaN equals NaN.
inline bool equal(double x, double y) {
  return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y) || (x != x && y != y);
}

inline bool same(const verify::TensorMap& a, const verify::TensorMap& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](const auto& x, const auto& y) {
    return x.first == y.first && x.second.shape() == y.second.shape() &&
           std::equal(x.second.begin(), x.second.end(), y.second.begin(), equal);
  });
}

inline bool same(const verify::Attributes& a, const verify::Attributes& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    const double* const number = std::get_if<double>(&x.second);
    const double* const other = std::get_if<double>(&y.second);
    return x.first == y.first &&
           (number != nullptr && other != nullptr ? equal(*number, *other) : x.second == y.second);
  });
}

inline bool same_data(const verify::Case& a, const verify::Case& b) {
  if (!same(a.inputs, b.inputs) || !same(a.cotangents, b.cotangents)) return false;
  if (a.reference.has_value() != b.reference.has_value() || a.kernel.has_value() != b.kernel.has_value()) return false;
  if (a.reference &&
      !(same(a.reference->outputs, b.reference->outputs) && same(a.reference->exact, b.reference->exact) &&
        same(a.reference->detached, b.reference->detached) && same(a.reference->bounds, b.reference->bounds)))
    return false;
  return !a.kernel || (same(a.kernel->outputs, b.kernel->outputs) && same(a.kernel->gradients, b.kernel->gradients));
}

inline bool same(const verify::Case& a, const verify::Case& b) {
  if (a.name != b.name || a.problem != b.problem || !same(a.attributes, b.attributes) || !same_data(a, b)) return false;
  if (a.reference && !same(a.reference->attributes, b.reference->attributes)) return false;
  return !a.kernel ||
         (a.kernel->variant == b.kernel->variant && a.kernel->formulation == b.kernel->formulation &&
          a.kernel->convention == b.kernel->convention && a.kernel->operand_dtype == b.kernel->operand_dtype &&
          a.kernel->state_dtype == b.kernel->state_dtype && a.kernel->gate_dtype == b.kernel->gate_dtype &&
          a.kernel->product_dtype == b.kernel->product_dtype && same(a.kernel->attributes, b.kernel->attributes));
}

/// A directory that lives as long as this object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(std::filesystem::temp_directory_path() / ("mlstm_test_XXXXXX")) {
    std::string name = path_.string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create " + name);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace mlstm::test
