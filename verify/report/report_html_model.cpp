// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/text.hpp"
#include "cases/problems.hpp"
#include "report/report_html_parts.hpp"

namespace mlstm::verify::html {
namespace {

constexpr std::array<std::string_view, kShown.size()> kMarks{"✗", "!", "T", "U", "?", "S", "≈", "✓", "–"};

}  // namespace

Model model_of(const std::vector<Item>& items) {
  Model model;
  std::set<std::string> variants, seen;
  std::vector<std::string> others;
  for (const Item& given : items) {
    Entry entry;
    entry.item = as_reported(given);
    entry.item.variant = entry.item.variant.empty() ? "unnamed variant" : printable(entry.item.variant);
    const Item& item = entry.item;
    if (item.detail)
      entry.problem = item.detail->problem;
    else if (item.problem)
      entry.problem = item.problem->problem;
    entry.regime = item.regime;
    if (entry.regime.empty() && item.detail) entry.regime = item.detail->regime;
    entry.regime = printable(entry.regime.empty() ? item.case_name : entry.regime);
    if (item.error_ratio)
      entry.ratio = *item.error_ratio;
    else if (item.not_finite)
      entry.ratio = std::numeric_limits<double>::infinity();
    variants.insert(item.variant);
    if (entry.judged() && seen.insert(entry.regime).second) others.push_back(entry.regime);
    model.entries.push_back(std::move(entry));
  }
  model.variants.assign(variants.begin(), variants.end());
  for (const Regime& regime : regimes())
    if (seen.contains(regime.name)) model.regimes.push_back(regime.name);
  for (const std::string& other : others)
    if (std::find(model.regimes.begin(), model.regimes.end(), other) == model.regimes.end())
      model.regimes.push_back(other);
  return model;
}

std::string printable(std::string_view text) {
  std::string shown;
  for (const char c : to_utf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
    shown += control ? std::string("\xEF\xBF\xBD") : std::string(1, c);
  }
  return shown;
}

std::string escaped(std::string_view text) {
  std::string markup;
  for (const char c : printable(text)) {
    switch (c) {
      case '&':
        markup += "&amp;";
        break;
      case '<':
        markup += "&lt;";
        break;
      case '>':
        markup += "&gt;";
        break;
      case '"':
        markup += "&quot;";
        break;
      case '\'':
        markup += "&#39;";
        break;
      default:
        markup += c;
    }
  }
  return markup;
}

std::size_t tensor_order(std::string_view tensor) {
  return static_cast<std::size_t>(std::find(kTensors.begin(), kTensors.end(), tensor) - kTensors.begin());
}

std::string tensor_name(const Item& item) {
  return item.convention.empty() ? item.tensor : item.tensor + " (" + item.convention + ")";
}

std::string turned_heading(std::string_view name) {
  const std::size_t split = name.find("--");
  const std::string text = split == std::string_view::npos
                               ? escaped(name)
                               : escaped(name.substr(0, split + 2)) + "<br>" + escaped(name.substr(split + 2));
  return fmt::format(R"(<th scope="col" class="turned" data-name="{}"><span>{}</span></th>)", escaped(name), text);
}

std::string_view Entry::shown() const {
  if (is_expected_failure(item)) return "EXPECTED";
  return item.status == Status::PASS && failed() ? "UNEXPECTED" : to_string(item.status);
}

std::string status_mark(std::string_view shown) {
  return std::string(kMarks.at(static_cast<std::size_t>(severity(shown))));
}

std::string status_pill(std::string_view shown) {
  return fmt::format(R"(<span class="pill {0}"><span class="mark" aria-hidden="true">{1}</span>{0}</span>)", shown,
                     status_mark(shown));
}

int severity(std::string_view shown) {
  return static_cast<int>(std::find(kShown.begin(), kShown.end(), shown) - kShown.begin());
}

std::string place_of(const Entry& entry) {
  const Item& item = entry.item;
  const std::vector<std::string> axes = axis_names(item.tensor);
  if (axes.size() != item.worst_index.size()) return {};
  std::string text;
  for (std::size_t n = 0; n < axes.size(); ++n) {
    const std::int64_t index = item.worst_index[n];
    text += fmt::format("{}{} {}", n > 0 ? ", " : "", axes[n], index);
    if (axes[n] != "time step" || !entry.problem) continue;
    text += fmt::format(" of {}", entry.problem->shape.S);
    if (const std::int64_t L = entry.problem->chunk_size; L > 0 && item.variant.starts_with("chunkwise"))
      text += fmt::format(" (chunk {}, step {} of {} in it)", index / L, index % L, L);
  }
  return text;
}

std::string shape_text(const Entry& entry) {
  if (!entry.problem) return {};
  const Shape& shape = entry.problem->shape;
  return fmt::format("B={}, NH={}, S={}, {}×{}", shape.B, shape.NH, shape.S, shape.DHQK, shape.DHV);
}

std::string note_text(const Item& item) {
  std::string note = is_expected_failure(item) ? std::string(to_string(item.status)) + ", as recorded" : "";
  std::string rest = item.note;
  const std::string difference = item.detail ? difference_text(*item.detail) : "";
  if (const std::size_t begin = rest.find(difference); !difference.empty() && begin != std::string::npos) {
    rest.erase(begin, difference.size());
    // and one of the semicolons around it
    if (rest.compare(begin, 2, "; ") == 0)
      rest.erase(begin, 2);
    else if (begin >= 2)
      rest.erase(begin - 2, 2);
  }
  return note.empty() || rest.empty() ? note + rest : note + "; " + rest;
}

std::string copy_line(const std::string& line) {
  if (line.empty()) return {};
  return fmt::format(R"(<div class="repro"><code tabindex="0" aria-label="Reproduction line">{}</code>)"
                     R"(<button type="button" class="copy" hidden>Copy</button></div>)",
                     escaped(line));
}

std::string ratio_text(double ratio) {
  if (ratio < 0) return "–";
  return std::isinf(ratio) ? "not finite" : short_number(ratio);
}

}  // namespace mlstm::verify::html
