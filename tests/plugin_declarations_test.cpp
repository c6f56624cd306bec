// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// What plugins declare, by way of worker processes and in this one: truncation, and structures of an earlier edition.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <string>
#include <vector>

#include "program.hpp"

namespace {
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::Result, mlstm::test::Workplace;

std::string program(const std::string& command, const std::string& plugin) {
  return MLSTM_BINARY_DIR "/bin/mlstm " + command + " --plugin " MLSTM_BINARY_DIR "/plugins/lib" + plugin + ".so ";
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(a_plugin_may_declare_that_it_truncates, Workplace) {
  for (const char* const where : {"", "--in-process "}) {
    const std::string verify = program("verify", "truncating") + where +
                               "--case 'regime=standard,dtype=bfloat16,NH=4,S=128,DHQK=32,DHV=48,initial_states=1' "
                               "--case 'regime=forget6,dtype=bfloat16,NH=4,S=128,DHQK=32,DHV=48' --report r";
    const Result declared = shell(verify);
    BOOST_TEST(declared.status == 0, declared.out << declared.err);
    BOOST_TEST(report("r").size() >= 20u);

    // every element is within its bound all the same: it is the bias that tells
    const Result undeclared = shell("MLSTM_TEST_TRUNCATES=undeclared " + verify);
    BOOST_TEST(undeclared.status == 1, undeclared.out << undeclared.err);
    const std::vector<Item> items = report("r");
    BOOST_TEST(std::any_of(items.begin(), items.end(), [](const Item& item) {
      return item.tensor == "h" && item.status == Status::FAIL && item.bias_ratio > 1 && item.bias < -0.001 &&
             item.error_ratio <= 1;
    }));
  }
}

BOOST_FIXTURE_TEST_CASE(list_says_that_a_plugin_truncates, Workplace) {
  BOOST_TEST(contains(shell(program("list --format json", "truncating")).out, "\"rounding\":\"truncate\""));
  BOOST_TEST(!contains(shell("MLSTM_TEST_TRUNCATES=undeclared " + program("list --format json", "truncating")).out,
                       "\"rounding\":\"truncate\""));
}

BOOST_FIXTURE_TEST_CASE(a_plugin_of_the_first_edition_works, Workplace) {
  for (const char* const where : {"", "--in-process "}) {
    const Result result = shell(program("verify", "first_edition") + where + "--suite smoke --variant first_edition");
    BOOST_TEST(result.status == 0, result.out << result.err);
    BOOST_TEST(contains(result.out, "recurrent--first_edition: 203 PASS"), result.out);
  }
}

BOOST_FIXTURE_TEST_CASE(a_structure_smaller_than_any_edition_is_refused, Workplace) {
  const Result result = shell("MLSTM_TEST_EDITION=none " + program("list", "first_edition"));
  BOOST_TEST(result.status == 2, result.out << result.err);
  BOOST_TEST(contains(result.err, "struct_size of mlstm_kernel is "), result.err);
  BOOST_TEST(contains(result.err, "expected at least "), result.err);
}
