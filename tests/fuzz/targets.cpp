// SPDX-License-Identifier: Apache-2.0
#include "targets.hpp"

namespace mlstm::fuzz {

void require(bool holds, const char* property) {
  if (!holds) throw Violation(property);
}

void require_message(std::string_view message) {
  require(!message.empty(), "an error without a message");
  require(message.find('\n') == std::string_view::npos, "an error message of several lines");
}

const std::vector<Target>& targets() {
  static const std::vector<Target> all{spec_target(),        manifest_target(),  report_target(), journal_target(),
                                       expectation_target(), peers_target(),     reply_target(),  frames_target(),
                                       details_target(),     mutations_target(), case_target()};
  return all;
}

}  // namespace mlstm::fuzz
