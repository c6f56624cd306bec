// SPDX-License-Identifier: Apache-2.0
// Everything that is read as text.
#include <algorithm>
#include <limits>

#include "cases/case_file.hpp"
#include "cases/manifest.hpp"
#include "cases/problems.hpp"
#include "report/report.hpp"
#include "studies/bench/bench.hpp"
#include "sweep/expect.hpp"
#include "sweep/sweep_journal.hpp"
#include "targets.hpp"

namespace mlstm::fuzz {
namespace {

using namespace mlstm::verify;

std::vector<std::string> lines_of_suites() {
  std::vector<std::string> lines;
  for (const char* name : {"smoke", "golden", "captures"}) {
    const std::vector<ProblemSpec> specs = suite(name);
    for (std::size_t n = 0; n < specs.size(); n += 5) lines.push_back(to_line(specs[n]));
  }
  lines.emplace_back("S=4,eps=1e-300,seed=18446744073709551615");
  lines.emplace_back("1,2,3,4,5");
  return lines;
}

bool run_spec(std::string_view text) {
  bool taken = false;
  try {
    const ProblemSpec spec = parse_spec(text);
    taken = true;
    require(parse_spec(to_line(spec)) == spec, "a line says the same when it is written again");
    const std::string name = case_name(spec);
    require(!name.empty() && name.find('/') == std::string::npos, "a case's name is a file's name");
  } catch (const std::invalid_argument& error) {
    require(!taken, "what is taken is taken wholly");
    require_message(error.what());
  }
  try {
    const Shape shape = parse_shape(std::string(text));
    require(std::min({shape.B, shape.NH, shape.S, shape.DHQK, shape.DHV}) > 0, "extents are positive");
    return true;
  } catch (const std::invalid_argument& error) {
    require_message(error.what());
  }
  return taken;
}

std::vector<std::string> manifest_seeds() {
  const std::string sum = sha256_of("");
  return {sum + "  a.h5\n" + sha256_of("b") + " *folder/b c.h5\n\n", sum + "  a.h5"};
}

bool run_manifest(std::string_view text) try {
  std::string again;
  const auto sums = parse_manifest(text, "MANIFEST.sha256");
  for (const auto& [path, sum] : sums) {
    require(sum.size() == 64, "a sum has 64 digits");
    require(!path.empty() && path.find('\n') == std::string::npos, "a path is one line");
    again += sum + "  " + path + "\n";
  }
  require(parse_manifest(again, "again") == sums, "a manifest says the same when it is written again");
  return !sums.empty();
} catch (const FileError& error) {
  // Paths may hold any byte but the end of a line.
  require_message(error.what());
  return false;
}

/// Items with something in every field.
std::vector<Item> items() {
  Item item;
  item.variant = std::string("chunkwise--native_eigen_ownbw");
  item.case_name = std::string("forget3_\"exp\"");
  item.tensor = std::string("dc_initial");
  item.convention = std::string("exact");
  item.status = Status::FAIL;
  item.error_ratio = 1.5;
  item.max_abs_error = std::numeric_limits<double>::infinity();
  item.rel_frobenius = 1e-300;
  item.worst_index = {0, 1, 23};
  item.repro = std::string("mlstm verify --case \"S=4\"");
  item.note = std::string("trivial: zeros would pass");
  item.hides = {"zero", "shifted"};
  item.regime = std::string("forget3");
  item.problem = parse_spec("regime=forget3,S=4");
  item.run = std::string("exact");
  item.check = std::string("repeat");
  item.trivial = true;
  item.as_expected = true;
  Item skipped;
  skipped.variant = std::string("recurrent--step_fused_cuda");
  skipped.case_name = std::string("all");
  skipped.tensor = std::string("h");
  skipped.status = Status::SKIPPED;
  skipped.note = std::string("no GPU");
  return {item, skipped};
}

std::vector<std::string> report_seeds() { return {to_json({}), to_json(items())}; }

bool run_report(std::string_view text) try {
  const std::vector<Item> parsed = parse_report(text, "report.json");
  const std::string written = to_json(parsed);
  require(to_json(parse_report(written, "again")) == written, "a report says the same when it is written again");
  require(!to_junit(parsed).empty(), "JUnit");
  require(!to_text(parsed, GroupBy::variant).empty() && !to_text(parsed, GroupBy::item_case).empty(), "tables");
  const int status = exit_status(parsed);
  require(status == 0 || status == 1 || status == 3, "an exit status of the contract");
  return true;
} catch (const FileError& error) {
  require_message(error.what());
  return false;
}

std::vector<std::string> journal_seeds() {
  std::vector<Record> records;
  for (const Item& item : items()) records.push_back({item, "bfloat16", 1});
  const std::string header = to_line(JournalHeader{sha256_of("plan"), "1/2", 7, 4});
  return {header, header + to_line(1, records) + to_line(3, {}), header + to_line(1, records).substr(0, 40)};
}

bool run_journal(std::string_view text) try {
  const JournalContents contents = parse_journal(text, "journal.jsonl");
  require(contents.size <= text.size(), "complete lines are part of the text");
  require(contents.size == 0 || text[contents.size - 1] == '\n', "complete lines have an end");
  if (contents.size == 0) {
    require(contents.done.empty(), "nothing comes of nothing");
    return false;
  }
  std::string written = to_line(contents.header);
  for (const auto& [unit, records] : contents.done) {
    require(unit >= 0 && unit < contents.header.units, "units are those of the plan");
    written += to_line(unit, records);
  }
  const JournalContents again = parse_journal(written, "again");
  std::string rewritten = to_line(again.header);
  for (const auto& [unit, records] : again.done) rewritten += to_line(unit, records);
  require(written == rewritten, "a journal says the same when it is written again");
  return true;
} catch (const FileError& error) {
  require_message(error.what());
  return false;
}

std::vector<std::string> expectation_seeds() {
  return {expectation_of({}), expectation_of(items()), R"({"a\nb": {"h": "PA\nSS"}})"};
}

bool run_expectation(std::string_view text) try {
  const Expectation expected = parse_expectation(text, "expected.json");
  std::vector<Item> as_expected;
  for (const auto& [case_name, tensors] : expected)
    for (const auto& [tensor, status] : tensors) {
      as_expected.emplace_back();
      as_expected.back().case_name = case_name;
      as_expected.back().tensor = tensor;
      as_expected.back().status = status;
    }
  require(differences(expected, as_expected).empty(), "what is expected is as expected");
  Expectation written = parse_expectation(expectation_of(as_expected), "again");
  for (const auto& [case_name, tensors] : expected)  // a case without tensors leaves no item
    if (tensors.empty()) written[case_name];
  require(written == expected, "an expectation says the same when it is written again");
  return true;
} catch (const FileError& error) {
  require_message(error.what());
  return false;
}

std::vector<std::string> peers_seeds() {
  return {
      R"({"schema": "mlstm-bench-peers", "device": "NVIDIA H100", "rows": [{"compares_with": )"
      R"("chunkwise--xl_chunk_cuda_ownbw", "kernel": "triton", "dtype": "bfloat16", "gate": "exp", "shape": [8, 16, )"
      R"(8192, 128, 256], "initial_states": false, "forward_ms": 3.6, "forward_backward_ms": null}]})"};
}

bool run_peers(std::string_view text) try {
  require(BenchPeers::parse(text, "peers.json").device().size() <= text.size(), "the device is named in the file");
  return true;
} catch (const FileError& error) {
  require_message(error.what());
  return false;
}

const std::vector<std::string> kJsonWords{"{",
                                          "}",
                                          "[",
                                          "]",
                                          ":",
                                          ",",
                                          "\"\"",
                                          "null",
                                          "true",
                                          "0",
                                          "-1",
                                          "1e999",
                                          "-0.0",
                                          "1e-320",
                                          "\\u0000",
                                          "\\ud800",
                                          "\n",
                                          "\"nan\"",
                                          "\"-inf\"",
                                          "\"PASS\"",
                                          "\"STALE\"",
                                          "9223372036854775808",
                                          "0.1234567890123456789",
                                          "\xff"};

}  // namespace

Target spec_target() {
  return {"spec",
          run_spec,
          lines_of_suites,
          {",",
           "=",
           "regime=",
           "forget6",
           "seed=",
           "-1",
           "18446744073709551616",
           "eps=",
           "inf",
           "nan",
           "1e-9",
           "dtype=",
           "float16",
           "tfloat32",
           "gate=sigmoid",
           "normalize=0",
           "B=0",
           "S=4611686018427387904",
           "L=",
           "stabilizer_init=neg_inf",
           "initial_states=1",
           "cotangents=0",
           "last_state_cotangents=1",
           "\n",
           "/",
           "../"}};
}
Target manifest_target() {
  return {"manifest", run_manifest, manifest_seeds, {sha256_of("x"), "  ", " *", "\n", "\r", "..", "/"}};
}
Target report_target() { return {"report", run_report, report_seeds, kJsonWords}; }
Target journal_target() { return {"journal", run_journal, journal_seeds, kJsonWords}; }
Target expectation_target() { return {"expectation", run_expectation, expectation_seeds, kJsonWords}; }
Target peers_target() { return {"peers", run_peers, peers_seeds, kJsonWords}; }

}  // namespace mlstm::fuzz
