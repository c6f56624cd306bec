// SPDX-License-Identifier: Apache-2.0
// What happens to files: accidents, drawn from a seed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

namespace mlstm::test {

using Random = std::mt19937_64;

inline std::size_t below(Random& random, std::size_t limit) { return static_cast<std::size_t>(random() % limit); }

/// `bytes` after one of the accidents that happen to files. Metadata is a small part of a file and more delicate, so
/// half of the accidents happen in the first kilobytes. `bytes` may not be empty.
inline std::string damaged(std::string bytes, Random& random) {
  const std::size_t reach = random() % 2 == 0 ? bytes.size() : std::min<std::size_t>(bytes.size(), 4096);
  const std::size_t start = below(random, reach), length = std::min(bytes.size() - start, 1 + below(random, 300));
  switch (random() % 7) {
    case 0:
      bytes[start] = static_cast<char>(bytes[start] ^ (1 << below(random, 8)));
      break;
    case 1:
      bytes[start] = static_cast<char>(random());
      break;
    case 2:
      for (int n = 0; n < 8; ++n) bytes[below(random, reach)] = static_cast<char>(random());
      break;
    case 3:
      std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(start), length, '\0');
      break;
    case 4:
      std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(start), length, '\xff');
      break;
    case 5:
      bytes.resize(below(random, bytes.size()));
      break;
    default:
      bytes.replace(start, length, bytes.substr(below(random, bytes.size() - length + 1), length));
  }
  return bytes;
}

}  // namespace mlstm::test
