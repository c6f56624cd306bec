// SPDX-License-Identifier: Apache-2.0
// What the HTML report is made of beside report.json: details.json and mutate.json.
#include <memory>

#include "cases/case_file.hpp"
#include "report/report.hpp"
#include "report/report_html.hpp"
#include "targets.hpp"

namespace mlstm::fuzz {
namespace {

using namespace mlstm::verify;

std::vector<Item> items() {
  Item item;
  item.variant = std::string("chunkwise--x");
  item.case_name = std::string("forget3");
  item.tensor = std::string("h");
  item.status = Status::FAIL;
  item.error_ratio = 2;
  item.worst_index = {0, 0, 1, 1};
  item.repro = std::string("mlstm verify --case \"S=2\"");
  item.detail = std::make_shared<Detail>();
  item.detail->regime = std::string("forget3");
  item.detail->problem.shape = {1, 1, 2, 2, 2};
  item.detail->shape = {1, 1, 2, 2};
  const Array values{1., 2., 3., 4.};
  Array shaped = values;
  shaped.reshape({1, 1, 2, 2});
  item.detail->picture = picture_of("h", shaped, 0 * shaped, 1 + 0 * shaped, DType::float32);
  item.explanation = std::string("where: everywhere");
  return {item, item};
}

const std::string& report() {
  static const std::string text = to_json(items());
  return text;
}

bool run_details(std::string_view text) try {
  std::vector<Item> read = parse_report(report(), "report.json");
  attach_details(read, text, report(), "details.json");
  const std::string again = to_details(read, report());
  attach_details(read, again, report(), "again");
  require(to_details(read, report()) == again, "details say the same when they are written again");
  require(!to_html(read).empty(), "whatever is taken can be shown");
  return true;
} catch (const FileError& error) {
  require_message(error.what());
  return false;
}

bool run_mutations(std::string_view text) try {
  const std::string page = to_html({}, {{std::string(text), "mutate.json"}});
  require(page.find("</html>") != std::string::npos, "a page is whole");
  return true;
} catch (const FileError& error) {
  require_message(error.what());
  return false;
}

const std::vector<std::string> kWords{"null", "[]",       "{}",         "-1",          "1e999",
                                      "\"\"", "<script>", "\"kills\":", "\"picture\":"};

std::vector<std::string> detail_seeds() { return {to_details(items(), report())}; }

std::vector<std::string> mutation_seeds() {
  return {
      R"({"score": 0.5, "mutants": [{"name": "a", "family": "b", "module": "c", "description": "d", "detected": true,
"by": {"problem": "p", "check": "h", "repro": "r"}, "kills": {"forget3": {"h": [1, 2]}}}, {"name": "e", "detected": false}],
"rules": [{"name": "r", "description": "d", "mutants": {"setting": [1, 2], "suite": [2, 2]},
"false_alarms": {"setting": [0, 1], "suite": [0, 1]}}], "false_alarms": {"verdicts": 3, "not_passed": 0, "items": []}})"};
}

}  // namespace

Target details_target() { return {"details", run_details, detail_seeds, kWords}; }
Target mutations_target() { return {"mutations", run_mutations, mutation_seeds, kWords}; }

}  // namespace mlstm::fuzz
