// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string_view>

namespace mlstm::verify {

/// check_manifest of a file whose bytes are already in memory, so that what was checked is what is used.
void check_manifest(const std::filesystem::path& path, std::string_view bytes);

}  // namespace mlstm::verify
