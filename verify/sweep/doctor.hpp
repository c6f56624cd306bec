// SPDX-License-Identifier: Apache-2.0
// What all recorded files of a variant together say of how it computes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "judge/judge.hpp"

namespace mlstm::verify {

/// What one file says: by question ("gradients", "stabilizer_init", "scale", "eps", "gates", "padding", "precision"),
/// the answers under which the kernel would be right. A question that the file cannot decide is absent; one to which no
/// answer fits has none, and nothing is inferred from it.
struct Symptoms {
  std::string variant;
  std::string digest;                         ///< of the file: two copies of one say no more than one; empty: unknown
  std::map<std::string, std::string> stated;  ///< the answer that the file itself gives, by question
  std::map<std::string, std::vector<std::string>> fitting;
};

/// `items`: the verdicts on /kernel of `c`. If it fails, and would pass with a coarser declaration, all else is asked
/// under that one. Evaluates the reference once per answer; large problems give no symptoms.
Symptoms examine(const Case& c, const ReferenceData& reference, const std::vector<Item>& items, int threads);

/// One line per variant, in order of their names: what is known of it, and how sure that is: "sure" if at least two
/// files tell and none says otherwise, "likely" if one does, "contradictory" with counts, or "open". Where files state
/// different answers, and each is as it states, that is the answer.
std::string diagnose(const std::vector<Symptoms>& files);

}  // namespace mlstm::verify
