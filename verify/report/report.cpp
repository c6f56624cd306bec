// SPDX-License-Identifier: Apache-2.0
#include "report/report.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/files.hpp"
#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "report/report_html.hpp"

namespace mlstm::verify {
namespace {

/// The number, or nothing and a remark about why if it is not finite. Fifteen digits say
/// all that anybody can use, and are the same when they are read and written again, by any program.
std::optional<double> finite(const std::optional<double>& value, std::string_view name, std::string& note) {
  if (!value) return {};
  if (std::isfinite(*value)) return std::strtod(fmt::format("{:.15g}", *value).c_str(), nullptr);
  if (!note.empty()) note += "; ";
  note += std::string(name) + " is " + (std::isnan(*value) ? "NaN" : *value > 0 ? "+Inf" : "-Inf");
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

/// Throws std::invalid_argument.
Item item_of(const Json& object) {
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
  return item;
}

}  // namespace

Item as_reported(const Item& item) {
  Item reported = item;
  std::string& note = reported.note;
  note = to_utf8(item.note);
  for (std::size_t n = 0; n < item.hides.size(); ++n)
    note += n > 0 ? ", " + item.hides[n] : (note.empty() ? "" : "; ") + ("the bound would hide: " + item.hides[n]);
  reported.hides.clear();
  reported.variant = to_utf8(item.variant);
  reported.case_name = to_utf8(item.case_name);
  reported.repro = to_utf8(item.repro);
  reported.error_ratio = finite(item.error_ratio, "error_ratio", note);
  reported.max_abs_error = finite(item.max_abs_error, "max_abs_error", note);
  reported.rel_frobenius = finite(item.rel_frobenius, "rel_frobenius", note);
  return reported;
}

std::map<Status, std::int64_t> count_statuses(const std::vector<Item>& items) {
  std::map<Status, std::int64_t> counts;
  for (const Status status : kStatuses) counts[status] = 0;
  for (const Item& item : items) ++counts[item.status];
  return counts;
}

int exit_status(const std::vector<Item>& items) {
  const auto counts = count_statuses(items);
  const auto total = static_cast<std::int64_t>(items.size());
  const std::int64_t passed = counts.at(Status::PASS), skipped = counts.at(Status::SKIPPED);
  if (passed + skipped != total) return 1;
  return passed == 0 ? 3 : 0;
}

std::string to_json(const std::vector<Item>& items) {
  Json summary;
  for (const auto& counts = count_statuses(items); const Status status : kStatuses)
    summary[to_string(status)] = counts.at(status);
  std::string text = "{\"summary\": " + serialize(summary) + ",\n\"items\": [";
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
  std::vector<Item> items;
  for (const Json& value : *list) {
    try {
      items.push_back(item_of(value));
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
  // report.json is last: whoever finds it finds the others complete.
  replace_files({{directory / "junit.xml", to_junit(items)},
                 {directory / "summary.txt", to_text(items, by, remarks)},
                 {directory / "details.json", to_details(items, report)},
                 {directory / "report.html", to_html(items)},
                 {directory / "report.json", report}});
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
