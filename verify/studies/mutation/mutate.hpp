// SPDX-License-Identifier: Apache-2.0
// Mutation testing of the verifier: planted bugs are run over a suite and judged as `mlstm verify` judges any variant.
// What is found, where and by which check; what other acceptance rules find in the same runs; which problems suffice.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "runner/runner.hpp"
#include "studies/mutants/mutants.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {

/// Times that something was found, of times that it was looked for.
struct Tally {
  std::int64_t found = 0, runs = 0;
  void add(bool finds) { found += finds, ++runs; }
};

/// What one problem showed of one mutant, all its conventions together.
struct Outcome {
  std::int64_t problem = 0;  ///< index into MutationReport::problems
  bool killed = false;       ///< FAIL, ERROR or TIMEOUT in some tensor
  std::string check;         ///< the most telling check; empty if not killed
  double strength = 0;       ///< its error_ratio; infinite where no number was compared
  std::string finding;       ///< the verdict in words
};

/// "h", "dq (exact)", ... for a tensor that was outside its bound; "red zone", "input damage", "not written", "poison",
/// "repeat", "exception" or "timeout" for a run that produced nothing to judge.
std::string check_of(const Item& item);

/// A property that a mutant does not have.
struct PropertyOutcome {
  std::string property;  ///< "interleaving"
  ProblemSpec spec;      ///< in which it shows
  std::string finding;   ///< the verdict in words
};

/// How a mutant, or a specimen, fared.
struct MutantResult {
  const Mutant* mutant = nullptr;  ///< null for a specimen
  const Kernel* kernel = nullptr;
  std::vector<Outcome> outcomes;                                  ///< one per problem that was run, in plan order
  std::optional<PropertyOutcome> by_property;                     ///< of a mutant that no problem has killed
  std::map<std::string, std::map<std::string, Tally>> by_regime;  ///< regime -> check -> kills of runs
  std::vector<Item> failures;                                     ///< of a specimen, or if MutationOptions::keep_items
  bool detected() const;
};

/// The problems in which a rule is tried, in the dtypes in which its authors use it: published_setting(), or the suite.
enum class RuleScope { setting, suite };
inline constexpr std::array kRuleScopes{RuleScope::setting, RuleScope::suite};

/// What one acceptance rule finds.
struct RuleResult {
  std::string name, description;
  std::map<RuleScope, Tally> mutants;    ///< rejected in some run in which the honest kernel is not, of all real ones
  std::map<RuleScope, Tally> specimens;  ///< runs of honest kernels that it rejects, of all
};

struct MutationReport {
  std::vector<ProblemSpec> problems;
  std::vector<MutantResult> mutants;     ///< real bugs
  std::vector<MutantResult> equivalent;  ///< proven to be no bugs: if one is detected, the proof is wrong
  std::vector<MutantResult> specimens;
  Tally verdicts;                  ///< on specimens: FAIL, ERROR or TIMEOUT, of all
  std::vector<RuleResult> rules;   ///< first the verifier itself; empty if not wanted
  std::vector<std::string> unrun;  ///< mutants that support none of the problems; they do not count

  Tally score() const;  ///< mutants detected, of all
  /// The outcome to name: of the smallest problem that kills clearly (strength at least 2), else the strongest; null if
  /// the mutant is not detected.
  const Outcome* evidence(const MutantResult& result) const;
  /// 1 if less than 99 % are detected, a specimen does not pass or an equivalent mutant is detected, 3 if nothing was
  /// judged, else 0.
  int exit_status() const;
};

struct MutationOptions {
  std::vector<const Mutant*> mutants;
  std::vector<const Kernel*> specimens;
  bool adapt = true;  ///< as of make_plan
  int threads = 0;
  RunFunction runner = run_kernel;
  /// Also tries acceptance_rules(). FlashAttention's compares with `plain`, a plain program that takes every dtype.
  bool rules = false;
  const Kernel* plain = nullptr;
  /// Runs every mutant in every problem. Else a mutant is done with a regime when a problem of it, tried in the order
  /// of their sizes, has killed it; what is detected is the same.
  bool exhaustive = false;
  /// Properties to check (properties.hpp): all of them on the specimens; on mutants that no problem has killed, until
  /// one finds it. On their own problems, or on `specs` if not `adapt`.
  std::vector<std::string> properties;
  bool keep_items = false;                     ///< keep what failed, for a report on a few mutants
  std::function<void(std::int64_t)> on_total;  ///< number of units, before the first
  std::function<void()> on_unit_done;          ///< one call at a time
};

/// Runs the mutants and specimens over `specs`. Results do not depend on the number of threads, except for what a
/// mutant with a race does, or one that shares memory between calls. Throws what evaluating a reference throws.
MutationReport run_mutants(const std::vector<ProblemSpec>& specs, const MutationOptions& options);

/// The problem in which published tests of mLSTM kernels run (B=1, NH=2, S=256, 64x128, all gates offset 0), in the
/// dtypes and gates that there are: where rules are tried by themselves.
std::vector<ProblemSpec> published_setting();

/// Few problems that together kill all that `report` kills: greedy set cover, the cheaper problem first where two kill
/// as many, then without those that turn out superfluous. Indices into report.problems, ascending.
std::vector<std::size_t> minimal_suite(const MutationReport& report);

/// The line that shows one mutant in one problem, or lacking one property.
std::string repro_line(const Mutant& mutant, const ProblemSpec& spec, std::string_view property = {});

/// The report for people.
std::string to_text(const MutationReport& report);

/// mutate.json: {"score", "detected", "count", "mutants": [{"name", "family", "module", "description", "detected",
/// "by": {"problem", "check", "repro", "finding"} or null, where "check" may be "property <name>", "regimes": {regime:
/// [problems that kill, problems]}, "kills": {regime: {check: [kills, runs]}}}], "equivalent": [{"name", "description",
/// "proof"}], "rules": [{"name", "description", "mutants": {scope: [found, of]}, "false_alarms": {scope: [rejected,
/// of]}}], "false_alarms": {"verdicts", "not_passed", "items": [as in report.json]}, "minimal": [problem lines]}.
std::string to_json(const MutationReport& report);

}  // namespace mlstm::verify
