// SPDX-License-Identifier: Apache-2.0
// The parts of HTML reports. Every function gives markup in which all that items and files say is escaped.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/report.hpp"
#include "report/report_html.hpp"

namespace mlstm::verify::html {

/// One item as report.json says it, with what is known of its problem.
struct Entry {
  Item item;
  std::optional<Problem> problem;
  std::string regime;  ///< the regime, or the case where there is none; what grids have rows for
  double ratio = -1;   ///< error_ratio; infinite if it is not finite, -1 if there is none
  bool judged() const { return item.status != Status::SKIPPED; }
  bool failed() const { return alarms(item); }
  std::string_view shown() const;  ///< one of kShown
};

/// What pages show as verdicts, the worst first: statuses, and what was compared with recorded verdicts. EXPECTED: it
/// did not pass, as recorded. UNEXPECTED: it passed, and another verdict is recorded.
inline constexpr std::array<std::string_view, 9> kShown{"FAIL",  "ERROR",    "TIMEOUT", "UNEXPECTED", "MISTRUSTED",
                                                        "STALE", "EXPECTED", "PASS",    "SKIPPED"};

struct Model {
  std::vector<Entry> entries;
  std::vector<std::string> variants;  ///< sorted
  std::vector<std::string> regimes;   ///< those of the suites in their order, then others as they come
};

Model model_of(const std::vector<Item>& items);

/// `text` as UTF-8 without control characters, which become U+FFFD. What scripts look up in the page is named so.
std::string printable(std::string_view text);

/// `text` for an element or a quoted attribute; control characters become U+FFFD.
std::string escaped(std::string_view text);

/// Position of a tensor in kTensors, behind all for an unknown one.
std::size_t tensor_order(std::string_view tensor);

/// "h", or "dq (exact)".
std::string tensor_name(const Item& item);

/// Markup of a variant's name as the heading of a narrow column.
std::string turned_heading(std::string_view name);

/// Mark and name of one of kShown, so that colour is not the only sign.
std::string status_pill(std::string_view shown);
std::string status_mark(std::string_view shown);

/// Place in kShown: smaller is worse.
int severity(std::string_view shown);

/// "batch 0, head 1, time step 506 (chunk 1 of 0..1, step 250 in it), key dim 34", or empty.
std::string place_of(const Entry& entry);

/// "B=1, NH=2, S=128, 64×64", or empty.
std::string shape_text(const Entry& entry);

/// The item's note, without what the card says anyway.
std::string note_text(const Item& item);

/// Line to copy, with a button that scripts bring to life.
std::string copy_line(const std::string& line);

std::string ratio_text(double ratio);

std::string verdict(const Model& model);
std::string remark(const std::string& text);  ///< nothing for none
std::string failures(const Model& model);
std::string grid_by_regime(const Model& model);
std::string grid_by_eps(const Model& model);
std::string worst_elements(const Model& model);
std::string hidden_wrong_answers(const Model& model);
std::string skipped(const Model& model);
std::string kill_matrices(const std::vector<MutationFile>& files);

/// JSON of everything that scripts draw, with "<" escaped, so that it can stand in a script element. The layout is
/// described in report/page/10_data.js.
std::string data(const Model& model, const std::vector<MutationFile>& mutations);

}  // namespace mlstm::verify::html
