// SPDX-License-Identifier: Apache-2.0
// Runs the built program the way a user does.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "cases/case_file.hpp"
#include "report/report.hpp"
#include "small_case.hpp"
#include "text.hpp"

namespace mlstm::test {

struct Result {
  int status;  ///< exit status; 128 if the command did not exit by itself
  std::string out, err;
};

/// A directory of its own for every test case, and what is run there.
struct Workplace {
  TemporaryDirectory directory;
  std::filesystem::path path = directory.path();

  Result shell(const std::string& command) const {
    const int status = std::system(("cd '" + path.string() + "' && (" + command + ") >out 2>err").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, verify::read_text_file(path / "out"),
            verify::read_text_file(path / "err")};
  }

  /// Runs "mlstm <arguments>".
  Result run(const std::string& arguments) const { return shell("'" MLSTM_BINARY_DIR "/bin/mlstm' " + arguments); }

  std::vector<verify::Item> report(const std::string& name) const {
    return verify::read_report_with_details(path / name);
  }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
  }
};

}  // namespace mlstm::test
