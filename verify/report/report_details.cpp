// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "report/detail_json.hpp"
#include "report/report.hpp"

namespace mlstm::verify {
namespace json = boost::json;
namespace {

[[noreturn]] void refuse(const char* key, const json::value& value, const char* expected) {
  const std::string text = json::serialize(value);
  throw std::invalid_argument(
      fmt::format("\"{}\" is {}; expected {}", key, text.size() > 40 ? text.substr(0, 40) + "..." : text, expected));
}

const json::value& member(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) throw std::invalid_argument(fmt::format("has no \"{}\"", key));
  return *value;
}

std::string_view text_of(const json::object& object, const char* key) {
  const json::value& value = member(object, key);
  if (!value.is_string()) refuse(key, value, "text");
  return value.get_string();
}

std::int64_t count_of(const json::object& object, const char* key) {
  const json::value& value = member(object, key);
  if (!value.is_int64() || value.get_int64() < 0) refuse(key, value, "an integer >= 0");
  return value.get_int64();
}

const json::array& array_of(const json::object& object, const char* key) {
  const json::value& value = member(object, key);
  if (!value.is_array()) refuse(key, value, "an array");
  return value.get_array();
}

std::vector<std::int64_t> counts_of(const json::object& object, const char* key) {
  std::vector<std::int64_t> counts;
  for (const json::value& value : array_of(object, key)) {
    if (!value.is_int64() || value.get_int64() < 0) refuse(key, value, "integers >= 0");
    counts.push_back(value.get_int64());
  }
  return counts;
}

double number_of(const json::object& object, const char* key) {
  const std::string text(text_of(object, key));
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0')
    throw std::invalid_argument(fmt::format("\"{}\" is \"{}\"; expected a number", key, text));
  return value;
}

/// Three digits: enough to draw, and the same when they are read and written again.
json::value short_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.3g}", value).c_str(), nullptr);
}

json::object to_object(const ErrorPicture& picture) {
  json::object object;
  if (!picture.profile.empty()) {
    json::array profile;
    for (const double ratio : picture.profile) profile.push_back(short_number(ratio));
    object["profile"] = std::move(profile);
  }
  object["rows"] = picture.rows;
  object["columns"] = picture.columns;
  object["heat"] = picture.heat;
  object["without_error"] = picture.without_error;
  object["not_finite"] = picture.not_finite;
  // Empty bins at both ends go without saying.
  std::size_t first = 0, last = picture.ulps.size();
  while (first < last && picture.ulps[first] == 0) ++first;
  while (last > first && picture.ulps[last - 1] == 0) --last;
  object["first_ulp_exponent"] = ErrorPicture::kLowestUlpExponent + static_cast<std::int64_t>(first);
  object["ulps"] = json::array(picture.ulps.begin() + static_cast<std::ptrdiff_t>(first),
                               picture.ulps.begin() + static_cast<std::ptrdiff_t>(last));
  return object;
}

ErrorPicture picture_of(const json::object& object) {
  ErrorPicture picture;
  if (object.contains("profile"))
    for (const json::value& ratio : array_of(object, "profile")) {
      if (!ratio.is_null() && !ratio.is_number()) refuse("profile", ratio, "numbers and null");
      picture.profile.push_back(ratio.is_null() ? std::numeric_limits<double>::infinity() : ratio.to_number<double>());
    }
  picture.rows = static_cast<std::size_t>(count_of(object, "rows"));
  picture.columns = static_cast<std::size_t>(count_of(object, "columns"));
  picture.heat = text_of(object, "heat");
  picture.without_error = count_of(object, "without_error");
  picture.not_finite = count_of(object, "not_finite");
  const json::value& exponent = member(object, "first_ulp_exponent");
  if (!exponent.is_int64()) refuse("first_ulp_exponent", exponent, "an integer");
  const std::int64_t first = exponent.get_int64() < ErrorPicture::kLowestUlpExponent
                                 ? -1
                                 : exponent.get_int64() - ErrorPicture::kLowestUlpExponent;
  const std::vector<std::int64_t> ulps = counts_of(object, "ulps");
  constexpr std::int64_t bins = ErrorPicture::kHighestUlpExponent - ErrorPicture::kLowestUlpExponent + 1;
  if (picture.profile.size() > ErrorPicture::kMostBins || picture.rows > ErrorPicture::kMostRows ||
      picture.columns > ErrorPicture::kMostColumns || picture.heat.size() != picture.rows * picture.columns ||
      first < 0 || first > bins || static_cast<std::int64_t>(ulps.size()) > bins - first)
    throw std::invalid_argument("the sizes of its picture do not fit");
  if (picture.heat.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") !=
      std::string::npos)
    throw std::invalid_argument("\"heat\" holds a character that is none of the base-64 alphabet");
  picture.ulps.resize(bins);
  for (std::size_t n = 0; n < ulps.size(); ++n) picture.ulps[static_cast<std::size_t>(first) + n] = ulps[n];
  return picture;
}

}  // namespace

json::object to_object(const Detail& detail) {
  ProblemSpec spec;
  spec.problem = detail.problem;
  json::object object{{"problem", to_line(spec)},
                      {"regime", to_utf8(detail.regime)},
                      {"got", fmt::format("{}", detail.got)},
                      {"expected", fmt::format("{}", detail.expected)},
                      {"bound", fmt::format("{}", detail.bound)},
                      {"shape", json::array(detail.shape.begin(), detail.shape.end())},
                      {"storage", to_string(detail.storage)}};
  if (detail.picture) object["picture"] = to_object(*detail.picture);
  return object;
}

Detail detail_of(const json::object& object) {
  Detail detail;
  detail.problem = parse_spec(text_of(object, "problem")).problem;
  detail.regime = text_of(object, "regime");
  detail.got = number_of(object, "got");
  detail.expected = number_of(object, "expected");
  detail.bound = number_of(object, "bound");
  detail.shape = counts_of(object, "shape");
  detail.storage = parse_dtype(text_of(object, "storage"), "storage");
  if (const json::value* picture = object.if_contains("picture")) {
    if (!picture->is_object()) refuse("picture", *picture, "an object");
    detail.picture = picture_of(picture->get_object());
  }
  return detail;
}

std::string to_details(const std::vector<Item>& items, std::string_view report) {
  std::string text = "{\"details\": 1, \"report_sha256\": \"" + sha256_of(report) + "\",\n\"items\": [";
  const char* separator = "\n";
  for (std::size_t n = 0; n < items.size(); ++n) {
    const Item& item = items[n];
    if (!item.detail && item.explanation.empty()) continue;
    json::object object{{"item", n}};
    if (!item.explanation.empty()) object["explanation"] = to_utf8(item.explanation);
    if (item.detail)
      for (auto& [key, value] : to_object(*item.detail)) object[key] = std::move(value);
    text += separator + json::serialize(object);
    separator = ",\n";
  }
  return text + "\n]}\n";
}

void attach_details(std::vector<Item>& items, std::string_view text, std::string_view report,
                    const std::string& source) {
  json::error_code error;
  const json::value root = json::parse(text, error);
  if (error) throw FileError(source + ": not JSON (" + error.message() + ")");
  try {
    if (!root.is_object())
      throw std::invalid_argument("expected an object with \"details\", \"report_sha256\" and \"items\"");
    const json::object& object = root.get_object();
    if (const json::value& version = member(object, "details"); version != json::value(1))
      refuse("details", version, "1");
    if (text_of(object, "report_sha256") != sha256_of(report))
      throw std::invalid_argument(
          "belongs to another report.json than the one beside it; expected both from one run (delete it to do "
          "without)");
    array_of(object, "items");
  } catch (const std::exception& fault) {
    throw FileError(source + ": " + fault.what());
  }
  const json::array& list = root.get_object().at("items").get_array();
  std::size_t number = 0;
  try {
    for (const json::value& value : list) {
      if (!value.is_object()) throw std::invalid_argument("is no object");
      const json::object& object = value.get_object();
      const auto item = static_cast<std::size_t>(count_of(object, "item"));
      if (item >= items.size())
        throw std::invalid_argument(fmt::format("\"item\" is {}; expected less than {}", item, items.size()));
      if (object.contains("explanation")) items[item].explanation = text_of(object, "explanation");
      if (object.contains("problem")) items[item].detail = std::make_shared<Detail>(detail_of(object));
      ++number;
    }
  } catch (const std::exception& fault) {
    throw FileError(fmt::format("{}: detail {}: {}", source, number, fault.what()));
  }
}

}  // namespace mlstm::verify
