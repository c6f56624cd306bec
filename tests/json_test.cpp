// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include "base/json.hpp"

#include <boost/test/unit_test.hpp>
#include <limits>

#include "report/report.hpp"
#include "sweep/expect.hpp"
#include "sweep/sweep_journal.hpp"

namespace {
using namespace mlstm::verify;

/// What parse_json says of a document that it refuses.
std::string fault_of(std::string_view text) {
  try {
    parse_json(text, "f.json");
  } catch (const FileError& error) {
    return error.what();
  }
  return "taken";
}

std::string nested(std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

}  // namespace

BOOST_AUTO_TEST_CASE(documents_that_no_reader_should_trust_are_refused_by_name) {
  for (const std::string& text : {std::string(), std::string("{"), std::string("[1,]"), std::string("nul"),
                                  std::string("[1] 2"), std::string("{\"a\":\"\xff\"}"), std::string("[\"\\ud800\"]"),
                                  std::string("[\"a\nb\"]"), std::string("[1e999]"), std::string("\0", 1)})
    BOOST_TEST(fault_of(text).starts_with("f.json: not JSON ("), text);
  BOOST_TEST(fault_of(R"({"a": 1, "b": {"a": 2}, "a": 3})") == "f.json: not JSON (\"a\" stands twice in one object)");
  BOOST_TEST(fault_of(R"([{"a": 1}, {"a": 1}])") == "taken");
  BOOST_TEST(fault_of(nested(32)) == "taken");
  BOOST_TEST(fault_of(nested(33)) == "f.json: not JSON (more than 32 levels)");
  BOOST_TEST(fault_of(std::string(1000000, '[')) == "f.json: not JSON (more than 32 levels)");
  BOOST_TEST(fault_of("\"" + std::string(100000, 'x')).size() < 400u);  // what is wrong is not quoted at length
}

BOOST_AUTO_TEST_CASE(text_stays_the_same_when_it_is_read_and_written) {
  const std::string text =
      R"({"z":1,"a":[true,null,-9223372036854775808,18446744073709551615,0.123456789012345,1e-300],"e":{},"é":"\u0001\"/<"})";
  BOOST_TEST(serialize(parse_json(text, "t")) == text);
  BOOST_TEST(serialize(Json("\xff")) == "\"\xEF\xBF\xBD\"");
}

BOOST_AUTO_TEST_CASE(only_integers_that_fit_are_integers) {
  const Json values = parse_json("[1, -1, 1.0, true, 9223372036854775807, 9223372036854775808, \"1\"]", "t");
  const std::vector<bool> expected{true, true, false, false, true, false, false};
  for (std::size_t n = 0; n < expected.size(); ++n) BOOST_TEST(as_integer(values[n]).has_value() == expected[n]);
  BOOST_TEST(*as_integer(values[4]) == std::numeric_limits<std::int64_t>::max());
}

BOOST_AUTO_TEST_CASE(members_of_another_kind_are_named_with_what_was_expected) {
  const Json object = parse_json(R"({"a": [1, -2, 0.5], "b": "text", "c": -3})", "t");
  const auto fault = [](const auto& get) -> std::string {
    try {
      get();
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "taken";
  };
  BOOST_TEST(fault([&] { text_of(object, "x"); }) == "has no \"x\"");
  BOOST_TEST(fault([&] { text_of(object, "c"); }) == "\"c\" is -3; expected text");
  BOOST_TEST(fault([&] { array_of(object, "b"); }) == "\"b\" is \"text\"; expected an array");
  BOOST_TEST(fault([&] { object_of(object, "b"); }) == "\"b\" is \"text\"; expected an object");
  BOOST_TEST(fault([&] { integer_of(object, "b"); }) == "\"b\" is \"text\"; expected an integer");
  BOOST_TEST(fault([&] { count_of(object, "c"); }) == "\"c\" is -3; expected an integer >= 0");
  BOOST_TEST(fault([&] { integers_of(object, "a"); }) == "\"a\" is 0.5; expected integers");
  BOOST_TEST(fault([&] { texts_of(object, "a"); }) == "\"a\" is 1; expected texts");
  BOOST_TEST(fault([&] { text_of(object.at("a"), "x"); }) == "has no \"x\"");
  BOOST_TEST(integer_of(object, "c") == -3);
}

BOOST_AUTO_TEST_CASE(files_of_earlier_versions_are_read) {
  // Numbers as Boost.JSON wrote them.
  const std::string item =
      R"({"variant":"v","case":"c","tensor":"h","convention":null,"status":"PASS","error_ratio":1.27923448326155E-1,)"
      R"("max_abs_error":5E0,"rel_frobenius":0E0,"worst_index":[0,2],"repro":"r","note":""})";
  const std::vector<Item> items = parse_report("{\"summary\": {}, \"items\": [" + item + "]}", "r");
  BOOST_REQUIRE(items.size() == 1u);
  BOOST_TEST(*items[0].error_ratio == 0.127923448326155);
  BOOST_TEST(*items[0].max_abs_error == 5.0);
  const std::string written = to_json(items);
  BOOST_TEST(written.find("\"error_ratio\":0.127923448326155,") != std::string::npos);
  BOOST_TEST(to_json(parse_report(written, "again")) == written);

  const std::string journal =
      R"({"journal":1,"source":"mlstm 0.1.0","plan":"p","units":1,"shard":"1/1","shard_units":1})"
      "\n"
      R"({"unit":0,"records":[{"variant":"v","case":"c","tensor":"h","convention":"","status":"PASS",)"
      R"("error_ratio":"0.3333333333333333","max_abs_error":"inf","rel_frobenius":null,"worst_index":[0],"repro":"r",)"
      R"("note":"","explanation":"","hides":["zero"],"dtype":"float32","regime":"standard","detail":null}]})"
      "\n";
  const JournalContents contents = parse_journal(journal, "j");
  BOOST_REQUIRE(contents.done.at(0).size() == 1u);
  const Item& done = contents.done.at(0)[0].item;
  BOOST_TEST(*done.error_ratio == 1.0 / 3);
  BOOST_TEST(done.regime == "standard");
  BOOST_TEST((done.hides == std::vector<std::string>{"zero"}));
}

BOOST_AUTO_TEST_CASE(facts_are_read_off_the_words_of_earlier_versions) {
  Item item;
  item.variant = "v";
  item.case_name = "property:split_state/c";
  item.tensor = "dq";
  item.status = Status::PASS;
  item.note = "trivial: zero by definition; the bound would hide: zero, doubled; error_ratio is +Inf";
  item.repro = "mlstm verify --variant v --case \"regime=forget3,S=4\" --convention exact";
  const std::string newer = to_json({item});
  const std::string marker = "\"report\": 2, ";
  BOOST_REQUIRE(newer.find(marker) == 1u);
  const std::string older = "{" + newer.substr(1 + marker.size());
  BOOST_TEST(!parse_report(newer, "r").at(0).trivial);
  Item read = parse_report(older, "r").at(0);
  BOOST_TEST((read.trivial && read.zero_by_definition && read.not_finite));
  BOOST_TEST(read.property == "split_state");
  BOOST_TEST(read.regime == "forget3");
  BOOST_TEST(read.problem.value().problem.shape.S == 4);
  BOOST_TEST((read.hides == std::vector<std::string>{"zero", "doubled"}));
  item.case_name = "c";
  item.status = Status::FAIL;
  item.note = "h[0] differs from run to run";
  read = parse_report("{" + to_json({item}).substr(1 + marker.size()), "r").at(0);
  BOOST_TEST(read.check == "repeat");
  BOOST_TEST(read.run == "exact");
  BOOST_TEST(read.property.empty());
}

BOOST_AUTO_TEST_CASE(an_expectation_that_says_two_things_is_refused) {
  BOOST_CHECK_THROW(parse_expectation(R"({"c": {"h": "FAIL", "h": "PASS"}})", "e.json"), FileError);
  BOOST_CHECK_THROW(parse_expectation(R"({"c": {}, "c": {}})", "e.json"), FileError);
}
