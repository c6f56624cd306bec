// SPDX-License-Identifier: Apache-2.0
#include "runner/repeated_runs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "runner/run_check.hpp"
#include "runner/runner_memory.hpp"

namespace mlstm::verify {
namespace {

/// Further runs with either poison that tell what depends on it from what differs anyway.
constexpr int kSettlingRuns = 4;

std::string index_text(std::size_t flat, const std::vector<std::int64_t>& shape) {
  std::vector<std::size_t> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = flat % static_cast<std::size_t>(shape[axis]);
    flat /= static_cast<std::size_t>(shape[axis]);
  }
  return fmt::format("[{}]", fmt::join(index, ","));
}

/// An element in which two runs differ.
struct Difference {
  std::string result;  ///< "dq"
  std::string place;   ///< "dq[0,0,1,0]"
  bool unwritten;      ///< it holds the first run's poison, and the second's
};

/// The first element of one result that differs, and that is unwritten if `only_unwritten`.
std::optional<Difference> difference_in(const std::string& name, const Bytes& first, const Bytes& second,
                                        const Problem& problem, bool only_unwritten) {
  const std::string tensor = tensor_of(name);
  const std::size_t size = size_of(storage_dtype(tensor, problem));
  const auto is_filled = [&](const Bytes& values, std::size_t begin, std::byte fill) {
    const auto at = values.begin() + static_cast<std::ptrdiff_t>(begin);
    return std::all_of(at, at + static_cast<std::ptrdiff_t>(size), [&](std::byte byte) { return byte == fill; });
  };
  for (auto at = first.begin(), end = first.end(); true;) {
    at = std::mismatch(at, end, second.begin() + (at - first.begin())).first;
    if (at == end) return {};
    const std::size_t element = static_cast<std::size_t>(at - first.begin()) / size;
    const bool unwritten = is_filled(first, element * size, kNaN) && is_filled(second, element * size, kFinite);
    if (unwritten || !only_unwritten)
      return Difference{name, name + index_text(element, shape_of(tensor, problem.shape)), unwritten};
    at = first.begin() + static_cast<std::ptrdiff_t>((element + 1) * size);
  }
}

std::optional<Difference> first_difference(const Results& first, const Results& second, const Problem& problem,
                                           bool only_unwritten = false) {
  for (const auto& [name, bytes] : first)
    if (auto difference = difference_in(name, bytes, second.at(name), problem, only_unwritten)) return difference;
  return {};
}

void throw_unwritten(const Difference& found) {
  throw CheckFailure(RunCheck::not_written, found.result, found.place + " was not written");
}

void throw_poison(const Difference& found) {
  throw CheckFailure(RunCheck::poison, found.result,
                     found.place + " depends on memory that was not initialised (output, saved data, workspace or " +
                         "beyond an input)");
}

/// Names of the results whose bits differ.
std::set<std::string> different(const Results& first, const Results& second) {
  std::set<std::string> names;
  for (const auto& [name, bytes] : first)
    if (bytes != second.at(name)) names.insert(name);
  return names;
}

/// Collects how far runs are from the first one.
class Spread {
 public:
  Spread(const Results& first, const Problem& problem, TensorMap& spread)
      : first_(first), problem_(problem), spread_(spread) {
    for (const auto& [name, bytes] : first) spread_[name] = xt::zeros_like(values(name, bytes));
  }

  /// Which results differ from those of the first run.
  std::set<std::string> add(const Results& other) {
    const std::set<std::string> names = different(first_, other);
    for (const std::string& name : names) {
      const Array a = values(name, first_.at(name)), b = values(name, other.at(name));
      Array& largest = spread_.at(name);
      for (std::size_t n = 0; n < a.size(); ++n) {
        const double x = a.data()[n], y = b.data()[n];
        if (x == y || (std::isnan(x) && std::isnan(y))) continue;  // infinities, too
        const double apart = std::abs(x - y);
        largest.data()[n] = std::max(largest.data()[n], std::isfinite(apart) ? apart : kInf);
      }
    }
    return names;
  }

 private:
  static constexpr double kInf = std::numeric_limits<double>::infinity();

  Array values(const std::string& name, const Bytes& bytes) const {
    const std::string tensor = tensor_of(name);
    return unpack(bytes, storage_dtype(tensor, problem_), shape_of(tensor, problem_.shape));
  }

  const Results& first_;
  const Problem& problem_;
  TensorMap& spread_;
};

/// repeated_results of a kernel that may differ from run to run.
Results differing_results(const std::function<Results(std::optional<std::byte>)>& run, const Problem& problem,
                          const RunOptions& options, TensorMap& spread) {
  const std::optional<std::byte> poison = options.guarded ? std::optional(kNaN) : std::nullopt;
  Results first = run(poison);
  Spread seen(first, problem, spread);
  std::set<std::string> known;  // to differ with the same poison
  for (int repeat = 0; repeat < options.repeats; ++repeat) known.merge(seen.add(run(poison)));
  if (!options.guarded) return first;
  const Results other = run(kFinite);
  if (const auto unwritten = first_difference(first, other, problem, true)) throw_unwritten(*unwritten);
  std::set<std::string> suspects = seen.add(other);
  const auto acquit = [&](const std::set<std::string>& names) {
    std::erase_if(suspects, [&](const std::string& name) { return names.contains(name); });
  };
  acquit(known);
  for (int n = 0; n < kSettlingRuns && !suspects.empty(); ++n) {
    acquit(seen.add(run(kNaN)));
    if (suspects.empty()) break;
    const Results again = run(kFinite);
    seen.add(again);
    acquit(different(other, again));
  }
  if (!suspects.empty()) {
    const std::string& name = *suspects.begin();
    throw_poison(*difference_in(name, first.at(name), other.at(name), problem, false));
  }
  return first;
}

}  // namespace

std::string tensor_of(const std::string& result) { return result.starts_with('d') ? result.substr(1) : result; }

Results repeated_results(const std::function<Results(std::optional<std::byte>)>& run, const Problem& problem,
                         const RunOptions& options, TensorMap& spread) {
  if (options.accept_nondeterminism) return differing_results(run, problem, options, spread);
  const std::optional<std::byte> poison = options.guarded ? std::optional(kNaN) : std::nullopt;
  Results first = run(poison);
  const auto require_repeatable = [&] {
    if (const auto difference = first_difference(first, run(poison), problem))
      throw CheckFailure(RunCheck::repeat, difference->result, difference->place + " differs from run to run");
  };
  for (int repeat = 0; repeat < options.repeats; ++repeat) require_repeatable();
  if (!options.guarded) return first;
  if (const auto difference = first_difference(first, run(kFinite), problem)) {
    if (difference->unwritten) throw_unwritten(*difference);
    require_repeatable();
    throw_poison(*difference);
  }
  return first;
}

}  // namespace mlstm::verify
