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
  bool in_parts = false;  ///< it may have been made in one gradient alone
};

/// Inputs, cotangents and problem of a case alone.
Case without_results(const Case& c);

/// The right answer to a problem that `change` has changed. `c` has to outlive it.
Guess answer_to(const Case& c, int threads, std::function<void(Case&)> change);

/// Where outputs begin to be wrong; -1: none is.
struct FirstWrong {
  std::int64_t head = -1;  ///< the first with a failing element, b NH + nh
  std::int64_t step = -1;  ///< the first of h
  bool m = false;          ///< m_last fails
};

/// Mistakes in a state or a gate: which of them enter, where they begin, in whose memory. `c` and `right`, its
/// reference, have to outlive them.
std::vector<Mistake> state_mistakes(const Case& c, const ReferenceData& right, const FirstWrong& first, int threads);

/// Mistakes in parts of a gradient, made of the right gradients in both conventions. Likewise.
std::vector<Mistake> gradient_mistakes(const Case& c, const ReferenceData& right, int threads);

/// "as if: the numerator of h is right, ..." if the h of the kernel in `c` differs from the right one, within `bound`,
/// by factors of whole steps, not one and the same; empty if not, or if all steps have the direction of the one before
/// or of their v, so that a wrong numerator would look the same.
std::string wrong_denominator(const Case& c, const ReferenceData& reference, const Array& bound);

}  // namespace mlstm::verify
