// SPDX-License-Identifier: Apache-2.0
// Judging what a kernel produced against the float64 reference, element by element, within error bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mlstm/verify/bounds.hpp"
#include "mlstm/verify/case.hpp"

namespace mlstm::verify {

enum class Status { PASS, FAIL, MISTRUSTED, SKIPPED, ERROR, TIMEOUT, STALE };
std::string_view to_string(Status);
Status parse_status(std::string_view text);

/// The verdict on one tensor of one case.
struct Item {
  std::string variant, case_name, tensor;  ///< tensor: h, c_last, ..., dq, ..., dm_initial
  std::string convention;                  ///< "exact", "detached", "both", or empty for outputs
  Status status = Status::ERROR;
  std::optional<double> error_ratio, max_abs_error, rel_frobenius;  ///< absent: not computed; may be infinite
  std::vector<std::int64_t> worst_index;
  std::string repro, note;
};

struct JudgeOptions {
  std::optional<Convention> convention;   ///< judge gradients under this one; absent: as declared, else the better fit
  std::optional<DType> operand_dtype;     ///< overrides the declaration
  bool require_all = false;               ///< an absent output or gradient is a FAIL
};

/// Judges everything in `c.kernel` against `reference` (which has gradients if the case has cotangents): outputs, last
/// states and gradients. Never throws for wrong numbers; one item per tensor, in contract order.
std::vector<Item> judge(const Case& c, const ReferenceData& reference, const JudgeOptions& options = {});

}  // namespace mlstm::verify
