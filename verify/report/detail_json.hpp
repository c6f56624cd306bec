// SPDX-License-Identifier: Apache-2.0
// Details as JSON, in journals and in details.json.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "judge/detail.hpp"

namespace mlstm::verify {

/// {"problem", "got", "expected", "bound", "shape", "storage"[, "picture"]}; the three numbers are text, so that every
/// bit survives, infinities and NaN too; `problem` is a line as parse_spec reads it, `regime` is beside it.
nlohmann::ordered_json to_object(const Detail& detail);

/// Inverse of to_object, but that a picture's profile has three digits. Throws std::exception for what to_object
/// could not have written.
Detail detail_of(const nlohmann::ordered_json& object);

}  // namespace mlstm::verify
