// SPDX-License-Identifier: Apache-2.0
#include "mlstm/dtype.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>

namespace mlstm {
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 5> kNames{{{DType::float64, "float64"},
                                                                    {DType::float32, "float32"},
                                                                    {DType::tfloat32, "tfloat32"},
                                                                    {DType::float16, "float16"},
                                                                    {DType::bfloat16, "bfloat16"}}};

/// What others call these formats.
constexpr std::array<std::pair<std::string_view, DType>, 10> kOtherNames{{{"fp64", DType::float64},
                                                                          {"f64", DType::float64},
                                                                          {"double", DType::float64},
                                                                          {"fp32", DType::float32},
                                                                          {"f32", DType::float32},
                                                                          {"tf32", DType::tfloat32},
                                                                          {"fp16", DType::float16},
                                                                          {"f16", DType::float16},
                                                                          {"half", DType::float16},
                                                                          {"bf16", DType::bfloat16}}};

/// One of the formats that `accepts` takes.
template <class Accepts>
DType parse_one_of(std::string_view text, std::string_view argument, const Accepts& accepts) {
  std::string expected;
  for (const auto& [value, name] : kNames) {
    if (!accepts(value)) continue;
    if (name == text) return value;
    expected += (expected.empty() ? "" : value == kNames.back().first ? " or " : ", ") + std::string(name);
  }
  for (const auto& [name, value] : kOtherNames)
    if (name == text && accepts(value)) expected += "; did you mean " + std::string(to_string(value)) + "?";
  throw std::invalid_argument(std::string(argument) + " is \"" + std::string(text) + "\"; expected " + expected);
}

struct Format {
  int precision;     // significand bits, the hidden one included
  int min_exponent;  // exponent of the smallest normal number
  int max_exponent;  // exponent of the largest number
};

constexpr Format format_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return {53, -1022, 1023};
    case DType::float32:
      return {24, -126, 127};
    case DType::tfloat32:
      return {11, -126, 127};
    case DType::float16:
      return {11, -14, 15};
    case DType::bfloat16:
      return {8, -126, 127};
  }
  throw std::logic_error("format_of: unknown DType");
}

/// 2^n for the n of normal numbers.
constexpr double power_of_two(int n) { return std::bit_cast<double>(static_cast<std::uint64_t>(n + 1023) << 52); }

}  // namespace

std::string_view to_string(DType dtype) {
  for (const auto& [value, name] : kNames)
    if (value == dtype) return name;
  throw std::logic_error("to_string: unknown DType");
}

DType parse_dtype(std::string_view text, std::string_view argument) {
  return parse_one_of(text, argument, [](DType) { return true; });
}

DType parse_storage_dtype(std::string_view text, std::string_view argument) {
  return parse_one_of(text, argument, [](DType dtype) { return dtype != DType::tfloat32; });
}

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 8;
    case DType::float32:
    case DType::tfloat32:
      return 4;
    case DType::float16:
    case DType::bfloat16:
      return 2;
  }
  throw std::logic_error("size_of: unknown DType");
}

bool is_16_bit(DType dtype) { return size_of(dtype) == 2; }

double unit_roundoff(DType dtype) { return std::ldexp(1.0, -format_of(dtype).precision); }

DType state_dtype_of(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

// Integer arithmetic on the bits, so that no library or compiler option can change a result: the tail below the last
// kept bit is compared with one half of it.
double round_to(DType dtype, double value) {
  const Format format = format_of(dtype);
  if (format.precision == 53 || !std::isfinite(value) || value == 0.0) return value;
  const auto bits = std::bit_cast<std::uint64_t>(value);
  const std::uint64_t sign = bits & (std::uint64_t{1} << 63);
  const int biased = static_cast<int>((bits >> 52) & 0x7ff);
  if (biased == 0) return std::bit_cast<double>(sign);  // float64 subnormals are far below half of any step here
  const int exponent = biased - 1023;
  const std::uint64_t significand = (bits & ((std::uint64_t{1} << 52) - 1)) | (std::uint64_t{1} << 52);
  int drop = 53 - format.precision;
  if (exponent < format.min_exponent) drop += format.min_exponent - exponent;
  if (drop > 54) return std::bit_cast<double>(sign);
  const std::uint64_t half = std::uint64_t{1} << (drop - 1);
  std::uint64_t kept = drop == 64 ? 0 : significand >> drop;
  const std::uint64_t tail = significand & ((half << 1) - 1);
  if (tail > half || (tail == half && (kept & 1))) ++kept;
  const double magnitude = static_cast<double>(kept) * power_of_two(exponent - 52 + drop);
  const double largest = (2.0 - power_of_two(1 - format.precision)) * power_of_two(format.max_exponent);
  const double result = magnitude > largest ? std::numeric_limits<double>::infinity() : magnitude;
  return sign != 0 ? -result : result;
}

bool is_representable(DType dtype, double value) {
  if (dtype == DType::float64 || !std::isfinite(value)) return std::isfinite(value);
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return false;
  if (dtype == DType::float32) return true;
  // bfloat16 has the exponents of float32, and half of its bits.
  if (dtype == DType::bfloat16) return (std::bit_cast<std::uint32_t>(narrow) & 0xffffu) == 0;
  return round_to(dtype, value) == value;
}

}  // namespace mlstm
