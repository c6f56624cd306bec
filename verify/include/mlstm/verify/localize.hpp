// SPDX-License-Identifier: Apache-2.0
// Saying where a failure is (head, chunk, time step, column, tile), which stage goes wrong first, and what the wrong
// values look like.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mlstm/verify/judge.hpp"
#include "mlstm/verify/runner.hpp"

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

/// locate, the share of failing elements by chunk, and recognize, as lines.
std::string explain_tensor(const JudgedTensor& judged);

/// One stage of the computation and where it first goes wrong.
struct Stage {
  std::string name;                ///< m, n, C, h in forward order; dC/dn (states), dv, dk, dq, di, df in backward
  std::optional<std::int64_t> at;  ///< first wrong time step in the order of computation; absent: right everywhere
  std::vector<std::int64_t> heads;
};

/// What probing a kernel with shorter problems found.
struct Stages {
  std::vector<Stage> forward, backward;  ///< in the order of dependence; empty if not probed
  std::string why_not;                   ///< why (a part) could not be probed
  std::int64_t runs = 0;                 ///< of the kernel
  std::string text;                      ///< lines
};

/// Finds the stage and the time step at which `c`, which the kernel fails, goes wrong first. Forward: by runs on the
/// first t steps, judging the states they return. Backward, if all outputs are right: by runs on the steps from t on,
/// from the reference's states, judging the gradients of those. At most `most_runs` runs. A variant that takes or
/// returns no states is probed less; `why_not` says so.
Stages find_stages(const Kernel& kernel, const Case& c, std::optional<Convention> convention, const RunFunction& runner,
                   std::int64_t most_runs = 200);

/// Known mistakes whose answer the failing tensors of `items` (judged items of `c`, which holds /kernel) would be: a
/// state dropped between chunks, initial states ignored, another eps, scale or convention, coarser operands, ...: one
/// line per mistake, "as if: ...". Evaluates the reference once for each mistake; for a problem that is too large for
/// that the only line says so.
std::vector<std::string> find_mistakes(const Case& c, const ReferenceData& reference, const std::vector<Item>& items,
                                       int threads = 0);

}  // namespace mlstm::verify
