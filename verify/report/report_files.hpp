// SPDX-License-Identifier: Apache-2.0
// The files of verify/report, built into the program.
#pragma once

#include <string_view>
#include <vector>

namespace mlstm::verify {

struct ReportFile {
  std::string_view name, text;
};

/// Sorted by name.
const std::vector<ReportFile>& report_files();

}  // namespace mlstm::verify
