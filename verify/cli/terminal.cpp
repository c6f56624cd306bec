// SPDX-License-Identifier: Apache-2.0
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

#include "cli/cli.hpp"
#include "report/report.hpp"

namespace mlstm::cli {

std::size_t text_width() {
  if (const char* columns = std::getenv("COLUMNS")) {
    try {
      return static_cast<std::size_t>(parse_integer(columns, "COLUMNS", 1));
    } catch (const std::invalid_argument&) {
      // whatever it is, it is no width
    }
  }
  winsize size{};
  if (isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return verify::kTextWidth;
}

}  // namespace mlstm::cli
