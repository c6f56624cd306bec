// SPDX-License-Identifier: Apache-2.0
#include "base/text.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace mlstm::verify {
namespace {

/// Length of the valid UTF-8 sequence at the start of `text`, 0 if there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t n) { return static_cast<unsigned char>(text[n]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xc2 && lead < 0xe0   ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t n = 1; n < length; ++n)
    if ((byte(n) & 0xc0) != 0x80) return 0;
  // Overlong forms, surrogates and code points above U+10FFFF.
  if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) >= 0xa0)) return 0;
  if ((lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) >= 0x90)) return 0;
  return length;
}

/// Letters to add, leave out or replace to make one text of the other, upper and lower case being the same.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::vector<std::size_t> row(b.size() + 1);  // distances of the first letters of a to those of b
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t n = 0; n < a.size(); ++n) {
    std::size_t diagonal = std::exchange(row[0], n + 1);
    for (std::size_t m = 0; m < b.size(); ++m) {
      const std::size_t replaced = diagonal + (lower(a[n]) == lower(b[m]) ? 0 : 1);
      diagonal = row[m + 1];
      row[m + 1] = std::min({replaced, row[m + 1] + 1, row[m] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string_view misspelt_name(std::string_view text, std::span<const std::string_view> names) {
  std::string_view nearest;
  std::size_t least = 3;
  for (const std::string_view name : names) {
    if (name == text) return {};
    if (text.size() + least <= name.size() || name.size() + least <= text.size()) continue;
    if (const std::size_t distance = edit_distance(text, name); distance < least) {
      least = distance;
      nearest = name;
    }
  }
  return nearest;
}

std::string_view program_source() { return "mlstm " MLSTM_VERSION; }

std::string to_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    valid += length == 0 ? std::string_view("\xEF\xBF\xBD") : text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return valid;
}

std::string one_line(std::string_view text) {
  std::string line = to_utf8(text);
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return line;
}

std::string shell_word(std::string_view word) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(plain) == std::string_view::npos) return std::string(word);
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace mlstm::verify
