// SPDX-License-Identifier: Apache-2.0
// What a kernel would have to declare of its precision to pass.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "judge/judge.hpp"

namespace mlstm::verify {

/// What of its precision a kernel would declare; absent: as it does now.
struct Declaration {
  std::string text;  ///< "operand_dtype = bfloat16"
  std::optional<DType> operand, product, gate, state;
};

/// The tightest declaration of operand_dtype, product_dtype, gate_dtype and state_dtype under which all of `items` (the
/// verdicts on one run, /kernel of `c`) would pass; the fewest and finest of them first.
/// Empty if there is none, or if its bounds say nothing: the errors have to look like roundings, in nearly all
/// elements, of either sign (or toward zero by what truncation takes off, in TF32), and not far below what is allowed,
/// and a tensor of zeros must not pass.
std::optional<Declaration> find_declaration(const Case& c, const ReferenceData& reference,
                                            const std::vector<Item>& items, int threads);

/// Its text; empty if there is none.
std::string tightest_declaration(const Case& c, const ReferenceData& reference, const std::vector<Item>& items,
                                 int threads);

}  // namespace mlstm::verify
