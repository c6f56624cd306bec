// SPDX-License-Identifier: Apache-2.0
// Whole files, in and out, without HDF5.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.hpp"

namespace mlstm::verify {

/// All bytes of a regular file. Throws FileError.
std::string read_bytes(const std::filesystem::path& path);

/// The same for a text file; the message says so if it is a directory. Throws FileError.
std::string read_text_file(const std::filesystem::path& path);

/// Lower-case hexadecimal SHA-256 of a file's bytes / of a string. Throws FileError.
std::string sha256_of_file(const std::filesystem::path& path);
std::string sha256_of(std::string_view bytes);

/// Makes `path` hold `bytes`: writes them to a temporary name beside it, syncs, renames, syncs the directory. If
/// anything goes wrong, `path` is as it was. Throws FileError.
void replace_file(const std::filesystem::path& path, std::string_view bytes);

/// The same for several files: none is replaced before all are written.
void replace_files(const std::vector<std::pair<std::filesystem::path, std::string>>& files);

/// Removes what killed processes have left of replace_file(path). Nothing else may be replacing it. Errors are ignored.
void remove_temporaries(const std::filesystem::path& path);

}  // namespace mlstm::verify
