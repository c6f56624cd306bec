// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// What the program says of the published kernels' captures, and of a kernel that somebody else filled in.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <set>

#include "program.hpp"
#include "sweep/expect.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::verify;
using test::contains, test::Result, test::Workplace;
namespace fs = std::filesystem;

const fs::path kPublished = fs::path(MLSTM_SOURCE_DIR) / "data/captures/published";
const std::string kJudgePublished = "verify --report report --captures '" + kPublished.string() + "'";
const std::string kExact = "native_autograd_fp32";

/// Judges the published captures with further options; the items by case and tensor.
struct Published : Workplace {
  using Verdicts = std::map<std::string, std::map<std::string, Item>>;
  Verdicts judged(const std::string& options = "") const {
    run(kJudgePublished + " " + options);
    Verdicts verdicts;
    for (const Item& item : report("report")) verdicts[item.case_name][item.tensor] = item;
    BOOST_REQUIRE(verdicts.size() == 8);
    return verdicts;
  }
};

std::set<std::string> failing(const std::map<std::string, Item>& items) {
  std::set<std::string> tensors;
  for (const auto& [tensor, item] : items)
    if (item.status != Status::PASS) tensors.insert(tensor);
  return tensors;
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(the_verdicts_on_the_published_kernels_are_the_recorded_ones, Published) {
  const Result outcome = run(kJudgePublished + " --expect '" + (kPublished / "expected.json").string() + "'");
  BOOST_TEST(outcome.status == 0, outcome.out << outcome.err);
  BOOST_TEST(contains(outcome.out, "all 60 verdicts are as expected"));
}

// Right kernels that were once failed: each has a term in the bounds without which it would be failed again.
BOOST_FIXTURE_TEST_CASE(honest_kernels_of_others_pass, Workplace) {
  const Result outcome = run("verify --captures '" MLSTM_SOURCE_DIR "/data/captures/honest' --report r");
  std::map<std::string, std::set<std::string>> passed;
  for (const Item& item : report("r"))
    if (item.status == Status::PASS) passed[item.variant].insert(item.tensor);
  BOOST_TEST((passed["recurrent--em_c16"] == std::set<std::string>{"h", "c_last", "n_last", "m_last"}), outcome.out);
  BOOST_TEST((passed["nx_siging_custbw"] == std::set<std::string>{"h", "dq", "dk", "dv", "di", "df"}), outcome.out);
  BOOST_TEST(outcome.status == 0, outcome.out << outcome.err);
}

BOOST_FIXTURE_TEST_CASE(without_expectations_the_broken_published_kernels_are_failures, Published) {
  BOOST_TEST(run(kJudgePublished).status == 1);
  const auto verdicts = judged();
  for (const auto& [name, items] : verdicts)
    if (name != "xl_chunk256_bf16" && name != "limit_headdim_fp32") BOOST_TEST(failing(items).empty(), name);
  BOOST_TEST((failing(verdicts.at("xl_chunk256_bf16")) == std::set<std::string>{"dk", "dv", "di", "df"}));
  BOOST_TEST((failing(verdicts.at("limit_headdim_fp32")) == std::set<std::string>{"h", "dq", "dk", "dv", "di", "df"}));
}

BOOST_FIXTURE_TEST_CASE(a_verdict_other_than_the_recorded_one_is_named_and_fails, Published) {
  run(kJudgePublished);
  std::vector<Item> items = report("report");
  for (Item& item : items)
    if (item.case_name == "xl_chunk256_bf16" && item.tensor == "dk") item.status = Status::PASS;
  write("other.json", expectation_of(items));
  const Result outcome = run(kJudgePublished + " --expect other.json");
  BOOST_TEST(outcome.status == 1);
  BOOST_TEST(contains(outcome.out, "UNEXPECTED  xl_chunk256_bf16 dk: expected PASS, got FAIL"), outcome.out);
}

BOOST_FIXTURE_TEST_CASE(hand_written_backward_passes_compute_the_detached_gradient_and_autograd_the_exact_one,
                        Published) {
  int gradients = 0;
  for (const auto& [name, items] : judged())
    for (const auto& [tensor, item] : items) {
      if (item.convention.empty()) continue;
      ++gradients;
      BOOST_TEST(item.convention == (name == kExact ? "exact" : "detached"), name << " " << tensor);
    }
  BOOST_TEST(gradients == 7 * 5);
}

BOOST_FIXTURE_TEST_CASE(under_the_other_convention_all_gradients_but_dv_fail, Published) {
  for (const std::string convention : {"exact", "detached"})
    for (const auto& [name, items] : judged("--convention " + convention)) {
      const bool other = (name == kExact) == (convention == "detached");
      if (!other || !items.contains("dv") || name == "xl_chunk256_bf16" || name == "limit_headdim_fp32") continue;
      BOOST_TEST((failing(items) == std::set<std::string>{"dq", "dk", "di", "df"}), name);
      const std::string right = name == kExact ? "exact" : "detached";
      for (const char* tensor : {"dq", "dk", "di"})
        BOOST_TEST(contains(items.at(tensor).note, "this is the " + right),
                   name << " " << tensor << ": " << items.at(tensor).note);
      // few elements of df are far enough from both to say as much
      BOOST_TEST(contains(items.at("df").note, right), name << " df: " << items.at("df").note);
    }
}

BOOST_FIXTURE_TEST_CASE(limit_headdim_passes_as_the_tfloat32_that_it_computes_in, Workplace) {
  const std::string judge = "verify --captures '" + (kPublished / "limit_headdim_fp32.h5").string() + "'";
  BOOST_TEST(run(judge).status == 1);
  const Result outcome = run(judge + " --operand-dtype tfloat32");
  BOOST_TEST(outcome.status == 0, outcome.out);
  BOOST_TEST(contains(outcome.out, "6 tensors judged: 6 PASS"), outcome.out);
}

BOOST_FIXTURE_TEST_CASE(failures_of_published_kernels_are_located_and_recognised, Workplace) {
  const auto explained = [&](const std::string& name) {
    run("verify --explain --report report --captures '" + (kPublished / (name + ".h5")).string() + "'");
    std::map<std::string, std::string> texts;
    for (const Item& item : report("report"))
      if (item.status == Status::FAIL) texts[item.tensor] = item.explanation;
    return texts;
  };
  // Its gradients are wrong where dC comes from the next chunk.
  const auto broken = explained("xl_chunk256_bf16");
  for (const char* tensor : {"dk", "dv", "di"}) {
    BOOST_TEST(contains(broken.at(tensor), "gathering at the end of chunks 1 to 2"), broken.at(tensor));
    BOOST_TEST(contains(broken.at(tensor), "by chunk of 256 steps: 0 %, "), broken.at(tensor));
  }
  BOOST_TEST(contains(explained("limit_headdim_fp32").at("h"),
                      "as if: matrix products read tfloat32: that would give h, dq, dk, dv, di, df"));
}

BOOST_FIXTURE_TEST_CASE(the_report_says_which_bound_a_gate_gradient_meets, Published) {
  const auto verdicts = judged();
  for (const char* name : {"xl_chunk128_bf16", "limit_chunk_bf16", "xl_chunk128_siging_bf16"})
    BOOST_TEST(contains(verdicts.at(name).at("df").note, "meets only the bound for rounded terms"), name);
  for (const char* name : {"native_custbw_fp32", "native_autograd_fp32"})
    BOOST_TEST(contains(verdicts.at(name).at("df").note, "meets the bound for unrounded terms too"), name);
}

BOOST_FIXTURE_TEST_CASE(a_kernel_filled_in_with_h5py_is_judged_and_its_planted_bug_is_found, Workplace) {
  const std::string fill_in = "/usr/bin/python3 " MLSTM_SOURCE_DIR "/notebooks/judge_my_kernel.py problems";
  BOOST_REQUIRE(run("fixtures generate --suite smoke --dtype float32 --out problems").status == 0);
  BOOST_TEST(run("verify --captures problems").status == 3);

  const Result filled = shell(fill_in);
  BOOST_REQUIRE_MESSAGE(filled.status == 0, filled.err);
  const Result right = run("verify --captures problems");
  BOOST_TEST(right.status == 0, right.out << right.err);

  BOOST_REQUIRE(shell(fill_in + " --bug").status == 0);
  const Result wrong = run("verify --captures problems --report wrong --explain");
  BOOST_TEST(wrong.status == 1);
  const std::vector<Item> items = report("wrong");
  BOOST_TEST(std::count_if(items.begin(), items.end(), [](const Item& i) { return i.status == Status::FAIL; }) >= 8);
  for (const Item& item : items) {
    BOOST_TEST((item.status == Status::PASS || item.tensor == "h"), item.tensor);
    // one element explains nothing
    if (item.status == Status::FAIL && !contains(item.explanation, "where: 1 of"))
      BOOST_TEST(contains(item.explanation, "as if: the denominator has no absolute value: that would give h"),
                 item.case_name << ": " << item.explanation);
  }
}
