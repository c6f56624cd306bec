// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <unistd.h>

#include <boost/property_tree/ptree.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "fake_kernels.hpp"
#include "report/report.hpp"
#include "runner/runner.hpp"
#include "sweep/expect.hpp"
#include "sweep/sweep.hpp"

namespace {
using namespace mlstm::verify;
namespace test = mlstm::test;
namespace fs = std::filesystem;

constexpr double kInf = std::numeric_limits<double>::infinity();

Item item_of(const std::string& tensor, Status status, const std::string& case_name = "c1") {
  Item item;
  item.variant = "chunkwise--native_eigen_ownbw";
  item.case_name = case_name;
  item.tensor = tensor;
  if (tensor.front() == 'd') item.convention = "exact";
  item.status = status;
  item.error_ratio = 0.5;
  item.max_abs_error = 1e-7;
  item.rel_frobenius = 2e-7;
  item.worst_index = {0, 1, 2};
  item.repro = "mlstm verify --case \"x\"";
  return item;
}

enum class Shows { something, nothing, zero };

Record record_of(const std::string& tensor, Status status, Shows shows, const std::string& dtype,
                 std::int64_t unit = 0) {
  Record record;
  record.item = item_of(tensor, status, "c" + std::to_string(unit));
  record.item.trivial = shows != Shows::something;
  record.item.zero_by_definition = shows == Shows::zero;
  record.dtype = dtype;
  record.item.regime = "standard";
  record.unit = unit;
  return record;
}

/// A directory that is gone when the test is over.
struct TemporaryDirectory {
  fs::path path = fs::temp_directory_path() / ("mlstm_report_test_" + std::to_string(getpid()));
  TemporaryDirectory() { fs::create_directories(path); }
  ~TemporaryDirectory() { fs::remove_all(path); }
};

Plan plan_of(std::int64_t units) {
  Plan plan;
  plan.id = "plan";
  for (std::int64_t n = 0; n < units; ++n) {
    plan.units.emplace_back();
    plan.units.back().index = n;
  }
  return plan;
}

std::vector<Record> verdicts_of(const Unit& unit) {
  // Only the first problem can tell anything about dq.
  Record h = record_of("h", Status::PASS, Shows::something, "float32", unit.index);
  h.item.error_ratio = unit.index == 2 ? kInf : 1.0 / 3.0 * static_cast<double>(unit.index);
  h.item.hides = {"doubled"};
  if (unit.index == 1) h.item.explanation = "where: everywhere\nlooks like: NaN";
  return {h, record_of("dq", Status::PASS, unit.index == 0 ? Shows::something : Shows::nothing, "float32", unit.index)};
}

/// A forward-only variant that does whatever it is told to; it starts from neg_inf.
test::FakeKernel told(mlstm::Device device, test::FakeKernel::Forward act = {}) {
  mlstm::VariantInfo info = test::fake_info(mlstm::Module::recurrent, "step_eigen", {mlstm::DType::float64});
  info.stabilizer_init = {mlstm::StabilizerInit::neg_inf};
  info.device = device;
  return {std::move(info), std::move(act)};
}

const ProblemSpec kSpec = parse_spec("regime=standard,S=3,DHQK=2,DHV=2");

std::vector<Item> sweep(const test::FakeKernel& kernel) {
  return finish(run_sweep(make_plan({&kernel}, {kSpec}, true).units, {}), GroupBy::variant).items;
}

}  // namespace

BOOST_AUTO_TEST_CASE(report_json_has_the_keys_of_the_contract_in_order) {
  const Json root = Json::parse(to_json({item_of("h", Status::PASS), item_of("dq", Status::FAIL)}));
  std::vector<std::string> statuses;
  for (const auto& [key, value] : root.at("summary").items()) statuses.emplace_back(key);
  const std::vector<std::string> all{"PASS", "FAIL", "MISTRUSTED", "SKIPPED", "ERROR", "TIMEOUT", "STALE"};
  BOOST_TEST(statuses == all, boost::test_tools::per_element());
  BOOST_TEST(root.at("summary").at("FAIL").get<std::int64_t>() == 1);
  std::vector<std::string> keys;
  for (const auto& [key, value] : root.at("items").at(1).items()) keys.emplace_back(key);
  const std::vector<std::string> expected{"variant",     "case",        "tensor",        "convention",
                                          "status",      "error_ratio", "max_abs_error", "rel_frobenius",
                                          "worst_index", "repro",       "note"};
  // other keys follow, where there is something to say (facts_travel_as_fields)
  BOOST_TEST(keys == expected, boost::test_tools::per_element());
  BOOST_TEST(root.at("items").at(0).at("convention").is_null());
  BOOST_TEST(root.at("items").at(1).at("convention").get<std::string>() == "exact");
  BOOST_TEST(root.at("items").at(0).at("worst_index").at(2).get<std::int64_t>() == 2);
}

BOOST_AUTO_TEST_CASE(report_json_writes_non_finite_numbers_as_null_and_says_so) {
  Item item = item_of("h", Status::FAIL);
  item.error_ratio = kInf;
  item.max_abs_error = std::nan("");
  const Json written = Json::parse(to_json({item})).at("items").at(0);
  BOOST_TEST(written.at("error_ratio").is_null());
  BOOST_TEST(written.at("max_abs_error").is_null());
  BOOST_TEST(written.at("note").get<std::string>() == "error_ratio is +Inf; max_abs_error is NaN");
}

BOOST_AUTO_TEST_CASE(report_json_is_utf8_whatever_a_file_calls_its_case) {
  Item item = item_of("h", Status::PASS, "caf\xc3\xa9 \xff\xed\xa0\x80 \"quoted\"\n");
  const Json written = Json::parse(to_json({item})).at("items").at(0);
  BOOST_TEST(written.at("case").get<std::string>() ==
             "caf\xc3\xa9 \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD \"quoted\"\n");
}

BOOST_AUTO_TEST_CASE(a_report_is_read_back_as_it_was_written) {
  Item skipped;
  skipped.variant = "chunkwise--x_cuda";
  skipped.status = Status::SKIPPED;
  const std::string text =
      to_json({item_of("h", Status::PASS), item_of("dq", Status::FAIL), item_of("dm_initial", Status::STALE), skipped});
  BOOST_TEST(to_json(parse_report(text, "test")) == text);
}

BOOST_AUTO_TEST_CASE(a_damaged_report_is_refused_with_its_name_and_the_fault) {
  const auto message_of = [](const std::string& text) -> std::string {
    try {
      parse_report(text, "r.json");
    } catch (const FileError& error) {
      return error.what();
    }
    return "accepted";
  };
  BOOST_TEST(message_of("{").starts_with("r.json: not JSON"));
  BOOST_TEST(message_of("[]") == "r.json: expected an object with an array \"items\"");
  BOOST_TEST(message_of(R"({"items": [{}]})") == "r.json: item 0: has no \"variant\"");
  std::string text = to_json({item_of("h", Status::PASS)});
  text.replace(text.find("\"PASS\",\"error"), 6, "\"GOOD\"");
  BOOST_TEST(message_of(text).starts_with("r.json: item 0: status is \"GOOD\"; expected PASS"));
}

BOOST_AUTO_TEST_CASE(facts_travel_as_fields) {
  Item item = item_of("dq", Status::FAIL);
  item.error_ratio = kInf;
  item.regime = "forget3";
  item.problem = kSpec;
  item.property = "split_state";
  item.run = "exact";
  item.check = "repeat";
  item.trivial = item.zero_by_definition = true;
  item.hides = {"zero", "shifted"};
  item.exposed = {"files", "processes"};
  item.as_expected = false;
  const std::string text = to_json({item});
  const Json written = Json::parse(text).at("items").at(0);
  BOOST_TEST(written.at("problem").get<std::string>() == to_line(kSpec));
  for (const char* key : {"trivial", "zero_by_definition", "not_finite"}) BOOST_TEST(written.at(key).get<bool>(), key);
  BOOST_TEST(!written.at("as_expected").get<bool>());
  const Item read = parse_report(text, "r").at(0);
  BOOST_TEST(read.regime == item.regime);
  BOOST_TEST((read.problem == item.problem));
  BOOST_TEST(read.property == item.property);
  BOOST_TEST(read.run == item.run);
  BOOST_TEST(read.check == item.check);
  BOOST_TEST((read.trivial && read.zero_by_definition && read.not_finite));
  BOOST_TEST(read.hides == item.hides, boost::test_tools::per_element());
  BOOST_TEST(read.exposed == item.exposed, boost::test_tools::per_element());
  const std::string table = to_text({item}, GroupBy::variant);
  BOOST_TEST(table.find("Exposed: what a kernel that means harm could have reached\n  files, those of this report") !=
             std::string::npos);
  BOOST_TEST(table.find("\n  other processes, ") != std::string::npos);
  BOOST_TEST(table.find("verifier's memory") == std::string::npos);
  BOOST_TEST((read.as_expected == item.as_expected));
  BOOST_TEST(to_json({read}) == text);
  // Words in a note are no facts.
  Item words = item_of("h", Status::PASS);
  words.note = "trivial: zero by definition; error_ratio is odd";
  const Item again = parse_report(to_json({words}), "r").at(0);
  BOOST_TEST((!again.trivial && !again.zero_by_definition && !again.not_finite));
  const auto refused = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    BOOST_REQUIRE(changed.find(from) != std::string::npos);
    BOOST_CHECK_THROW(parse_report(changed.replace(changed.find(from), from.size(), to), "r"), FileError);
  };
  refused("\"trivial\":true", "\"trivial\":1");
  refused("regime=standard", "regime=nonsense");
  refused("{\"report\": 2", "{\"report\": 3");
}

BOOST_AUTO_TEST_CASE(what_is_expected_to_fail_alarms_nobody) {
  std::vector<Item> items{item_of("h", Status::PASS), item_of("dq", Status::FAIL), item_of("dk", Status::ERROR)};
  const Expectation expected = parse_expectation(R"({"c1": {"h": "PASS", "dq": "FAIL", "dk": "ERROR"}})", "e.json");
  compare_with(expected, items);
  BOOST_TEST(items.size() == 3u);
  BOOST_TEST(exit_status(items) == 0);
  const std::string junit = to_junit(items);
  BOOST_TEST(junit.find("tests=\"3\" failures=\"0\" errors=\"0\" skipped=\"2\"") != std::string::npos, junit);
  BOOST_TEST(junit.find("<skipped type=\"expected\" message=\"FAIL, as expected: dq (exact): ") != std::string::npos,
             junit);
  const std::string text = to_text(items, GroupBy::variant);
  BOOST_TEST(text.find("0.500~") != std::string::npos, text);
  BOOST_TEST(text.find("0.500!") == std::string::npos, text);
  BOOST_TEST(text.find("FAIL (expected)  chunkwise") != std::string::npos, text);
  BOOST_TEST(text.find("(2 did not pass, as expected)") != std::string::npos, text);
  BOOST_TEST(to_json(parse_report(to_json(items), "r")) == to_json(items));

  // Another verdict than the recorded one does, a PASS too; and what was not judged.
  items = {item_of("h", Status::PASS), item_of("dq", Status::PASS)};
  compare_with(expected, items);
  BOOST_REQUIRE(items.size() == 3u);
  BOOST_CHECK(items[2].status == Status::ERROR);
  BOOST_TEST(items[2].note == "expected ERROR, was not judged");
  BOOST_TEST(exit_status(items) == 1);
  BOOST_TEST(to_junit(items).find("failures=\"1\" errors=\"1\" skipped=\"0\"") != std::string::npos);
  BOOST_TEST(to_junit(items).find("type=\"UNEXPECTED\"") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(text_fits_its_width) {
  std::vector<Item> items;
  for (const std::string_view tensor : kTensors) items.push_back(item_of(std::string(tensor), Status::PASS));
  for (const char* name : {"split_state", "causality", "permutation", "neighbours", "chunk_size", "linear_v"}) {
    items.push_back(item_of("h", Status::PASS, std::string("property:") + name + "/c"));
    items.back().property = name;
  }
  const std::string remarks = "Wrong answers:\n  zero      in 9 of 24 regimes: " + std::string(40, 'a') + " " +
                              std::string(40, 'b') + " c d\n\n";
  const auto widest = [](const std::string& text) {
    std::size_t most = 0;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) most = std::max(most, line.size());
    return most;
  };
  const std::string narrow = to_text(items, GroupBy::variant, remarks);
  BOOST_TEST(widest(narrow) <= kTextWidth, narrow);
  BOOST_TEST(narrow.find("\n  dc_initial" + std::string(20, ' ') + "0.500\n") != std::string::npos, narrow);
  BOOST_TEST(narrow.find("\n      " + std::string(40, 'b') + " c d\n") != std::string::npos, narrow);
  const std::string wide = to_text(items, GroupBy::variant, remarks, 200);
  BOOST_TEST(widest(wide) > 140u);
  BOOST_TEST(wide.find(std::string(40, 'a') + " " + std::string(40, 'b')) != std::string::npos);
  // Few tensors are columns either way.
  items.resize(4);
  BOOST_TEST(to_table(items, GroupBy::variant) == to_table(items, GroupBy::variant, 200));
}

BOOST_AUTO_TEST_CASE(a_report_replaces_only_reports) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "there";
  BOOST_CHECK_NO_THROW(require_report_directory(path));  // absent
  fs::create_directories(path);
  BOOST_CHECK_NO_THROW(require_report_directory(path));  // empty
  std::ofstream(path / ".lock") << "";
  BOOST_CHECK_NO_THROW(require_report_directory(path));  // a sweep that was killed at once
  std::ofstream(path / "summary.txt") << "mine";
  BOOST_CHECK_THROW(require_report_directory(path), FileError);
  std::ofstream(path / "report.json") << "{\"mine\": 1}";
  BOOST_CHECK_THROW(require_report_directory(path), FileError);
  BOOST_CHECK_THROW(require_report_directory(path / "summary.txt"), FileError);
  write_report({item_of("h", Status::PASS)}, GroupBy::variant, "", path);
  BOOST_CHECK_NO_THROW(require_report_directory(path));
  fs::remove(path / "report.json");  // a writer that was killed before its last file
  BOOST_CHECK_NO_THROW(require_report_directory(path));
  for (const char* text : {"{\"summary\": {}}", "{\"report\": 2}"}) {
    std::ofstream(path / "report.json") << text;
    BOOST_CHECK_NO_THROW(require_report_directory(path));
  }
}

BOOST_AUTO_TEST_CASE(junit_is_well_formed_and_counts_every_kind) {
  std::vector<Item> items{item_of("h", Status::PASS, "<&\"'>\x01"), item_of("dq", Status::FAIL),
                          item_of("dk", Status::MISTRUSTED), item_of("dv", Status::STALE),
                          item_of("h", Status::SKIPPED)};
  items[1].note = "a < b & \"c\"";
  std::istringstream xml(to_junit(items));
  boost::property_tree::ptree tree;
  BOOST_REQUIRE_NO_THROW(boost::property_tree::read_xml(xml, tree));
  const auto& suites = tree.get_child("testsuites");
  BOOST_TEST(suites.get<int>("<xmlattr>.tests") == 5);
  BOOST_TEST(suites.get<int>("<xmlattr>.failures") == 2);
  BOOST_TEST(suites.get<int>("<xmlattr>.errors") == 1);
  BOOST_TEST(suites.get<int>("<xmlattr>.skipped") == 1);
  const auto& first = suites.get_child("testsuite.testcase");
  BOOST_TEST(first.get<std::string>("<xmlattr>.name") == "<&\"'>? h");
  BOOST_TEST(to_junit(items).find("a &lt; b &amp; &quot;c&quot;") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(exit_status_follows_the_contract) {
  const auto status_of = [](std::initializer_list<Status> statuses) {
    std::vector<Item> items;
    for (const Status status : statuses) items.push_back(item_of("h", status));
    return exit_status(items);
  };
  BOOST_TEST(status_of({}) == 3);
  BOOST_TEST(status_of({Status::SKIPPED}) == 3);
  BOOST_TEST(status_of({Status::PASS, Status::SKIPPED}) == 0);
  for (const Status bad : {Status::FAIL, Status::MISTRUSTED, Status::ERROR, Status::TIMEOUT, Status::STALE}) {
    BOOST_TEST(status_of({Status::PASS, bad}) == 1);
    BOOST_TEST(status_of({bad, Status::SKIPPED}) == 1);
  }
}

BOOST_AUTO_TEST_CASE(the_table_shows_the_largest_ratio_and_marks_what_did_not_pass) {
  std::vector<Item> items{item_of("h", Status::PASS), item_of("h", Status::PASS), item_of("dq", Status::FAIL)};
  items[1].error_ratio = 0.75;
  items[2].error_ratio = 160;
  const std::string table = to_table(items, GroupBy::variant);
  BOOST_TEST(table.find("0.750") != std::string::npos);
  BOOST_TEST(table.find("0.500") == std::string::npos);
  BOOST_TEST(table.find("160!") != std::string::npos);
  BOOST_TEST(table.find("2 PASS, 1 FAIL") != std::string::npos);
  // NaN is worse than any number, in whatever order the items come.
  for (const bool first : {true, false}) {
    items = {item_of("h", Status::PASS), item_of("h", Status::FAIL)};
    items[first ? 0 : 1].error_ratio = std::nan("");
    BOOST_TEST(to_table(items, GroupBy::variant).find("nan!") != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(every_failure_is_listed_with_its_reproduction_line) {
  std::vector<Item> items{item_of("h", Status::PASS), item_of("dq", Status::FAIL), item_of("dk", Status::ERROR)};
  items[1].repro = "mlstm verify --case \"one\"";
  items[2].repro = "mlstm verify --case \"two\"";
  const std::string text = list_failures(items);
  BOOST_TEST(text.find("\n            mlstm verify --case \"one\"\n") != std::string::npos);
  BOOST_TEST(text.find("\n            mlstm verify --case \"two\"\n") != std::string::npos);
  BOOST_TEST(text.find("--case \"x\"") == std::string::npos);
}

BOOST_AUTO_TEST_CASE(text_of_a_kernel_becomes_one_line_of_utf8) {
  BOOST_TEST(one_line("two\nlines\t\x1b[31m\x7f, \xc3\xa9\xff") == "two lines  [31m , \xc3\xa9\xef\xbf\xbd");
}

BOOST_AUTO_TEST_CASE(shell_words_survive_a_shell) {
  BOOST_TEST(shell_word("a/b-c_1.h5") == "a/b-c_1.h5");
  BOOST_TEST(shell_word("two words") == "'two words'");
  BOOST_TEST(shell_word("it's") == "'it'\\''s'");
  BOOST_TEST(shell_word("") == "''");
}

BOOST_AUTO_TEST_CASE(an_expectation_is_met_only_by_exactly_its_items_and_other_cases_that_pass) {
  const std::vector<Item> items{item_of("h", Status::PASS), item_of("dk", Status::FAIL)};
  const Expectation expected = parse_expectation(R"({"c1": {"h": "PASS", "dk": "FAIL"}})", "e.json");
  BOOST_TEST(differences(expected, items).empty());
  BOOST_TEST(is_expected(expected, items[1]));
  const auto only = [&](std::vector<Item> judged, const char* line) {
    const std::vector<std::string> lines = differences(expected, judged);
    BOOST_REQUIRE(lines.size() == 1);
    BOOST_TEST(lines.front() == line);
  };
  only({item_of("h", Status::PASS), item_of("dk", Status::PASS)}, "c1 dk: expected FAIL, got PASS");
  only({item_of("h", Status::PASS)}, "c1 dk: expected FAIL, was not judged");
  only({items[0], items[1], item_of("dv", Status::PASS)}, "c1 dv: expected nothing, got PASS");
  only({items[0], items[1], item_of("h", Status::STALE, "c2")}, "c2 h: expected PASS, got STALE");
  BOOST_TEST(differences(expected, {items[0], items[1], item_of("h", Status::PASS, "c2")}).empty());
  // A second verdict on the same tensor cannot hide behind the first.
  only({items[0], items[1], item_of("h", Status::FAIL)}, "c1 h: expected PASS, got FAIL");
}

BOOST_AUTO_TEST_CASE(the_expectation_made_of_items_is_met_by_them) {
  const std::vector<Item> items{item_of("h", Status::PASS), item_of("dk", Status::FAIL),
                                item_of("h", Status::ERROR, "c2")};
  BOOST_TEST(differences(parse_expectation(expectation_of(items), "e.json"), items).empty());
}

BOOST_AUTO_TEST_CASE(a_malformed_expectation_is_refused) {
  for (const char* text : {"", "[]", R"({"c1": 3})", R"({"c1": {"h": 3}})", R"({"c1": {"h": "pass"}})"})
    BOOST_CHECK_THROW(parse_expectation(text, "e.json"), FileError);
}

BOOST_AUTO_TEST_CASE(a_tensor_that_is_trivial_in_every_problem_is_mistrusted) {
  std::vector<Record> records{record_of("h", Status::PASS, Shows::something, "float32", 0),
                              record_of("dq", Status::PASS, Shows::nothing, "float32", 0),
                              record_of("dq", Status::PASS, Shows::nothing, "bfloat16", 1),
                              record_of("dq", Status::PASS, Shows::something, "bfloat16", 2),
                              record_of("df", Status::PASS, Shows::zero, "float32", 0),
                              record_of("di", Status::FAIL, Shows::nothing, "float32", 0)};
  mistrust(records);
  BOOST_CHECK(records[0].item.status == Status::PASS);
  BOOST_CHECK(records[1].item.status == Status::MISTRUSTED);  // the telling problem has another dtype
  BOOST_CHECK(records[2].item.status == Status::PASS);        // another problem of the dtype tells
  BOOST_CHECK(records[4].item.status == Status::PASS);        // zero by definition
  BOOST_CHECK(records[5].item.status == Status::FAIL);
}

BOOST_AUTO_TEST_CASE(hidden_wrong_answers_are_counted_by_regime) {
  std::vector<Record> records{record_of("h", Status::PASS, Shows::something, "float32"),
                              record_of("df", Status::PASS, Shows::something, "float32")};
  BOOST_TEST(list_hidden_wrong_answers(records).empty());
  records[1].item.hides = {"zero"};
  records[1].item.regime = "input_closed";
  BOOST_TEST(list_hidden_wrong_answers(records).find("zero      in 1 of 2 regimes: input_closed (df)") !=
             std::string::npos);
}

BOOST_AUTO_TEST_CASE(merged_shards_give_the_report_of_the_whole_sweep) {
  const TemporaryDirectory directory;
  const Plan plan = plan_of(7);
  std::vector<Record> all;
  for (const Unit& unit : plan.units)
    for (const Record& record : verdicts_of(unit)) all.push_back(record);
  std::vector<fs::path> parts;
  for (std::int64_t number = 1; number <= 3; ++number) {
    const std::vector<Unit> units = shard_of(plan, number, 3);
    parts.push_back(directory.path / std::to_string(number));
    Journal journal(parts.back(), plan, units, std::to_string(number) + "/3", false);
    for (const Unit& unit : units) journal.append(unit, verdicts_of(unit));
  }
  // In the shards without the first problem, dq taken alone would be mistrusted.
  BOOST_TEST(to_json(merge_reports({parts[2], parts[0], parts[1]}).items) ==
             to_json(finish(all, GroupBy::variant).items));
  BOOST_TEST(exit_status(finish(all, GroupBy::variant).items) == 0);
  BOOST_CHECK_THROW(merge_reports({parts[0], parts[1]}), FileError);
  BOOST_CHECK_THROW(merge_reports({parts[0], parts[1], parts[2], parts[1]}), FileError);
}

BOOST_AUTO_TEST_CASE(an_interrupted_journal_goes_on_where_it_stopped) {
  const TemporaryDirectory directory;
  const fs::path file = directory.path / "journal.jsonl";
  const Plan plan = plan_of(3);
  {
    Journal journal(directory.path, plan, plan.units, "1/1", false);
    journal.append(plan.units[0], verdicts_of(plan.units[0]));
    journal.append(plan.units[2], verdicts_of(plan.units[2]));
  }
  BOOST_CHECK_THROW(merge_reports({directory.path}), FileError);  // unfinished
  const FoundReport found = find_report(directory.path, true);
  BOOST_TEST(found.items.size() == 4u);
  BOOST_TEST(found.unfinished.starts_with("2 of 3 problems of "), found.unfinished);
  BOOST_TEST(exit_status(found.items) == 0);  // a trivial tensor is not mistrusted before all is done
  BOOST_CHECK_THROW(find_report(directory.path / "absent", true), FileError);
  fs::resize_file(file, fs::file_size(file) - 5);  // killed in the middle of a line
  {
    Journal journal(directory.path, plan, plan.units, "1/1", true);
    BOOST_TEST(journal.done().size() == 1u);
    BOOST_TEST(journal.done().contains(0));
    journal.append(plan.units[1], verdicts_of(plan.units[1]));
    journal.append(plan.units[2], verdicts_of(plan.units[2]));
  }
  std::vector<Record> all;
  for (const Unit& unit : plan.units)
    for (const Record& record : verdicts_of(unit)) all.push_back(record);
  BOOST_TEST(to_json(merge_reports({directory.path}).items) == to_json(finish(all, GroupBy::variant).items));

  Plan other = plan;
  other.id = "another plan";
  BOOST_CHECK_THROW(Journal(directory.path, other, other.units, "1/1", true), FileError);
  BOOST_CHECK_THROW(Journal(directory.path, plan, plan.units, "1/2", true), FileError);
  BOOST_TEST(Journal(directory.path, other, other.units, "1/1", false).done().empty());
}

BOOST_AUTO_TEST_CASE(a_resumed_sweep_tries_again_what_did_not_fit_and_keeps_to_one_version) {
  const TemporaryDirectory directory;
  const fs::path file = directory.path / "journal.jsonl";
  const Plan plan = plan_of(3);
  {
    Journal journal(directory.path, plan, plan.units, "1/1", false);
    journal.append(plan.units[0], verdicts_of(plan.units[0]));
    std::vector<Record> refused = verdicts_of(plan.units[1]);
    refused.front().item.status = Status::ERROR;
    refused.front().item.check = "memory";
    journal.append(plan.units[1], refused);
  }
  {
    Journal journal(directory.path, plan, plan.units, "1/1", true);
    BOOST_TEST(journal.done().size() == 1u);
    BOOST_TEST(journal.done().contains(0));
    journal.append(plan.units[1], verdicts_of(plan.units[1]));
  }
  BOOST_TEST(Journal(directory.path, plan, plan.units, "1/1", true).done().size() == 2u);
  std::string text = read_text_file(file);
  text.replace(text.find("\"journal\":2"), 11, "\"journal\":1");
  std::ofstream(file, std::ios::binary) << text;
  BOOST_CHECK_THROW(Journal(directory.path, plan, plan.units, "1/1", true), FileError);
}

BOOST_AUTO_TEST_CASE(a_report_directory_holds_all_three_forms) {
  const TemporaryDirectory directory;
  const std::vector<Item> items{item_of("h", Status::PASS), item_of("dq", Status::FAIL)};
  write_report(items, GroupBy::variant, "remark\n", directory.path / "new");
  BOOST_TEST(read_text_file(directory.path / "new/report.json") == to_json(items));
  BOOST_TEST(read_text_file(directory.path / "new/junit.xml") == to_junit(items));
  BOOST_TEST(read_text_file(directory.path / "new/summary.txt").ends_with(summary_line(items) + "\n"));
  BOOST_TEST(to_json(read_report(directory.path / "new")) == to_json(items));
  BOOST_CHECK_THROW(read_report(directory.path / "absent"), FileError);
}

BOOST_AUTO_TEST_CASE(a_variant_gets_the_start_of_the_stabilizer_that_it_has) {
  const test::FakeKernel kernel = told(mlstm::Device::cpu);
  const Plan adapted = make_plan({&kernel}, {kSpec}, true);
  BOOST_REQUIRE(adapted.units.size() == 1);
  BOOST_CHECK(adapted.units.front().problem()->spec.problem.stabilizer_init == mlstm::StabilizerInit::neg_inf);
  // A problem given by itself is taken as it is.
  const Plan literal = make_plan({&kernel}, {kSpec}, false);
  BOOST_TEST(literal.units.empty());
  BOOST_REQUIRE(literal.unselected.size() == 1);
  BOOST_TEST(literal.unselected.front() == "recurrent--step_eigen: stabilizer_init zero is not supported");
}

BOOST_AUTO_TEST_CASE(a_variant_that_writes_outside_its_buffer_fails) {
  const auto act = [](const mlstm::Problem& problem, const mlstm::ForwardArgs& args) {
    double* h = static_cast<double*>(args.h);
    for (std::int64_t n = 0; n <= mlstm::size_of("h", problem.shape); ++n) h[n] = 0;
  };
  const std::vector<Item> items = sweep(told(mlstm::Device::cpu, act));
  BOOST_REQUIRE(items.size() == 1);
  BOOST_CHECK(items.front().status == Status::FAIL);
  BOOST_TEST(items.front().note.find("h") != std::string::npos);
  BOOST_TEST(items.front().repro.starts_with("mlstm verify --variant recurrent--step_eigen --case \"regime=standard"));
  BOOST_TEST(exit_status(items) == 1);
}

BOOST_AUTO_TEST_CASE(a_variant_that_stops_is_an_error) {
  const auto act = [](const mlstm::Problem&, const mlstm::ForwardArgs&) { throw std::logic_error("no such thing"); };
  const std::vector<Item> items = sweep(told(mlstm::Device::cpu, act));
  BOOST_REQUIRE(items.size() == 1);
  BOOST_CHECK(items.front().status == Status::ERROR);
  BOOST_TEST(items.front().note == "no such thing");
}

boost::test_tools::assertion_result no_device(boost::unit_test::test_unit_id) {
  return !unavailable(told(mlstm::Device::cuda)).empty();
}

BOOST_AUTO_TEST_CASE(a_variant_without_its_device_is_skipped_once_and_aloud,
                     *boost::unit_test::precondition(no_device)) {
  const test::FakeKernel kernel = told(mlstm::Device::cuda);
  const std::vector<Item> items =
      finish(run_sweep(make_plan({&kernel}, {kSpec, parse_spec("S=4")}, true).units, {}), GroupBy::variant).items;
  BOOST_REQUIRE(items.size() == 1);
  BOOST_CHECK(items.front().status == Status::SKIPPED);
  BOOST_TEST(!items.front().note.empty());
  BOOST_TEST(summary_line(items).find("1 variants were NOT run here") != std::string::npos);
  BOOST_TEST(exit_status(items) == 3);
}
