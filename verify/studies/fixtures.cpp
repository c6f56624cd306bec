// SPDX-License-Identifier: Apache-2.0
#include "studies/fixtures.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "cases/case_file.hpp"
#include "judge/bounds.hpp"

namespace mlstm::verify {
namespace {

namespace fs = std::filesystem;
constexpr double kBoundTolerance = 1e-3;
constexpr Precision kFloat64{DType::float64, DType::float64, DType::float64, DType::float64, 64};

std::vector<std::int64_t> unravel(std::size_t flat, const Array& array) {
  std::vector<std::int64_t> index(array.dimension());
  for (std::size_t axis = index.size(); axis-- > 0;) {
    index[axis] = static_cast<std::int64_t>(flat % array.shape()[axis]);
    flat /= array.shape()[axis];
  }
  return index;
}

bool is_extended(const ReferenceData& reference) {
  const auto found = reference.attributes.find("precision");
  return found != reference.attributes.end() && found->second == Attribute(std::string("extended"));
}

/// Float32 is enough for a bound, and half the file; rounded up, so that it stays one.
Array rounded_up(const Array& bound) {
  Array result = bound;
  for (double& value : result) {
    const auto narrow = static_cast<float>(value);
    value = narrow < value ? std::nextafter(narrow, std::numeric_limits<float>::infinity()) : narrow;
  }
  return result;
}

TensorMap stored_bounds(const Case& c, const ReferenceData& reference, int threads) {
  TensorMap bounds = error_bounds(c, reference, precision_of(c), threads);
  for (auto& [name, bound] : bounds) bound = rounded_up(bound);
  return bounds;
}

/// A fixture's problem as its author left it: without what a kernel has made of it.
Case problem_of(const Case& c) {
  Case problem = c;
  problem.reference.reset();
  problem.kernel.reset();
  return problem;
}

class Checker {
 public:
  Checker(const FixtureOptions& options, FixtureCheck& result) : options_(options), result_(result) {}

  void check(const fs::path& path) {
    path_ = path;
    const Case c = read_case(path);
    if (!c.reference || c.reference->outputs.empty())
      throw FileError(path.string() + ": /reference is missing; expected a fixture");
    check_inputs(c);
    const Case problem = problem_of(c);
    const bool extended = is_extended(*c.reference);
    reference::Options options;
    options.threads = options_.threads;
    const ReferenceData computed = evaluate_reference(problem, options, extended);
    TensorMap tolerance;
    if (!extended) tolerance = error_bounds(problem, computed, kFloat64, options_.threads);
    compare("/reference/outputs", c.reference->outputs, computed.outputs, tolerance, "");
    compare("/reference/gradients/exact", c.reference->exact, computed.exact, tolerance, "exact/");
    compare("/reference/gradients/detached", c.reference->detached, computed.detached, tolerance, "detached/");
    if (!c.reference->bounds.empty())
      check_bounds(c.reference->bounds, stored_bounds(problem, computed, options_.threads));
    ++result_.files;
  }

 private:
  void check_inputs(const Case& c) {
    const auto spec = c.attributes.find("spec");
    if (spec == c.attributes.end()) return;
    const auto* line = std::get_if<std::string>(&spec->second);
    if (line == nullptr)
      throw FileError(path_.string() + ": attribute spec of / is not a string; expected a line of key=value");
    Case made;
    try {
      made = make_case(parse_spec(*line));
    } catch (const std::invalid_argument& error) {
      throw FileError(fmt::format("{}: attribute spec of /: {}", path_.string(), error.what()));
    }
    if (made.problem != c.problem)
      throw FileError(
          fmt::format("{}: attribute spec of / is \"{}\"; expected the problem in the file", path_.string(), *line));
    compare("/inputs", c.inputs, made.inputs, {}, "");
    compare("/cotangents", c.cotangents, made.cotangents, {}, "");
  }

  /// Without a tolerance for a tensor its bits have to be equal. A file may hold fewer tensors than are computed.
  void compare(const std::string& group, const TensorMap& stored, const TensorMap& computed, const TensorMap& tolerance,
               const std::string& prefix) {
    for (const auto& [name, array] : stored) {
      const auto expected = computed.find(name);
      if (expected == computed.end())
        throw FileError(fmt::format("{}: {}/{} is not computed for this problem", path_.string(), group, name));
      const auto bound = tolerance.find(prefix + name);
      compare(group + "/" + name, array, expected->second, [&](std::size_t n) {
        return bound == tolerance.end() ? 0.0 : 2 * bound->second.data()[n];  // both sides may be off
      });
    }
  }

  void check_bounds(const TensorMap& stored, const TensorMap& computed) {
    for (const auto& [name, array] : stored) {
      const auto expected = computed.find(name);
      if (expected == computed.end())
        throw FileError(fmt::format("{}: /reference/bounds/{} is not computed for this problem", path_.string(), name));
      compare("/reference/bounds/" + name, array, expected->second,
              [&](std::size_t n) { return kBoundTolerance * expected->second.data()[n]; });
    }
  }

  template <class Allowed>
  void compare(const std::string& tensor, const Array& stored, const Array& computed, const Allowed& allowed) {
    ++result_.tensors;
    Drift drift{.file = path_, .tensor = tensor};
    double worst = -1;
    for (std::size_t n = 0; n < stored.size(); ++n) {
      const double a = stored.data()[n], b = computed.data()[n], limit = allowed(n);
      if (std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b)) continue;
      const double difference = std::abs(a - b);
      if (limit > 0 && difference <= limit) continue;
      ++drift.count;
      const double excess = limit > 0 ? difference / limit : 0;
      if (excess <= worst) continue;
      worst = excess;
      drift.index = unravel(n, stored);
      drift.stored = a;
      drift.computed = b;
      drift.allowed = limit;
    }
    if (drift.count > 0) result_.drifts.push_back(std::move(drift));
  }

  const FixtureOptions& options_;
  FixtureCheck& result_;
  fs::path path_;
};

}  // namespace

std::vector<fs::path> generate_fixtures(const std::vector<ProblemSpec>& specs, const fs::path& directory,
                                        const FixtureOptions& options) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) throw FileError(fmt::format("{}: cannot create: {}", directory.string(), error.message()));
  std::vector<fs::path> paths;
  for (const ProblemSpec& spec : specs) {
    const fs::path path = directory / (case_name(spec) + ".h5");
    if (options.progress) options.progress(path);
    Case c = make_case(spec);
    c.attributes["spec"] = to_line(spec);
    reference::Options how;
    how.threads = options.threads;
    const bool extended = cost_of(c.problem, !c.cotangents.empty()) <= options.extended_limit;
    ReferenceData reference = evaluate_reference(c, how, extended);
    if (options.bounds) reference.bounds = stored_bounds(c, reference, options.threads);
    c.reference = std::move(reference);
    write_case(c, path);
    paths.push_back(path);
  }
  if (options.manifest || fs::exists(directory / "MANIFEST.sha256")) write_manifest(directory);
  return paths;
}

FixtureCheck check_fixtures(const std::vector<fs::path>& paths, const FixtureOptions& options) {
  FixtureCheck result;
  Checker checker(options, result);
  for (const fs::path& path : find_case_files(paths)) {
    if (options.progress) options.progress(path);
    try {
      checker.check(path);
    } catch (const std::exception& error) {
      result.errors.emplace_back(error.what());
    }
  }
  return result;
}

std::string to_string(const Drift& drift) {
  return fmt::format("{}: {}[{}] is {:.17g}; expected {:.17g}{} ({} elements)", drift.file.string(), drift.tensor,
                     fmt::join(drift.index, ","), drift.stored, drift.computed,
                     drift.allowed > 0 ? fmt::format(" within {:.3g}", drift.allowed) : ", bit for bit", drift.count);
}

}  // namespace mlstm::verify
