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

/// The problem in the line that reproduces an item, if it is one of a suite.
std::optional<ProblemSpec> spec_in(const std::string& repro) {
  constexpr std::string_view key = "--case \"";
  const std::size_t begin = repro.find(key);
  if (begin == std::string::npos) return {};
  const std::size_t start = begin + key.size(), end = repro.find('"', start);
  if (end == std::string::npos) return {};
  try {
    return parse_spec(std::string_view(repro).substr(start, end - start));
  } catch (const std::invalid_argument&) {
    return {};  // of another version
  }
}

/// Notes say which numbers are not finite (as_reported).
bool ratio_is_not_finite(const Item& item) { return item.note.find("error_ratio is ") != std::string::npos; }

}  // namespace

Model model_of(const std::vector<Item>& items) {
  Model model;
  std::set<std::string> variants, seen;
  std::vector<std::string> others;
  for (const Item& given : items) {
    Entry entry;
    entry.item = as_reported(given);
    if (entry.item.variant.empty()) entry.item.variant = "unnamed variant";
    const Item& item = entry.item;
    if (item.detail) {
      entry.problem = item.detail->problem;
      entry.regime = item.detail->regime;
    } else if (const auto spec = spec_in(item.repro)) {
      entry.problem = spec->problem;
      entry.regime = spec->regime;
    }
    if (entry.regime.empty()) entry.regime = item.case_name;
    if (item.error_ratio)
      entry.ratio = *item.error_ratio;
    else if (ratio_is_not_finite(item))
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

std::string escaped(std::string_view text) {
  std::string markup;
  for (const char c : to_utf8(text)) {
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
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
        markup += control ? std::string("\xEF\xBF\xBD") : std::string(1, c);
      }
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
  return "<th scope=\"col\" class=\"turned\"><span>" + text + "</span></th>";
}

std::string status_mark(Status status) {
  switch (status) {
    case Status::PASS:
      return "✓";
    case Status::FAIL:
      return "✗";
    case Status::MISTRUSTED:
      return "?";
    case Status::SKIPPED:
      return "–";
    case Status::ERROR:
      return "!";
    case Status::TIMEOUT:
      return "T";
    case Status::STALE:
      return "S";
  }
  return "";
}

std::string status_pill(Status status) {
  return fmt::format(R"(<span class="pill {0}"><span class="mark" aria-hidden="true">{1}</span>{0}</span>)",
                     to_string(status), status_mark(status));
}

int severity(Status status) {
  constexpr std::array order{Status::FAIL,  Status::ERROR, Status::TIMEOUT, Status::MISTRUSTED,
                             Status::STALE, Status::PASS,  Status::SKIPPED};
  return static_cast<int>(std::find(order.begin(), order.end(), status) - order.begin());
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
  const std::size_t begin = item.note.find("got ");
  if (!item.detail || begin == std::string::npos || (begin > 0 && !item.note.substr(0, begin).ends_with("; ")))
    return item.note;
  const std::size_t end = item.note.find("; ", begin);
  const std::string before = item.note.substr(0, begin);
  if (end != std::string::npos) return before + item.note.substr(end + 2);
  return before.empty() ? before : before.substr(0, before.size() - 2);
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
