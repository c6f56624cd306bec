// SPDX-License-Identifier: Apache-2.0
#include "report/report.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/append_file.hpp"
#include "base/files.hpp"
#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "report/item_json.hpp"
#include "report/report_html.hpp"

namespace mlstm::verify {
namespace {

/// Of report.json. There is none in those without the keys of put_facts.
constexpr int kVersion = 2;

/// Adds the remark unless it is there already, as in a report that was read.
void add_remark(std::string& note, const std::string& remark) {
  if (note.find(remark) == std::string::npos) note += (note.empty() ? "" : "; ") + remark;
}

/// The number, or nothing and a remark about why if it is not finite. Fifteen digits say
/// all that anybody can use, and are the same when they are read and written again, by any program.
std::optional<double> finite(const std::optional<double>& value, std::string_view name, std::string& note) {
  if (!value) return {};
  if (std::isfinite(*value)) return std::strtod(fmt::format("{:.15g}", *value).c_str(), nullptr);
  add_remark(note, std::string(name) + " is " + (std::isnan(*value) ? "NaN" : *value > 0 ? "+Inf" : "-Inf"));
  return {};
}

Json to_object(const Item& given) {
  const Item item = as_reported(given);
  Json object;
  object["variant"] = item.variant;
  object["case"] = item.case_name;
  object["tensor"] = item.tensor;
  object["convention"] = item.convention.empty() ? Json(nullptr) : Json(item.convention);
  object["status"] = to_string(item.status);
  object["error_ratio"] = number_or_null(item.error_ratio);
  object["max_abs_error"] = number_or_null(item.max_abs_error);
  object["rel_frobenius"] = number_or_null(item.rel_frobenius);
  object["worst_index"] = item.worst_index;
  object["repro"] = item.repro;
  object["note"] = item.note;
  put_facts(object, item);
  return object;
}

/// Text, or nothing for null.
std::string text_or_null(const Json& object, const char* key) {
  return member_of(object, key).is_null() ? std::string() : text_of(object, key);
}

std::optional<double> number_in(const Json& object, const char* key) {
  const Json& value = member_of(object, key);
  if (value.is_null()) return {};
  if (!value.is_number()) refuse_member(key, value, "a number or null");
  return value.get<double>();
}

/// `has_facts`: from a report with the keys of put_facts. Throws std::invalid_argument.
Item item_of(const Json& object, bool has_facts) {
  if (!object.is_object()) throw std::invalid_argument("is no object");
  Item item;
  item.variant = text_or_null(object, "variant");
  item.case_name = text_or_null(object, "case");
  item.tensor = text_or_null(object, "tensor");
  item.convention = text_or_null(object, "convention");
  item.status = parse_status(text_or_null(object, "status"));
  item.error_ratio = number_in(object, "error_ratio");
  item.max_abs_error = number_in(object, "max_abs_error");
  item.rel_frobenius = number_in(object, "rel_frobenius");
  item.worst_index = integers_of(object, "worst_index");
  item.repro = text_or_null(object, "repro");
  item.note = text_or_null(object, "note");
  if (has_facts)
    get_facts(object, item);
  else
    infer_facts(item);
  return item;
}

}  // namespace

Item as_reported(const Item& item) {
  Item reported = item;
  std::string& note = reported.note;
  note = to_utf8(item.note);
  if (!item.hides.empty()) add_remark(note, to_utf8(fmt::format("{}{}", kHidesText, fmt::join(item.hides, ", "))));
  reported.variant = to_utf8(item.variant);
  reported.case_name = to_utf8(item.case_name);
  reported.repro = to_utf8(item.repro);
  reported.not_finite |= item.error_ratio && !std::isfinite(*item.error_ratio);
  reported.error_ratio = finite(item.error_ratio, "error_ratio", note);
  reported.max_abs_error = finite(item.max_abs_error, "max_abs_error", note);
  reported.rel_frobenius = finite(item.rel_frobenius, "rel_frobenius", note);
  reported.bias_ratio = finite(item.bias_ratio, "bias_ratio", note);
  reported.bias = finite(item.bias, "bias", note);
  return reported;
}

std::map<Status, std::int64_t> count_statuses(const std::vector<Item>& items) {
  std::map<Status, std::int64_t> counts;
  for (const Status status : kStatuses) counts[status] = 0;
  for (const Item& item : items) ++counts[item.status];
  return counts;
}

bool alarms(const Item& item) {
  if (item.status == Status::SKIPPED) return false;
  return item.as_expected ? !*item.as_expected : item.status != Status::PASS;
}

bool is_expected_failure(const Item& item) {
  return item.as_expected.value_or(false) && item.status != Status::PASS && item.status != Status::SKIPPED;
}

int exit_status(const std::vector<Item>& items) {
  if (std::any_of(items.begin(), items.end(), alarms)) return 1;
  const auto is_skipped = [](const Item& item) { return item.status == Status::SKIPPED; };
  return std::all_of(items.begin(), items.end(), is_skipped) ? 3 : 0;
}

std::string to_json(const std::vector<Item>& items) {
  Json summary;
  for (const auto& counts = count_statuses(items); const Status status : kStatuses)
    summary[to_string(status)] = counts.at(status);
  std::string text = fmt::format("{{\"report\": {}, \"summary\": {},\n\"items\": [", kVersion, serialize(summary));
  const char* separator = "\n";
  for (const Item& item : items) {
    text += separator + serialize(to_object(item));
    separator = ",\n";
  }
  return text + "\n]}\n";
}

std::vector<Item> parse_report(std::string_view text, const std::string& source) {
  const Json root = parse_json(text, source);
  const Json* list = find_member(root, "items");
  if (list == nullptr || !list->is_array()) throw FileError(source + ": expected an object with an array \"items\"");
  const Json* version = find_member(root, "report");
  if (version != nullptr && *version != kVersion)
    throw FileError(fmt::format("{}: \"report\" is {}; expected {}, or none", source, serialize(*version), kVersion));
  std::vector<Item> items;
  for (const Json& value : *list) {
    try {
      items.push_back(item_of(value, version != nullptr));
    } catch (const std::invalid_argument& fault) {
      throw FileError(fmt::format("{}: item {}: {}", source, items.size(), fault.what()));
    }
  }
  return items;
}

void write_report(const std::vector<Item>& items, GroupBy by, const std::string& remarks,
                  const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw FileError(directory.string() + ": cannot create the directory (" + error.message() + ")");
  const std::string report = to_json(items);
  // report.json is last: whoever finds it finds the others complete. details.json is first: it tells a later
  // require_report_directory whose the directory is.
  replace_files({{directory / "details.json", to_details(items, report)},
                 {directory / "junit.xml", to_junit(items)},
                 {directory / "summary.txt", to_text(items, by, remarks)},
                 {directory / "report.html", to_html(items)},
                 {directory / "report.json", report}});
}

void require_report_directory(const std::filesystem::path& directory) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::exists(directory, error)) return;
  if (!fs::is_directory(directory, error))
    throw FileError(directory.string() + ": is no directory; expected one for a report");
  // What this program's files begin with. Earlier ones had no "report".
  constexpr std::pair<const char*, std::string_view> ours[]{
      {"report.json", "{\"report\":"},    {"report.json", "{\"summary\":"}, {"details.json", "{\"details\":"},
      {"journal.jsonl", "{\"journal\":"}, {"mutate.json", "{\"score\":"},   {"honest.json", "{\"seeds\":"}};
  for (const auto& [name, beginning] : ours) {
    std::ifstream file(directory / name, std::ios::binary);
    std::string text(beginning.size(), '\0');
    if (file.read(text.data(), static_cast<std::streamsize>(text.size())) && text == beginning) return;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (name == DirectoryLock::kName || name.ends_with(".tmp")) continue;  // of a sweep that was killed at once
    throw FileError(
        fmt::format("{}: holds {}, and no report of this program; expected an empty directory, a new one, "
                    "or that of a report to replace",
                    directory.string(), name));
  }
  if (error) throw FileError(directory.string() + ": cannot be read (" + error.message() + ")");
}

std::vector<Item> read_report(const std::filesystem::path& path) {
  std::error_code ignored;  // reading says what is wrong
  const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "report.json" : path;
  return parse_report(read_text_file(file), file.string());
}

std::vector<Item> read_report_with_details(const std::filesystem::path& path) {
  const std::filesystem::path file = std::filesystem::is_directory(path) ? path / "report.json" : path;
  const std::string text = read_text_file(file);
  std::vector<Item> items = parse_report(text, file.string());
  const std::filesystem::path details = file.parent_path() / "details.json";
  if (std::filesystem::exists(details)) attach_details(items, read_text_file(details), text, details.string());
  return items;
}

}  // namespace mlstm::verify
