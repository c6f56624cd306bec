// SPDX-License-Identifier: Apache-2.0
#include "bound_rows.hpp"

namespace mlstm::verify::bound {

Mat nn(In a, In b) { return a * b; }
Mat tn(In a, In b) { return a.transpose() * b; }
Mat nt(In a, In b) { return a * b.transpose(); }
Vec quadratic(In x, In M) { return nn(x, M).cwiseProduct(x).rowwise().sum(); }
Mat weighted(InVec w, In a) { return w.asDiagonal() * a; }

}  // namespace mlstm::verify::bound
