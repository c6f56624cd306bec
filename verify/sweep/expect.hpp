// SPDX-License-Identifier: Apache-2.0
// Recorded verdicts, kept beside captures of kernels that are known to be wrong (contract §6, --expect).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "judge/judge.hpp"

namespace mlstm::verify {

/// case -> tensor -> status.
using Expectation = std::map<std::string, std::map<std::string, Status>>;

/// Parses a JSON object case -> tensor -> status. Throws FileError that names `source`, the key and what was expected.
Expectation parse_expectation(std::string_view text, const std::string& source);
Expectation read_expectation(const std::filesystem::path& path);

/// Text of an expectation that `items` meet.
std::string expectation_of(const std::vector<Item>& items);

/// One line per difference: another status than expected, a tensor that is not expected of its case, an expectation
/// that was not judged. A case that the expectation does not name is expected to pass. Empty if the verdicts are as
/// expected.
std::vector<std::string> differences(const Expectation& expected, const std::vector<Item>& items);

/// Sets Item::as_expected, and adds an ERROR for each expectation that was not judged.
void compare_with(const Expectation& expected, std::vector<Item>& items);

/// True if `item` has exactly the status that is recorded for it: PASS if its case is not named at all.
bool is_expected(const Expectation& expected, const Item& item);

}  // namespace mlstm::verify
