// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "report/detail_json.hpp"
#include "report/report.hpp"

namespace mlstm::verify {
namespace {

std::vector<std::int64_t> counts_of(const Json& object, const char* key) {
  std::vector<std::int64_t> counts = integers_of(object, key);
  for (const std::int64_t count : counts)
    if (count < 0) refuse_member(key, count, "integers >= 0");
  return counts;
}

double number_of(const Json& object, const char* key) {
  const std::string& text = text_of(object, key);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0')
    throw std::invalid_argument(fmt::format("\"{}\" is \"{}\"; expected a number", key, text));
  return value;
}

/// Three digits: enough to draw, and the same when they are read and written again.
Json short_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.3g}", value).c_str(), nullptr);
}

Json to_object(const ErrorPicture& picture) {
  Json object;
  if (!picture.profile.empty()) {
    Json& profile = object["profile"] = Json::array();
    for (const double ratio : picture.profile) profile.push_back(short_number(ratio));
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
  object["ulps"] = std::vector(picture.ulps.begin() + static_cast<std::ptrdiff_t>(first),
                               picture.ulps.begin() + static_cast<std::ptrdiff_t>(last));
  return object;
}

ErrorPicture picture_of(const Json& object) {
  ErrorPicture picture;
  if (object.contains("profile"))
    for (const Json& ratio : array_of(object, "profile")) {
      if (!ratio.is_null() && !ratio.is_number()) refuse_member("profile", ratio, "numbers and null");
      picture.profile.push_back(ratio.is_null() ? std::numeric_limits<double>::infinity() : ratio.get<double>());
    }
  picture.rows = static_cast<std::size_t>(count_of(object, "rows"));
  picture.columns = static_cast<std::size_t>(count_of(object, "columns"));
  picture.heat = text_of(object, "heat");
  picture.without_error = count_of(object, "without_error");
  picture.not_finite = count_of(object, "not_finite");
  const std::int64_t exponent = integer_of(object, "first_ulp_exponent");
  const std::int64_t first =
      exponent < ErrorPicture::kLowestUlpExponent ? -1 : exponent - ErrorPicture::kLowestUlpExponent;
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

Json to_object(const Detail& detail) {
  ProblemSpec spec;
  spec.problem = detail.problem;
  Json object{{"problem", to_line(spec)},
              {"regime", to_utf8(detail.regime)},
              {"got", fmt::format("{}", detail.got)},
              {"expected", fmt::format("{}", detail.expected)},
              {"bound", fmt::format("{}", detail.bound)},
              {"shape", detail.shape},
              {"storage", to_string(detail.storage)}};
  if (detail.picture) object["picture"] = to_object(*detail.picture);
  return object;
}

Detail detail_of(const Json& object) {
  Detail detail;
  detail.problem = parse_spec(text_of(object, "problem")).problem;
  detail.regime = text_of(object, "regime");
  detail.got = number_of(object, "got");
  detail.expected = number_of(object, "expected");
  detail.bound = number_of(object, "bound");
  detail.shape = counts_of(object, "shape");
  detail.storage = parse_dtype(text_of(object, "storage"), "storage");
  if (object.contains("picture")) detail.picture = picture_of(object_of(object, "picture"));
  return detail;
}

std::string to_details(const std::vector<Item>& items, std::string_view report) {
  std::string text = "{\"details\": 1, \"report_sha256\": \"" + sha256_of(report) + "\",\n\"items\": [";
  const char* separator = "\n";
  for (std::size_t n = 0; n < items.size(); ++n) {
    const Item& item = items[n];
    if (!item.detail && item.explanation.empty()) continue;
    Json object{{"item", n}};
    if (!item.explanation.empty()) object["explanation"] = to_utf8(item.explanation);
    if (item.detail) object.update(to_object(*item.detail));
    text += separator + serialize(object);
    separator = ",\n";
  }
  return text + "\n]}\n";
}

void attach_details(std::vector<Item>& items, std::string_view text, std::string_view report,
                    const std::string& source) {
  const Json root = parse_json(text, source);
  try {
    if (!root.is_object())
      throw std::invalid_argument("expected an object with \"details\", \"report_sha256\" and \"items\"");
    if (const Json& version = member_of(root, "details"); version != 1) refuse_member("details", version, "1");
    if (text_of(root, "report_sha256") != sha256_of(report))
      throw std::invalid_argument(
          "belongs to another report.json than the one beside it; expected both from one run (delete it to do "
          "without)");
    array_of(root, "items");
  } catch (const std::invalid_argument& fault) {
    throw FileError(source + ": " + fault.what());
  }
  std::size_t number = 0;
  try {
    for (const Json& object : root.at("items")) {
      if (!object.is_object()) throw std::invalid_argument("is no object");
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
