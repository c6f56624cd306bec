// SPDX-License-Identifier: Apache-2.0
// The kill matrix of a mutate.json. Parts that are absent are left out.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>

#include "cases/case_file.hpp"
#include "report/report_html_parts.hpp"

namespace mlstm::verify::html {
namespace json = boost::json;
namespace {

std::string text_in(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return {};
  return value->is_string() ? std::string(std::string_view(value->as_string())) : json::serialize(*value);
}

/// {"a": 1} as "a 1".
std::string words_of(const json::value& value) {
  if (value.is_string()) return std::string(std::string_view(value.as_string()));
  const json::object* object = value.if_object();
  if (object == nullptr) return json::serialize(value);
  std::string text;
  for (const auto& [key, member] : *object)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", std::string_view(key), words_of(member));
  return text;
}

std::optional<double> number_in(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_number()) return {};
  return value->to_number<double>();
}

const json::array* array_in(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_array();
}

bool detected(const json::object& mutant) {
  const json::value* value = mutant.if_contains("detected");
  return value != nullptr && value->is_bool() && value->as_bool();
}

/// Largest share of runs that one check killed, and these two numbers.
struct Kills {
  double share = -1;
  std::string text, checks;
};

Kills kills_of(const json::value& checks) {
  Kills best;
  if (!checks.is_object()) return best;
  for (const auto& [check, counts] : checks.as_object()) {
    const json::array* pair = counts.if_array();
    if (pair == nullptr || pair->size() != 2 || !pair->at(0).is_number() || !pair->at(1).is_number()) continue;
    const double killed = pair->at(0).to_number<double>(), runs = pair->at(1).to_number<double>();
    const double share = runs > 0 ? killed / runs : 0;
    const std::string text = fmt::format("{}/{}", killed, runs);
    best.checks += fmt::format("{}{} {}", best.checks.empty() ? "" : ", ", std::string_view(check), text);
    if (share <= best.share) continue;
    best.share = share;
    best.text = text;
  }
  return best;
}

std::string_view shade(double share) {
  return share <= 0 ? "k0" : share < 0.34 ? "k1" : share < 0.67 ? "k2" : share < 1 ? "k3" : "k4";
}

std::string headline(const json::object& root, std::size_t caught, std::size_t of) {
  std::string text = fmt::format("{} of {} planted bugs detected", caught, of);
  if (const auto score = number_in(root, "score"); score && *score <= 1)
    text += fmt::format(" (score {})", std::floor(*score * 1e4) / 1e4);  // never rounded up
  return text;
}

/// "3 of 5" for {"<scope>": [3, 5]}.
std::string tally_in(const json::object& rule, const char* key, const char* scope) {
  const json::value* tallies = rule.if_contains(key);
  const json::array* pair =
      tallies != nullptr && tallies->is_object() ? array_in(tallies->as_object(), scope) : nullptr;
  if (pair == nullptr || pair->size() != 2) return {};
  return words_of(pair->at(0)) + " of " + words_of(pair->at(1));
}

std::string rules_table(const json::array& rules) {
  std::string text =
      R"(<h3>What acceptance rules find</h3><p class="lead">Planted bugs that a rule rejects in a run in which it accepts )"
      R"(the honest kernel, and runs of honest kernels that it rejects: in one shape with gate offsets 0, as published )"
      R"(tests have it, and in the problems of this run.</p>)"
      R"(<div class="scroll" tabindex="0" role="region" aria-label="Acceptance rules">)"
      R"(<table class="rules"><thead><tr><th scope="col">rule</th><th scope="col" class="num">bugs, one shape</th>)"
      R"(<th scope="col" class="num">bugs, all problems</th><th scope="col" class="num">honest runs, one shape</th>)"
      R"(<th scope="col" class="num">honest runs, all problems</th></tr></thead><tbody>)";
  for (const json::value& value : rules) {
    const json::object* rule = value.if_object();
    if (rule == nullptr) continue;
    text += fmt::format(R"(<tr><th scope="row" title="{}">{}</th>)", escaped(text_in(*rule, "description")),
                        escaped(text_in(*rule, "name")));
    for (const char* key : {"mutants", "false_alarms"})
      for (const char* scope : {"setting", "suite"})
        text += "<td class=\"num\">" + escaped(tally_in(*rule, key, scope)) + "</td>";
    text += "</tr>";
  }
  return text + "</tbody></table></div>\n";
}

/// A mutant and its place in the file.
struct Row {
  std::size_t number;
  const json::object* mutant;
};

/// What got away first, then by family.
std::vector<Row> rows_of(const json::array& mutants) {
  std::vector<Row> rows;
  for (std::size_t n = 0; n < mutants.size(); ++n)
    if (const json::object* mutant = mutants[n].if_object(); mutant != nullptr) rows.push_back({n, mutant});
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    const auto key = [](const Row& row) { return std::pair(detected(*row.mutant), text_in(*row.mutant, "family")); };
    return key(a) < key(b);
  });
  return rows;
}

std::string caught_pill(const json::object& mutant) {
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
    const json::value* by = mutant->if_contains("by");
    if (const json::object* how = by == nullptr ? nullptr : by->if_object(); how != nullptr)
      text += "<p>Detected by " + escaped(text_in(*how, "check")) + " in " + escaped(text_in(*how, "problem")) +
              "</p>" + copy_line(text_in(*how, "repro"));
    text += "</div></details>\n";
  }
  return text + "</details>\n";
}

std::string matrix(const std::vector<Row>& rows, std::size_t file) {
  std::vector<std::string> regimes;
  for (const auto& [number, mutant] : rows) {
    const json::value* kills = mutant->if_contains("kills");
    if (kills == nullptr || !kills->is_object()) continue;
    for (const auto& [regime, checks] : kills->as_object())
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
    const json::value* kills = mutant->if_contains("kills");
    for (const std::string& regime : regimes) {
      const json::value* checks =
          kills != nullptr && kills->is_object() ? kills->as_object().if_contains(regime) : nullptr;
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
  json::error_code error;
  const json::value root = json::parse(file.text, error);
  if (error) throw FileError(file.source + ": not JSON (" + error.message() + ")");
  const json::object* object = root.if_object();
  if (object == nullptr) throw FileError(file.source + ": expected an object");
  std::string text = "<section class=\"mutants\"><h2>Planted bugs</h2>\n";
  if (const json::array* mutants = array_in(*object, "mutants")) {
    std::size_t caught = 0;
    for (const json::value& mutant : *mutants) caught += mutant.is_object() && detected(mutant.as_object());
    text += "<p class=\"score\">" + escaped(headline(*object, caught, mutants->size())) + "</p>\n";
  }
  if (const json::value* alarms = object->if_contains("false_alarms"); alarms != nullptr && alarms->is_object())
    text += "<p>False alarms: " + escaped(text_in(alarms->as_object(), "not_passed")) + " of " +
            escaped(text_in(alarms->as_object(), "verdicts")) + " verdicts on honest kernels</p>\n";
  if (const json::array* rules = array_in(*object, "rules")) text += rules_table(*rules);
  if (const json::array* mutants = array_in(*object, "mutants"))
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
