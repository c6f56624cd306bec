// SPDX-License-Identifier: Apache-2.0
// Whole files, in and out, without HDF5.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace mlstm::verify {

/// All bytes of a regular file. Throws FileError.
std::string read_bytes(const std::filesystem::path& path);

/// Lets `create` make a file of a temporary name beside `path`, syncs it, renames it, syncs the directory. If anything
/// throws, `path` is as it was. Throws FileError.
void replace_file(const std::filesystem::path& path, const std::function<void(const std::filesystem::path&)>& create);

}  // namespace mlstm::verify
