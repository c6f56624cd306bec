// SPDX-License-Identifier: Apache-2.0
#include "sweep/shrink.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cmath>
#include <map>

#include "sweep/shrink_steps.hpp"

namespace mlstm::verify {
namespace {

constexpr std::array kFailing{Status::FAIL, Status::ERROR, Status::TIMEOUT};
constexpr int kConfirmations = 3;  // runs of the original and of the result
constexpr int kMostTries = 20;     // until a failure that comes and goes has to show again
constexpr double kMissed = 0.05;   // accepted probability to take a failing problem for a passing one

/// The kind of reason for which a run stopped: which check it failed, or the message without numbers.
std::string reason_of(const Item& item) {
  if (item.check != "exception") return item.check;
  std::string text;
  for (const char c : item.note)
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) text += c;
  return text;
}

class Search {
 public:
  Search(const Kernel& kernel, std::optional<Convention> convention, const Failure& failure,
         const ShrinkOptions& options, Shrunk& shrunk)
      : kernel_(kernel), convention_(convention), failure_(failure), options_(options), shrunk_(shrunk) {
    sweep_.threads = options.sweep.threads;
    sweep_.run = options.sweep.run;
    sweep_.runner = options.sweep.runner;
  }

  bool out_of_time() {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin_;
    if (elapsed.count() >= options_.seconds) shrunk_.out_of_time = true;
    return shrunk_.out_of_time;
  }

  /// One run; the verdicts if it is the failure. Absent too if the variant does not take the problem.
  std::optional<std::vector<Item>> run(const ProblemSpec& spec) {
    const Plan plan = make_plan({&kernel_}, {spec}, false, convention_);
    if (plan.units.empty() || plan.units.front().cannot_run() != nullptr) return {};
    ++shrunk_.runs;
    std::vector<Item> items;
    for (Record& record : run_sweep(plan.units, sweep_)) items.push_back(std::move(record.item));
    if (failure_.occurs_in(items)) return items;
    return {};
  }

  bool is_supported(const ProblemSpec& spec) const {
    try {
      parse_spec(to_line(spec));
    } catch (const std::invalid_argument&) {
      return false;
    }
    return !make_plan({&kernel_}, {spec}, false, convention_).units.empty();
  }

  /// Whether the problem fails in the same way; then it is where the search goes on.
  bool accept(const ProblemSpec& spec) {
    const auto [known, is_new] = fails_.emplace(to_line(spec), false);
    if (!is_new) return known->second && (shrunk_.spec = spec, true);
    if (!is_supported(spec)) return false;
    bool counted = false;
    for (int attempt = 0; attempt < shrunk_.attempts && !out_of_time(); ++attempt) {
      shrunk_.problems += !counted;
      counted = true;
      if (std::optional<std::vector<Item>> items = run(spec)) {
        known->second = true;
        shrunk_.spec = spec;
        shrunk_.items = std::move(*items);
        return true;
      }
    }
    return false;
  }

  void remember(const ProblemSpec& spec, bool fails) { fails_[to_line(spec)] = fails; }

 private:
  const Kernel& kernel_;
  std::optional<Convention> convention_;
  const Failure& failure_;
  const ShrinkOptions& options_;
  Shrunk& shrunk_;
  SweepOptions sweep_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::map<std::string, bool> fails_;
};

}  // namespace

bool Failure::occurs_in(const std::vector<Item>& items) const {
  return std::any_of(items.begin(), items.end(), [&](const Item& item) {
    if (item.status != status) return false;
    return tensors.empty() ? !item.error_ratio && reason_of(item) == reason
                           : item.error_ratio.has_value() && tensors.contains(item.tensor);
  });
}

std::optional<Failure> failure_of(const std::vector<Item>& items) {
  for (const Status status : kFailing)
    for (const bool judged : {false, true}) {
      Failure failure{status, {}, {}};
      bool found = false;
      for (const Item& item : items) {
        if (item.status != status || item.error_ratio.has_value() != judged) continue;
        if (judged)
          failure.tensors.insert(item.tensor);
        else if (!found)
          failure.reason = reason_of(item);
        found = true;
      }
      if (found) return failure;
    }
  return {};
}

Shrunk shrink(const Kernel& kernel, const ProblemSpec& spec, std::optional<Convention> convention,
              const Failure& failure, const ShrinkOptions& options) {
  Shrunk shrunk;
  shrunk.original = shrunk.spec = spec;
  shrunk.problems = 1;
  Search search(kernel, convention, failure, options, shrunk);
  const int confirmations = failure.status == Status::TIMEOUT ? 1 : kConfirmations;
  for (; shrunk.tried < (shrunk.failed > 0 ? confirmations : kMostTries); ++shrunk.tried) {
    if (shrunk.tried > 0 && search.out_of_time()) break;
    if (std::optional<std::vector<Item>> items = search.run(spec)) {
      ++shrunk.failed;
      shrunk.items = std::move(*items);
    }
  }
  if (shrunk.failed == 0) return shrunk;
  if (shrunk.failed < shrunk.tried) {
    const double rate = static_cast<double>(shrunk.failed) / shrunk.tried;
    shrunk.attempts = std::clamp(static_cast<int>(std::ceil(std::log(kMissed) / std::log1p(-rate))), 2, kMostTries);
  }
  search.remember(spec, true);
  const auto accept = [&](const ProblemSpec& candidate) { return search.accept(candidate); };
  const auto supported = [&](const ProblemSpec& candidate) { return search.is_supported(candidate); };
  shrink_steps(kernel, failure, {accept, supported, [&]() -> const ProblemSpec& { return shrunk.spec; }});
  for (int n = 0; n < confirmations && !search.out_of_time(); ++n)
    shrunk.failed_again += search.run(shrunk.spec).has_value();
  for (const Item& item : shrunk.items)
    if (failure.occurs_in({item})) {
      shrunk.repro = item.repro;
      break;
    }
  return shrunk;
}

std::string to_text(const Shrunk& shrunk) {
  if (shrunk.failed == 0)
    return fmt::format("shrunken: not possible, it passed in {} more run{}", shrunk.tried, shrunk.tried > 1 ? "s" : "");
  const std::string before = to_line(shrunk.original), after = to_line(shrunk.spec);
  std::vector<std::string> changes;
  for (std::size_t b = 0, a = 0; b < before.size() && a < after.size();) {  // the same keys in the same order
    const std::size_t b_end = std::min(before.find(',', b), before.size()),
                      a_end = std::min(after.find(',', a), after.size());
    const std::size_t key = before.find('=', b) - b;
    const std::string old = before.substr(b + key + 1, b_end - b - key - 1),
                      now = after.substr(a + key + 1, a_end - a - key - 1);
    if (old != now) changes.push_back(fmt::format("{} {} -> {}", before.substr(b, key), old, now));
    b = b_end + 1;
    a = a_end + 1;
  }
  std::string text = changes.empty() ? "shrunken: nothing could be made simpler"
                                     : fmt::format("shrunken: {}", fmt::join(changes, ", "));
  text += fmt::format("\n{} problems tried in {} runs{}", shrunk.problems, shrunk.runs,
                      shrunk.out_of_time ? "; time ran out, so there may be a simpler one" : "");
  if (shrunk.failed < shrunk.tried)
    text += fmt::format(
        "\nit comes and goes: the original failed in {} of {} runs, so every problem was run {} times "
        "before it was taken to pass; this one failed in {} of {} more runs",
        shrunk.failed, shrunk.tried, shrunk.attempts, shrunk.failed_again, kConfirmations);
  else if (!shrunk.out_of_time && shrunk.failed_again == 0)
    text += "\nit comes and goes: it did not fail when it was run again";
  std::vector<std::string> verdicts;
  for (const Item& item : shrunk.items)
    if (item.status == Status::FAIL || item.status == Status::ERROR || item.status == Status::TIMEOUT)
      verdicts.push_back(describe(item));
  for (const std::string& verdict : verdicts) text += "\n" + verdict;
  return text + "\n" + shrunk.repro;
}

}  // namespace mlstm::verify
