// SPDX-License-Identifier: Apache-2.0
#include "studies/mutation/explanations.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "mlstm/parallel_for.hpp"
#include "studies/mutation/mutate.hpp"
#include "sweep/explain.hpp"

namespace mlstm::verify {
namespace {

constexpr double kWanted = 0.7;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

/// What stands between two texts; empty if they are not there.
std::string between(const std::string& line, std::string_view before, std::string_view after) {
  const std::size_t begin = line.find(before);
  if (begin == std::string::npos) return {};
  const std::size_t from = begin + before.size(), end = line.find(after, from);
  return end == std::string::npos ? std::string() : line.substr(from, end - from);
}

/// What a note says of the gradient convention.
std::string convention_in(const std::string& note) {
  const std::string name = between(note, "this is the ", " gradient");
  return name.empty() ? "" : "note: the " + name + " gradient";
}

/// What a line of an explanation claims; empty if nothing about the cause.
std::string claim_in(const std::string& line, const std::string& tensor) {
  if (line.starts_with("as if: ")) return line.substr(0, line.find(": that would give"));
  if (line.starts_with("looks like: ")) return tensor + " " + line;
  if (line.starts_with("gates: ")) return "gates: " + line.substr(line.find(": the ") + 6);
  if (const std::string stage = between(line, "forward pass: ", " is wrong first"); !stage.empty())
    return "stage: " + stage;
  for (const char* verb : {" is wrong first", " are wrong first"})
    if (const std::string stage = between(line, "from the last step down: ", verb); !stage.empty())
      return "stage: " + stage;
  return {};
}

/// Adds what is claimed about the first run of the mutant on the problem that fails; false if none does.
bool explain_on(Explanation& found, const ProblemSpec& spec) {
  const Mutant& mutant = *found.mutant;
  const auto claim = [&](const std::string& text) {
    if (!text.empty() && std::find(found.claims.begin(), found.claims.end(), text) == found.claims.end())
      found.claims.push_back(text);
  };
  const Plan plan = make_plan({mutant.kernel}, {spec}, true);
  for (const Unit& unit : plan.units) {
    if (unit.problem() == nullptr) continue;
    found.problems.push_back(to_line(unit.problem()->spec));
    Case c = make_case(unit.problem()->spec);
    reference::Options one_thread;
    one_thread.threads = 1;
    const ReferenceData reference = evaluate_reference(c, one_thread);
    for (const Run& run : unit.problem()->runs) {
      SweepOptions sweep;
      sweep.threads = 1;
      sweep.run.repeats = std::max(sweep.run.repeats, mutant.repeats);
      JudgeOptions judging;
      judging.threads = 1;
      c.kernel.reset();
      bool fails = false, has_numbers = false;
      for (const Item& item : judge_run(unit.problem()->spec, run, c, reference, judging, sweep)) {
        if (item.status == Status::PASS || item.status == Status::SKIPPED) continue;
        fails = true;
        has_numbers |= item.error_ratio.has_value();
        if (!item.check.empty()) claim("check: " + item.check);
        claim(convention_in(item.note));
        for (const std::string& line : lines_of(item.explanation)) claim(claim_in(line, item.tensor));
      }
      if (!fails) continue;
      if (has_numbers)
        for (const std::string& line : lines_of(look_into(*run.kernel, unit.problem()->spec, run.convention, sweep)))
          claim(claim_in(line, {}));
      return true;
    }
  }
  return false;
}

/// The problem that shows a mutant best, and the largest ones that show it.
std::vector<ProblemSpec> telling_problems(const MutationReport& report, const MutantResult& result) {
  constexpr std::size_t most = 3;
  const auto spec_of = [&](const Outcome& outcome) {
    return report.problems[static_cast<std::size_t>(outcome.problem)];
  };
  const auto elements_of = [&](const Outcome& outcome) {
    const Shape s = spec_of(outcome).problem.shape;
    return s.heads() * s.S * (s.DHQK + s.DHV);
  };
  const Outcome* const evidence = report.evidence(result);
  std::vector<const Outcome*> others;
  for (const Outcome& outcome : result.outcomes)
    if (outcome.killed && &outcome != evidence) others.push_back(&outcome);
  std::stable_sort(others.begin(), others.end(),
                   [&](const Outcome* a, const Outcome* b) { return elements_of(*a) > elements_of(*b); });
  std::vector<ProblemSpec> specs{spec_of(*evidence)};
  for (const Outcome* other : others)
    if (specs.size() < most) specs.push_back(spec_of(*other));
  return specs;
}

/// "as if: A; or: B" as "as if: A" and "as if: B": such a claim is true if one of these is.
std::vector<std::string> alternatives_of(const std::string& claim) {
  constexpr std::string_view separator = "; or: ";
  std::vector<std::string> alternatives;
  for (std::size_t begin = 0;;) {
    const std::size_t end = claim.find(separator, begin);
    alternatives.push_back(fmt::format("{}{}", begin > 0 ? "as if: " : "", claim.substr(begin, end - begin)));
    if (end == std::string::npos) return alternatives;
    begin = end + separator.size();
  }
}

/// What was measured, and holds whatever the cause is. It explains only what true_claims says it does, but for checks.
bool is_measured(const std::string& claim, bool is_known_bug) {
  for (const char* glob : {"* looks like: zero", "* looks like: NaN*", "* looks like: Inf*"})
    if (fnmatch(glob, claim.c_str(), 0) == 0) return true;
  return !is_known_bug && claim.starts_with("stage: ");
}

void judge_claims(Explanation& explanation) {
  const std::string& name = explanation.mutant->name;
  const auto globs = true_claims(name.substr(name.find('.') + 1));
  const auto is_true = [&](const std::string& claim) {
    return std::any_of(globs.begin(), globs.end(), [&](std::string_view glob) {
      return fnmatch(std::string(glob).c_str(), claim.c_str(), 0) == 0;
    });
  };
  bool is_right = false;
  for (const std::string& claim : explanation.claims) {
    const auto alternatives = alternatives_of(claim);
    const bool is_check = globs.empty() && claim.starts_with("check: ");
    if (is_check || std::any_of(alternatives.begin(), alternatives.end(), is_true)) {
      is_right = true;
      explanation.is_named |= !claim.starts_with("stage: ");
    } else if (!is_measured(claim, !globs.empty())) {
      explanation.wrong.push_back(claim);
    }
  }
  if (!explanation.wrong.empty())
    explanation.verdict = Explained::wrong;
  else if (is_right)
    explanation.verdict = Explained::right;
}

}  // namespace

std::string_view to_string(Explained verdict) {
  switch (verdict) {
    case Explained::right:
      return "right";
    case Explained::wrong:
      return "wrong";
    case Explained::none:
      break;
  }
  return "none";
}

std::vector<Explanation> explain_mutants(const std::vector<ProblemSpec>& specs, const ExplanationOptions& options) {
  MutationOptions how;
  how.mutants = options.mutants;
  how.threads = options.threads;
  const MutationReport report = run_mutants(specs, how);
  std::vector<const MutantResult*> found;
  for (const MutantResult& result : report.mutants)
    if (report.evidence(result) != nullptr) found.push_back(&result);
  if (options.on_total) options.on_total(static_cast<std::int64_t>(found.size()));
  std::vector<Explanation> explanations(found.size());
  std::mutex mutex;
  parallel_for(static_cast<std::int64_t>(found.size()), options.threads, [&](std::int64_t n) {
    const MutantResult& result = *found[static_cast<std::size_t>(n)];
    Explanation& mine = explanations[static_cast<std::size_t>(n)];
    mine.mutant = result.mutant;
    bool fails = false;
    for (const ProblemSpec& spec : telling_problems(report, result)) fails |= explain_on(mine, spec);
    if (fails)
      judge_claims(mine);
    else
      mine.mutant = nullptr;
    const std::lock_guard lock(mutex);
    if (options.on_unit_done) options.on_unit_done();
  });
  // What failed because of other calls at the same time is right by itself: there is nothing to explain here.
  std::erase_if(explanations, [](const Explanation& one) { return one.mutant == nullptr; });
  return explanations;
}

std::string to_markdown(const std::vector<Explanation>& explanations) {
  std::map<Explained, std::int64_t> counts;
  std::int64_t named = 0;
  std::string rows;
  for (const Explanation& one : explanations) {
    ++counts[one.verdict];
    named += one.verdict == Explained::right && one.is_named ? 1 : 0;
    const auto cell = [](const std::string& text) {
      std::string escaped;
      for (const char character : text) {
        if (character == '|') escaped.push_back('\\');
        escaped.push_back(character);
      }
      return escaped;
    };
    rows +=
        fmt::format("| {} | {} | {} | {} | {} |\n", one.mutant->family, one.mutant->name, cell(one.mutant->description),
                    cell(fmt::format("{}", fmt::join(one.claims, "<br>"))), to_string(one.verdict));
  }
  const auto total = static_cast<double>(std::max<std::size_t>(explanations.size(), 1));
  return fmt::format(
             "{} bugs: {} explained rightly ({:.1f} %; {} of them by name, the others by the stage that goes wrong "
             "first), {} wrongly, {} not at all.\n\n",
             explanations.size(), counts[Explained::right], 100 * static_cast<double>(counts[Explained::right]) / total,
             named, counts[Explained::wrong], counts[Explained::none]) +
         "| family | bug | what goes wrong | what is said | verdict |\n|---|---|---|---|---|\n" + rows;
}

int exit_status(const std::vector<Explanation>& explanations) {
  if (explanations.empty()) return 3;
  const auto count = [&](Explained verdict) {
    return std::count_if(explanations.begin(), explanations.end(),
                         [&](const Explanation& one) { return one.verdict == verdict; });
  };
  const double right = static_cast<double>(count(Explained::right)) / static_cast<double>(explanations.size());
  return count(Explained::wrong) > 0 || right < kWanted ? 1 : 0;
}

}  // namespace mlstm::verify
