// SPDX-License-Identifier: Apache-2.0
// What a kernel would have to declare of its precision to pass.
#pragma once

#include <string>
#include <vector>

#include "judge/judge.hpp"

namespace mlstm::verify {

/// The tightest declaration of operand_dtype, product_dtype, gate_dtype and state_dtype under which all of `items` (the
/// verdicts on one run, /kernel of `c`) would pass, as "operand_dtype = bfloat16"; the fewest and finest of them first.
/// Empty if there is none, or if its bounds say nothing: the errors have to look like roundings, in nearly all
/// elements, of either sign, and not far below what is allowed, and a tensor of zeros must not pass.
std::string tightest_declaration(const Case& c, const ReferenceData& reference, const std::vector<Item>& items,
                                 int threads);

}  // namespace mlstm::verify
