// SPDX-License-Identifier: Apache-2.0
#include "judge/detail.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "judge/element_error.hpp"

namespace mlstm::verify {
namespace {

/// Digits of the significand, the implicit one included, and the exponent of the smallest normal number.
struct Format {
  int precision, lowest_exponent;
};

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return {53, -1022};
    case DType::float32:
    case DType::tfloat32:  // stored as float32
      return {24, -126};
    case DType::float16:
      return {11, -14};
    case DType::bfloat16:
      return {8, -126};
  }
  throw std::logic_error("format_of: unknown DType");
}

/// Which axes the rows and columns of a picture are; -1: one row or column; heads: batch and head as one axis.
struct Axes {
  int row, column;
  bool column_is_heads = false;
};

Axes axes_of(const std::vector<std::string>& names) {
  if (names.size() == 4) return {2, 3};
  if (names.size() == 3) return {2, -1, true};
  return {0, 1};
}

std::size_t bin_of(std::size_t index, std::size_t bins, std::size_t extent) { return index * bins / extent; }

}  // namespace

char ErrorPicture::level_of(double error_ratio) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (error_ratio == 0) return alphabet.front();
  if (!std::isfinite(error_ratio)) return alphabet.back();
  return alphabet[static_cast<std::size_t>(std::clamp(std::ceil(2 * std::log2(error_ratio)) + 44, 1.0, 62.0))];
}

std::string difference_text(const Detail& detail) {
  return fmt::format("got {}, expected {}, bound {:.3g}", detail.got, detail.expected, detail.bound);
}

double unit_in_the_last_place(DType storage, double x) {
  const Format format = format_of(storage);
  const int exponent = x == 0 ? format.lowest_exponent : std::max(std::ilogb(x), format.lowest_exponent);
  return std::ldexp(1.0, exponent - format.precision + 1);
}

std::vector<std::string> axis_names(std::string_view tensor) {
  static const std::vector<std::pair<std::string_view, std::vector<std::string>>> names{
      {"h dv", {"batch", "head", "time step", "value dim"}},
      {"dq dk", {"batch", "head", "time step", "key dim"}},
      {"di df", {"batch", "head", "time step"}},
      {"c_last dc_initial", {"batch", "head", "key dim", "value dim"}},
      {"n_last dn_initial", {"batch", "head", "key dim"}},
      {"m_last dm_initial", {"batch", "head"}}};
  for (const auto& [tensors, axes] : names)
    for (std::size_t begin = 0; begin < tensors.size();) {
      const std::size_t end = std::min(tensors.find(' ', begin), tensors.size());
      if (tensors.substr(begin, end - begin) == tensor) return axes;
      begin = end + 1;
    }
  return {};
}

ErrorPicture picture_of(std::string_view tensor, const Array& values, const Array& reference, const Array& bound,
                        DType storage) {
  const std::vector<std::string> names = axis_names(tensor);
  const auto& shape = reference.shape();
  if (names.size() != shape.size())
    throw std::invalid_argument("picture_of: tensor \"" + std::string(tensor) + "\" has " +
                                std::to_string(shape.size()) + " axes; expected " + std::to_string(names.size()));
  if (values.shape() != shape || bound.shape() != shape)
    throw std::invalid_argument("picture_of: values, reference and bound differ in shape");
  const Axes axes = axes_of(names);
  const auto row_axis = static_cast<std::size_t>(axes.row);
  const std::size_t row_extent = shape[row_axis];
  const std::size_t column_extent =
      axes.column_is_heads ? shape[0] * shape[1] : shape[static_cast<std::size_t>(axes.column)];
  const bool has_time = names.size() > 2 && names[2] == "time step";

  ErrorPicture picture;
  picture.rows = std::min(row_extent, ErrorPicture::kMostRows);
  picture.columns = std::min(column_extent, ErrorPicture::kMostColumns);
  if (has_time) picture.profile.resize(std::min(shape[2], ErrorPicture::kMostBins));
  picture.ulps.resize(ErrorPicture::kHighestUlpExponent - ErrorPicture::kLowestUlpExponent + 1);
  std::vector<double> pixels(picture.rows * picture.columns);

  // Elements after the row axis; before it, batches and heads.
  std::size_t inner = 1;
  for (std::size_t axis = row_axis + 1; axis < shape.size(); ++axis) inner *= shape[axis];
  for (std::size_t n = 0; n < reference.size(); ++n) {
    const double expected = reference.data()[n];
    const ElementError element = error_of_element(values.data()[n], expected, bound.data()[n], storage);
    const std::size_t row = n / inner % row_extent;
    const std::size_t column = axes.column_is_heads ? n / row_extent : n % inner;
    double& pixel = pixels[bin_of(row, picture.rows, row_extent) * picture.columns +
                           bin_of(column, picture.columns, column_extent)];
    pixel = std::max(pixel, element.ratio);
    if (has_time) {
      double& step = picture.profile[bin_of(row, picture.profile.size(), row_extent)];
      step = std::max(step, element.ratio);
    }
    if (element.error == 0) {
      ++picture.without_error;
    } else if (!std::isfinite(element.error)) {
      ++picture.not_finite;
    } else {
      // Not by division: the quotient of two tiny numbers may overflow.
      const int exponent = std::ilogb(element.error) - std::ilogb(unit_in_the_last_place(storage, expected));
      const int bin = std::clamp(exponent, ErrorPicture::kLowestUlpExponent, ErrorPicture::kHighestUlpExponent);
      ++picture.ulps[static_cast<std::size_t>(bin - ErrorPicture::kLowestUlpExponent)];
    }
  }
  picture.heat.reserve(pixels.size());
  for (const double pixel : pixels) picture.heat += ErrorPicture::level_of(pixel);
  return picture;
}

}  // namespace mlstm::verify
