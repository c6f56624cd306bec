// SPDX-License-Identifier: Apache-2.0
// The text of a journal, apart from its file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {

/// What the first line says.
struct JournalHeader {
  std::string plan, shard;
  std::int64_t units = 0, shard_units = 0;
  bool operator==(const JournalHeader&) const = default;
};

struct JournalContents {
  JournalHeader header;
  std::map<std::int64_t, std::vector<Record>> done;  ///< by unit
  std::size_t size = 0;                              ///< of the complete lines, in bytes
  std::int64_t version = 0;                          ///< of the format
};

/// Reads the complete lines; one without its end is what a killed program left behind, and is ignored. Throws FileError
/// that names `source` and the line.
JournalContents parse_journal(std::string_view text, const std::string& source);

/// The lines, ends included.
std::string to_line(const JournalHeader& header);
std::string to_line(std::int64_t unit, const std::vector<Record>& records);

}  // namespace mlstm::verify
