// SPDX-License-Identifier: Apache-2.0
// Reports as one HTML file that needs nothing else: no network, no other file, no script for its main tables.
#pragma once

#include <filesystem>
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
/// Throws FileError for a mutate.json that cannot be rendered; parts that it lacks are left out.
std::string to_html(const std::vector<Item>& items, const std::vector<MutationFile>& mutations = {});

/// The HTML report of several report directories (or report.json files): report.json with details.json, and
/// mutate.json, as far as they are there; one of report.json and mutate.json has to be. `items` gets all their items.
/// Throws FileError.
std::string html_of_reports(const std::vector<std::filesystem::path>& paths, std::vector<Item>& items);

}  // namespace mlstm::verify
