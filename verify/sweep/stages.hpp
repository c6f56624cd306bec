// SPDX-License-Identifier: Apache-2.0
// Finding the stage of the computation that goes wrong first, by runs on parts of a problem.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cases/case.hpp"
#include "runner/runner.hpp"

namespace mlstm::verify {

/// One stage of the computation and where it first goes wrong.
struct Stage {
  std::string name;                ///< m, n, C, h in forward order; dC/dn (states), dv, dk, dq, di, df in backward
  std::optional<std::int64_t> at;  ///< first wrong time step in the order of computation; absent: right everywhere
  std::vector<std::int64_t> heads;
};

/// What probing a kernel with shorter problems found.
struct Stages {
  std::vector<Stage> forward, backward;  ///< in the order of dependence; empty if not probed
  std::string why_not;                   ///< why (a part) could not be probed
  std::int64_t runs = 0;                 ///< of the kernel
  std::string text;                      ///< lines
};

/// Finds the stage and the time step at which `c`, which the kernel fails, goes wrong first. Forward: by runs on the
/// first t steps, judging the states they return. Backward, if all outputs are right: by runs on the steps from t on,
/// from the reference's states, judging the gradients of those. At most `most_runs` runs. A variant that takes or
/// returns no states is probed less; `why_not` says so.
Stages find_stages(const Kernel& kernel, const Case& c, std::optional<Convention> convention, const RunFunction& runner,
                   std::int64_t most_runs = 200);

}  // namespace mlstm::verify
