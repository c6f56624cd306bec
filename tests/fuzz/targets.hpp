// SPDX-License-Identifier: Apache-2.0
// Every way in for data from outside, as a function of bytes. Fed by libFuzzer (preset `fuzz`) and, with fixed seeds,
// by fuzz_test.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mlstm::fuzz {

/// A property that did not hold; anything else that leaves a target is a finding too.
class Violation : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Throws Violation unless `holds`.
void require(bool holds, const char* property);

/// Throws Violation unless `message` is what a user may be shown: one line, not empty.
void require_message(std::string_view message);

struct Target {
  std::string_view name;
  /// Refuses the bytes in an orderly way (false), or takes them (true) and holds to what it promises. Throws Violation.
  bool (*run)(std::string_view bytes);
  std::vector<std::string> (*seeds)();  ///< to begin from: valid ones
  std::vector<std::string> words;       ///< what to insert
};

const std::vector<Target>& targets();

// One for each target, in <name>_target.cpp or text_targets.cpp.
Target spec_target();         ///< reproduction lines and shapes
Target manifest_target();     ///< MANIFEST.sha256
Target report_target();       ///< report.json
Target journal_target();      ///< journal.jsonl
Target expectation_target();  ///< files for --expect
Target peers_target();        ///< files for bench --peers
Target reply_target();        ///< what the process that reads a case sends
Target frames_target();       ///< what verifier and worker say to each other
Target details_target();      ///< details.json
Target mutations_target();    ///< mutate.json, as a part of the HTML report
Target case_target();         ///< HDF5 files of sound structure, with any content

}  // namespace mlstm::fuzz
