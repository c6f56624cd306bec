// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "report/report.hpp"

namespace mlstm::verify {
namespace {

/// Whether nothing but the bias is wrong.
bool is_biased(const Item& item) { return item.error_ratio <= 1 && item.bias_ratio > 1; }

/// The worst of one tensor over the items of a row.
struct Cell {
  bool present = false, bad = false, expected = false;
  double error_ratio = -1;
  double bias_ratio = 0;  ///< of items with nothing else wrong

  void add(const Item& item) {
    present = true;
    bad |= alarms(item);
    expected |= is_expected_failure(item);
    // NaN is the worst: it replaces every number, and no number replaces it.
    if (item.error_ratio && !std::isnan(error_ratio) && !(*item.error_ratio <= error_ratio))
      error_ratio = *item.error_ratio;
    if (is_biased(item)) bias_ratio = std::max(bias_ratio, *item.bias_ratio);
  }
  std::string text() const {
    if (!present) return "";
    if (bias_ratio > 0 && error_ratio <= 1) return short_number(bias_ratio) + "b";
    return (error_ratio == -1 ? "-" : short_number(error_ratio)) + (bad ? "!" : expected ? "~" : " ");
  }
};

struct Block {
  std::vector<Item> items;
  std::map<std::string, std::map<std::string, Cell>> rows;  ///< by convention, empty for outputs

  void add(const Item& item) {
    if (is_declined(item)) return;
    items.push_back(item);
    if (item.status != Status::SKIPPED && !is_property(item)) rows[item.convention][item.tensor].add(item);
  }
};

/// Without what is_declined.
std::string counts_of(std::vector<Item> items) {
  std::vector<std::string> words;
  std::erase_if(items, is_declined);
  for (const auto& [status, n] : count_statuses(items))
    if (n > 0) words.push_back(fmt::format("{} {}", n, to_string(status)));
  return words.empty() ? "nothing judged" : fmt::format("{}", fmt::join(words, ", "));
}

/// "outputs", or the convention.
std::string label_of(const std::string& convention) { return convention.empty() ? "outputs" : convention; }

std::string without_end(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

/// A tensor a line.
std::string narrow_table(const Block& block, const std::vector<std::string_view>& tensors) {
  std::string heading = fmt::format("  {:<12}", "");
  for (const auto& [convention, cells] : block.rows) heading += fmt::format("{:>11} ", label_of(convention));
  std::string text = without_end(heading);
  for (const std::string_view tensor : tensors) {
    std::string line = fmt::format("  {:<12}", tensor);
    for (const auto& [convention, cells] : block.rows) {
      const auto cell = cells.find(std::string(tensor));
      line += fmt::format("{:>12}", cell == cells.end() ? "" : cell->second.text());
    }
    text += without_end(line);
  }
  return text;
}

std::string block_text(const std::string& title, const Block& block, std::size_t width) {
  std::string text = fmt::format("{}: {}\n", title, counts_of(block.items));
  std::vector<std::string_view> columns;
  for (const std::string_view tensor : kTensors)
    for (const auto& [convention, cells] : block.rows)
      if (cells.contains(std::string(tensor))) {
        columns.push_back(tensor);
        break;
      }
  if (columns.empty()) return text;
  if (12 + 12 * columns.size() > width) return text + narrow_table(block, columns);
  text += fmt::format("  {:<10}", "");
  for (const std::string_view tensor : columns) text += fmt::format("{:>11} ", tensor);
  text.back() = '\n';
  for (const auto& [convention, cells] : block.rows) {
    std::string line = fmt::format("  {:<10}", label_of(convention));
    for (const std::string_view tensor : columns) {
      const auto cell = cells.find(std::string(tensor));
      line += fmt::format("{:>12}", cell == cells.end() ? "" : cell->second.text());
    }
    text += without_end(line);
  }
  return text;
}

/// Lines of more than `width` columns go on, indented, in the next.
std::string wrapped(std::string_view text, std::size_t width) {
  std::string result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string indent(std::min(line.find_first_not_of(' '), line.size()) + 4, ' ');
    for (bool first = true;; first = false) {
      const std::size_t begin = first ? indent.size() : 0,
                        room = first ? width : width - std::min(width, indent.size());
      if (!first) result += indent;
      if (line.size() <= room) break;
      std::size_t space = line.rfind(' ', room);
      if (space == std::string_view::npos || space < begin) space = line.find(' ', std::max(begin, room));
      if (space == std::string_view::npos) break;
      result += std::string(line.substr(0, space)) + "\n";
      line.remove_prefix(space + 1);
    }
    result += std::string(line) + "\n";
  }
  return result;
}

}  // namespace

std::string short_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  const double magnitude = std::abs(value);
  if (magnitude == 0) return "0";
  if (magnitude >= 1e5 || magnitude < 1e-3) return fmt::format("{:.1e}", value);
  return fmt::format("{:.{}f}", value, magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : 3);
}

std::string describe(const Item& item) {
  std::string text = item.tensor;
  if (!item.convention.empty()) text += " (" + item.convention + ")";
  std::vector<std::string> facts;
  if (item.error_ratio) {
    std::string fact = "error_ratio " + short_number(*item.error_ratio);
    if (!item.worst_index.empty()) fact += fmt::format(" at [{}]", fmt::join(item.worst_index, ", "));
    facts.push_back(fact);
  }
  if (is_biased(item)) facts.push_back("bias_ratio " + short_number(*item.bias_ratio));
  if (item.max_abs_error) facts.push_back("max_abs_error " + short_number(*item.max_abs_error));
  if (item.rel_frobenius) facts.push_back("rel_frobenius " + short_number(*item.rel_frobenius));
  if (!item.note.empty()) facts.push_back(item.note);
  return facts.empty() ? text : fmt::format("{}: {}", text, fmt::join(facts, ", "));
}

std::string to_table(const std::vector<Item>& items, GroupBy by, std::size_t width) {
  std::map<std::string, Block> blocks;
  std::vector<std::string> order;  // as the items come
  for (const Item& item : items) {
    const std::string variant = item.variant.empty() ? "unnamed variant" : item.variant;
    const std::string title = by == GroupBy::variant ? variant : item.case_name + " (" + variant + ")";
    if (!blocks.contains(title)) order.push_back(title);
    blocks[title].add(item);
  }
  if (order.empty()) return {};
  std::string text = "Largest error / bound of every tensor (at most 1 passes; ! did not pass)\n";
  if (std::any_of(items.begin(), items.end(), is_expected_failure)) text += "~ did not pass, as expected\n";
  if (std::any_of(items.begin(), items.end(), is_biased))
    text += "b did not pass: bias / what is allowed, though every element is within its bound\n";
  text += "\n";
  for (const std::string& title : order) text += block_text(title, blocks.at(title), width) + "\n";
  return text;
}

std::string list_failures(const std::vector<Item>& items) {
  std::string text;
  for (const Item& item : items) {
    if (!alarms(item) && !is_expected_failure(item)) continue;
    std::string verdict(to_string(item.status));
    if (item.as_expected) verdict += *item.as_expected ? " (expected)" : " (not expected)";
    text += fmt::format("{:<10}  {}  {}\n            {}\n", verdict, item.variant, item.case_name, describe(item));
    for (std::size_t begin = 0; begin < item.explanation.size();) {
      const std::size_t end = std::min(item.explanation.find('\n', begin), item.explanation.size());
      text += fmt::format("            {}\n", item.explanation.substr(begin, end - begin));
      begin = end + 1;
    }
    if (!item.repro.empty()) text += fmt::format("            {}\n", item.repro);
  }
  for (const Item& item : items)
    if (item.status == Status::SKIPPED)
      text += fmt::format("{:<10}  {}  {}{}\n", is_declined(item) ? "DECLINED" : "SKIPPED", item.variant,
                          is_property(item) ? item.case_name + ": " : std::string(), item.note);
  return text.empty() ? text : text + "\n";
}

std::string list_exposed(const std::vector<Item>& items) {
  constexpr std::pair<std::string_view, std::string_view> meanings[]{
      {"verifier", "the verifier's memory, and with it every verdict: kernels ran in its process (--in-process)"},
      {"files", "files, those of this report among them: workers are not held back by Landlock here"},
      {"processes", "other processes, if only to disturb them: workers have no PID and user namespaces here"},
      {"system calls", "system calls that reach into other processes: workers have no seccomp filter here"},
      {"privileges", "what root may do: workers cannot give up capabilities here"}};
  std::string text;
  for (const auto& [word, meaning] : meanings) {
    const auto names = [&](const Item& item) {
      return std::find(item.exposed.begin(), item.exposed.end(), word) != item.exposed.end();
    };
    if (std::any_of(items.begin(), items.end(), names)) text += fmt::format("  {}\n", meaning);
  }
  return text.empty() ? text : "Exposed: what a kernel that means harm could have reached\n" + text + "\n";
}

std::string list_nondeterminism(const std::vector<Item>& items) {
  struct Seen {
    std::set<std::string> tensors;
    Nondeterminism worst;
    std::int64_t items = 0;
  };
  std::map<std::string, Seen> variants;
  for (const Item& item : items) {
    if (!item.nondeterminism) continue;
    const Nondeterminism& one = *item.nondeterminism;
    auto& [tensors, worst, count] = variants[item.variant];
    tensors.insert(item.tensor);
    worst.elements = std::max(worst.elements, one.elements);
    worst.ratio = std::max(worst.ratio, one.ratio);
    ++count;
  }
  if (variants.empty()) return {};
  std::string text = "Other bits from run to run, accepted up to twice the bound (--accept-nondeterminism):\n";
  for (const auto& [variant, seen] : variants)
    text += fmt::format("  {}: in {} verdicts ({}), in at most {} elements, by at most {:.2g} of twice the bound{}\n",
                        variant, seen.items, fmt::join(seen.tensors, ", "), seen.worst.elements, seen.worst.ratio,
                        seen.worst.ratio > 1 ? ": too much" : "");
  return text + "\n";
}

std::string to_text(const std::vector<Item>& items, GroupBy by, const std::string& remarks, std::size_t width) {
  return to_table(items, by, width) +
         wrapped(list_properties(items) + list_exposed(items) + list_nondeterminism(items) + remarks, width) +
         list_failures(items) + summary_line(items) + "\n";
}

std::string summary_line(const std::vector<Item>& items) {
  const std::int64_t skipped = count_statuses(items).at(Status::SKIPPED);
  const auto judged = static_cast<std::int64_t>(items.size()) - skipped;
  const std::int64_t properties = std::count_if(
      items.begin(), items.end(), [](const Item& item) { return item.status == Status::SKIPPED && is_property(item); });
  std::string text = fmt::format("{} tensors judged: {}", judged, counts_of(items));
  if (const auto expected = std::count_if(items.begin(), items.end(), is_expected_failure); expected > 0)
    text += fmt::format(" ({} did not pass, as expected)", expected);
  const std::int64_t declined = std::count_if(items.begin(), items.end(), is_declined);
  if (const std::int64_t absent = skipped - properties - declined; absent > 0)
    text += fmt::format(" ({} variants were NOT run here)", absent);
  if (properties > 0) text += fmt::format(" (properties that do not apply: {})", properties);
  if (declined > 0) text += fmt::format(" (variants that declined problems: {})", declined);
  if (const auto differing = std::count_if(items.begin(), items.end(), [](const Item& i) { return i.nondeterminism; });
      differing > 0)
    text += fmt::format(" (not the same bits in every run: {})", differing);
  return text;
}

std::string list_properties(const std::vector<Item>& items) {
  struct Worst {
    double ratio = 0;
    bool bad = false, skipped = false;
  };
  std::vector<std::string> order, names;  // of variants and of properties, as they come
  std::map<std::string, std::map<std::string, Worst>> table;
  for (const Item& item : items) {
    if (!is_property(item)) continue;
    const std::string& name = item.property;
    if (!table.contains(item.variant)) order.push_back(item.variant);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    Worst& worst = table[item.variant][name];
    worst.skipped |= item.status == Status::SKIPPED;
    worst.bad |= alarms(item);
    worst.ratio = std::max(worst.ratio, item.error_ratio.value_or(0));
  }
  if (table.empty()) return {};
  std::string text = "Properties: largest deviation / allowed (at most 1 passes; 0: the same bits; ! did not pass)\n";
  for (const std::string& variant : order) {
    std::vector<std::string> words;
    for (const std::string& name : names)
      if (const auto found = table.at(variant).find(name); found != table.at(variant).end())
        words.push_back(fmt::format("{} {}", name,
                                    found->second.skipped
                                        ? std::string("-")
                                        : fmt::format("{:.2g}{}", found->second.ratio, found->second.bad ? "!" : "")));
    text += fmt::format("  {}: {}\n", variant, fmt::join(words, ", "));
  }
  return text + "\n";
}

}  // namespace mlstm::verify
