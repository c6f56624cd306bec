// SPDX-License-Identifier: Apache-2.0
// Sweeps: many variants over many problems, and recorded captures; planning, running, resuming, merging.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/text.hpp"
#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "mlstm/kernel.hpp"
#include "report/report.hpp"
#include "runner/runner.hpp"

namespace mlstm::verify {

/// One run of a variant on a problem.
struct Run {
  const Kernel* kernel = nullptr;
  std::optional<Convention> convention;  ///< of the backward pass; absent: forward only
  bool judge_outputs = true;             ///< false where another run of the same variant has judged the same outputs
};

/// "exact" or "detached", the convention of its backward pass, or "forward".
std::string_view name_of(const Run& run);

/// Every run on one problem; they share its reference.
struct ProblemRuns {
  ProblemSpec spec;
  std::vector<Run> runs;
};

/// A check of one property (properties.hpp) of one variant on one problem, under the run's convention if it has one.
struct PropertyCheckup {
  ProblemSpec spec;
  Run run;
  std::string property;
};

/// A variant that this machine cannot run, to which a property does not apply, or which does not take some problems.
struct CannotRun {
  const Kernel* kernel = nullptr;
  std::string property;  ///< that does not apply, or whose problems they are; empty: nothing can run
  std::string reason;
  std::optional<Declined> declined = {};
  std::optional<ProblemSpec> admitted = {};  ///< the first of them, if the declaration admits them: that is an ERROR
};

/// The smallest piece of a sweep.
struct Unit {
  std::int64_t index = 0;  ///< position in the whole plan, shards included
  std::variant<ProblemRuns, PropertyCheckup, CannotRun> work;

  /// The work if it is of this kind, else null.
  const ProblemRuns* problem() const { return std::get_if<ProblemRuns>(&work); }
  const CannotRun* cannot_run() const { return std::get_if<CannotRun>(&work); }
};

struct Plan {
  std::vector<Unit> units;
  std::vector<std::string> unselected;  ///< "<key>: <reason>": variants that support none of the problems
  std::vector<CannotRun> declined;      ///< what variants did not take, no units: add_declined makes them such
  std::string id;                       ///< digest of everything that is planned
};

/// Appends a unit; its index and the plan's id follow.
void extend(Plan& plan, decltype(Unit::work) work);

/// Makes units of plan.declined, so that reports say what was not run.
void add_declined(Plan& plan);

/// Problems that one variant does not take.
class Refusals {
 public:
  explicit Refusals(const Kernel& kernel) : kernel_(kernel) {}
  void took() { ++selected_; }
  /// `reason`: what the variant said of the problem.
  void declined(const ProblemSpec& spec, const std::string& reason);
  /// What to report: those that the declaration rules out, and those that it admits.
  std::vector<CannotRun> report(const std::string& property = {}) const;

 private:
  /// Some problems that were declined alike.
  struct Reason {
    std::string text;  ///< as said of the first of them
    std::int64_t problems = 0;
  };
  struct Group {
    std::vector<std::pair<std::string, Reason>> reasons;  ///< by what makes them alike
    std::int64_t problems = 0;
    std::optional<ProblemSpec> first;
    void add(const std::string& kind, const std::string& reason, const ProblemSpec& spec);
    std::string text() const;
  };
  const Kernel& kernel_;
  std::int64_t selected_ = 0;
  Group ruled_out_, admitted_;
};

/// `spec` with a stabilizer_init that the variant has, where the outcome depends on it.
ProblemSpec adapted(ProblemSpec spec, const VariantInfo& info);
/// As verify::unavailable(const Kernel&).
using UnavailableFunction = std::function<std::string(const Kernel&)>;

/// Which runs to make. A problem whose outcome depends on stabilizer_init is planned for each variant with one that
/// the variant has, if `adapt`; else only variants that support it exactly as it is take it. A variant that declares
/// both gradient conventions runs under both, or under `convention` alone if given.
Plan make_plan(const std::vector<const Kernel*>& kernels, const std::vector<ProblemSpec>& specs, bool adapt,
               std::optional<Convention> convention = {},
               const UnavailableFunction& why_unavailable = static_cast<std::string (*)(const Kernel&)>(unavailable));

/// Part `number` (from 1) of `count`; the parts are disjoint and make up the plan.
std::vector<Unit> shard_of(const Plan& plan, std::int64_t number, std::int64_t count);

/// A verdict, and what is needed to combine it with others.
struct Record {
  Item item;
  std::string dtype;      ///< of the problem
  std::int64_t unit = 0;  ///< index of its unit
};

class AppendFile;
class DirectoryLock;

/// Append-only record of the units that are done, one JSON line each, so that a killed sweep can go on and shards can
/// be merged. The first line describes the plan.
///
/// A unit is acknowledged when its line is in the file, end included: from then on it survives whatever ends the
/// process, SIGKILL too, and is never computed again. A power failure can take the last second of them, which are then
/// computed again. One process at a time writes into a directory.
class Journal {
 public:
  /// Begins a new journal in `directory`, or with `resume` goes on with the one there, if any; an unfinished last line
  /// is dropped. Throws FileError, also if the journal there belongs to another plan or shard, or if another process is
  /// writing there.
  Journal(const std::filesystem::path& directory, const Plan& plan, const std::vector<Unit>& units,
          const std::string& shard, bool resume);
  ~Journal();

  const std::map<std::int64_t, std::vector<Record>>& done() const { return done_; }

  /// Adds a finished unit; in the file when it returns. Throws FileError, with the file as it was.
  void append(const Unit& unit, const std::vector<Record>& records);

  /// Waits until a power failure cannot take anything any more. Throws FileError.
  void sync();

 private:
  std::filesystem::path path_;
  std::unique_ptr<DirectoryLock> lock_;
  std::unique_ptr<AppendFile> file_;
  std::map<std::int64_t, std::vector<Record>> done_;
};

struct SweepOptions {
  int threads = 0;  ///< 0: one per core. Verdicts do not depend on it
  RunOptions run{.repeats = 1};
  RunFunction runner = run_kernel;
  std::optional<std::uint64_t> worker_memory;    ///< bytes that a process that runs kernels may use, 0: any; absent:
                                                 ///< kernels run in this process
  std::vector<std::string> exposed;              ///< Item::exposed of everything that is run
  std::uint64_t large = std::uint64_t{1} << 31;  ///< bytes from which on a problem that is run is told to on_notice
  std::function<void(const std::string&)> on_notice;  ///< a line on a problem that needs much memory, before it starts
  Journal* journal = nullptr;                         ///< units done there are not run again
  std::function<void(const Unit&, const std::vector<Record>&)> on_unit_done;  ///< one call at a time
};

/// Runs and judges. Never throws for what a kernel does: a write outside a buffer, a dependence on undefined memory and
/// results that differ from run to run are FAIL, anything else that stops a run is an ERROR. A run that needs more
/// memory than there is, is an ERROR before it starts.
std::vector<Record> run_sweep(const std::vector<Unit>& units, const SweepOptions& options);

/// One run on the problem `spec`, judged as `judging` says, but under the run's convention; c.kernel then holds what it
/// gave, or nothing if it was stopped. `reference` is that of the problem. Never throws for what a kernel does (see
/// run_sweep).
std::vector<Item> judge_run(const ProblemSpec& spec, const Run& run, Case& c, const ReferenceData& reference,
                            JudgeOptions judging, const SweepOptions& options);

/// Calls body(unit, threads to use) for every unit: small ones side by side, large ones one after the other.
void for_each_unit(const std::vector<Unit>& units, int threads, const std::function<void(const Unit&, int)>& body);

/// The line that reproduces one run, or one check of a property.
std::string repro_line(const ProblemSpec& spec, const Run& run, std::string_view property = {});

/// Turns a PASS into MISTRUSTED where a variant's tensor (by dtype and convention) is trivial in every problem, zero by
/// definition apart, so that no problem could have seen a wrong answer (contract §6).
void mistrust(std::vector<Record>& records);

/// What a sweep found.
struct Verdicts {
  std::vector<Item> items;
  std::string remarks;  ///< list_hidden_wrong_answers
};

/// Final verdicts: mistrusted where needed, in the order of the plan; sorted by variant first if grouped by it. Without
/// `whole` the records are those of a shard, which cannot tell what the other shards see: nothing is mistrusted.
Verdicts finish(std::vector<Record> records, GroupBy by, bool whole = true);

/// Which wrong answers the bounds could not have told from the right ones (Item::hides), by regime, or by case if
/// reports have a block for each. Empty if none.
std::string list_hidden_wrong_answers(const std::vector<Record>& records, GroupBy by = GroupBy::variant);

/// Items of several report directories as one: journals of shards are combined as if they had been one sweep; a report
/// without a journal is taken as it is. Throws FileError for an unfinished journal, missing or repeated shards.
Verdicts merge_reports(const std::vector<std::filesystem::path>& directories);

/// What a directory, or a report.json, holds.
struct FoundReport {
  std::vector<Item> items;
  std::string unfinished;  ///< empty, or for a sweep that was interrupted: "12 of 97 problems of DIR are done; ..."
};

/// Reads a report (with its details if wanted) or, in a directory without one, what the journal there has; of an
/// unfinished sweep nothing is mistrusted. Throws FileError.
FoundReport find_report(const std::filesystem::path& path, bool with_details);

/// What a capture is judged by, and the options as they stand on the command line, for the reproduction line.
struct Symptoms;

struct CaptureOptions {
  JudgeOptions judge;
  Symptoms* symptoms = nullptr;  ///< where what the file says of its kernel goes (doctor.hpp), if it is wanted
  bool find_mistakes = false;    ///< compare failing tensors with known mistakes (mistakes.hpp)
  bool named_alone = true;       ///< named itself, not found in a directory: then lacking a /kernel is an ERROR
  int threads = 0;
};

/// Judges one capture against a reference computed anew; a stored /reference that disagrees by more than the bound of
/// float64 is an ERROR. Everything in a capture that this program recorded from other source is STALE (why_stale).
/// Empty if the file holds nothing of a kernel and was found in a directory. Throws FileError if it cannot be read.
std::vector<Record> judge_capture(const std::filesystem::path& path, const CaptureOptions& options);

}  // namespace mlstm::verify
