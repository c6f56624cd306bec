// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// reference/CONTRACT.md names the commands, options and report keys that there are, and no others.
#include <boost/test/unit_test.hpp>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "program.hpp"

namespace {
using mlstm::test::Result, mlstm::test::Workplace;
using Names = std::set<std::string>;

/// The first group, or the whole, of every match.
Names matches(const std::string& text, const std::string& pattern) {
  const std::regex expression(pattern);
  Names names;
  for (std::sregex_iterator match(text.begin(), text.end(), expression), end; match != end; ++match)
    names.insert((*match)[match->size() > 1 ? 1 : 0]);
  return names;
}

Names options_in(const std::string& text) { return matches(text, "--[a-z][a-z-]*"); }

std::string section_6() {
  const std::string page = mlstm::verify::read_text_file(MLSTM_SOURCE_DIR "/reference/CONTRACT.md");
  const std::size_t begin = page.find("\n## 6. ");
  BOOST_REQUIRE(begin != std::string::npos);
  return page.substr(begin, page.find("\n## 7. ", begin) - begin);
}

/// The lines below "Subcommands:" name the commands.
Names subcommands(const Workplace& here, const std::string& of) {
  const Result help = here.run(of + " --help");
  BOOST_REQUIRE_MESSAGE(help.status == 0, help.err);
  const std::size_t list = help.out.find("\nSubcommands:\n");
  return list == std::string::npos ? Names{} : matches(help.out.substr(list), "\n  ([a-z]+) ");
}

Names operator-(Names names, const Names& others) {
  for (const std::string& name : others) names.erase(name);
  return names;
}

std::string listed(const Names& names) {
  std::string text;
  for (const std::string& name : names) text += " " + name;
  return text;
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(the_contract_names_every_command_and_no_other, Workplace) {
  const Names contract = matches(section_6(), "`mlstm ([a-z]+)"), program = subcommands(*this, "");
  BOOST_TEST(program.size() >= 9u);
  BOOST_TEST((program - contract).empty(), "not in the contract:" << listed(program - contract));
  BOOST_TEST((contract - program).empty(), "no commands:" << listed(contract - program));
  for (const std::string command : {"fixtures", "report"})
    for (const std::string& name : subcommands(*this, command))
      BOOST_TEST(!matches(section_6(), command + " ([a-z]+\\\\\\|)*" + name).empty(), command << " " << name);
}

BOOST_FIXTURE_TEST_CASE(the_contract_names_every_option_and_no_other, Workplace) {
  Names program = options_in(run("--help").out);
  for (const std::string& command : subcommands(*this, "")) {
    program.merge(options_in(run(command + " --help").out));
    for (const std::string& below : subcommands(*this, command))
      program.merge(options_in(run(command + " " + below + " --help").out));
  }
  const Names contract = options_in(section_6());
  BOOST_TEST(program.size() > 40u);
  BOOST_TEST((program - contract).empty(), "not in the contract:" << listed(program - contract));
  BOOST_TEST((contract - program).empty(), "no options:" << listed(contract - program));
}

BOOST_FIXTURE_TEST_CASE(reports_hold_the_files_and_keys_of_the_contract, Workplace) {
  const Result sweep = run(
      "verify --variant chunkwise--native_eigen_ownbw --report r --case "
      "\"regime=forget3,seed=0,gate=exp,normalize=1,eps=0,dtype=float32,stabilizer_init=zero,B=1,NH=1,S=8,DHQK=4,DHV=4,"
      "L=4,initial_states=0,cotangents=1,last_state_cotangents=0\"");
  BOOST_REQUIRE_MESSAGE(sweep.status == 0, sweep.err);
  const std::string contract = section_6();
  Names files;
  for (const auto& entry : std::filesystem::directory_iterator(path / "r"))
    files.insert(entry.path().filename().string());
  const Names named = matches(contract, "\n\\| `([a-z]+\\.[a-z]+)` \\|");
  BOOST_TEST(named.size() == 6u);
  BOOST_TEST((named - files).empty(), "not written:" << listed(named - files));
  const std::size_t table = contract.find("An item, one per judged tensor, has");
  BOOST_REQUIRE(table != std::string::npos);
  const std::string text = mlstm::verify::read_text_file(path / "r" / "report.json");
  std::istringstream rows(contract.substr(table, contract.find("\n\nFurther keys", table) - table));
  std::size_t keys = 0;
  for (std::string row; std::getline(rows, row);)
    for (const std::string& key : matches(row.substr(0, row.find('|', 1)), "`([a-z_]+)`")) {
      BOOST_TEST(mlstm::test::contains(text, '"' + key + '"'), key);
      ++keys;
    }
  BOOST_TEST(keys == 11u);
}
