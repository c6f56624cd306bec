// SPDX-License-Identifier: Apache-2.0
// Where a failure is (head, chunk, time step, column, tile), and what the wrong values look like.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "judge/judge.hpp"

namespace mlstm::verify {

/// One tensor with what it was judged by. The arrays must outlive it.
struct JudgedTensor {
  std::string tensor;  ///< h, c_last, ..., dq, ..., dm_initial
  Problem problem;
  bool chunked = false;  ///< the kernel works in chunks of problem.chunk_size < S steps
  const Array *values = nullptr, *reference = nullptr, *bound = nullptr;
};

/// The tensor of `item`, a judged item of `c` (which holds /kernel). `bounds` as from error_bounds.
JudgedTensor judged_tensor(const Case& c, const ReferenceData& reference, const TensorMap& bounds, const Item& item);

/// The elements that exceed their bounds. A tensor is heads x rows x columns: rows are time steps in q, k, v, i, f, h
/// and their gradients, and the DHQK axis in c; n and m have one row.
struct Location {
  std::int64_t failing = 0, elements = 0;
  std::vector<std::int64_t> heads, rows, columns;  ///< those that hold a failing element, ascending; head = b NH + nh
  std::string text;  ///< "512 of 8192 elements, in head [0, 1] alone, t = 64 ... 127 (all of chunk 1), every column"
};
Location locate(const JudgedTensor& judged);

/// What the failing values look like: NaN, zero, a multiple of the expected values, expected values of another step,
/// head or column, ... Empty if nothing fits 95 % of them.
std::string recognize(const JudgedTensor& judged);

/// What the errors of the whole tensor have in common: a factor of all of it, of some heads or of a range of steps;
/// that they are of numbers rounded toward zero. Empty if nothing explains nine tenths of them.
std::string recognize_average(const JudgedTensor& judged);

/// locate, the share of failing elements by chunk, and recognize or else recognize_average, as lines. Without the first
/// two if every element is within its bound.
std::string explain_tensor(const JudgedTensor& judged);

}  // namespace mlstm::verify
