// SPDX-License-Identifier: Apache-2.0
// Reports as one HTML file that needs nothing else: no network, no other file, no script for its main tables.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/text.hpp"
#include "judge/judge.hpp"

namespace mlstm::verify {

/// What `mlstm mutate` found: text of a mutate.json and the name of the file, for messages.
struct MutationFile {
  std::string text, source;
};

/// The report: the verdict, what did not pass and why, status and largest error_ratio by regime, by eps and variant,
/// the worst element of each tensor with pictures of its errors, the kill matrix of each of `mutations`, and every item
/// with its reproduction line. The same input gives the same bytes. What items and files say is text, never markup.
/// `remark` is said below the verdict. Throws FileError for a mutate.json that cannot be rendered; parts that it lacks
/// are left out.
std::string to_html(const std::vector<Item>& items, const std::vector<MutationFile>& mutations = {},
                    const std::string& remark = {});

/// The mutate.json in a report directory, if there is one. Throws FileError.
std::optional<MutationFile> mutation_file_in(const std::filesystem::path& directory);

}  // namespace mlstm::verify
