// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
#include <boost/test/unit_test.hpp>
#include <set>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "program.hpp"
#include "sweep/expect.hpp"

namespace {
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::Result, mlstm::test::Workplace;
namespace fs = std::filesystem;

const std::string kSmall = "--case \"regime=forget3,dtype=float32,NH=2,S=24,DHQK=8,DHV=4,L=8\"";
const std::string kVariant = "chunkwise--native_eigen_ownbw";

/// The only capture of kSmall by kVariant in one convention.
fs::path make_capture(const Workplace& here, const std::string& directory = "captures") {
  const Result made =
      here.run("capture --out " + directory + " --variant " + kVariant + " --convention exact " + kSmall);
  BOOST_REQUIRE_MESSAGE(made.status == 0, made.err);
  const std::vector<fs::path> files = find_case_files({here.path / directory});
  BOOST_REQUIRE(files.size() == 1);
  return files.front();
}

/// Rewrites a capture outside of its directory's manifest.
template <class Change>
fs::path changed(const Workplace& here, const fs::path& file, const Change& change) {
  Case c = read_case(file);
  change(c);
  const fs::path path = here.path / "changed.h5";
  write_case(c, path);
  return path;
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(list_prints_an_object_with_the_keys_of_the_contract_per_variant, Workplace) {
  const Result result = run("list --format json");
  BOOST_REQUIRE(result.status == 0);
  const Json variants = Json::parse(result.out);
  BOOST_REQUIRE(!variants.empty());
  const std::vector<std::string> expected{"key",
                                          "module",
                                          "description",
                                          "dtypes",
                                          "gates",
                                          "gradient_conventions",
                                          "stabilizer_init",
                                          "operand_dtype",
                                          "state_dtype",
                                          "gate_dtype",
                                          "product_dtype",
                                          "rounding",
                                          "initial_states",
                                          "last_states",
                                          "device",
                                          "limits"};
  for (const Json& variant : variants) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : variant.items()) keys.emplace_back(key);
    BOOST_TEST(keys == expected, boost::test_tools::per_element());
  }
  BOOST_TEST(contains(run("list").out, kVariant));
}

BOOST_FIXTURE_TEST_CASE(every_bad_argument_is_one_line_that_names_it_and_status_2, Workplace) {
  const fs::path file = make_capture(*this);
  write("not.h5", "this is no HDF5 file");
  write("bad.json", "{\"c\": 1}");
  const std::string capture = " '" + file.string() + "'";
  const std::pair<std::string, std::string> bad[] = {
      {"", "COMMAND is missing"},
      {"nonsense", "nonsense"},
      {"list --format xml", "--format is \"xml\"; expected one of table, json"},
      {"verify --nonsense", "--nonsense"},
      {"verify --suite huge", "huge"},
      {"verify --variant 'no*such'", "--variant is \"no*such\"; expected a glob that matches one of"},
      {"verify --dtype float8", "--dtype is \"float8\"; expected float64"},
      {"verify --dtype tfloat32", "--dtype is \"tfloat32\"; expected float64, float32, float16 or bfloat16"},
      {"verify --dtype bf16", "expected float64, float32, float16 or bfloat16; did you mean bfloat16?"},
      {"bench --dtype fp8", "--dtype is \"fp8\"; expected one of float64, float32, float16, bfloat16"},
      {"verify --eps -1", "--eps is \"-1\"; expected a finite number >= 0"},
      {"verify --eps nan", "--eps is \"nan\""},
      {"verify --gate relu", "--gate is \"relu\"; expected one of exp, sigmoid"},
      {"verify --regime no_such_regime", "no_such_regime"},
      {"verify --shape 1,2,3", "1,2,3"},
      {"verify --seed minus", "--seed is \"minus\"; expected an integer from 0"},
      {"verify --case 'S=0'", "--case: S is 0; expected a size of at least 1"},
      {"verify --case 'gate=exp,normalize=0'", "--case: normalize is 0 with the exp gate; expected 1"},
      {"verify --case 'colour=red'", "colour"},
      {"verify --case 'S=8' --suite smoke", "--suite"},
      {"verify --case regime=forget3",
       "--case: the problem lacks dtype, S, DHQK, DHV; expected regime, dtype, S, DHQK"},
      {"gradcheck --case 'S=8,DHQK=2,DHV=2'", "--case: the problem lacks regime, dtype; expected"},
      {"verify --case forget3", "--case: problem is \"forget3\"; expected a line of key=value words, or the name of a"},
      {"verify --convention both", "--convention is \"both\"; expected one of exact, detached"},
      {"verify --shard 3/2", "--shard is \"3/2\"; expected i/n with 1 <= i <= n"},
      {"verify --shard 0/2", "--shard is \"0/2\""},
      {"verify --resume", "--resume needs --report"},
      {"verify --threads -1", "--threads is \"-1\"; expected an integer of at least 0"},
      {"verify --expect e.json", "--captures"},
      {"verify --repeat -1", "--repeat is \"-1\"; expected an integer of at least 0"},
      {"verify --shrink soon", "--shrink is \"soon\"; expected an integer of at least 1"},
      {"verify --shrink 0", "--shrink is \"0\""},
      {"verify --explain --failures 0", "--failures is \"0\"; expected an integer of at least 1"},
      {"verify --failures 2", "--failures needs --explain or --shrink"},
      {"verify --captures absent.h5 --shrink", "--shrink"},
      {"verify --captures absent.h5", "absent.h5"},
      {"verify --captures not.h5", "not.h5"},
      {"verify --captures" + capture + " --operand-dtype float7", "--operand-dtype is \"float7\"; expected float64"},
      {"verify --captures" + capture + " --expect absent.json", "absent.json"},
      {"verify --captures" + capture + " --expect bad.json", "bad.json: \"c\" is no object"},
      {"verify --captures" + capture + " --report /dev/null/x", "/dev/null/x"},
      {"capture", "--out"},
      {"reference" + capture, "OUT"},
      {"reference not.h5 out.h5", "not.h5"},
      {"reference absent.h5 out.h5", "absent.h5"},
      {"reference" + capture + " out.h5 --chunk-size 0", "--chunk-size is \"0\"; expected an integer of at least 1"},
      {"reference" + capture + " out.h5 --chunk-size 1.5", "--chunk-size is \"1.5\""},
      {"reference" + capture + " out.h5 --formulation fft", "--formulation is \"fft\""},
      {"reference" + capture + " out.h5 --backward magic", "--backward is \"magic\""},
      {"gradcheck --formulation fft", "--formulation is \"fft\""},
      {"gradcheck --tolerance small", "--tolerance is \"small\""},
      {"fixtures", "expected generate, check or info"},
      {"fixtures nonsense", "nonsense"},
      {"fixtures generate", "--out"},
      {"fixtures check absent", "absent"},
      {"fixtures check not.h5", "not.h5"},
      {"fixtures info not.h5", "not.h5"},
      {"report", "DIR is missing"},
      {"report absent", "absent"},
      {"report merge out", "DIR"},
  };
  for (const auto& [arguments, message] : bad) {
    const Result result = run(arguments);
    BOOST_TEST(result.status == 2, "mlstm " << arguments << " ends with " << result.status);
    BOOST_TEST(contains(result.err, message), "mlstm " << arguments << " says " << result.err);
    BOOST_TEST(!fs::exists(path / "out.h5"));
  }
}

BOOST_FIXTURE_TEST_CASE(help_is_no_error, Workplace) {
  for (const char* command : {"", "list", "reference", "verify", "capture", "gradcheck", "fixtures",
                              "fixtures generate", "report", "bench"}) {
    const Result result = run(std::string(command) + " --help");
    BOOST_TEST(result.status == 0);
    BOOST_TEST(contains(result.out, "--help"));
  }
  BOOST_TEST(run("--version").out == std::string(program_source()) + "\n");
}

BOOST_FIXTURE_TEST_CASE(verify_judges_outputs_and_both_gradients_and_writes_the_report, Workplace) {
  const Result result = run("verify --variant " + kVariant + " " + kSmall + " --report r");
  BOOST_TEST(result.status == 0, result.out << result.err);
  std::set<std::string> judged;
  for (const Item& item : report("r")) {
    BOOST_TEST(item.variant == kVariant);
    BOOST_CHECK(item.status == Status::PASS);
    judged.insert(item.tensor + " " + item.convention);
  }
  const std::set<std::string> expected{"h ",          "c_last ",     "n_last ",     "m_last ",    "dq exact",
                                       "dk exact",    "dv exact",    "di exact",    "df exact",   "dq detached",
                                       "dk detached", "dv detached", "di detached", "df detached"};
  BOOST_TEST(judged == expected, boost::test_tools::per_element());
  BOOST_TEST(fs::exists(path / "r/junit.xml"));
  BOOST_TEST(read_text_file(path / "r/summary.txt") == result.out);
  BOOST_TEST(run("report r").status == 0);
  BOOST_TEST((run("report r --format json").out == read_text_file(path / "r/report.json")));
  BOOST_TEST((run("report r --format html").out == read_text_file(path / "r/report.html")));
  BOOST_TEST(run("report r --format html --out page.html").out.empty());
  BOOST_TEST((read_text_file(path / "page.html") == read_text_file(path / "r/report.html")));
  BOOST_TEST(run("report r --format html --out absent/page.html").status == 2);
}

BOOST_FIXTURE_TEST_CASE(a_reproduction_line_reproduces_its_item, Workplace) {
  BOOST_REQUIRE(
      run("verify --suite smoke --variant '*sequence_eigen*' --regime 'for*' --dtype bfloat16 --report all").status ==
      0);
  const std::vector<Item> items = report("all");
  BOOST_REQUIRE(items.size() > 20);
  for (const std::size_t n : {std::size_t{0}, items.size() / 2, items.size() - 1}) {
    const Item& wanted = items[n];
    BOOST_REQUIRE(wanted.repro.starts_with("mlstm "));
    run(wanted.repro.substr(6) + " --report one");
    bool found = false;
    for (const Item& item : report("one"))
      if (item.case_name == wanted.case_name && item.tensor == wanted.tensor && item.convention == wanted.convention) {
        found = true;
        BOOST_TEST(*item.error_ratio == *wanted.error_ratio);
        BOOST_TEST(item.repro == wanted.repro);
      }
    BOOST_TEST(found, wanted.repro);
  }
}

BOOST_FIXTURE_TEST_CASE(nothing_to_judge_is_status_3, Workplace) {
  const Result result = run("verify --variant '*step*' " + kSmall);
  BOOST_TEST(result.status == 3);
  BOOST_TEST(contains(result.err, "recurrent--step_fused_eigen: S 24 is not supported"));
  fs::create_directories(path / "empty");
  BOOST_TEST(run("verify --captures empty").status == 3);
}

BOOST_FIXTURE_TEST_CASE(verdicts_do_not_depend_on_threads_shards_or_interruptions, Workplace) {
  const std::string sweep = "verify --suite smoke --variant '*sequence*' --dtype float32 --gate exp ";
  BOOST_REQUIRE(run(sweep + "--threads 1 --report whole").status == 0);
  const std::string whole = read_text_file(path / "whole/report.json");
  const std::string page = read_text_file(path / "whole/report.html");
  BOOST_TEST(run(sweep + "--shard 1/2 --report a").status == 0);
  BOOST_TEST(run(sweep + "--shard 2/2 --report b").status == 0);
  BOOST_TEST(read_text_file(path / "a/report.json") != whole);
  BOOST_TEST(run("report merge merged b a").status == 0);
  BOOST_TEST(read_text_file(path / "merged/report.json") == whole);
  BOOST_TEST((read_text_file(path / "merged/report.html") == page));
  BOOST_TEST(read_text_file(path / "merged/details.json") == read_text_file(path / "whole/details.json"));
  BOOST_TEST(read_text_file(path / "merged/summary.txt") == read_text_file(path / "whole/summary.txt"));
  BOOST_TEST(run("report merge half a").status == 2);

  // As if killed while writing a line: the report is not there yet, the journal is cut.
  const fs::path journal = path / "whole/journal.jsonl";
  fs::remove(path / "whole/report.json");
  fs::resize_file(journal, fs::file_size(journal) / 2);
  BOOST_TEST(run(sweep + "--report whole --resume").status == 0);
  BOOST_TEST(read_text_file(path / "whole/report.json") == whole);
  BOOST_TEST((read_text_file(path / "whole/report.html") == page));
  BOOST_TEST(run("verify " + kSmall + " --report whole --resume").status == 2);  // another selection
}

BOOST_FIXTURE_TEST_CASE(a_report_overwrites_nothing_that_is_no_report, Workplace) {
  const fs::path file = make_capture(*this);
  fs::create_directories(path / "mine");
  write("mine/report.html", "mine");
  const std::string before = "holds report.html, and no report of this program";
  for (const std::string& command :
       {"verify " + kSmall + " --report mine", "verify --captures '" + file.string() + "' --report mine",
        std::string("report merge mine mine"), std::string("mutate --report mine")}) {
    const Result result = run(command);
    BOOST_TEST(result.status == 2, command);
    BOOST_TEST(contains(result.err, before), result.err);
    BOOST_TEST(result.out.empty(), result.out);  // nothing was run
  }
  BOOST_TEST(read_text_file(path / "mine/report.html") == "mine");
  BOOST_TEST(std::distance(fs::directory_iterator(path / "mine"), fs::directory_iterator()) == 1);
}

BOOST_FIXTURE_TEST_CASE(the_report_of_an_interrupted_sweep_is_what_its_journal_has, Workplace) {
  const std::string sweep = "verify --suite smoke --variant '*sequence*' --dtype float32 --gate exp --report r";
  BOOST_REQUIRE(run(sweep).status == 0);
  const std::size_t all = report("r").size();
  // As if killed: no report, and half a journal.
  for (const char* name : {"report.json", "details.json", "report.html", "junit.xml", "summary.txt"})
    fs::remove(path / "r" / name);
  fs::resize_file(path / "r/journal.jsonl", fs::file_size(path / "r/journal.jsonl") / 2);
  const Result text = run("report r");
  BOOST_TEST(text.status == 2);
  BOOST_TEST(contains(text.err, "UNFINISHED: "), text.err);
  BOOST_TEST(contains(text.out, "UNFINISHED: "), text.out);
  BOOST_TEST(contains(text.out, " problems of r are done; mlstm verify --resume"), text.out);
  BOOST_TEST(contains(text.out, "outputs"), text.out);
  const Result json = run("report r --format json");
  BOOST_TEST(json.status == 2);
  const std::size_t some = parse_report(json.out, "stdout").size();
  BOOST_TEST((some > 0 && some < all));
  BOOST_TEST(contains(run("report r --format html").out, "<strong>UNFINISHED: "));
  BOOST_TEST(run(sweep + " --resume").status == 0);
  BOOST_TEST(run("report r").status == 0);
}

BOOST_FIXTURE_TEST_CASE(a_capture_passes_until_one_number_is_wrong, Workplace) {
  const fs::path file = make_capture(*this);
  BOOST_TEST(run("verify --captures captures --require-all").status == 0);
  const Case c = read_case(file);
  BOOST_TEST(c.kernel->variant == kVariant);
  BOOST_TEST((c.kernel->formulation == mlstm::Module::chunkwise));
  BOOST_TEST(std::get<std::string>(c.kernel->attributes.at("source")) == program_source());

  for (const double wrong : {1.0, std::nan(""), HUGE_VAL}) {
    changed(*this, file, [&](Case& copy) { copy.kernel->gradients.at("k").data()[5] = wrong; });
    const Result result = run("verify --captures changed.h5 --report r");
    BOOST_TEST(result.status == 1);
    BOOST_TEST(contains(result.out, "\n            mlstm verify --captures changed.h5\n"));
    for (const Item& item : report("r")) BOOST_CHECK((item.status == Status::FAIL) == (item.tensor == "dk"));
  }
}

BOOST_FIXTURE_TEST_CASE(expected_verdicts_succeed_and_others_are_named, Workplace) {
  const fs::path file = make_capture(*this);
  changed(*this, file, [](Case& c) {
    c.name = "broken";
    c.kernel->gradients.at("k") *= 2.0;
  });
  run("verify --captures changed.h5 --report r");
  write("expected.json", expectation_of(report("r")));
  const Result met = run("verify --captures changed.h5 --expect expected.json");
  BOOST_TEST(met.status == 0, met.out);
  BOOST_TEST(contains(met.out, "FAIL (expected)  broken  dk"));
  BOOST_TEST(run("verify --captures changed.h5 --expect expected.json --report expected").status == 0);
  BOOST_TEST(contains(read_text_file(path / "expected/junit.xml"), " failures=\"0\" errors=\"0\" skipped=\"1\""));
  BOOST_TEST(contains(read_text_file(path / "expected/report.html"), "tensors are as expected: 1 did not pass"));
  BOOST_TEST(run("report expected").status == 0);

  // The broken tensor passes now: whoever stops catching it is told.
  std::string text = read_text_file(path / "expected.json");
  write("passing.json", text.replace(text.find("FAIL"), 4, "PASS"));
  const Result missed = run("verify --captures changed.h5 --expect passing.json");
  BOOST_TEST(missed.status == 1);
  BOOST_TEST(contains(missed.out, "UNEXPECTED  broken dk: expected PASS, got FAIL"));
  // Cases beyond the expectation have to pass; an expectation without verdict.
  const std::string both = "verify --captures changed.h5 '" + file.string() + "' --expect ";
  BOOST_TEST(run(both + "expected.json").status == 0);
  write("none.json", "{}");
  const Result beyond = run(both + "none.json");
  BOOST_TEST(beyond.status == 1);
  BOOST_TEST(contains(beyond.out, "UNEXPECTED  broken dk: expected PASS, got FAIL"));
  fs::create_directories(path / "empty");
  BOOST_TEST(run("verify --captures empty --expect expected.json").status == 1);
}

BOOST_FIXTURE_TEST_CASE(an_unreadable_file_is_status_2_and_the_others_are_judged, Workplace) {
  make_capture(*this);
  write("captures/broken.h5", "no HDF5");
  const Result result = run("verify --captures captures absent --report r");
  BOOST_TEST(result.status == 2);
  BOOST_TEST(contains(result.err, "broken.h5"));
  BOOST_TEST(contains(result.err, "absent"));
  BOOST_TEST(report("r").size() == 9u);
}

BOOST_FIXTURE_TEST_CASE(a_capture_that_differs_from_its_manifest_is_not_judged, Workplace) {
  const fs::path file = make_capture(*this);
  Case c = read_case(file);
  c.kernel->outputs.at("h") *= 2.0;
  write_case(c, file);
  const Result result = run("verify --captures captures");
  BOOST_TEST(result.status == 2);
  BOOST_TEST(contains(result.err, "MANIFEST"));
}

BOOST_FIXTURE_TEST_CASE(a_missing_tensor_or_kernel_fails_only_where_it_is_required, Workplace) {
  const fs::path file = make_capture(*this);
  changed(*this, file, [](Case& c) { c.kernel->outputs.erase("h"); });
  BOOST_TEST(run("verify --captures changed.h5").status == 0);
  BOOST_TEST(run("verify --captures changed.h5 --require-all").status == 1);

  BOOST_REQUIRE(run("fixtures generate --out open " + kSmall).status == 0);
  const Result open = run("verify --captures open");
  BOOST_TEST(open.status == 3);
  BOOST_TEST(contains(open.err, "1 of 1 files hold nothing of a kernel"));
  BOOST_TEST(run("verify --captures open --require-all").status == 1);
  const Result named = run("verify --captures open/*.h5");
  BOOST_TEST(named.status == 1);
  BOOST_TEST(contains(named.out, "holds no /kernel"));
}

BOOST_FIXTURE_TEST_CASE(a_gradient_of_unknown_convention_is_judged_under_the_one_that_fits, Workplace) {
  const fs::path file = make_capture(*this);
  changed(*this, file, [](Case& c) { c.kernel->convention.reset(); });
  BOOST_REQUIRE(run("verify --captures changed.h5 --report r").status == 0);
  for (const Item& item : report("r"))
    if (item.tensor == "dq") BOOST_TEST(item.convention == "exact");
  const Result other = run("verify --captures changed.h5 --convention detached");
  BOOST_TEST(other.status == 1);
  BOOST_TEST(contains(other.out, "this is the exact gradient"));
  BOOST_TEST(contains(other.out, "mlstm verify --captures changed.h5 --convention detached\n"));
}

BOOST_FIXTURE_TEST_CASE(a_stored_reference_that_disagrees_is_an_error, Workplace) {
  const fs::path file = make_capture(*this);
  BOOST_REQUIRE(run("reference '" + file.string() + "' with.h5").status == 0);
  BOOST_TEST(run("verify --captures with.h5").status == 0);
  changed(*this, path / "with.h5", [](Case& c) { c.reference->detached.at("i").data()[7] += 1e-6; });
  const Result result = run("verify --captures changed.h5 --report r");
  BOOST_TEST(result.status == 1);
  for (const Item& item : report("r")) BOOST_CHECK((item.status == Status::ERROR) == (item.tensor == "di"));
}

BOOST_FIXTURE_TEST_CASE(reference_keeps_the_file_and_adds_the_solution, Workplace) {
  const fs::path file = make_capture(*this);
  changed(*this, file, [](Case& c) { c.attributes["remark"] = std::string("mine"); });
  const Case before = read_case(path / "changed.h5");
  for (const char* how : {"", "--formulation recurrent", "--formulation parallel --backward autograd",
                          "--formulation chunkwise --chunk-size 5"}) {
    BOOST_REQUIRE(run(std::string("reference changed.h5 out.h5 ") + how).status == 0);
    const Case after = read_case(path / "out.h5");
    BOOST_TEST(after.name == before.name);
    BOOST_TEST(std::get<std::string>(after.attributes.at("remark")) == "mine");
    BOOST_CHECK(after.inputs == before.inputs && after.cotangents == before.cotangents);
    BOOST_CHECK(after.kernel->outputs == before.kernel->outputs);
    BOOST_TEST(after.reference->outputs.size() == 4u);
    BOOST_TEST(after.reference->exact.size() == 5u);
    BOOST_TEST(after.reference->detached.size() == 5u);
    BOOST_TEST(run("verify --captures out.h5").status == 0);
  }
  BOOST_REQUIRE(run("reference out.h5 out.h5").status == 0);  // in place
  BOOST_TEST(read_case(path / "out.h5").reference.has_value());
}

BOOST_FIXTURE_TEST_CASE(reference_without_cotangents_gives_outputs_only, Workplace) {
  const fs::path file = make_capture(*this);
  changed(*this, file, [](Case& c) {
    c.cotangents.clear();
    c.kernel.reset();
  });
  BOOST_REQUIRE(run("reference changed.h5 out.h5").status == 0);
  const Case c = read_case(path / "out.h5");
  BOOST_TEST(c.reference->outputs.size() == 4u);
  BOOST_TEST(c.reference->exact.empty());
  BOOST_TEST(c.reference->detached.empty());
}

BOOST_FIXTURE_TEST_CASE(a_problem_that_cannot_fit_is_refused_and_not_run_for_an_explanation, Workplace) {
  const std::string sweep =
      "verify --variant recurrent--sequence_eigen_ownbw --case "
      "regime=standard,dtype=float64,S=100000000,DHQK=64,DHV=64 ";
  for (const char* options : {"--explain --shrink 5", "--property determinism", "--in-process"}) {
    const Result result = run(sweep + options);
    BOOST_TEST(result.status == 1, options);
    BOOST_TEST(contains(result.out, "not run: needs about"), options << ": " << result.out);
    BOOST_TEST(!contains(result.out, "shrunken"), options);
  }
}

BOOST_FIXTURE_TEST_CASE(fixtures_are_generated_checked_and_described, Workplace) {
  const Result many = run("fixtures generate --suite golden --dtype float32 --out many");
  BOOST_TEST(many.status == 0);
  BOOST_TEST(!contains(many.err, "did not pass"), many.err);  // nothing is judged
  BOOST_REQUIRE(run("fixtures generate --out f " + kSmall).status == 0);
  const std::vector<fs::path> files = find_case_files({path / "f"});
  BOOST_REQUIRE(files.size() == 1);
  BOOST_TEST(run("fixtures check f").status == 0);
  const Result info = run("fixtures info f");
  BOOST_TEST(info.status == 0);
  BOOST_TEST(contains(info.out, "DHQK"));
  changed(*this, files.front(), [](Case& c) { c.reference->exact.at("q").data()[3] += 1.0; });
  const Result drift = run("fixtures check changed.h5");
  BOOST_TEST(drift.status == 1);
  BOOST_TEST(contains(drift.out, "DRIFT  "));
  BOOST_TEST(contains(drift.out, "exact/q"));
}

BOOST_FIXTURE_TEST_CASE(gradcheck_passes_and_reports_what_exceeds_the_tolerance, Workplace) {
  const std::string tiny =
      "gradcheck --formulation recurrent --case \"regime=standard,dtype=float64,S=3,DHQK=2,DHV=2,L=2\" ";
  const Result passed = run(tiny);
  BOOST_TEST(passed.status == 0, passed.out << passed.err);
  BOOST_TEST(contains(passed.out, "10 gradients checked: 10 PASS, 0 FAIL"));
  const Result failed = run(tiny + "--tolerance 0");
  BOOST_TEST(failed.status == 1);
  BOOST_TEST(contains(failed.out, "FAIL  mlstm gradcheck --formulation recurrent --case \"regime=standard"));
  BOOST_TEST(run("gradcheck --case \"regime=standard,dtype=float64,S=500,DHQK=64,DHV=64\"").status == 3);
}
