// SPDX-License-Identifier: Apache-2.0
// Naming known mistakes that would give the same wrong answer.
#pragma once

#include <string>
#include <vector>

#include "judge/judge.hpp"

namespace mlstm::verify {

/// Known mistakes whose answer the failing tensors of `items` (judged items of `c`, which holds /kernel) would be: a
/// state dropped between chunks, initial states ignored, another eps, scale or convention, coarser operands, ...: one
/// line per mistake, "as if: ...". Evaluates the reference once for each mistake; for a problem that is too large for
/// that the only line says so.
std::vector<std::string> find_mistakes(const Case& c, const ReferenceData& reference, const std::vector<Item>& items,
                                       int threads = 0);

}  // namespace mlstm::verify
