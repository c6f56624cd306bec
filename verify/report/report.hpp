// SPDX-License-Identifier: Apache-2.0
// Reports: verdicts as JSON (contract §6), JUnit and readable text.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "judge/judge.hpp"

namespace mlstm::verify {

/// All statuses, in the order in which summaries list them.
inline constexpr std::array kStatuses{Status::PASS,  Status::FAIL,    Status::MISTRUSTED, Status::SKIPPED,
                                      Status::ERROR, Status::TIMEOUT, Status::STALE};

/// All judged tensors, in the order in which tables list them.
inline constexpr std::array<std::string_view, 12> kTensors{
    "h", "c_last", "n_last", "m_last", "dq", "dk", "dv", "di", "df", "dc_initial", "dn_initial", "dm_initial"};

/// Three significant digits in at most seven characters.
std::string short_number(double value);

/// How often each status occurs; every status is a key.
std::map<Status, std::int64_t> count_statuses(const std::vector<Item>& items);

/// Exit status of a program that judged `items` (contract §6): 1 if something alarms, which is what failed, errored,
/// timed out, was mistrusted or stale, but for what was expected to; 3 if nothing was judged (skips judge nothing);
/// else 0.
int exit_status(const std::vector<Item>& items);

/// Text of report.json: UTF-8, keys in contract order, then those of put_facts; one item a line. Non-finite numbers are
/// null, and the note says so.
std::string to_json(const std::vector<Item>& items);

/// Inverse of to_json, up to non-finite numbers. Throws FileError that names `source` and what is wrong in it.
std::vector<Item> parse_report(std::string_view text, const std::string& source);

/// JUnit XML: one test suite per variant, one test case per item.
std::string to_junit(const std::vector<Item>& items);

enum class GroupBy { variant, item_case };

/// Columns of text where nothing else is known, and of summary.txt.
inline constexpr std::size_t kTextWidth = 80;

/// One block per variant (or per case) with the largest error_ratio of every tensor, and the counts; a tensor a column,
/// or a line if that takes more than `width` columns. `!` marks a tensor in which something did not pass, `~` one in
/// which nothing else did not than what was expected to.
std::string to_table(const std::vector<Item>& items, GroupBy by, std::size_t width = kTextWidth);

/// True for items of check_property, and for the SKIPPED ones of a sweep that checks properties.
inline bool is_property(const Item& item) { return !item.property.empty(); }

/// Whether the item makes a report a bad one: it was judged, and is other than PASS; if it was compared with a recorded
/// verdict, that it is another one.
bool alarms(const Item& item);

/// Says which problems a variant did not take, as it declares: no verdict, and not counted as one.
inline bool is_declined(const Item& item) { return item.declined && item.status == Status::SKIPPED; }

/// Other than PASS, as recorded.
bool is_expected_failure(const Item& item);

/// Begins what a note says of Item::hides.
inline constexpr std::string_view kHidesText = "the bound would hide: ";

/// One line per variant: each property with its largest deviation over what is allowed. Empty if no item is one of a
/// property.
std::string list_properties(const std::vector<Item>& items);

/// One line per way in which a kernel that means harm could have changed verdicts (Item::exposed). Empty if none.
std::string list_exposed(const std::vector<Item>& items);

/// One line per variant that gave other bits from run to run, where that is accepted: how much. Empty if none did.
std::string list_nondeterminism(const std::vector<Item>& items);

/// One entry per item that is neither PASS nor SKIPPED, with what explains it and the line that reproduces it, then the
/// skips. Empty if none.
std::string list_failures(const std::vector<Item>& items);

/// One line: counts of the statuses that occur, skips said aloud.
std::string summary_line(const std::vector<Item>& items);

/// "dk (detached): error_ratio 160 at [0, 0, 12, 3], ...": one item's verdict in words, without status and names.
std::string describe(const Item& item);

/// Table, properties, remarks, failures and summary line: the whole report for people. All but the failures and the
/// summary, which are lines to copy and to search, fits into `width` columns.
std::string to_text(const std::vector<Item>& items, GroupBy by, const std::string& remarks = {},
                    std::size_t width = kTextWidth);

/// `item` as report.json says it: hidden wrong answers and non-finite numbers in the note, numbers to 15 digits.
Item as_reported(const Item& item);

/// Text of details.json: details and explanations of those items that have one, one a line, by their number in the
/// report.json whose text is `report`, of which it holds the SHA-256.
std::string to_details(const std::vector<Item>& items, std::string_view report);

/// Gives `items`, read from a report.json with the text `report`, what `text` holds for them. Throws
/// FileError that names `source` and what is wrong in it, also if it belongs to another report.
void attach_details(std::vector<Item>& items, std::string_view text, std::string_view report,
                    const std::string& source);

/// Throws FileError if files in `directory` could be lost to a report: it is not empty, and holds neither a report nor
/// a journal nor a mutation report of this program.
void require_report_directory(const std::filesystem::path& directory);

/// Writes report.json, details.json, junit.xml, summary.txt (to_text) and report.html (to_html) into `directory`
/// (created if missing), each atomically, and none before all could be written. Throws FileError.
void write_report(const std::vector<Item>& items, GroupBy by, const std::string& remarks,
                  const std::filesystem::path& directory);

/// Reads `path`, a report.json or a directory that holds one. Throws FileError.
std::vector<Item> read_report(const std::filesystem::path& path);

/// The same with the details of details.json in the same directory, if there is one. Throws FileError.
std::vector<Item> read_report_with_details(const std::filesystem::path& path);

}  // namespace mlstm::verify
