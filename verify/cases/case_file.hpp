// SPDX-License-Identifier: Apache-2.0
// mlstm-case files (contract §5): HDF5 in and out.
#pragma once

#include <filesystem>
#include <vector>

#include "base/files.hpp"
#include "cases/case.hpp"

namespace mlstm::verify {

/// Reads and validates a case: checks the manifest, if one lists the file, then parses in a child process, because HDF5
/// can crash or hang on damaged files. Works from any thread. Throws FileError.
Case read_case(const std::filesystem::path& path);

/// Writes to a temporary name beside `path`, syncs, renames and syncs the directory: `path` holds the old or the new
/// file, never a part. Throws FileError (or std::invalid_argument if the case is not valid).
void write_case(const Case& c, const std::filesystem::path& path);

/// All *.h5 files named by or below `paths`, sorted. Throws FileError for a path that does not exist.
std::vector<std::filesystem::path> find_case_files(const std::vector<std::filesystem::path>& paths);

/// Writes `directory`/MANIFEST.sha256 in the format of sha256sum over all *.h5 files below it.
void write_manifest(const std::filesystem::path& directory);

/// If the file's directory, or one above it, has a MANIFEST.sha256 that lists it, the sum has to match; throws
/// FileError otherwise. A file that no manifest lists passes: outside captures need none.
void check_manifest(const std::filesystem::path& path);

}  // namespace mlstm::verify
