// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/text.hpp"

namespace mlstm::verify {

/// Sums by path relative to the manifest. Lines are "<64 digits>  <path>", or " *" for a binary file. Throws FileError
/// that names `source` and the line.
std::map<std::string, std::string> parse_manifest(std::string_view text, const std::string& source);

/// check_manifest of a file whose bytes are already in memory, so that what was checked is what is used.
void check_manifest(const std::filesystem::path& path, std::string_view bytes);

}  // namespace mlstm::verify
