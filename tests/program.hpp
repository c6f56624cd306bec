// SPDX-License-Identifier: Apache-2.0
// Runs the built program the way a user does: through a shell, in a directory of its own.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "mlstm/verify/case_file.hpp"
#include "small_case.hpp"

namespace mlstm::test {

struct Outcome {
  int status;  ///< exit status; 128 if the command did not exit by itself
  std::string out, err;
};

class Workplace {
 public:
  const std::filesystem::path& path() const { return directory_.path(); }

  Outcome shell(const std::string& command) const {
    const std::string line = "cd '" + path().string() + "' && (" + command + ") >out 2>err";
    const int status = std::system(line.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, verify::read_text_file(path() / "out"),
            verify::read_text_file(path() / "err")};
  }

  /// Runs "mlstm <arguments>".
  Outcome mlstm(const std::string& arguments) const { return shell("'" MLSTM_BINARY_DIR "/bin/mlstm' " + arguments); }

 private:
  TemporaryDirectory directory_;
};

}  // namespace mlstm::test
