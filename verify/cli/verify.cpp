// SPDX-License-Identifier: Apache-2.0
// mlstm verify: judges variants over a suite of problems, or recorded captures.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <set>

#include "base/files.hpp"
#include "base/memory.hpp"
#include "cases/case_file.hpp"
#include "cli/cli.hpp"
#include "mlstm/parallel_for.hpp"
#include "properties/properties.hpp"
#include "report/report.hpp"
#include "sweep/doctor.hpp"
#include "sweep/expect.hpp"
#include "sweep/sweep.hpp"
#include "sweep/sweep_properties.hpp"

namespace mlstm::cli {
namespace {

using verify::Item;
using verify::Record;

struct Options {
  ProblemOptions problems;
  ThreadsOption threads;
  IsolationOptions isolation;
  std::vector<std::string> variants, captures, properties;
  std::string convention, operand_dtype, expect, report, shard, repeat;
  bool resume = false, require_all = false, unguarded = false, accepts_nondeterminism = false, with_properties = false,
       without_properties = false;
  ExplainArguments explain;

  /// Properties cost little beside these suites, and belong to what they promise. --shape makes the cost unknown.
  bool wants_properties() const {
    const bool by_default = (problems.suite == "standard" || problems.suite == "full") && problems.shapes.empty();
    return with_properties || !properties.empty() || (by_default && !without_properties);
  }

  std::optional<Convention> fixed_convention() const {
    if (convention.empty()) return {};
    return parse_convention(convention, "--convention");
  }
};

std::int64_t count_failures(const std::vector<Record>& records) {
  return std::count_if(records.begin(), records.end(), [](const Record& record) {
    return record.item.status != verify::Status::PASS && record.item.status != verify::Status::SKIPPED;
  });
}

/// "i/n" with 1 <= i <= n.
std::pair<std::int64_t, std::int64_t> parse_shard(const std::string& text) {
  if (text.empty()) return {1, 1};
  try {
    const std::size_t slash = text.find('/');
    if (slash == std::string::npos) throw std::invalid_argument("no slash");
    const std::int64_t count = parse_integer(std::string_view(text).substr(slash + 1), "", 1);
    const std::int64_t number = parse_integer(std::string_view(text).substr(0, slash), "", 1);
    if (number <= count) return {number, count};
  } catch (const std::invalid_argument&) {
  }
  throw std::invalid_argument(fmt::format("--shard is \"{}\"; expected i/n with 1 <= i <= n", text));
}

/// Writes the report and prints it; each even if the other fails.
std::vector<Item> publish(verify::Verdicts verdicts, verify::GroupBy by, const std::string& report) {
  auto& [items, remarks] = verdicts;
  std::exception_ptr error;
  try {
    if (!report.empty()) verify::write_report(items, by, remarks, report);
  } catch (const verify::FileError&) {
    error = std::current_exception();
  }
  fmt::print("{}", verify::to_text(items, by, remarks, text_width()));
  if (error) std::rethrow_exception(error);
  return std::move(items);
}

/// What is judged, then the properties. --property checks these alone.
verify::Plan plan_suite(const Options& options, Isolation& isolation) {
  const std::vector<const Kernel*> kernels = select_kernels(options.variants, isolation.plugins());
  verify::Plan plan;
  if (options.properties.empty())
    plan = verify::make_plan(kernels, options.problems.specs(), options.problems.cases.empty(),
                             options.fixed_convention());
  verify::add_declined(plan);
  if (options.wants_properties())
    verify::add_properties(plan, kernels,
                           {verify::select_properties(options.properties, "--property"), options.problems.selection(),
                            options.problems.named_cases(), options.fixed_convention(), isolation.unavailable()});
  return plan;
}

int verify_suite(const Options& options) {
  if (!options.report.empty()) verify::require_report_directory(options.report);
  const auto [number, count] = parse_shard(options.shard);
  if (options.resume && options.report.empty())
    throw std::invalid_argument("--resume needs --report; expected the directory of the sweep to go on with");
  const int threads = options.threads.value();
  std::optional<verify::ExplainOptions> explaining = options.explain.wanted();
  const std::int64_t repeats =
      options.repeat.empty() ? verify::SweepOptions{}.run.repeats : parse_integer(options.repeat, "--repeat", 0);
  Isolation isolation(options.isolation);
  verify::Plan plan = plan_suite(options, isolation);
  // Verdicts with and without it are not to be joined.
  if (options.accepts_nondeterminism) plan.id = verify::sha256_of(plan.id + "accept-nondeterminism");
  const std::vector<verify::Unit> units = verify::shard_of(plan, number, count);
  for (const std::string& line : plan.unselected)
    fmt::print(stderr, "not run, supports no selected problem: {}\n", line);

  std::optional<verify::Journal> journal;
  if (!options.report.empty())
    journal.emplace(options.report, plan, units, fmt::format("{}/{}", number, count), options.resume);
  std::vector<Record> records;
  verify::SweepOptions how;
  how.threads = threads;
  how.run.repeats = static_cast<int>(std::min<std::int64_t>(repeats, 1 << 20));
  how.run.guarded = !options.unguarded;
  how.run.accept_nondeterminism = options.accepts_nondeterminism;
  how.runner = isolation.runner();
  how.worker_memory = isolation.worker_memory();
  how.exposed = isolation.exposed();
  how.on_notice = print_error;
  {
    Progress progress("problems", static_cast<std::int64_t>(units.size()));
    how.journal = journal ? &*journal : nullptr;
    how.on_unit_done = [&](const verify::Unit&, const std::vector<Record>& done) {
      progress.advance(count_failures(done));
    };
    records = verify::run_sweep(units, how);
  }
  if (explaining) {
    explaining->sweep = how;
    verify::explain_failures(records, units, *explaining);
  }
  if (journal) journal->sync();
  verify::Verdicts verdicts = verify::finish(std::move(records), verify::GroupBy::variant, count == 1);
  if (count > 1)
    verdicts.remarks +=
        fmt::format("Shard {} of {}: whether some tensor is MISTRUSTED shows when all are joined by report merge.\n\n",
                    number, count);
  return verify::exit_status(publish(std::move(verdicts), verify::GroupBy::variant, options.report));
}

struct CaptureFile {
  std::filesystem::path path;
  bool named_alone;
};

/// The files that `paths` name, each once. Paths that do not exist are reported and set `unreadable`.
std::vector<CaptureFile> find_captures(const std::vector<std::string>& paths, bool& unreadable) {
  std::vector<CaptureFile> files;
  for (const std::string& path : paths) {
    try {
      std::error_code ignored;  // find_case_files says what is wrong
      const bool named_alone = !std::filesystem::is_directory(path, ignored);
      for (const auto& file : verify::find_case_files({path})) {
        const auto same =
            std::find_if(files.begin(), files.end(), [&](const CaptureFile& f) { return f.path == file; });
        if (same == files.end())
          files.push_back({file, named_alone});
        else
          same->named_alone |= named_alone;
      }
    } catch (const verify::FileError& error) {
      print_error(error.what());
      unreadable = true;
    }
  }
  return files;
}

/// Says last and aloud which variants have captures that say nothing about the source in the tree.
void print_stale(const std::vector<Item>& items) {
  std::map<std::string, std::set<std::string>> cases;
  for (const Item& item : items)
    if (item.status == verify::Status::STALE) cases[item.variant].insert(item.case_name);
  if (cases.empty()) return;
  fmt::print("\nSTALE CAPTURES: recorded from other source than this tree's. They have to be recorded again:\n");
  for (const auto& [variant, names] : cases)
    fmt::print("  {}: {} capture{}\n", variant, names.size(), names.size() > 1 ? "s" : "");
}

/// Prints what is as expected though it did not pass, and what is not.
void print_comparison(const std::vector<Item>& items, const std::vector<std::string>& different) {
  for (const Item& item : items)
    if (verify::is_expected_failure(item))
      fmt::print("{} (expected)  {}  {}\n", verify::to_string(item.status), item.case_name, item.tensor);
  for (const std::string& line : different) fmt::print("UNEXPECTED  {}\n", line);
  if (different.empty()) fmt::print("all {} verdicts are as expected\n", items.size());
}

int verify_captures(const Options& options) {
  if (!options.report.empty()) verify::require_report_directory(options.report);
  verify::CaptureOptions how;
  how.judge.convention = options.fixed_convention();
  if (!options.operand_dtype.empty()) how.judge.operand_dtype = parse_dtype(options.operand_dtype, "--operand-dtype");
  how.judge.require_all = options.require_all;
  how.find_mistakes = options.explain.stages;
  std::optional<verify::Expectation> expected;
  if (!options.expect.empty()) expected = verify::read_expectation(options.expect);

  bool unreadable = false;
  const std::vector<CaptureFile> files = find_captures(options.captures, unreadable);
  const int threads = options.threads.value();
  how.threads = files.size() > 1 && threads != 1 ? 1 : threads;
  std::vector<std::vector<Record>> records(files.size());
  std::vector<std::string> errors(files.size());
  std::vector<verify::Symptoms> symptoms(files.size());
  {
    Progress progress("files", static_cast<std::int64_t>(files.size()));
    std::mutex mutex;
    parallel_for(static_cast<std::int64_t>(files.size()), threads, [&](std::int64_t n) {
      const auto index = static_cast<std::size_t>(n);
      verify::CaptureOptions mine = how;
      mine.named_alone = files[index].named_alone;
      if (how.find_mistakes) mine.symptoms = &symptoms[index];
      try {
        records[index] = verify::judge_capture(files[index].path, mine);
      } catch (const verify::FileError& error) {
        errors[index] = error.what();
      } catch (const std::exception& error) {
        const std::string reason = verify::reason_of(error), name = files[index].path.string();
        errors[index] = reason.starts_with(name) ? reason : name + ": " + reason;
      }
      const std::lock_guard lock(mutex);
      progress.advance(count_failures(records[index]));
    });
  }
  std::vector<Record> all;
  std::size_t without_kernel = 0;
  for (std::size_t n = 0; n < files.size(); ++n) {
    if (!errors[n].empty()) {
      print_error(errors[n]);
      unreadable = true;
    } else if (records[n].empty()) {
      ++without_kernel;
    }
    for (Record& record : records[n]) {
      record.unit = static_cast<std::int64_t>(n);
      all.push_back(std::move(record));
    }
  }
  if (without_kernel > 0)
    fmt::print(stderr, "{} of {} files hold nothing of a kernel and were not judged\n", without_kernel, files.size());

  verify::Verdicts verdicts = verify::finish(std::move(all), verify::GroupBy::item_case);
  if (const std::string lines = verify::diagnose(symptoms); !lines.empty())
    verdicts.remarks += "\nWhat the files say of how each variant computes:\n" + lines;
  std::vector<std::string> different;
  if (expected) {
    different = verify::differences(*expected, verdicts.items);
    verify::compare_with(*expected, verdicts.items);
  }
  // An earlier sweep's journal there would speak for this report in "mlstm report merge".
  if (std::error_code ignored; !options.report.empty())
    std::filesystem::remove(std::filesystem::path(options.report) / "journal.jsonl", ignored);
  const std::vector<Item> items = publish(std::move(verdicts), verify::GroupBy::item_case, options.report);
  if (expected) print_comparison(items, different);
  print_stale(items);
  return unreadable ? kBadArguments : verify::exit_status(items);
}

}  // namespace

void add_verify(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command = app.add_subcommand(
      "verify",
      "Judges variants over a suite of problems, or recorded captures, element by element within error bounds");
  options->problems.add_to(*command);
  command->add_option("--variant", options->variants, "only variants whose key matches this glob; may be repeated")
      ->delimiter(',')
      ->group("Problems");
  const std::string property_group = "Properties";
  auto* with = command
                   ->add_flag("--properties", options->with_properties,
                              "check properties too: what one run of a variant says about another. Default with the "
                              "suites standard and full, unless --shape is given")
                   ->group(property_group);
  auto* without =
      command->add_flag("--no-properties", options->without_properties, "check none")->group(property_group);
  auto* property = command
                       ->add_option("--property", options->properties,
                                    "check only these properties (names or globs), on their own problems or on those "
                                    "of --case: " +
                                        fmt::format("{}", fmt::join(verify::select_properties({}), ", ")))
                       ->delimiter(',')
                       ->group(property_group);
  without->excludes(with)->excludes(property);
  property->excludes("--suite");
  const std::string captures = "Captures";
  auto* files =
      command
          ->add_option("--captures", options->captures,
                       "judge these mlstm-case files, and those below these directories, instead of running "
                       "variants. Files without /kernel: an error if named, left out (and counted) in directories")
          ->group(captures);
  command
      ->add_option("--operand-dtype", options->operand_dtype,
                   "what the matrix products read, e.g. tfloat32; overrides the capture's declaration")
      ->needs(files)
      ->group(captures);
  command->add_flag("--require-all", options->require_all, "an absent output or gradient is a failure")
      ->needs(files)
      ->group(captures);
  command
      ->add_option("--expect", options->expect,
                   "JSON object case -> tensor -> status: succeed if these are the verdicts, exactly, and all other "
                   "cases pass")
      ->needs(files)
      ->group(captures);
  command->add_option("--convention", options->convention,
                      "exact or detached: the only gradient convention to run, or to judge captures under");
  command->add_option("--report", options->report,
                      "directory for report.json, report.html, junit.xml, summary.txt and details.json");
  auto* shard =
      command->add_option("--shard", options->shard, "i/n: only part i (from 1) of n; report merge joins them");
  auto* resume =
      command->add_flag("--resume", options->resume, "go on with the interrupted sweep in the --report directory");
  auto* repeat = command->add_option("--repeat", options->repeat,
                                     "further runs whose results have to be the same bits, to find races; default 1");
  auto* accepting =
      command->add_flag("--accept-nondeterminism", options->accepts_nondeterminism,
                        "runs that differ in bits pass if they differ by no more than twice the error bound, as those "
                        "of a kernel with atomic sums do; how much they differ is reported");
  auto* unguarded = command->add_flag("--unguarded", options->unguarded,
                                      "no poison and no red zones, for compute-sanitizer: it sees more without");
  options->explain.add_to(*command);
  options->isolation.add_to(*command);
  options->threads.add_to(*command);
  for (const char* name :
       {"--suite", "--dtype", "--eps", "--gate", "--regime", "--shape", "--seed", "--case", "--variant", "--plugin",
        "--timeout", "--memory-limit", "--in-process", "--shrink", "--failures"})
    files->excludes(command->get_option(name));
  files->excludes(with)->excludes(without)->excludes(property);
  files->excludes(shard)->excludes(resume)->excludes(repeat)->excludes(unguarded)->excludes(accepting);
  command->callback(
      [options, &status] { status = options->captures.empty() ? verify_suite(*options) : verify_captures(*options); });
}

}  // namespace mlstm::cli
