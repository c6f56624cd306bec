// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "detail_json.hpp"
#include "mlstm/verify/case_file.hpp"
#include "mlstm/verify/problems.hpp"
#include "mlstm/verify/report.hpp"

namespace mlstm::verify {
namespace json = boost::json;
namespace {

std::string_view text_of(const json::object& object, const char* key) { return object.at(key).as_string(); }

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
  if (const json::value* profile = object.if_contains("profile"))
    for (const json::value& ratio : profile->as_array())
      picture.profile.push_back(ratio.is_null() ? std::numeric_limits<double>::infinity() : ratio.to_number<double>());
  picture.rows = object.at("rows").to_number<std::size_t>();
  picture.columns = object.at("columns").to_number<std::size_t>();
  picture.heat = text_of(object, "heat");
  picture.without_error = object.at("without_error").as_int64();
  picture.not_finite = object.at("not_finite").as_int64();
  const std::int64_t first = object.at("first_ulp_exponent").as_int64() - ErrorPicture::kLowestUlpExponent;
  const json::array& ulps = object.at("ulps").as_array();
  constexpr std::int64_t bins = ErrorPicture::kHighestUlpExponent - ErrorPicture::kLowestUlpExponent + 1;
  if (picture.profile.size() > ErrorPicture::kMostBins || picture.rows > ErrorPicture::kMostRows ||
      picture.columns > ErrorPicture::kMostColumns || picture.heat.size() != picture.rows * picture.columns ||
      first < 0 || first > bins || static_cast<std::int64_t>(ulps.size()) > bins - first)
    throw std::invalid_argument("the sizes of its picture do not fit");
  if (picture.heat.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") !=
      std::string::npos)
    throw std::invalid_argument("\"heat\" holds a character that is none of the base-64 alphabet");
  picture.ulps.resize(bins);
  for (std::size_t n = 0; n < ulps.size(); ++n) picture.ulps[static_cast<std::size_t>(first) + n] = ulps[n].as_int64();
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
  for (const json::value& extent : object.at("shape").as_array()) detail.shape.push_back(extent.as_int64());
  detail.storage = parse_dtype(text_of(object, "storage"), "storage");
  if (const json::value* picture = object.if_contains("picture")) detail.picture = picture_of(picture->as_object());
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
    const json::object& object = root.as_object();
    if (object.at("details").to_number<int>() != 1) throw std::invalid_argument("expected details 1");
    if (text_of(object, "report_sha256") != sha256_of(report))
      throw std::invalid_argument(
          "belongs to another report.json than the one beside it; expected both from one run (delete it to do "
          "without)");
  } catch (const std::exception& fault) {
    throw FileError(source + ": " + fault.what());
  }
  std::size_t number = 0;
  try {
    for (const json::value& value : root.as_object().at("items").as_array()) {
      const json::object& object = value.as_object();
      const auto item = object.at("item").to_number<std::size_t>();
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
