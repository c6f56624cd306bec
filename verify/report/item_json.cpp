// SPDX-License-Identifier: Apache-2.0
#include "report/item_json.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/json.hpp"
#include "base/text.hpp"
#include "report/report.hpp"

namespace mlstm::verify {
namespace {

constexpr std::pair<const char*, std::string Item::*> kTexts[]{
    {"regime", &Item::regime}, {"property", &Item::property}, {"run", &Item::run}, {"check", &Item::check}};
constexpr std::pair<const char*, bool Item::*> kFlags[]{
    {"trivial", &Item::trivial}, {"zero_by_definition", &Item::zero_by_definition}, {"not_finite", &Item::not_finite}};

constexpr std::pair<const char*, std::optional<double> Item::*> kNumbers[]{{"bias_ratio", &Item::bias_ratio},
                                                                           {"bias", &Item::bias}};

bool flag_of(const Json& object, const char* key) {
  const Json& value = member_of(object, key);
  if (!value.is_boolean()) refuse_member(key, value, "true or false");
  return value.get<bool>();
}

Declined declined_of(const Json& object) {
  const Json& value = member_of(object, "declined");
  const bool good = value.is_array() && value.size() == 2 && value[0].is_number_integer() &&
                    value[1].is_number_integer() && value[0] >= 1 && value[0] <= value[1];
  if (!good) refuse_member("declined", value, "two integers: problems declined, and problems selected");
  return {value[0].get<std::int64_t>(), value[1].get<std::int64_t>()};
}

std::optional<double> finite(double x) { return std::isfinite(x) ? std::optional(x) : std::nullopt; }

Json to_object(const Nondeterminism& seen) {
  return {{"elements", seen.elements},
          {"max_abs_difference", number_or_null(finite(seen.max_abs_difference))},
          {"ratio", number_or_null(finite(seen.ratio))}};
}

Nondeterminism nondeterminism_of(const Json& object) {
  const Json& value = member_of(object, "nondeterminism");
  const auto number = [&](const char* key) {
    const Json* const member = find_member(value, key);
    if (member != nullptr && member->is_null()) return std::numeric_limits<double>::infinity();
    if (member == nullptr || !member->is_number() || *member < 0)
      refuse_member("nondeterminism", value, "an object of elements, max_abs_difference and ratio");
    return member->get<double>();
  };
  const Json* const elements = find_member(value, "elements");
  if (elements == nullptr || !elements->is_number_integer() || *elements < 1)
    refuse_member("nondeterminism", value, "an object of elements, max_abs_difference and ratio");
  return {elements->get<std::int64_t>(), number("max_abs_difference"), number("ratio")};
}

double number_of(const Json& object, const char* key) {
  const Json& value = member_of(object, key);
  if (!value.is_number()) refuse_member(key, value, "a number");
  return value.get<double>();
}

// ---- words of earlier versions

bool has(const std::string& text, std::string_view words) { return text.find(words) != std::string::npos; }

/// What stands behind `key` up to `end`, or to the end of the text; empty if `key` does not occur.
std::string behind(const std::string& text, std::string_view key, char end) {
  const std::size_t found = text.find(key);
  if (found == std::string::npos) return {};
  const std::size_t begin = found + key.size();
  return text.substr(begin, text.find(end, begin) - begin);
}

std::optional<ProblemSpec> problem_in(const std::string& repro) {
  const std::string line = behind(repro, "--case \"", '"');
  if (line.empty()) return {};
  try {
    return parse_spec(line);
  } catch (const std::invalid_argument&) {
    return {};  // a problem that only an earlier version knew
  }
}

std::string check_in(const Item& item) {
  if (item.status == Status::TIMEOUT) return "timeout";
  if (item.error_ratio || item.not_finite || (item.status != Status::FAIL && item.status != Status::ERROR)) return {};
  constexpr std::pair<std::string_view, const char*> words[]{
      {"was written past its end", "red zone"},      {"was written before its start", "red zone"},
      {"though it is an input", "input damage"},     {"was not written", "not written"},
      {"memory that was not initialised", "poison"}, {"differs from run to run", "repeat"}};
  for (const auto& [text, check] : words)
    if (has(item.note, text)) return check;
  return "exception";
}

}  // namespace

void put_facts(Json& object, const Item& item) {
  for (const auto& [key, member] : kTexts)
    if (!(item.*member).empty()) object[key] = item.*member;
  if (item.problem) object["problem"] = to_line(*item.problem);
  for (const auto& [key, member] : kNumbers)
    if (item.*member) object[key] = *(item.*member);
  for (const auto& [key, member] : kFlags)
    if (item.*member) object[key] = true;
  if (!item.hides.empty()) object["hides"] = item.hides;
  if (item.declined) object["declined"] = {item.declined->problems, item.declined->of};
  if (item.nondeterminism) object["nondeterminism"] = to_object(*item.nondeterminism);
  if (!item.exposed.empty()) object["exposed"] = item.exposed;
  if (item.as_expected) object["as_expected"] = *item.as_expected;
}

void get_facts(const Json& object, Item& item) {
  for (const auto& [key, member] : kTexts)
    if (object.contains(key)) item.*member = text_of(object, key);
  if (object.contains("problem")) item.problem = parse_spec(text_of(object, "problem"));
  for (const auto& [key, member] : kNumbers)
    if (object.contains(key)) item.*member = number_of(object, key);
  for (const auto& [key, member] : kFlags)
    if (object.contains(key)) item.*member = flag_of(object, key);
  if (object.contains("hides")) item.hides = texts_of(object, "hides");
  if (object.contains("declined")) item.declined = declined_of(object);
  if (object.contains("nondeterminism")) item.nondeterminism = nondeterminism_of(object);
  if (object.contains("exposed")) item.exposed = texts_of(object, "exposed");
  if (object.contains("as_expected")) item.as_expected = flag_of(object, "as_expected");
}

void infer_facts(Item& item) {
  const std::string property = "property:";
  if (item.property.empty() && item.case_name.starts_with(property))
    item.property = behind(item.case_name, property, '/');
  item.trivial |= has(item.note, "trivial");
  item.zero_by_definition |= has(item.note, "zero by definition");
  item.not_finite |= !item.error_ratio && has(item.note, "error_ratio is ");
  if (!item.problem) item.problem = problem_in(item.repro);
  if (item.regime.empty() && item.problem) item.regime = item.problem->regime;
  if (item.run.empty() && item.problem && item.property.empty()) {
    item.run = behind(item.repro, "--convention ", ' ');
    if (item.run.empty()) item.run = "forward";
  }
  if (item.check.empty()) item.check = check_in(item);
  if (item.hides.empty()) {
    std::string list = behind(item.note, kHidesText, ';');
    while (!list.empty()) {
      const std::size_t comma = std::min(list.find(", "), list.size());
      item.hides.push_back(list.substr(0, comma));
      list.erase(0, comma + 2);
    }
  }
}

}  // namespace mlstm::verify
