// SPDX-License-Identifier: Apache-2.0
#include "report/report.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/files.hpp"
#include "cases/case_file.hpp"
#include "report/report_html.hpp"

namespace mlstm::verify {
namespace json = boost::json;
namespace {

/// The number, or nothing and a remark about why if it is not finite. Fifteen digits survive Boost.JSON's parser, which
/// may be off by one in the last place; so a report that is read and written again stays the same.
std::optional<double> finite(const std::optional<double>& value, std::string_view name, std::string& note) {
  if (!value) return {};
  if (std::isfinite(*value)) return std::strtod(fmt::format("{:.15g}", *value).c_str(), nullptr);
  if (!note.empty()) note += "; ";
  note += std::string(name) + " is " + (std::isnan(*value) ? "NaN" : *value > 0 ? "+Inf" : "-Inf");
  return {};
}

json::value number_or_null(const std::optional<double>& value) {
  return value ? json::value(*value) : json::value(nullptr);
}

json::object to_object(const Item& given) {
  const Item item = as_reported(given);
  json::object object;
  object["variant"] = item.variant;
  object["case"] = item.case_name;
  object["tensor"] = item.tensor;
  object["convention"] = item.convention.empty() ? json::value(nullptr) : json::value(item.convention);
  object["status"] = to_string(item.status);
  object["error_ratio"] = number_or_null(item.error_ratio);
  object["max_abs_error"] = number_or_null(item.max_abs_error);
  object["rel_frobenius"] = number_or_null(item.rel_frobenius);
  object["worst_index"] = json::array(item.worst_index.begin(), item.worst_index.end());
  object["repro"] = item.repro;
  object["note"] = item.note;
  return object;
}

const json::value& member(const json::object& object, const char* key, const std::string& where) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) throw FileError(where + " has no \"" + key + "\"");
  return *value;
}

std::string text_of(const json::object& object, const char* key, const std::string& where) {
  const json::value& value = member(object, key, where);
  if (value.is_null()) return {};
  if (!value.is_string()) throw FileError(where + ": \"" + key + "\" is no string");
  return std::string(std::string_view(value.as_string()));
}

std::optional<double> number_of(const json::object& object, const char* key, const std::string& where) {
  const json::value& value = member(object, key, where);
  if (value.is_null()) return {};
  if (!value.is_number()) throw FileError(where + ": \"" + key + "\" is neither a number nor null");
  return value.to_number<double>();
}

Item item_of(const json::value& value, const std::string& where) {
  if (!value.is_object()) throw FileError(where + " is no object");
  const json::object& object = value.as_object();
  Item item;
  item.variant = text_of(object, "variant", where);
  item.case_name = text_of(object, "case", where);
  item.tensor = text_of(object, "tensor", where);
  item.convention = text_of(object, "convention", where);
  try {
    item.status = parse_status(text_of(object, "status", where));
  } catch (const std::invalid_argument& error) {
    throw FileError(where + ": " + error.what());
  }
  item.error_ratio = number_of(object, "error_ratio", where);
  item.max_abs_error = number_of(object, "max_abs_error", where);
  item.rel_frobenius = number_of(object, "rel_frobenius", where);
  const json::value& index = member(object, "worst_index", where);
  if (!index.is_array()) throw FileError(where + ": \"worst_index\" is no array");
  for (const json::value& coordinate : index.as_array()) {
    if (!coordinate.is_int64()) throw FileError(where + ": \"worst_index\" holds something that is no integer");
    item.worst_index.push_back(coordinate.as_int64());
  }
  item.repro = text_of(object, "repro", where);
  item.note = text_of(object, "note", where);
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
  json::object summary;
  for (const auto& counts = count_statuses(items); const Status status : kStatuses)
    summary[to_string(status)] = counts.at(status);
  std::string text = "{\"summary\": " + json::serialize(summary) + ",\n\"items\": [";
  const char* separator = "\n";
  for (const Item& item : items) {
    text += separator + json::serialize(to_object(item));
    separator = ",\n";
  }
  return text + "\n]}\n";
}

std::vector<Item> parse_report(std::string_view text, const std::string& source) {
  json::error_code error;
  const json::value root = json::parse(text, error);
  if (error) throw FileError(source + ": not JSON (" + error.message() + ")");
  const json::object* object = root.if_object();
  const json::value* list = object != nullptr ? object->if_contains("items") : nullptr;
  if (list == nullptr || !list->is_array()) throw FileError(source + ": expected an object with an array \"items\"");
  std::vector<Item> items;
  for (const json::value& value : list->as_array())
    items.push_back(item_of(value, source + ": item " + std::to_string(items.size())));
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
