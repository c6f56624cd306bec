// SPDX-License-Identifier: Apache-2.0
// Text in tests: what it contains, and what an exception says.
#pragma once

#include <string>

namespace mlstm::test {

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// What the Exception says that `call` throws; "none" without one.
template <class Exception, class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "none";
}

}  // namespace mlstm::test
