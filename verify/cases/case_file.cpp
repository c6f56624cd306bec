// SPDX-License-Identifier: Apache-2.0
#include "cases/case_file.hpp"

#include <algorithm>

#include "base/files.hpp"
#include "base/memory.hpp"
#include "cases/case_image.hpp"
#include "cases/manifest.hpp"

namespace mlstm::verify {

namespace fs = std::filesystem;

Case read_case(const fs::path& path) {
  const std::string image = read_bytes(path);
  check_manifest(path, image);
  try {
    Case c = decode_isolated(image);
    validate(c);
    return c;
  } catch (const std::bad_alloc&) {
    throw OutOfMemory("the verifier ran out of memory while it read " + path.string());
  } catch (const std::exception& error) {
    throw FileError(path.string() + ": " + error.what());
  }
}

void write_case(const Case& c, const fs::path& path) {
  validate(c);
  std::string image;
  try {
    image = encode_case(c);
  } catch (const FileError& error) {
    throw FileError(path.string() + ": " + error.what());
  }
  replace_file(path, image);
}

std::vector<fs::path> find_case_files(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found)
      throw FileError(path.string() + ": does not exist; expected a file or directory");
    if (!fs::exists(status)) throw FileError(path.string() + ": cannot be read: " + error.message());
    if (!fs::is_directory(status)) {
      files.push_back(path);
      continue;
    }
    fs::recursive_directory_iterator entries(path, error);
    for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error))
      if (entries->path().extension() == ".h5" && entries->is_regular_file(error)) files.push_back(entries->path());
    if (error) throw FileError(path.string() + ": cannot list: " + error.message());
  }
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

}  // namespace mlstm::verify
