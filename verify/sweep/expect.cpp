// SPDX-License-Identifier: Apache-2.0
#include "sweep/expect.hpp"

#include <iterator>
#include <set>
#include <utility>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "report/report.hpp"

namespace mlstm::verify {
namespace {

std::string status_word(const std::map<std::string, Status>& tensors, const std::string& tensor) {
  const auto found = tensors.find(tensor);
  return found == tensors.end() ? "nothing" : std::string(to_string(found->second));
}

/// One item for each expectation that none of `items` is about.
std::vector<Item> not_judged(const Expectation& expected, const std::vector<Item>& items) {
  std::set<std::pair<std::string, std::string>> judged;
  for (const Item& item : items) judged.emplace(to_utf8(item.case_name), item.tensor);
  std::vector<Item> absent;
  for (const auto& [case_name, tensors] : expected)
    for (const auto& [tensor, status] : tensors) {
      if (judged.contains({case_name, tensor})) continue;
      Item& item = absent.emplace_back();
      item.case_name = case_name;
      item.tensor = tensor;
      item.status = Status::ERROR;
      item.note = "expected " + std::string(to_string(status)) + ", was not judged";
      item.as_expected = false;
    }
  return absent;
}

}  // namespace

Expectation parse_expectation(std::string_view text, const std::string& source) {
  const Json root = parse_json(text, source);
  if (!root.is_object()) throw FileError(source + ": expected a JSON object case -> tensor -> status");
  Expectation expected;
  for (const auto& [case_name, tensors] : root.items()) {
    if (!tensors.is_object())
      throw FileError(source + ": \"" + case_name + "\" is no object; expected tensor -> status");
    auto& statuses = expected[case_name];
    for (const auto& [tensor, status] : tensors.items()) {
      const std::string where = source + ": \"" + case_name + "\": \"" + tensor + "\"";
      if (!status.is_string()) throw FileError(where + " is no string; expected a status");
      try {
        statuses[tensor] = parse_status(status.get_ref<const std::string&>());
      } catch (const std::exception& error) {
        throw FileError(where + ": " + error.what());
      }
    }
  }
  return expected;
}

Expectation read_expectation(const std::filesystem::path& path) {
  return parse_expectation(read_text_file(path), path.string());
}

std::string expectation_of(const std::vector<Item>& items) {
  Expectation statuses;
  for (const Item& item : items) statuses[to_utf8(item.case_name)][item.tensor] = item.status;
  std::string text = "{";
  const char* separator = "\n";
  for (const auto& [case_name, tensors] : statuses) {
    Json object;
    for (const auto& [tensor, status] : tensors) object[tensor] = to_string(status);
    text += separator + ("  " + serialize(case_name) + ": " + serialize(object));
    separator = ",\n";
  }
  return text + "\n}\n";
}

std::vector<std::string> differences(const Expectation& expected, const std::vector<Item>& items) {
  std::vector<std::string> lines;
  for (const Item& item : items) {
    const std::string case_name = to_utf8(item.case_name);
    if (is_expected(expected, item)) continue;
    const auto found = expected.find(case_name);
    const std::string wanted = found == expected.end() ? "PASS" : status_word(found->second, item.tensor);
    lines.push_back(case_name + " " + item.tensor + ": expected " + wanted + ", got " +
                    std::string(to_string(item.status)));
  }
  for (const Item& item : not_judged(expected, items))
    lines.push_back(item.case_name + " " + item.tensor + ": " + item.note);
  return lines;
}

void compare_with(const Expectation& expected, std::vector<Item>& items) {
  std::vector<Item> absent = not_judged(expected, items);
  for (Item& item : items) item.as_expected = is_expected(expected, item);
  std::move(absent.begin(), absent.end(), std::back_inserter(items));
}

bool is_expected(const Expectation& expected, const Item& item) {
  const auto found = expected.find(to_utf8(item.case_name));
  if (found == expected.end()) return item.status == Status::PASS;
  const auto status = found->second.find(item.tensor);
  return status != found->second.end() && status->second == item.status;
}

}  // namespace mlstm::verify
