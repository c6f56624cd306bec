// SPDX-License-Identifier: Apache-2.0
// Text from files and kernels, made fit for messages, reports and command lines.
#pragma once

#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace mlstm::verify {

/// A file that cannot be read or written, or does not hold what it should. The message is one line that names the
/// file, the object in it, the value and what was expected. Control characters, which a value may hold, become '?'.
class FileError : public std::runtime_error {
 public:
  explicit FileError(std::string message) : std::runtime_error(one_line(std::move(message))) {}

 private:
  static std::string one_line(std::string text) {
    for (char& c : text)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return text;
  }
};

/// "mlstm <version>": what reports and captures name as their source.
std::string_view program_source();

/// `text` with every byte that is not part of valid UTF-8 replaced by U+FFFD.
std::string to_utf8(std::string_view text);

/// `text` of a kernel or its process as it may stand in a message of one line: valid UTF-8, control characters as
/// spaces.
std::string one_line(std::string_view text);

/// The one of `names` that `text` looks like a misspelling of: at most two letters added, left out or replaced, upper
/// and lower case being the same. Empty if there is none, or if `text` is itself one of them.
std::string_view misspelt_name(std::string_view text, std::span<const std::string_view> names);

/// `word` as one POSIX shell word: quoted if it has to be.
std::string shell_word(std::string_view word);

}  // namespace mlstm::verify
