// SPDX-License-Identifier: Apache-2.0
// One problem with its data in host memory: what a mlstm-case file holds (contract §5).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>
#include <xtensor/xarray.hpp>

#include "mlstm/problem.hpp"
#include "mlstm/reference/reference.hpp"

namespace mlstm::verify {

/// Row-major N-d array of float64 values. Values of narrower dtypes are held exactly.
using Array = xt::xarray<double>;

/// Tensors by contract name ("q", "c_initial", "h", "c_last", ...). Cotangents are keyed by the output's name,
/// gradients by the input's name.
using TensorMap = std::map<std::string, Array>;

/// An attribute that is not one integer, number or string (an array, say), as HDF5 encodes it.
struct OpaqueAttribute {
  std::string type, space, data;
  bool operator==(const OpaqueAttribute&) const = default;
};

/// Attributes beyond the ones of the contract; kept when a file is read and written again.
using Attribute = std::variant<std::int64_t, double, std::string, OpaqueAttribute>;
using Attributes = std::map<std::string, Attribute>;

/// /reference: float64 solution, and per-element bounds if stored.
struct ReferenceData {
  TensorMap outputs, exact, detached;
  TensorMap bounds;       ///< keyed as by error_bounds: h, c_last, ..., exact/q, ..., detached/m_initial
  Attributes attributes;  ///< precision ("extended" or "float64"), ...
};

/// /kernel: what a kernel produced for this problem.
struct KernelData {
  std::string variant;                   ///< full key, may be empty in files of others
  std::optional<Module> formulation;     ///< absent: that of the variant's prefix, if it has one
  std::optional<Convention> convention;  ///< of the gradients; absent = unknown
  std::optional<DType> operand_dtype, state_dtype;
  std::optional<DType> gate_dtype, product_dtype;
  TensorMap outputs, gradients;
  Attributes attributes;  ///< source, device, ...
  /// Largest difference of each element between the run that gave it and others, by result ("h", "dq"); infinite where
  /// one of them is not finite. Only of runs that accept that (RunOptions::accept_nondeterminism); no part of files.
  TensorMap spread;
};

struct Case {
  std::string name;
  Problem problem;
  TensorMap inputs;      ///< q k v i f [c_initial n_initial m_initial]
  TensorMap cotangents;  ///< h [c_last n_last m_last]; empty: forward only
  std::optional<ReferenceData> reference;
  std::optional<KernelData> kernel;
  Attributes attributes;
};

/// Throws std::invalid_argument that names the tensor, the value or shape and what was expected: missing, unknown or
/// mis-shaped tensors, partial states, non-finite values, values not representable in the problem's dtype.
void validate(const Case&);

/// The formulation that the prefix of a variant's key names ("chunkwise--..."); absent if there is none.
std::optional<Module> formulation_in(std::string_view variant);

/// What the kernel states, else what its variant's prefix names. Bounds follow it: absent, nothing is known.
std::optional<Module> formulation_of(const KernelData& kernel);

/// Pointers into the arrays of a case, for the reference. The maps must outlive the result.
Inputs<double> inputs_of(const TensorMap& inputs);
Cotangents<double> cotangents_of(const TensorMap& cotangents);

/// Evaluates the reference on /inputs (and /cotangents): outputs, last states and, with cotangents, both gradients.
/// The attribute `precision` says whether in float64 or, with `extended`, by evaluate_extended.
ReferenceData evaluate_reference(const Case&, const reference::Options& = {}, bool extended = false);

}  // namespace mlstm::verify
