// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/json.hpp"
#include "base/text.hpp"
#include "report/report.hpp"
#include "studies/mutation/mutate.hpp"

namespace mlstm::verify {
namespace {

std::string_view name_of(RuleScope scope) {
  switch (scope) {
    case RuleScope::setting:
      return "setting";
    case RuleScope::suite:
      return "suite";
  }
  return "";
}

const ProblemSpec& problem_of(const MutationReport& report, const Outcome& outcome) {
  return report.problems[static_cast<std::size_t>(outcome.problem)];
}

/// Problems that kill, of those that were run, by regime.
std::map<std::string, Tally> regimes_of(const MutationReport& report, const MutantResult& result) {
  std::map<std::string, Tally> regimes;
  for (const Outcome& outcome : result.outcomes) regimes[problem_of(report, outcome).regime].add(outcome.killed);
  return regimes;
}

Tally rate(const std::map<RuleScope, Tally>& tallies, RuleScope scope) {
  const auto found = tallies.find(scope);
  return found == tallies.end() ? Tally{} : found->second;
}

std::string percent(const Tally& tally) {
  if (tally.runs == 0) return "-";
  // never rounded up: 99.96 % is 99.9 %
  const auto tenths = tally.found * 1000 / tally.runs;
  return fmt::format("{}.{} %", tenths / 10, tenths % 10);
}

std::string fraction(const Tally& tally) {
  return tally.runs == 0 ? "-" : fmt::format("{} of {}", tally.found, tally.runs);
}

// ---- text

std::string evidence_text(const MutationReport& report) {
  std::size_t width = 6;
  for (const MutantResult& result : report.mutants) width = std::max(width, result.mutant->name.size());
  std::string text = fmt::format("{:<{}}  {:<24} what shows it, and where\n", "Mutant", width, "killed in");
  for (const MutantResult& result : report.mutants) {
    Tally killed;
    for (const Outcome& outcome : result.outcomes) killed.add(outcome.killed);
    const Outcome* const evidence = report.evidence(result);
    text += fmt::format("{:<{}}  {:<24} ", result.mutant->name, width, fraction(killed) + " problems");
    const auto shown = [&](const std::string& check, const std::string& repro) {
      return fmt::format("{}\n{:>{}}{}\n", check, "", width + 2, repro);
    };
    if (evidence != nullptr)
      text += shown(evidence->check, repro_line(*result.mutant, problem_of(report, *evidence)));
    else if (const auto& by = result.by_property)
      text += shown("property " + by->property, repro_line(*result.mutant, by->spec, by->property));
    else
      text += "NOT DETECTED: " + result.mutant->description + "\n";
  }
  return text + "\n";
}

/// One letter a regime: '#' every problem that was run kills, '+' some, '.' none, ' ' none was run.
std::string matrix_text(const MutationReport& report) {
  std::set<std::string> names;
  for (const ProblemSpec& spec : report.problems) names.insert(spec.regime);
  std::string text = "Kill matrix, mutant x regime: # all problems that were run kill, + some, . none\n";
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  std::string header;
  for (const std::string& name : names) {
    header += letters[header.size() % letters.size()];
    text += fmt::format("  {} {}", header.back(), name);
  }
  text += "\n\n  " + header + "\n";
  for (const MutantResult& result : report.mutants) {
    const auto regimes = regimes_of(report, result);
    text += "  ";
    for (const std::string& name : names) {
      const auto found = regimes.find(name);
      text += found == regimes.end()                      ? ' '
              : found->second.found == 0                  ? '.'
              : found->second.found == found->second.runs ? '#'
                                                          : '+';
    }
    text += "  " + result.mutant->name + "\n";
  }
  return text + "\n";
}

/// How many mutants each check has killed, and how many nothing else has.
std::string checks_text(const MutationReport& report) {
  std::map<std::string, std::int64_t> killed, alone;
  for (const MutantResult& result : report.mutants) {
    std::set<std::string> checks;
    for (const auto& [regime, tallies] : result.by_regime)
      for (const auto& [check, tally] : tallies)
        if (tally.found > 0) checks.insert(check);
    if (result.by_property) checks.insert("property " + result.by_property->property);
    for (const std::string& check : checks) ++killed[check];
    if (checks.size() == 1) ++alone[*checks.begin()];
  }
  std::string text = "Mutants killed by each check, and by no other\n";
  for (const auto& [check, count] : killed) text += fmt::format("  {:<24}{:>5}{:>5}\n", check, count, alone[check]);
  return text + "\n";
}

std::string rules_text(const MutationReport& report) {
  if (report.rules.empty()) return {};
  std::string text =
      "What acceptance rules find: mutants rejected in a run in which the honest kernel is accepted; and runs of "
      "honest "
      "kernels that they reject.\nIn the dtypes in which their authors use them; in one shape with gate offsets 0, as "
      "in "
      "published tests (setting), and in these problems (suite)\n\n";
  text += fmt::format("{:<24}{:^26}  {:^36}\n", "", "mutants found", "honest runs rejected");
  text += fmt::format("{:<24}{:>13}{:>13}  {:>18}{:>18}\n", "rule", "setting", "suite", "setting", "suite");
  for (const RuleResult& rule : report.rules) {
    text += fmt::format("{:<24}", rule.name);
    for (const RuleScope scope : kRuleScopes) text += fmt::format("{:>13}", fraction(rate(rule.mutants, scope)));
    text += "  ";
    for (const RuleScope scope : kRuleScopes) text += fmt::format("{:>18}", fraction(rate(rule.specimens, scope)));
    text += "\n";
  }
  text += "\n";
  for (const RuleResult& rule : report.rules) text += fmt::format("  {}: {}\n", rule.name, rule.description);
  return text + "\n";
}

// ---- JSON

Json pair_of(const Tally& tally) { return Json::array({tally.found, tally.runs}); }

Json failure_object(const Item& item) {
  return {{"variant", to_utf8(item.variant)}, {"case", item.case_name},     {"tensor", item.tensor},
          {"status", to_string(item.status)}, {"note", to_utf8(item.note)}, {"repro", item.repro}};
}

Json mutant_object(const MutationReport& report, const MutantResult& result) {
  const Mutant& mutant = *result.mutant;
  Json object{{"name", mutant.name},
              {"family", mutant.family},
              {"module", to_string(mutant.kernel->info().module)},
              {"description", mutant.description},
              {"detected", result.detected()}};
  if (const Outcome* const evidence = report.evidence(result)) {
    const ProblemSpec& spec = problem_of(report, *evidence);
    object["by"] = Json{{"problem", case_name(spec)},
                        {"check", evidence->check},
                        {"repro", repro_line(mutant, spec)},
                        {"finding", to_utf8(evidence->finding)}};
  } else if (const auto& by = result.by_property) {
    object["by"] = Json{{"problem", case_name(by->spec)},
                        {"check", "property " + by->property},
                        {"repro", repro_line(mutant, by->spec, by->property)},
                        {"finding", to_utf8(by->finding)}};
  } else {
    object["by"] = nullptr;
  }
  Json regimes = Json::object(), kills = Json::object();
  for (const auto& [regime, tally] : regimes_of(report, result)) regimes[regime] = pair_of(tally);
  for (const auto& [regime, checks] : result.by_regime) {
    Json& mine = kills[regime] = Json::object();
    for (const auto& [check, tally] : checks)
      if (tally.found > 0) mine[check] = pair_of(tally);
  }
  object["regimes"] = std::move(regimes);
  object["kills"] = std::move(kills);
  return object;
}

Json rule_object(const RuleResult& rule) {
  Json found, rejected;
  for (const RuleScope scope : kRuleScopes) {
    found[name_of(scope)] = pair_of(rate(rule.mutants, scope));
    rejected[name_of(scope)] = pair_of(rate(rule.specimens, scope));
  }
  return {{"name", rule.name},
          {"description", rule.description},
          {"mutants", std::move(found)},
          {"false_alarms", std::move(rejected)}};
}

/// `objects`, one a line.
std::string lines_of(const std::vector<Json>& objects) {
  std::string text;
  for (const Json& object : objects) text += (text.empty() ? "\n" : ",\n") + serialize(object);
  return "[" + text + "]";
}

}  // namespace

std::string to_text(const MutationReport& report) {
  std::string text = evidence_text(report) + matrix_text(report) + checks_text(report) + rules_text(report);
  for (const MutantResult& result : report.equivalent)
    text += fmt::format("{}  {}: {}\n", result.detected() ? "DETECTED, THOUGH PROVEN EQUIVALENT" : "Equivalent",
                        result.mutant->name, result.mutant->equivalent);
  for (const MutantResult& result : report.specimens) text += list_failures(result.failures);
  for (const MutantResult& result : report.mutants) text += list_failures(result.failures);
  for (const std::string& name : report.unrun) text += name + " supports none of the problems\n";
  const Tally score = report.score();
  text += fmt::format("{} planted bugs detected ({}) in {} problems", fraction(score), percent(score),
                      report.problems.size());
  const auto by_properties = std::count_if(report.mutants.begin(), report.mutants.end(),
                                           [](const MutantResult& result) { return result.by_property.has_value(); });
  if (by_properties > 0) text += fmt::format(", {} of them by properties alone", by_properties);
  if (report.verdicts.runs > 0)
    text += fmt::format("; false alarms: {} verdicts on honest kernels", fraction(report.verdicts));
  return text + "\n";
}

std::string to_json(const MutationReport& report) {
  const Tally score = report.score();
  std::vector<Json> mutants, equivalent, rules, alarms;
  for (const MutantResult& result : report.mutants) mutants.push_back(mutant_object(report, result));
  for (const MutantResult& result : report.equivalent)
    equivalent.push_back(Json{{"name", result.mutant->name},
                              {"description", result.mutant->description},
                              {"proof", result.mutant->equivalent},
                              {"detected", result.detected()}});
  for (const RuleResult& rule : report.rules) rules.push_back(rule_object(rule));
  for (const MutantResult& result : report.specimens)
    for (const Item& item : result.failures) alarms.push_back(failure_object(item));
  Json minimal = Json::array();
  for (const std::size_t problem : minimal_suite(report)) minimal.push_back(to_line(report.problems[problem]));
  std::string text = "{";
  text += fmt::format("\"score\": {},\n", score.runs == 0 ? "null"
                                                          : fmt::format("{:.6f}", static_cast<double>(score.found) /
                                                                                      static_cast<double>(score.runs)));
  text += fmt::format("\"detected\": {}, \"count\": {}, \"problems\": {},\n", score.found, score.runs,
                      report.problems.size());
  text += "\"mutants\": " + lines_of(mutants) + ",\n\"equivalent\": " + lines_of(equivalent) +
          ",\n\"rules\": " + lines_of(rules) + ",\n";
  text += fmt::format("\"false_alarms\": {{\"verdicts\": {}, \"not_passed\": {}, \"items\": {}}},\n",
                      report.verdicts.runs, report.verdicts.found, lines_of(alarms));
  return text + "\"minimal\": " + serialize(minimal) + "}\n";
}

}  // namespace mlstm::verify
