// SPDX-License-Identifier: Apache-2.0
// The problem of a unit with its solution, to be judged run by run without explanations.
#pragma once

#include "sweep/sweep.hpp"

namespace mlstm::verify {

struct SolvedUnit {
  /// Solves the problem with so many threads, and judges with as many. `work` has to outlive this.
  SolvedUnit(const ProblemRuns& work, int threads) : problem(make_case(work.spec)), spec_(work.spec) {
    problem.name = case_name(work.spec);
    reference::Options how;
    how.threads = threads;
    reference = evaluate_reference(problem, how);
    judging_.threads = threads;
    judging_.known = &known_;
    judging_.explain = false;
  }
  SolvedUnit(const SolvedUnit&) = delete;
  SolvedUnit& operator=(const SolvedUnit&) = delete;

  Case problem;
  ReferenceData reference;

  /// Runs the kernel and judges it; `problem.kernel` then is what it gave, absent if that was nothing.
  std::vector<Item> judge(const Run& run, const SweepOptions& sweep) {
    return judge_run(spec_, run, problem, reference, judging_, sweep);
  }

 private:
  const ProblemSpec& spec_;
  Yardsticks known_;
  JudgeOptions judging_;
};

}  // namespace mlstm::verify
