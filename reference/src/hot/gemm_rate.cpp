// SPDX-License-Identifier: Apache-2.0
#include <chrono>

#include "mlstm/reference/hot.hpp"

namespace mlstm::reference::hot {

double gemm_rate(int n, double seconds) {
  using Clock = std::chrono::steady_clock;
  const Matrix<double> a = Matrix<double>::Random(n, n), b = Matrix<double>::Random(n, n);
  Matrix<double> c = Matrix<double>::Zero(n, n);
  c.noalias() += a * b;
  std::int64_t products = 0;
  const auto start = Clock::now();
  std::chrono::duration<double> elapsed{};
  do {
    c.noalias() += a * b;
    ++products;
    elapsed = Clock::now() - start;
  } while (elapsed.count() < seconds);
  return 2.0 * n * n * n * static_cast<double>(products) / elapsed.count();
}

}  // namespace mlstm::reference::hot
