// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cli/cli.hpp"

namespace mlstm::cli {
namespace {

constexpr std::int64_t kLines = 10;  ///< how many plain lines a long run prints

int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

Progress::Progress(std::string what, std::int64_t total, bool count_failures)
    : what_(std::move(what)), total_(total), count_failures_(count_failures), terminal_(isatty(STDERR_FILENO) == 1) {
  if (terminal_ && total_ > 0) draw();
}

Progress::~Progress() {
  if (terminal_ && total_ > 0) std::fputs("\r\033[K", stderr);
}

void Progress::advance(std::int64_t failures) {
  ++done_;
  failures_ += failures;
  if (terminal_) {
    draw();
  } else if (total_ >= 2 * kLines && done_ * kLines / total_ > lines_) {
    lines_ = done_ * kLines / total_;
    fmt::print(stderr, "{} of {} {} done{}\n", done_, total_, what_,
               count_failures_ ? fmt::format(", {} tensors did not pass", failures_) : "");
  }
}

void Progress::draw() const {
  const std::string text = fmt::format(" {}/{} {}{}", done_, total_, what_,
                                       count_failures_ ? fmt::format(", {} did not pass", failures_) : "");
  const auto room = std::clamp<std::int64_t>(terminal_width() - static_cast<std::int64_t>(text.size()) - 3, 0, 40);
  const auto filled = static_cast<std::size_t>(room * done_ / std::max<std::int64_t>(total_, 1));
  const std::string bar = std::string(filled, '#') + std::string(static_cast<std::size_t>(room) - filled, '-');
  fmt::print(stderr, "\r\033[K[{}]{}", bar, text);
  std::fflush(stderr);
}

}  // namespace mlstm::cli
