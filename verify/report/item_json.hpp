// SPDX-License-Identifier: Apache-2.0
// What an item holds beside the keys of the contract (§6), as JSON: in report.json and in journals.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "judge/judge.hpp"

namespace mlstm::verify {

/// Adds "regime", "problem" (a line as parse_spec reads it), "property", "run", "check", "hides", "exposed", and
/// "trivial", "zero_by_definition", "not_finite" and "as_expected", each only where it says something.
void put_facts(nlohmann::ordered_json& object, const Item& item);

/// Inverse of put_facts. Throws std::invalid_argument for what it could not have written.
void get_facts(const nlohmann::ordered_json& object, Item& item);

/// For files written before there were such keys: takes the facts that `item` lacks from the words in its name, its
/// note and its reproduction line.
void infer_facts(Item& item);

}  // namespace mlstm::verify
