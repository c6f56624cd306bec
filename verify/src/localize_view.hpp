// SPDX-License-Identifier: Apache-2.0
// A judged tensor as heads x rows x columns.
#pragma once

#include <cstdint>
#include <string>

#include "mlstm/verify/localize.hpp"

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

  DType storage(const JudgedTensor& judged) const {
    const std::string name = judged.tensor.starts_with('d') ? judged.tensor.substr(1) : judged.tensor;
    return storage_dtype(name, judged.problem);
  }
};

TensorView view_of(const JudgedTensor& judged);

}  // namespace mlstm::verify
