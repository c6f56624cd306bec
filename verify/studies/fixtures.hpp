// SPDX-License-Identifier: Apache-2.0
// Fixtures: case files with a golden /reference. Made, recomputed and described here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/text.hpp"
#include "cases/problems.hpp"

namespace mlstm::verify {

struct FixtureOptions {
  /// Problems of up to so many multiplications are solved in extended precision, larger ones in float64.
  double extended_limit = 5e6;
  bool bounds = true;     ///< generate: store /reference/bounds for the problem's own dtype
  bool manifest = false;  ///< generate: write MANIFEST.sha256 (one that is there is always brought up to date).
                          ///< Not for files in which someone will fill in /kernel: their sums will not match
  int threads = 0;        ///< 0: one per core
  std::function<void(const std::filesystem::path&)> progress;  ///< called before each file
};

/// Writes one file per spec, named by its case_name, with inputs, cotangents and /reference: outputs, last states and,
/// with cotangents, both gradients. The root attribute `spec` reproduces the inputs; the attribute `precision` of
/// /reference says whether it is "extended" (>= 50 digits, rounded once) or "float64". Returns the paths written.
/// Throws FileError, or std::invalid_argument for a spec that is not valid.
std::vector<std::filesystem::path> generate_fixtures(const std::vector<ProblemSpec>& specs,
                                                     const std::filesystem::path& directory,
                                                     const FixtureOptions& options = {});

/// A stored value that is not what is computed now.
struct Drift {
  std::filesystem::path file;
  std::string tensor;                 ///< path in the file, e.g. "/reference/gradients/exact/q"
  std::vector<std::int64_t> index{};  ///< of the worst element; of the first one where bits have to be equal
  double stored = 0, computed = 0;
  double allowed = 0;      ///< largest difference allowed there; 0: equal bits
  std::int64_t count = 0;  ///< elements that differ by more than they may
};

/// One line.
std::string to_string(const Drift&);

struct FixtureCheck {
  std::int64_t files = 0, tensors = 0;  ///< compared
  std::vector<Drift> drifts;
  std::vector<std::string> errors;  ///< one line for each file that cannot be read or has no /reference
};

/// Recomputes every file named by or below `paths` and compares: inputs and cotangents with what the attribute `spec`
/// generates, if there is one (equal bits); an extended /reference with extended precision (equal bits); any other with
/// float64, within twice the error bound of float64; bounds to a relative 1e-3. Throws FileError for a missing path.
FixtureCheck check_fixtures(const std::vector<std::filesystem::path>& paths, const FixtureOptions& options = {});

/// What a file holds, for people: problem, tensors with their ranges, reference, kernel, attributes. Throws FileError.
std::string describe_case(const std::filesystem::path& path);

}  // namespace mlstm::verify
