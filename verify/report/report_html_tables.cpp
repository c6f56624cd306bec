// SPDX-License-Identifier: Apache-2.0
// What an HTML report shows without scripts.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "report/report_html_parts.hpp"

namespace mlstm::verify::html {
namespace {

/// What several items amount to.
struct Cell {
  std::size_t items = 0, failed = 0;
  std::string_view shown = "SKIPPED";
  double ratio = -1;

  void add(const Entry& entry) {
    if (items++ == 0 || severity(entry.shown()) < severity(shown)) shown = entry.shown();
    failed += entry.failed();
    ratio = std::max(ratio, entry.ratio);
  }
};

/// A cell of a grid: the only place that says how one looks. Scripts fill copies of it.
std::string cell_markup(const Cell& cell) {
  if (cell.items == 0) return R"(<td class="none"><span class="sr">not run</span></td>)";
  const std::string count = cell.failed > 0 ? fmt::format(" {} of {}", cell.failed, cell.items) : "";
  return fmt::format(R"(<td class="cell {0}" data-n="{1}"><span class="mark" aria-hidden="true">{2}</span>)"
                     R"(<span class="sr">{0}, {1} tensors, largest </span> <span class="ratio">{3}</span>)"
                     R"(<span class="n">{4}</span></td>)",
                     cell.shown, cell.items, status_mark(cell.shown), ratio_text(cell.ratio), count);
}

/// Rows × variants. `rows` are names in order; `row_of` gives an entry's row, empty for none.
std::string grid(const Model& model, std::string_view id, std::string_view noun, const std::vector<std::string>& rows,
                 const std::function<std::string(const Entry&)>& row_of) {
  std::map<std::string, std::map<std::string, Cell>> cells;
  for (const Entry& entry : model.entries)
    if (entry.judged())
      if (const std::string row = row_of(entry); !row.empty()) cells[row][entry.item.variant].add(entry);
  std::set<std::string> used;
  for (const auto& [row, columns] : cells)
    for (const auto& [variant, cell] : columns) used.insert(variant);
  Cell some;
  some.items = 1;
  std::string text = fmt::format(
      R"(<template id="{0}-cells">{2}{3}</template>)"
      R"(<div class="scroll" tabindex="0" role="region" aria-label="Largest error_ratio by {1} and variant">)"
      R"(<table class="grid" id="{0}" data-rows="{1}"><thead><tr><th scope="col">{1}</th>)",
      id, noun, cell_markup(some), cell_markup({}));
  for (const std::string& variant : used) text += turned_heading(variant);
  text += "</tr></thead><tbody>\n";
  for (const std::string& row : rows) {
    const auto found = cells.find(row);
    if (found == cells.end()) continue;
    text += fmt::format("<tr><th scope=\"row\">{}</th>", escaped(row));
    for (const std::string& variant : used) text += cell_markup(found->second[variant]);
    text += "</tr>\n";
  }
  return text + "</tbody></table></div>\n";
}

/// Items that differ in their problem alone.
using GroupKey = std::tuple<int, std::size_t, std::string, std::string>;
using Groups = std::map<GroupKey, std::vector<const Entry*>>;

void worst_first(std::vector<const Entry*>& entries) {
  std::stable_sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) { return a->ratio > b->ratio; });
}

std::string fact(std::string_view name, const std::string& markup) {
  return markup.empty() ? "" : fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, markup);
}

std::string exact(double value) { return escaped(fmt::format("{}", value)); }

/// With as many digits as tell neighbours in `storage` apart.
std::string as_stored(double value, DType storage) {
  return storage == DType::float64 ? exact(value) : escaped(fmt::format("{:.9g}", value));
}

/// What was seen, in a sentence.
std::string in_words(const Entry& entry) {
  const Item& item = entry.item;
  if (!item.detail || entry.ratio < 0) return {};
  if (std::isinf(entry.ratio))
    return "The element is not finite where the reference is, or its bound is not: nothing can make that right.";
  return fmt::format("The worst element is wrong by {} times what rounding can explain there.",
                     ratio_text(entry.ratio));
}

/// Everything about one item; scripts add the pictures.
std::string card(const Model& model, const Entry& entry) {
  const Item& item = entry.item;
  std::string text = fmt::format("<div class=\"card\" data-item=\"{}\">", &entry - model.entries.data());
  if (const std::string sentence = in_words(entry); !sentence.empty()) text += "<p>" + sentence + "</p>";
  if (!item.explanation.empty()) text += "<pre>" + escaped(item.explanation) + "</pre>";
  text += "<dl>" + fact("Problem", escaped(item.case_name)) + fact("Shape", escaped(shape_text(entry))) +
          fact("Element", escaped(place_of(entry)));
  if (item.detail)
    text += fact("Got", exact(item.detail->got)) + fact("Expected", exact(item.detail->expected)) +
            fact("Bound", escaped(fmt::format("{:.3g}", item.detail->bound)));
  if (item.max_abs_error) text += fact("Largest absolute error", short_number(*item.max_abs_error));
  if (item.rel_frobenius) text += fact("Relative, Frobenius norm", short_number(*item.rel_frobenius));
  text += fact("Note", escaped(note_text(item))) + "</dl>";
  return text + copy_line(item.repro) + "<div class=\"pictures\"></div></div>";
}

/// What did not pass of one tensor of one variant.
std::string failure(const Model& model, std::vector<const Entry*>& entries, bool open) {
  worst_first(entries);
  const Entry& worst = *entries.front();
  std::string text = fmt::format(
      R"(<details class="failure"{}><summary>{}<span class="what"><b>{}</b> <span class="variant">{}</span></span>)"
      R"(<span class="figures">{}{} problem{}</span></summary>{})",
      open ? " open" : "", status_pill(worst.shown()), escaped(tensor_name(worst.item)), escaped(worst.item.variant),
      worst.ratio < 0 ? "" : "error_ratio " + ratio_text(worst.ratio) + ", ", entries.size(),
      entries.size() == 1 ? "" : "s", card(model, worst));
  if (entries.size() > 1) {
    text += fmt::format("<details class=\"others\"><summary>The other {} problem{}</summary><div data-items=\"",
                        entries.size() - 1, entries.size() == 2 ? "" : "s");
    for (std::size_t n = 1; n < entries.size(); ++n)
      text += fmt::format("{}{}", n > 1 ? " " : "", entries[n] - model.entries.data());
    text += "\"></div></details>";
  }
  return text + "</details>\n";
}

}  // namespace

std::string verdict(const Model& model) {
  std::map<std::string_view, std::size_t> counts;
  std::set<std::string> skipped_variants, declining;
  std::set<std::string> cases, variants;
  std::size_t judged = 0, failed = 0;
  bool compared = false;
  for (const Entry& entry : model.entries) {
    ++counts[entry.shown()];
    if (!entry.judged()) {
      (is_declined(entry.item) ? declining : skipped_variants).insert(entry.item.variant);
      continue;
    }
    ++judged;
    failed += entry.failed();
    compared |= entry.item.as_expected.has_value();
    cases.insert(entry.item.case_name);
    variants.insert(entry.item.variant);
  }
  std::string sentence;
  if (judged == 0)
    sentence = "Nothing was judged";
  else if (failed > 0)
    sentence = fmt::format("{} of {} tensors {}", failed, judged, compared ? "are not as expected" : "did not pass");
  else if (const std::size_t expected = counts["EXPECTED"]; expected > 0)
    sentence = fmt::format("All {} tensors are as expected: {} did not pass", judged, expected);
  else
    sentence = fmt::format("All {} tensors pass", judged);
  const char* kind = judged == 0 ? "SKIPPED" : failed > 0 ? "FAIL" : "PASS";
  std::string text = fmt::format(
      R"(<div class="verdict {}"><h1><span class="mark" aria-hidden="true">{}</span>{}</h1><p>{} variant{}, {} problem{}.)",
      kind, status_mark(kind), sentence, variants.size(), variants.size() == 1 ? "" : "s", cases.size(),
      cases.size() == 1 ? "" : "s");
  if (!skipped_variants.empty())
    text += fmt::format(" <strong>{} variant{} could not run here.</strong>", skipped_variants.size(),
                        skipped_variants.size() == 1 ? "" : "s");
  if (!declining.empty())
    text += fmt::format(" <strong>{} variant{} declined problems.</strong>", declining.size(),
                        declining.size() == 1 ? "" : "s");
  text += "</p></div>\n<ul class=\"counts\" aria-label=\"Verdicts\">";
  const auto count = [&](std::string_view shown) {
    text += fmt::format(R"(<li class="{}"><span class="count">{}</span>{}</li>)", counts[shown] > 0 ? "some" : "zero",
                        counts[shown], status_pill(shown));
  };
  for (const Status status : kStatuses) count(to_string(status));
  if (compared)
    for (const std::string_view shown : {"EXPECTED", "UNEXPECTED"}) count(shown);
  return text + "</ul>\n";
}

std::string remark(const std::string& text) {
  return text.empty() ? "" : "<p class=\"remark\"><strong>" + escaped(text) + "</strong></p>\n";
}

std::string failures(const Model& model) {
  std::map<std::string, Groups> variants;
  std::size_t groups = 0;
  for (const Entry& entry : model.entries) {
    if (!entry.failed()) continue;
    const Item& item = entry.item;
    auto& group =
        variants[item.variant][{severity(entry.shown()), tensor_order(item.tensor), item.tensor, item.convention}];
    groups += group.empty();
    group.push_back(&entry);
  }
  if (variants.empty()) return {};
  std::string text =
      "<section id=\"failures\"><h2>What did not pass</h2>\n<p class=\"lead\">One entry per variant and tensor, with "
      "its "
      "worst problem.</p>\n";
  constexpr std::size_t kMostFlat = 24;
  for (auto& [variant, tensors] : variants) {
    if (groups > kMostFlat) {
      Cell cell;
      for (const auto& [key, entries] : tensors)
        for (const Entry* entry : entries) cell.add(*entry);
      text += fmt::format(
          R"(<details class="failures"><summary>{}<b>{}</b> <span class="figures">{}{} in {} tensor{}</span></summary>)"
          "\n",
          status_pill(cell.shown), escaped(variant),
          cell.ratio < 0 ? "" : "error_ratio " + ratio_text(cell.ratio) + ", ", cell.items, tensors.size(),
          tensors.size() == 1 ? "" : "s");
    }
    for (auto& [key, entries] : tensors) text += failure(model, entries, groups == 1);
    if (groups > kMostFlat) text += "</details>\n";
  }
  return text + "</section>\n";
}

std::string grid_by_regime(const Model& model) {
  return grid(model, "by-regime", "regime", model.regimes, [](const Entry& entry) { return entry.regime; });
}

std::string grid_by_eps(const Model& model) {
  std::set<double> values;
  for (const Entry& entry : model.entries)
    if (entry.problem) values.insert(entry.problem->eps);
  std::vector<std::string> rows;
  for (const double eps : values) rows.push_back(fmt::format("{}", eps));
  return grid(model, "by-eps", "eps", rows,
              [](const Entry& entry) { return entry.problem ? fmt::format("{}", entry.problem->eps) : std::string(); });
}

std::string worst_elements(const Model& model) {
  using Key = std::tuple<std::string, std::string, std::size_t, std::string, std::string>;
  std::map<std::string, std::map<Key, std::vector<const Entry*>>> variants;
  for (const Entry& entry : model.entries)
    if (entry.judged() && entry.ratio >= 0)
      variants[entry.item.variant]
              [{entry.item.convention, entry.problem ? std::string(to_string(entry.problem->dtype)) : "",
                tensor_order(entry.item.tensor), entry.item.tensor, ""}]
                  .push_back(&entry);
  std::string text;
  for (auto& [variant, groups] : variants) {
    bool failed = false;
    double largest = -1;
    std::string rows;
    for (auto& [key, entries] : groups) {
      worst_first(entries);
      const Entry& worst = *entries.front();
      Cell cell;
      for (const Entry* entry : entries) cell.add(*entry);
      failed |= cell.failed > 0;
      largest = std::max(largest, cell.ratio);
      const auto& detail = worst.item.detail;
      rows += fmt::format(
          R"(<tr data-item="{}"><th scope="row">{}</th><td>{}</td><td>{}{}</td><td class="num">{}</td>)"
          R"(<td class="num">{}</td><td class="num">{}</td><td class="num">{}</td><td>{}</td><td class="case">{}</td></tr>)"
          "\n",
          &worst - model.entries.data(), escaped(tensor_name(worst.item)),
          worst.problem ? to_string(worst.problem->dtype) : "", status_pill(cell.shown),
          cell.failed > 0 ? fmt::format(" {} of {}", cell.failed, cell.items) : fmt::format(" {}", cell.items),
          ratio_text(worst.ratio), detail ? as_stored(detail->got, detail->storage) : "",
          detail ? as_stored(detail->expected, detail->storage) : "",
          detail ? escaped(fmt::format("{:.3g}", detail->bound)) : "", escaped(place_of(worst)),
          escaped(worst.item.case_name));
    }
    text += fmt::format(
        R"(<details class="worst"><summary><span class="pill {0}"><span class="mark" aria-hidden="true">{1}</span>{0}</span>)"
        R"(<span class="what"><b>{2}</b></span><span class="figures">largest {3}</span></summary>)"
        R"(<div class="scroll" tabindex="0" role="region" aria-label="Worst elements of {2}"><table><thead><tr>)"
        R"(<th scope="col">tensor</th><th scope="col">dtype</th><th scope="col">verdicts</th>)"
        R"(<th scope="col" class="num">error_ratio</th><th scope="col" class="num">got</th>)"
        R"(<th scope="col" class="num">expected</th><th scope="col" class="num">bound</th>)"
        R"(<th scope="col">element</th><th scope="col">problem</th></tr></thead><tbody>)"
        "\n{4}</tbody></table></div></details>\n",
        failed ? "FAIL" : "PASS", failed ? "✗" : "✓", escaped(variant), ratio_text(largest), rows);
  }
  return text;
}

std::string hidden_wrong_answers(const Model& model) {
  std::map<std::string, std::map<std::string, std::set<std::string>>> hidden;  // wrong answer -> regime -> tensors
  for (const Entry& entry : model.entries)
    for (const std::string& wrong : entry.item.hides) hidden[wrong][entry.regime].insert(entry.item.tensor);
  if (hidden.empty()) return {};
  std::string text =
      "<section><h2>What a bound would hide</h2>\n<p class=\"lead\">Wrong answers that would have passed, and where. "
      "A tensor that hides one everywhere is MISTRUSTED.</p>\n"
      R"(<div class="scroll" tabindex="0" role="region" aria-label="Hidden wrong answers"><table><thead><tr>)"
      R"(<th scope="col">wrong answer</th><th scope="col" class="num">regimes</th><th scope="col">where</th></tr></thead><tbody>)";
  for (const auto& [wrong, places] : hidden) {
    std::string where;
    for (const auto& [regime, tensors] : places) {
      std::string names;
      for (const std::string& tensor : tensors) names += (names.empty() ? "" : " ") + tensor;
      where += fmt::format("<li>{} ({})</li>", escaped(regime), escaped(names));
    }
    text += fmt::format(
        R"(<tr><th scope="row">{}</th><td class="num">{} of {}</td><td><ul class="inline">{}</ul></td></tr>)",
        escaped(wrong), places.size(), model.regimes.size(), where);
  }
  return text + "</tbody></table></div></section>\n";
}

std::string skipped(const Model& model) {
  std::string rows;
  for (const Entry& entry : model.entries)
    if (!entry.judged())
      rows += fmt::format("<li>{}<b>{}</b> {}</li>\n", status_pill("SKIPPED"), escaped(entry.item.variant),
                          escaped(entry.item.note));
  if (rows.empty()) return {};
  return "<section><h2>Not run here</h2>\n<ul class=\"plain\">" + rows + "</ul></section>\n";
}

}  // namespace mlstm::verify::html
