// SPDX-License-Identifier: Apache-2.0
// Answers of kernels that make a known mistake, for find_mistakes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cases/case.hpp"

namespace mlstm::verify {

/// What the kernel would have computed; tensors that a mistake says nothing about are absent.
using Guess = std::function<ReferenceData()>;

struct Mistake {
  std::string name;
  Guess guess;
};

/// Inputs, cotangents and problem of a case alone.
Case without_results(const Case& c);

/// The right answer to a problem that `change` has changed. `c` has to outlive it.
Guess answer_to(const Case& c, int threads, std::function<void(Case&)> change);

/// Mistakes in a state or a gate: which of them enter, where they begin, in whose memory. `c` and `right`, its
/// reference, have to outlive them.
std::vector<Mistake> state_mistakes(const Case& c, const ReferenceData& right, int threads);

/// Mistakes in parts of a gradient, made of the right gradients in both conventions. Likewise.
std::vector<Mistake> gradient_mistakes(const Case& c, const ReferenceData& right, int threads);

}  // namespace mlstm::verify
