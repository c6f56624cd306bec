// SPDX-License-Identifier: Apache-2.0
// The extended-precision reference as one program without libraries: same_bits_test.cpp compiles it in several ways.
#include "golden_bits_problem.hpp"

#include "../reference/src/contract/dtype.cpp"
#include "../reference/src/contract/parallel_for.cpp"
#include "../reference/src/contract/problem.cpp"
#include "../reference/src/extended.cpp"
#include "../verify/base/random.cpp"
#include "../verify/cases/problems_draw.cpp"
#include "../verify/cases/problems_regimes.cpp"
#include "../verify/cases/problems_simple.cpp"

int main() { std::fputs(mlstm::test::golden_bits(2).c_str(), stdout); }
