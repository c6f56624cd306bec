// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace mlstm::cli {
namespace {

constexpr std::chrono::seconds kBetweenLines{5};

int terminal_width(std::FILE* out) {
  winsize size{};
  return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

Progress::Progress(std::string what, std::int64_t total, bool count_failures, Clock clock, std::FILE* out)
    : what_(std::move(what)),
      total_(total),
      count_failures_(count_failures),
      terminal_(isatty(fileno(out)) == 1),
      clock_(std::move(clock)),
      last_line_(clock_()),
      out_(out) {
  if (terminal_ && total_ > 0) draw();
}

Progress::~Progress() {
  if (terminal_ && total_ > 0) std::fputs("\r\033[K", out_);
}

void Progress::advance(std::int64_t failures) {
  ++done_;
  failures_ += failures;
  if (terminal_) {
    draw();
  } else if (const auto now = clock_(); now - last_line_ >= kBetweenLines) {
    last_line_ = now;
    fmt::print(out_, "{} of {} {} done{}\n", done_, total_, what_,
               count_failures_ ? fmt::format(", {} tensors did not pass", failures_) : "");
    std::fflush(out_);
  }
}

void Progress::draw() const {
  const std::string text = fmt::format(" {}/{} {}{}", done_, total_, what_,
                                       count_failures_ ? fmt::format(", {} did not pass", failures_) : "");
  const auto room = std::clamp<std::int64_t>(terminal_width(out_) - static_cast<std::int64_t>(text.size()) - 3, 0, 40);
  const auto filled = static_cast<std::size_t>(room * done_ / std::max<std::int64_t>(total_, 1));
  const std::string bar = std::string(filled, '#') + std::string(static_cast<std::size_t>(room) - filled, '-');
  fmt::print(out_, "\r\033[K[{}]{}", bar, text);
  std::fflush(out_);
}

}  // namespace mlstm::cli
