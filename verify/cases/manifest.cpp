// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/files.hpp"
#include "cases/case_file.hpp"
#include "cases/manifest.hpp"

namespace mlstm::verify {
namespace {

namespace fs = std::filesystem;
constexpr const char* kManifest = "MANIFEST.sha256";
constexpr std::size_t kDigits = 64;

}  // namespace

std::map<std::string, std::string> parse_manifest(std::string_view text, const std::string& source) {
  std::map<std::string, std::string> sums;
  std::size_t number = 0;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++number;
    if (line.empty()) continue;
    const bool good = line.size() > kDigits + 2 && line.find_first_not_of("0123456789abcdef") == kDigits &&
                      line[kDigits] == ' ' && (line[kDigits + 1] == ' ' || line[kDigits + 1] == '*');
    if (!good)
      throw FileError(fmt::format("{}: line {} is malformed; expected 64 hexadecimal digits, two blanks and a path",
                                  source, number));
    const auto [known, is_new] = sums.emplace(line.substr(kDigits + 2), line.substr(0, kDigits));
    if (!is_new && known->second != line.substr(0, kDigits))
      throw FileError(fmt::format("{}: line {} gives another sum for {}; expected one", source, number, known->first));
  }
  return sums;
}

void write_manifest(const fs::path& directory) {
  std::string text;
  for (const fs::path& path : find_case_files({directory}))
    text += fmt::format("{}  {}\n", sha256_of_file(path), path.lexically_relative(directory).generic_string());
  replace_file(directory / kManifest, text);
}

void check_manifest(const fs::path& path, std::string_view bytes) {
  std::error_code ignored;
  const fs::path absolute = fs::weakly_canonical(path, ignored);
  for (fs::path directory = absolute.parent_path(); !directory.empty(); directory = directory.parent_path()) {
    const fs::path manifest = directory / kManifest;
    if (fs::exists(manifest, ignored)) {
      const auto sums = parse_manifest(read_bytes(manifest), manifest.string());
      const auto listed = sums.find(absolute.lexically_relative(directory).generic_string());
      if (listed != sums.end() && listed->second != sha256_of(bytes))
        throw FileError(fmt::format("{}: SHA-256 is {}; expected {} as listed in {}", path.string(), sha256_of(bytes),
                                    listed->second, manifest.string()));
    }
    if (directory == directory.root_path()) break;
  }
}

void check_manifest(const fs::path& path) { check_manifest(path, read_bytes(path)); }

}  // namespace mlstm::verify
