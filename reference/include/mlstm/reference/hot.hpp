// SPDX-License-Identifier: Apache-2.0
// What the library that is built once per CPU level exports: plain pointers only, so that no template instantiation
// of one level is seen by another.
#pragma once

#include <cstdint>

#include "mlstm/reference/head.hpp"

namespace mlstm::reference::hot {

/// evaluate_head in float64. False: the range of float64 was not enough, results undefined.
bool evaluate_head(const HeadProblem&, const Inputs<double>&, const HeadRequest<double>&);

/// Frees the memory that evaluate_head keeps in the calling thread for the next head.
void release_memory();

/// True if none of the n values is NaN or infinite.
bool all_finite(const double* values, std::int64_t n);

/// Floating-point operations per second of Eigen's float64 n x n x n product on the calling thread, measured over at
/// least `seconds`.
double gemm_rate(int n, double seconds);

}  // namespace mlstm::reference::hot
