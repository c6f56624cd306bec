// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/text.hpp"
#include "report/report.hpp"

namespace mlstm::verify {
namespace {

/// Text for an XML attribute or element. XML 1.0 has no place for most control characters, escaped or not.
std::string escaped(std::string_view text) {
  std::string xml;
  for (const char c : to_utf8(text)) {
    switch (c) {
      case '&':
        xml += "&amp;";
        break;
      case '<':
        xml += "&lt;";
        break;
      case '>':
        xml += "&gt;";
        break;
      case '"':
        xml += "&quot;";
        break;
      case '\n':
        xml += "&#10;";
        break;
      case '\t':
        xml += "&#9;";
        break;
      default:
        xml += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return xml;
}

std::string test_case(const Item& item) {
  const std::string convention = item.convention.empty() ? "" : " (" + item.convention + ")";
  std::string xml = fmt::format("    <testcase classname=\"{}\" name=\"{}\"", escaped(item.variant),
                                escaped(item.case_name + " " + item.tensor + convention));
  // as other programs write what is expected to fail
  if (is_expected_failure(item))
    return xml + fmt::format("><skipped type=\"expected\" message=\"{}, as expected: {}\"/></testcase>\n",
                             to_string(item.status), escaped(describe(item)));
  const char* element = nullptr;
  switch (item.status) {
    case Status::PASS:
      if (!alarms(item) && item.nondeterminism)
        return xml + fmt::format("><system-out>{}</system-out></testcase>\n", escaped(item.note));
      if (!alarms(item)) return xml + "/>\n";
      return xml + "><failure type=\"UNEXPECTED\" message=\"PASS, and another verdict is recorded\"/></testcase>\n";
    case Status::SKIPPED:
      return xml + fmt::format("><skipped message=\"{}\"/></testcase>\n", escaped(item.note));
    case Status::FAIL:
    case Status::MISTRUSTED:
      element = "failure";
      break;
    case Status::ERROR:
    case Status::TIMEOUT:
    case Status::STALE:
      element = "error";
      break;
  }
  return xml + fmt::format("><{0} type=\"{1}\" message=\"{2}\">{3}</{0}></testcase>\n", element, to_string(item.status),
                           escaped(describe(item)),
                           escaped(item.explanation.empty() ? item.repro : item.explanation + "\n" + item.repro));
}

struct Suite {
  std::string cases;
  std::int64_t tests = 0, failures = 0, errors = 0, skipped = 0;

  void add(const Item& item) {
    cases += test_case(item);
    ++tests;
    const bool is_error =
        item.status == Status::ERROR || item.status == Status::TIMEOUT || item.status == Status::STALE;
    failures += alarms(item) && !is_error;
    errors += alarms(item) && is_error;
    skipped += item.status == Status::SKIPPED || is_expected_failure(item);
  }

  std::string counts() const {
    return fmt::format("tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"", tests, failures, errors, skipped);
  }
};

}  // namespace

std::string to_junit(const std::vector<Item>& items) {
  std::map<std::string, Suite> suites;
  Suite all;
  for (const Item& item : items) {
    suites[item.variant].add(item);
    all.add(item);
  }
  std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  xml += fmt::format("<testsuites name=\"mlstm\" {}>\n", all.counts());
  for (const auto& [variant, suite] : suites)
    xml +=
        fmt::format("  <testsuite name=\"{}\" {}>\n{}  </testsuite>\n", escaped(variant), suite.counts(), suite.cases);
  return xml + "</testsuites>\n";
}

}  // namespace mlstm::verify
