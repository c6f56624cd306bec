// SPDX-License-Identifier: Apache-2.0
// Random numbers that are the same bits on every machine: Philox 4x32-10 counts elements, and everything after it is
// made of the IEEE operations + - * / and sqrt alone. Files that use this are compiled with -ffp-contract=off.
#pragma once

#include <cstdint>
#include <string_view>

namespace mlstm::verify {

/// exp(x) and log(x) to a few units in last place, without libm; exp for |x| <= 700, log for normal x > 0.
double portable_exp(double x);
double portable_log(double x);
double portable_sigmoid(double x);
double portable_tanh(double x);

/// Names one random number of a stream. Values do not depend on the extents of a tensor, so a shorter sequence, fewer
/// heads or smaller head dimensions see the leading part of the same numbers.
struct Cell {
  std::int64_t head = 0, row = 0, column = 0;
};

/// The random numbers of one tensor: a function of (seed, stream, cell).
class RandomStream {
 public:
  /// `name` tells streams of one seed apart.
  RandomStream(std::uint64_t seed, std::string_view name);

  /// Uniform in (0, 1), a multiple of 2^-53.
  double uniform(const Cell& cell) const;
  /// Standard normal, as the inverse distribution function of `uniform` to 5e-4; reaches beyond 8.
  double normal(const Cell& cell) const;
  /// Uniform among the integers lowest ... highest.
  std::int64_t integer(std::int64_t lowest, std::int64_t highest, const Cell& cell) const;

 private:
  std::uint64_t bits(const Cell& cell) const;

  std::uint64_t seed_;
  std::uint32_t stream_;
};

}  // namespace mlstm::verify
