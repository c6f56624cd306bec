// SPDX-License-Identifier: Apache-2.0
// A judged tensor as heads x rows x columns.
#pragma once

#include <cstdint>
#include <string>

#include "judge/locate.hpp"

namespace mlstm::verify {

struct TensorView {
  std::int64_t heads = 1, rows = 1, columns = 1;
  bool has_time = false;  ///< rows are time steps
  bool is_c = false;      ///< rows x columns is DHQK x DHV

  std::int64_t head(std::int64_t flat) const { return flat / (rows * columns); }
  std::int64_t row(std::int64_t flat) const { return flat / columns % rows; }
  std::int64_t column(std::int64_t flat) const { return flat % columns; }
  std::int64_t flat(std::int64_t head, std::int64_t row, std::int64_t column) const {
    return (head * rows + row) * columns + column;
  }
};

TensorView view_of(const JudgedTensor& judged);

/// error_ratios of the tensor, and locate and recognize with them at hand.
Array ratios_of(const JudgedTensor& judged);
Location locate(const JudgedTensor& judged, const Array& ratios);
std::string recognize(const JudgedTensor& judged, const Array& ratios);

}  // namespace mlstm::verify
