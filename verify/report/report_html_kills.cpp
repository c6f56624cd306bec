// SPDX-License-Identifier: Apache-2.0
// The kill matrix of a mutate.json. Parts that are absent are left out.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "report/report_html_parts.hpp"

namespace mlstm::verify::html {
namespace {

std::string text_in(const Json& object, const char* key) {
  const Json* value = find_member(object, key);
  if (value == nullptr || value->is_null()) return {};
  return value->is_string() ? value->get<std::string>() : serialize(*value);
}

/// {"a": 1} as "a 1".
std::string words_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object()) return serialize(value);
  std::string text;
  for (const auto& [key, member] : value.items())
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", key, words_of(member));
  return text;
}

std::optional<double> number_in(const Json& object, const char* key) {
  const Json* value = find_member(object, key);
  if (value == nullptr || !value->is_number()) return {};
  return value->get<double>();
}

/// The array, or null.
const Json* array_in(const Json& object, const char* key) {
  const Json* value = find_member(object, key);
  return value != nullptr && value->is_array() ? value : nullptr;
}

bool detected(const Json& mutant) {
  const Json* value = find_member(mutant, "detected");
  return value != nullptr && *value == true;
}

/// Largest share of runs that one check killed, and these two numbers.
struct Kills {
  double share = -1;
  std::string text, checks;
};

Kills kills_of(const Json& checks) {
  Kills best;
  if (!checks.is_object()) return best;
  for (const auto& [check, pair] : checks.items()) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number() || !pair[1].is_number()) continue;
    const double killed = pair[0].get<double>(), runs = pair[1].get<double>();
    const double share = runs > 0 ? killed / runs : 0;
    const std::string text = fmt::format("{}/{}", killed, runs);
    best.checks += fmt::format("{}{} {}", best.checks.empty() ? "" : ", ", check, text);
    if (share <= best.share) continue;
    best.share = share;
    best.text = text;
  }
  return best;
}

std::string_view shade(double share) {
  return share <= 0 ? "k0" : share < 0.34 ? "k1" : share < 0.67 ? "k2" : share < 1 ? "k3" : "k4";
}

std::string headline(const Json& root, std::size_t caught, std::size_t of) {
  std::string text = fmt::format("{} of {} planted bugs detected", caught, of);
  if (const auto score = number_in(root, "score"); score && *score <= 1)
    text += fmt::format(" (score {})", std::floor(*score * 1e4) / 1e4);  // never rounded up
  return text;
}

/// "3 of 5" for {"<scope>": [3, 5]}.
std::string tally_in(const Json& rule, const char* key, const char* scope) {
  const Json* tallies = find_member(rule, key);
  const Json* pair = tallies == nullptr ? nullptr : array_in(*tallies, scope);
  if (pair == nullptr || pair->size() != 2) return {};
  return words_of(pair->at(0)) + " of " + words_of(pair->at(1));
}

std::string rules_table(const Json& rules) {
  std::string text =
      R"(<h3>What acceptance rules find</h3><p class="lead">Planted bugs that a rule rejects in a run in which it accepts )"
      R"(the honest kernel, and runs of honest kernels that it rejects: in one shape with gate offsets 0, as published )"
      R"(tests have it, and in the problems of this run.</p>)"
      R"(<div class="scroll" tabindex="0" role="region" aria-label="Acceptance rules">)"
      R"(<table class="rules"><thead><tr><th scope="col">rule</th><th scope="col" class="num">bugs, one shape</th>)"
      R"(<th scope="col" class="num">bugs, all problems</th><th scope="col" class="num">honest runs, one shape</th>)"
      R"(<th scope="col" class="num">honest runs, all problems</th></tr></thead><tbody>)";
  for (const Json& rule : rules) {
    if (!rule.is_object()) continue;
    text += fmt::format(R"(<tr><th scope="row" title="{}">{}</th>)", escaped(text_in(rule, "description")),
                        escaped(text_in(rule, "name")));
    for (const char* key : {"mutants", "false_alarms"})
      for (const char* scope : {"setting", "suite"})
        text += "<td class=\"num\">" + escaped(tally_in(rule, key, scope)) + "</td>";
    text += "</tr>";
  }
  return text + "</tbody></table></div>\n";
}

/// A mutant and its place in the file.
struct Row {
  std::size_t number;
  const Json* mutant;
};

/// What got away first, then by family.
std::vector<Row> rows_of(const Json& mutants) {
  std::vector<Row> rows;
  for (std::size_t n = 0; n < mutants.size(); ++n)
    if (mutants[n].is_object()) rows.push_back({n, &mutants[n]});
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    const auto key = [](const Row& row) { return std::pair(detected(*row.mutant), text_in(*row.mutant, "family")); };
    return key(a) < key(b);
  });
  return rows;
}

std::string caught_pill(const Json& mutant) {
  const bool caught = detected(mutant);
  return fmt::format(R"(<span class="pill {}"><span class="mark" aria-hidden="true">{}</span>{}</span>)",
                     caught ? "PASS" : "FAIL", caught ? "✓" : "✗", caught ? "yes" : "no");
}

/// One entry per mutant: what it is and what found it. Rows of the matrix link there.
std::string mutant_list(const std::vector<Row>& rows, std::size_t file) {
  std::string text = fmt::format(
      "<details class=\"mutant-list\"><summary>What each of the {} is, and what found it</summary>\n", rows.size());
  for (const auto& [number, mutant] : rows) {
    text += fmt::format(
        R"(<details class="item"><summary>{}<span class="what"><b>{}</b> <span class="variant">{} {}</span>)"
        R"(</span></summary><div class="card"><p id="mutant-{}-{}">{}</p>)",
        caught_pill(*mutant), escaped(text_in(*mutant, "name")), escaped(text_in(*mutant, "family")),
        escaped(text_in(*mutant, "module")), file, number, escaped(text_in(*mutant, "description")));
    if (const Json* how = find_member(*mutant, "by"); how != nullptr && how->is_object())
      text += "<p>Detected by " + escaped(text_in(*how, "check")) + " in " + escaped(text_in(*how, "problem")) +
              "</p>" + copy_line(text_in(*how, "repro"));
    text += "</div></details>\n";
  }
  return text + "</details>\n";
}

std::string matrix(const std::vector<Row>& rows, std::size_t file) {
  std::vector<std::string> regimes;
  for (const auto& [number, mutant] : rows) {
    const Json* kills = find_member(*mutant, "kills");
    if (kills == nullptr || !kills->is_object()) continue;
    for (const auto& [regime, checks] : kills->items())
      if (std::find(regimes.begin(), regimes.end(), regime) == regimes.end()) regimes.emplace_back(regime);
  }
  std::string text = fmt::format(
      R"(<div class="scroll tall" tabindex="0" role="region" aria-label="Kill matrix">)"
      R"(<table class="grid kills" data-file="{}"><thead><tr><th scope="col">planted bug</th><th scope="col">caught</th>)",
      file);
  for (const std::string& regime : regimes) text += turned_heading(regime);
  text += "</tr></thead><tbody>\n";
  for (const auto& [number, mutant] : rows) {
    text += fmt::format(R"(<tr data-mutant="{1}"><th scope="row"><a href="#mutant-{0}-{1}">{2}</a></th><td>{3}</td>)",
                        file, number, escaped(text_in(*mutant, "name")), caught_pill(*mutant));
    const Json* kills = find_member(*mutant, "kills");
    for (const std::string& regime : regimes) {
      const Json* checks = kills == nullptr ? nullptr : find_member(*kills, regime);
      const Kills found = checks == nullptr ? Kills{} : kills_of(*checks);
      text += found.share < 0 ? std::string(R"(<td class="none"><span class="sr">not run</span></td>)")
                              : fmt::format(R"(<td class="kill {}" title="{}">{}</td>)", shade(found.share),
                                            escaped(found.checks), escaped(found.text));
    }
    text += "</tr>\n";
  }
  return text + "</tbody></table></div>\n";
}

std::string section(const MutationFile& file, std::size_t number) {
  const Json root = parse_json(file.text, file.source);
  if (!root.is_object()) throw FileError(file.source + ": expected an object");
  std::string text = "<section class=\"mutants\"><h2>Planted bugs</h2>\n";
  if (const Json* mutants = array_in(root, "mutants")) {
    std::size_t caught = 0;
    for (const Json& mutant : *mutants) caught += detected(mutant);
    text += "<p class=\"score\">" + escaped(headline(root, caught, mutants->size())) + "</p>\n";
  }
  if (const Json* alarms = find_member(root, "false_alarms"); alarms != nullptr && alarms->is_object())
    text += "<p>False alarms: " + escaped(text_in(*alarms, "not_passed")) + " of " +
            escaped(text_in(*alarms, "verdicts")) + " verdicts on honest kernels</p>\n";
  if (const Json* rules = array_in(root, "rules")) text += rules_table(*rules);
  if (const Json* mutants = array_in(root, "mutants"))
    text += "<h3>Kill matrix</h3><p class=\"lead\">Kills of runs, by regime; of the check that kills most.</p>\n" +
            matrix(rows_of(*mutants), number) + mutant_list(rows_of(*mutants), number);
  return text + "</section>\n";
}

}  // namespace

std::string kill_matrices(const std::vector<MutationFile>& files) {
  std::string text;
  for (std::size_t n = 0; n < files.size(); ++n) text += section(files[n], n);
  return text;
}

}  // namespace mlstm::verify::html
