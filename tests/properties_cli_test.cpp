// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// mlstm verify --property, --properties, --no-properties.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <set>

#include "base/files.hpp"
#include "program.hpp"
#include "properties/properties.hpp"

namespace {
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::Result, mlstm::test::Workplace;

const std::string kChunkwise = " --variant chunkwise--native_eigen_ownbw ",
                  kStep = " --variant recurrent--step_fused_eigen ";

/// "split_state" of every item of a property.
std::multiset<std::string> names_in(const std::vector<Item>& items) {
  std::multiset<std::string> names;
  for (const Item& item : items)
    if (is_property(item)) names.insert(item.property);
  return names;
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(property_checks_the_named_properties_alone, Workplace) {
  const Result result = run("verify --property 'caus*,linear_v' --dtype float32 --report r" + kChunkwise);
  BOOST_TEST(result.status == 0, result.out << result.err);
  BOOST_TEST(contains(result.out, "chunkwise--native_eigen_ownbw: causality 0, linear_v 0.0"));
  const std::vector<Item> items = report("r");
  const auto names = names_in(items);
  BOOST_TEST(names.size() == items.size());
  BOOST_TEST((std::set<std::string>(names.begin(), names.end()) == std::set<std::string>{"causality", "linear_v"}));
  BOOST_TEST(std::all_of(items.begin(), items.end(), [](const Item& item) { return item.status == Status::PASS; }));
}

BOOST_FIXTURE_TEST_CASE(a_reproduction_line_gives_the_same_verdicts, Workplace) {
  BOOST_REQUIRE(run("verify --property dot_product --gate sigmoid --dtype float64 --report r" + kChunkwise).status ==
                0);
  const std::vector<Item> all = report("r");
  const Item& first = all.front();
  BOOST_TEST(contains(first.repro, "--property dot_product --case \"regime=forget3"));
  const Result again = shell("PATH='" MLSTM_BINARY_DIR "/bin':$PATH; " + first.repro + " --report again");
  BOOST_TEST(again.status == 0, again.out << again.err);
  for (const Item& item : report("again")) {
    const auto same = std::find_if(all.begin(), all.end(), [&](const Item& other) {
      return other.case_name == item.case_name && other.tensor == item.tensor && other.convention == item.convention;
    });
    BOOST_REQUIRE((same != all.end()));
    BOOST_TEST(same->note == item.note);
    BOOST_TEST((same->error_ratio == item.error_ratio));
  }
}

BOOST_FIXTURE_TEST_CASE(what_does_not_apply_is_skipped_aloud_and_alone_is_status_3, Workplace) {
  const Result result = run("verify --property dot_product --report r" + kStep);
  BOOST_TEST(result.status == 3);
  BOOST_TEST(contains(result.out, "recurrent--step_fused_eigen  property:dot_product: it has no backward pass"));
  BOOST_TEST(contains(result.out, "(properties that do not apply: 1)"));
  BOOST_TEST(!contains(result.out, "were NOT run here"));
  BOOST_TEST(report("r").size() == 1u);
  const Result none = run("verify --property dot_product --dtype bfloat16" + kChunkwise);
  BOOST_TEST(none.status == 3);
  BOOST_TEST(contains(none.err, "property dot_product: no problem is selected"));
}

BOOST_FIXTURE_TEST_CASE(the_larger_suites_include_properties, Workplace) {
  const std::string some = " --dtype float32 --regime forget3" + kStep;
  const auto properties_of = [&](const std::string& options) {
    const Result result = run("verify --report r " + options + some);
    BOOST_TEST(result.status <= 3, result.err);
    return names_in(report("r")).size();
  };
  BOOST_TEST(properties_of("--suite standard") > 0u);
  BOOST_TEST(properties_of("--suite standard --no-properties") == 0u);
  BOOST_TEST(properties_of("--suite standard --shape 1,1,1,8,8") == 0u);
  BOOST_TEST(properties_of("--suite smoke") == 0u);
  BOOST_TEST(properties_of("--suite smoke --properties") > 0u);
}

BOOST_FIXTURE_TEST_CASE(shards_with_properties_merge_to_the_whole, Workplace) {
  const std::string all = "verify --property neighbours,determinism --dtype float32 --report ";
  BOOST_REQUIRE(run(all + "whole").status == 0);
  BOOST_REQUIRE(run(all + "a --shard 1/2").status == 0);
  BOOST_REQUIRE(run(all + "b --shard 2/2").status == 0);
  BOOST_REQUIRE(run("report merge merged a b").status == 0);
  BOOST_TEST(read_text_file(path / "merged/report.json") == read_text_file(path / "whole/report.json"));
  BOOST_TEST(read_text_file(path / "merged/summary.txt") == read_text_file(path / "whole/summary.txt"));
}

BOOST_FIXTURE_TEST_CASE(bad_arguments_are_named, Workplace) {
  const std::pair<std::string, std::string> bad[] = {
      {"verify --property symmetry",
       "--property is \"symmetry\"; expected a name or glob among split_state, causality"},
      {"verify --property causality --suite smoke", "--suite"},
      {"verify --property causality --no-properties", "--no-properties"},
      {"verify --properties --no-properties", "--no-properties"},
      {"verify --captures x.h5 --property causality", "--property"},
      {"verify --property causality --case 'S=0'", "--case: S is 0"},
  };
  for (const auto& [arguments, message] : bad) {
    const Result result = run(arguments);
    BOOST_TEST(result.status == 2, arguments);
    BOOST_TEST(contains(result.err, message), result.err);
  }
}

// Through worker processes: what null arguments and company are has to come across.
BOOST_FIXTURE_TEST_CASE(a_plugin_that_shares_what_belongs_to_a_call_fails, Workplace) {
  const auto verify = [&](const std::string& what, const std::string& properties) {
    return shell("MLSTM_TEST_SHARES=" + what +
                 " " MLSTM_BINARY_DIR "/bin/mlstm verify --plugin " MLSTM_BINARY_DIR
                 "/plugins/libsharing.so --property '" +
                 properties + "'");
  };
  const std::string all = "null_arguments,interleaving,concurrency";
  BOOST_TEST(verify("nothing", all).status == 0);
  const auto fails = [&](const std::string& what, const std::string& property, const std::string& words) {
    const Result result = verify(what, property);
    BOOST_TEST(result.status == 1, what);
    BOOST_TEST(contains(result.out, words), result.out);
  };
  fails("outputs", "null_arguments", "c_last[0,0,0,0] was not written");
  fails("gradients", "null_arguments", "dc_initial[0,0,0,0] was not written");
  fails("library", "interleaving", "backward after another call's forward (a problem of B=");
  fails("thread", "interleaving", "backward in another thread, from moved memory, after another call (a problem of B=");
  fails("workspace", "concurrency", "beside calls in another thread (a problem of B=");
  BOOST_TEST(verify("workspace", "null_arguments,interleaving,determinism").status == 0);
  BOOST_TEST(verify("library", "determinism").status == 0);
}
