// SPDX-License-Identifier: Apache-2.0
#include "judge/hot/bound_rows.hpp"

namespace mlstm::verify::bound {

Mat nn(In a, In b) { return a * b; }
Mat tn(In a, In b) { return a.transpose() * b; }
Mat nt(In a, In b) { return a * b.transpose(); }
// All M are sums of squares. Where x is orthogonal to what they are made of, rounding may leave a small negative
// number.
Vec quadratic(In x, In M) { return nn(x, M).cwiseProduct(x).rowwise().sum().cwiseMax(0.0); }
Mat weighted(InVec w, In a) { return w.asDiagonal() * a; }

}  // namespace mlstm::verify::bound
