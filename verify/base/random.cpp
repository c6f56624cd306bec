// SPDX-License-Identifier: Apache-2.0
#include "base/random.hpp"

#include <Random123/philox.h>

#include <bit>
#include <cmath>

namespace mlstm::verify {
namespace {

constexpr double kLn2 = 0x1.62e42fefa39efp-1;

/// 2^n for n in the range of normal numbers.
double power_of_two(std::int64_t n) { return std::bit_cast<double>(static_cast<std::uint64_t>(n + 1023) << 52); }

std::uint32_t fnv1a(std::string_view text) {
  std::uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

}  // namespace

double portable_exp(double x) {
  const double quotient = x / kLn2;
  const auto n = static_cast<std::int64_t>(quotient < 0 ? quotient - 0.5 : quotient + 0.5);
  // ln 2 in two parts: the first has so few bits that n times it is exact
  constexpr double high = 0x1.62e42feep-1, low = 0x1.a39ef35793c76p-33;
  const double r = (x - static_cast<double>(n) * high) - static_cast<double>(n) * low;
  double sum = 1.0;
  for (int order = 14; order >= 1; --order) sum = 1.0 + r / order * sum;
  return sum * power_of_two(n);
}

double portable_log(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto exponent = static_cast<std::int64_t>(bits >> 52) - 1023;
  double mantissa = x / power_of_two(exponent);
  if (mantissa > 1.4142135623730951) {
    mantissa = mantissa / 2;
    ++exponent;
  }
  const double z = (mantissa - 1) / (mantissa + 1);  // log(mantissa) = 2 atanh(z), |z| < 0.172
  double sum = 0.0;
  for (int order = 21; order >= 1; order -= 2) sum = sum * z * z + 1.0 / order;
  return static_cast<double>(exponent) * kLn2 + 2 * z * sum;
}

double portable_sigmoid(double x) {
  if (x < 0) {
    const double e = portable_exp(x < -700 ? -700 : x);
    return e / (1 + e);
  }
  return 1 / (1 + portable_exp(x > 700 ? -700 : -x));
}

double portable_tanh(double x) { return 2 * portable_sigmoid(2 * x) - 1; }

RandomStream::RandomStream(std::uint64_t seed, std::string_view name) : seed_(seed), stream_(fnv1a(name)) {}

std::uint64_t RandomStream::bits(const Cell& cell) const {
  using Philox = r123::Philox4x32;
  const Philox::ctr_type counter{{static_cast<std::uint32_t>(cell.column), static_cast<std::uint32_t>(cell.row),
                                  static_cast<std::uint32_t>(cell.head), stream_}};
  const Philox::key_type key{{static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)}};
  const Philox::ctr_type block = Philox{}(counter, key);
  return block[0] | static_cast<std::uint64_t>(block[1]) << 32;
}

double RandomStream::uniform(const Cell& cell) const {
  return (static_cast<double>(bits(cell) >> 12) + 0.5) * 0x1p-52;  // 53 bits: exact
}

// Abramowitz & Stegun 26.2.23.
double RandomStream::normal(const Cell& cell) const {
  const double u = uniform(cell);
  const double t = std::sqrt(-2 * portable_log(u < 0.5 ? u : 1 - u));
  const double x =
      t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
  return u < 0.5 ? -x : x;
}

std::int64_t RandomStream::integer(std::int64_t lowest, std::int64_t highest, const Cell& cell) const {
  // the bias of a remainder is below 2^-50 for the few values that are drawn here
  return lowest + static_cast<std::int64_t>(bits(cell) % static_cast<std::uint64_t>(highest - lowest + 1));
}

}  // namespace mlstm::verify
