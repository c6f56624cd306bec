// SPDX-License-Identifier: Apache-2.0
// Number formats of the suite, by name and by precision.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mlstm {

/// Storage and operand formats. `tfloat32` is only ever an operand format: it is stored as float32 and
/// multiplied with a 10-bit mantissa.
enum class DType { float64, float32, tfloat32, float16, bfloat16 };

/// "float64", "float32", "tfloat32", "float16" or "bfloat16".
std::string_view to_string(DType dtype);

/// Inverse of `to_string`. Throws std::invalid_argument that names `argument` and the value.
DType parse_dtype(std::string_view text, std::string_view argument = "dtype");

/// The same for what tensors are stored in, which is never tfloat32.
DType parse_storage_dtype(std::string_view text, std::string_view argument = "dtype");

/// Bytes of one stored element (tfloat32 is stored as float32).
std::size_t size_of(DType dtype);

/// True for float16 and bfloat16.
bool is_16_bit(DType dtype);

/// Unit roundoff of rounding to nearest: 2^-53, 2^-24, 2^-11, 2^-11, 2^-8 in the order of DType.
double unit_roundoff(DType dtype);

/// What states (c, n, m) and their cotangents are stored in when the inputs have `dtype`:
/// float64 for float64, else float32 (contract §2).
DType state_dtype_of(DType dtype);

/// `value` rounded to nearest-even in `dtype`; overflow gives an infinity, NaN stays NaN.
double round_to(DType dtype, double value);

/// True if `value` is finite and `round_to(dtype, value) == value`.
bool is_representable(DType dtype, double value);

}  // namespace mlstm
