// SPDX-License-Identifier: Apache-2.0
// What the errors of one judged tensor look like, for those who look for the cause of a verdict.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cases/case.hpp"

namespace mlstm::verify {

/// Errors over time, over the tensor's area, and counted in units in the last place. Small, whatever the tensor's size.
struct ErrorPicture {
  static constexpr std::size_t kMostBins = 512, kMostRows = 64, kMostColumns = 64;
  static constexpr int kLowestUlpExponent = -6, kHighestUlpExponent = 32;

  /// Largest error_ratio of each bin of time steps: step t of S is in bin t * size / S. Empty without a time axis.
  std::vector<double> profile;
  /// Largest error_ratio over pixels, rows * columns characters (level_of). Rows are time steps, or the first axis of a
  /// state's head, or batches; columns are the last axis, or heads. All other axes are maximised over.
  std::size_t rows = 0, columns = 0;
  std::string heat;
  /// Numbers of elements by |error| in units in the last place of what the expected value is stored in: none at all,
  /// [2^e, 2^(e+1)) from e = kLowestUlpExponent (which also has all below) to kHighestUlpExponent (and all above), and
  /// NaN or Inf where the reference is finite.
  std::int64_t without_error = 0, not_finite = 0;
  std::vector<std::int64_t> ulps;

  /// One character of the base-64 alphabet A-Za-z0-9+/ for an error_ratio: A for 0; n from 1 to 62 for ratios in
  /// (2^((n-45)/2), 2^((n-44)/2)], the ends taking what is beyond; / for a ratio that is not finite. So what passes
  /// is at most the character of 44.
  static char level_of(double error_ratio);

  bool operator==(const ErrorPicture&) const = default;
};

/// Facts about one judged tensor that are not in report.json.
struct Detail {
  std::string regime;                       ///< of the problem; empty if unknown, as in captures of others
  Problem problem;                          ///< shape, gate, eps, ...
  double got = 0, expected = 0, bound = 0;  ///< of the element with the largest error_ratio
  std::vector<std::int64_t> shape;          ///< of the tensor
  DType storage = DType::float32;           ///< what the tensor is stored in
  std::optional<ErrorPicture> picture;      ///< kept for few tensors (PictureKeeper)
  bool operator==(const Detail&) const = default;
};

/// "got 1, expected 2, bound 0.1": what a note says of the worst element.
std::string difference_text(const Detail& detail);

/// Names of the axes of a judged tensor ("h", "c_last", "dq", "dc_initial", ...): "batch", "head", and then "time
/// step", "key dim" or "value dim". Empty for an unknown tensor.
std::vector<std::string> axis_names(std::string_view tensor);

/// The picture of `values` against `reference` within `bound`, all of the shape that `tensor` has.
ErrorPicture picture_of(std::string_view tensor, const Array& values, const Array& reference, const Array& bound,
                        DType storage);

/// Distance between neighbours of `x` in `storage`: 2^(exponent - precision + 1), for subnormal numbers and zero that
/// of the smallest normal number.
double unit_in_the_last_place(DType storage, double x);

}  // namespace mlstm::verify
