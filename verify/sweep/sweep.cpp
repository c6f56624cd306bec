// SPDX-License-Identifier: Apache-2.0
#include "sweep/sweep.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <set>
#include <tuple>

#include "base/memory.hpp"
#include "mlstm/parallel_for.hpp"
#include "properties/properties.hpp"
#include "runner/kernel_needs.hpp"
#include "runner/runner.hpp"
#include "sweep/picture_keeper.hpp"

namespace mlstm::verify {
namespace {

/// Problems with more elements than this are evaluated one at a time, with all threads inside, to bound memory.
constexpr std::int64_t kLargeProblem = std::int64_t{1} << 20;

std::int64_t elements_of(const Shape& shape) {
  return shape.heads() * (shape.S * (shape.DHQK + shape.DHV) + shape.DHQK * shape.DHV);
}

/// What a run on `spec` (a check of `property`, if one is named) makes of its item, whatever it gave.
void set_run(Item& item, const ProblemSpec& spec, const Run& run, const std::string& property) {
  item.variant = run.kernel->info().key();
  item.regime = spec.regime;
  item.problem = spec;
  item.property = property;
  if (property.empty()) item.run = name_of(run);  // a property is checked in several
  item.repro = repro_line(spec, run, property);
}

/// How a reproduction line has to ask for what all runs of a sweep are given.
void set_options(Item& item, const RunOptions& how) {
  if (how.accept_nondeterminism) item.repro += " --accept-nondeterminism";
}

/// The verdict on a run that produced nothing to judge. It stands for all tensors of the run, under the name of the
/// first of them.
Item stopped(const ProblemSpec& spec, const Run& run, const std::string& property, Status status, std::string check,
             const std::string& why) {
  Item item;
  set_run(item, spec, run, property);
  item.case_name = (property.empty() ? "" : "property:" + property + "/") + case_name(spec);
  item.tensor = std::string("h");
  item.status = status;
  item.check = std::move(check);
  item.note = why;
  return item;
}

Item not_run(const CannotRun& unit) {
  Item item;
  item.variant = unit.kernel->info().key();
  item.case_name = unit.property.empty() ? std::string("all") : "property:" + unit.property;
  item.tensor = std::string("h");
  item.status = unit.admitted ? Status::ERROR : Status::SKIPPED;
  item.property = unit.property;
  item.note = unit.reason;
  item.declined = unit.declined;
  if (item.declined) item.case_name = unit.property.empty() ? "declined" : "property:" + unit.property + "/declined";
  if (unit.admitted) {
    item.check = "declined";
    item.regime = unit.admitted->regime;
    item.problem = unit.admitted;
    item.repro = repro_line(*unit.admitted, {unit.kernel, {}}, unit.property);
  }
  return item;
}

/// The verdict for the exception that is being handled.
Item why_stopped(const ProblemSpec& spec, const Run& run, const std::string& property, const RunOptions& how) {
  const auto failed = [&](std::string check, const char* what) {
    Item item = stopped(spec, run, property, Status::FAIL, std::move(check), what);
    if (how.repeats != SweepOptions{}.run.repeats) item.repro += fmt::format(" --repeat {}", how.repeats);
    if (!how.guarded) item.repro += " --unguarded";
    set_options(item, how);
    return item;
  };
  try {
    throw;
  } catch (const CheckFailure& failure) {
    Item item = failed(std::string(to_string(failure.check())), failure.what());
    // The tensor in which it was seen, if it is one that is judged.
    if (std::find(kTensors.begin(), kTensors.end(), failure.buffer()) != kTensors.end()) {
      item.tensor = failure.buffer();
      if (item.tensor.starts_with('d') && run.convention) item.convention = to_string(*run.convention);
    }
    return item;
  } catch (const std::runtime_error& error) {
    return failed("exception", error.what());
  } catch (const TimeoutError& error) {
    return stopped(spec, run, property, Status::TIMEOUT, "timeout", error.what());
  } catch (const std::exception& error) {
    return stopped(spec, run, property, Status::ERROR, "exception", reason_of(error));
  }
}

}  // namespace

std::string_view name_of(const Run& run) { return run.convention ? to_string(*run.convention) : "forward"; }

std::vector<Item> judge_run(const ProblemSpec& spec, const Run& run, Case& c, const ReferenceData& reference,
                            JudgeOptions judging, const SweepOptions& sweep) {
  c.kernel.reset();
  try {
    c.kernel = sweep.runner(*run.kernel, c, run.convention, sweep.run);
  } catch (...) {
    return {why_stopped(spec, run, {}, sweep.run)};
  }
  if (!run.judge_outputs) c.kernel->outputs.clear();
  judging.convention = run.convention;
  std::vector<Item> items = judge(c, reference, judging);
  for (Item& item : items) {
    set_run(item, spec, run, {});
    set_options(item, sweep.run);
    item.case_name = c.name;
  }
  return items;
}

namespace {

/// For each run of the unit why its memory cannot suffice, or nothing; says what a large problem needs.
std::vector<std::string> check_memory(const ProblemRuns& unit, int threads, const SweepOptions& sweep) {
  const std::uint64_t much = std::min(sweep.large, std::uint64_t{1} << 28);  // what needs less is not looked at
  const Problem& problem = unit.spec.problem;
  std::vector<std::string> reasons(unit.runs.size());
  std::optional<MemoryLimits> limits;
  std::string largest;
  std::uint64_t most = 0;
  for (std::size_t n = 0; n < unit.runs.size(); ++n) {
    const Kernel& kernel = *unit.runs[n].kernel;
    const bool gradients = unit.runs[n].convention.has_value();
    const VerifierNeeds own = verifier_needs(problem, unit.spec.cotangents, threads, kernel.info().module);
    const std::optional<KernelNeeds> others = kernel_needs(kernel, problem, gradients);
    const std::uint64_t together = own.total() + (others ? others->total() : 0);
    if (together < much) continue;
    if (!limits) limits = MemoryLimits{.worker = sweep.worker_memory};
    reasons[n] = why_too_large(own, others, *limits);
    if (!reasons[n].empty() || together <= most) continue;
    most = together;
    largest = needs_text(own, others);
  }
  if (sweep.on_notice && most > 0 && most >= sweep.large)
    sweep.on_notice(fmt::format("{} needs about {}", case_name(unit.spec), largest));
  return reasons;
}

std::vector<Item> check_unit(const PropertyCheckup& unit, int threads, const SweepOptions& sweep) {
  const auto& [spec, run, property] = unit;
  try {
    // What one run takes; a check keeps several results, so this is the least.
    Run largest = run;
    if (!largest.convention && spec.cotangents && !run.kernel->info().gradient_conventions.empty())
      largest.convention = run.kernel->info().gradient_conventions.front();
    if (const std::string reason = check_memory({spec, {largest}}, threads, sweep).front(); !reason.empty())
      return {stopped(spec, run, property, Status::ERROR, "memory", reason)};
    std::vector<Item> items =
        check_property(property, *run.kernel, spec,
                       {run.convention, threads, sweep.run.guarded, sweep.run.accept_nondeterminism, sweep.runner});
    for (Item& item : items) {
      set_run(item, spec, run, property);
      set_options(item, sweep.run);
    }
    return items;
  } catch (...) {
    return {why_stopped(spec, run, property, sweep.run)};
  }
}

std::vector<Item> run_unit(const ProblemRuns& unit, int threads, const SweepOptions& sweep,
                           const std::function<bool(const Item&)>& wants_picture) {
  std::vector<Item> items;
  const auto stop = [&](std::size_t n, const std::string& check, const std::string& reason) {
    items.push_back(stopped(unit.spec, unit.runs[n], {}, Status::ERROR, check, reason));
  };
  std::size_t next = 0;
  try {
    const std::vector<std::string> too_large = check_memory(unit, threads, sweep);
    if (std::none_of(too_large.begin(), too_large.end(), [](const std::string& reason) { return reason.empty(); })) {
      for (std::size_t n = 0; n < unit.runs.size(); ++n) stop(n, "memory", too_large[n]);
      return items;
    }
    Case c = make_case(unit.spec);
    c.name = case_name(unit.spec);
    reference::Options options;
    options.threads = threads;
    const ReferenceData reference = evaluate_reference(c, options);
    Yardsticks known;
    JudgeOptions judging;
    judging.threads = threads;
    judging.known = &known;
    judging.wants_picture = wants_picture;
    for (; next < unit.runs.size(); ++next)
      if (!too_large[next].empty())
        stop(next, "memory", too_large[next]);
      else
        for (Item& item : judge_run(unit.spec, unit.runs[next], c, reference, judging, sweep))
          items.push_back(std::move(item));
  } catch (const std::exception& error) {
    for (; next < unit.runs.size(); ++next) stop(next, "exception", reason_of(error));
  }
  return items;
}

/// Calls one of the functions for what kind of work a unit is.
template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

std::vector<Record> run_unit(const Unit& unit, int threads, const SweepOptions& sweep, const PictureKeeper& keeper) {
  std::string dtype;
  const std::vector<Item> items =
      std::visit(Overloaded{[&](const ProblemRuns& work) {
                              dtype = to_string(work.spec.problem.dtype);
                              return run_unit(work, threads, sweep, [&](const Item& item) {
                                return keeper.wants(item, work.spec.problem.dtype, unit.index);
                              });
                            },
                            [&](const PropertyCheckup& work) {
                              dtype = to_string(work.spec.problem.dtype);
                              return check_unit(work, threads, sweep);
                            },
                            [&](const CannotRun& work) { return std::vector<Item>{not_run(work)}; }},
                 unit.work);
  std::vector<Record> records;
  for (const Item& item : items) records.push_back({item, dtype, unit.index});
  return records;
}

std::int64_t elements_of(const Unit& unit) {
  return std::visit(Overloaded{[](const CannotRun&) { return std::int64_t{0}; },
                               [](const auto& work) { return elements_of(work.spec.problem.shape); }},
                    unit.work);
}

}  // namespace

void for_each_unit(const std::vector<Unit>& units, int threads, const std::function<void(const Unit&, int)>& body) {
  std::vector<const Unit*> small, large;
  for (const Unit& unit : units) (elements_of(unit) > kLargeProblem ? large : small).push_back(&unit);
  const bool side_by_side = threads != 1 && small.size() > 1;
  parallel_for(static_cast<std::int64_t>(small.size()), threads,
               [&](std::int64_t n) { body(*small[static_cast<std::size_t>(n)], side_by_side ? 1 : threads); });
  for (const Unit* unit : large) body(*unit, threads);
}

std::vector<Record> run_sweep(const std::vector<Unit>& units, const SweepOptions& options) {
  std::vector<Record> all;
  std::vector<Unit> open;
  PictureKeeper keeper;
  for (const Unit& unit : units) {
    if (options.journal == nullptr || !options.journal->done().contains(unit.index)) {
      open.push_back(unit);
      continue;
    }
    std::vector<Record> records = options.journal->done().at(unit.index);
    for (Record& record : records) keeper.add(record);
    all.insert(all.end(), records.begin(), records.end());
    if (options.on_unit_done) options.on_unit_done(unit, records);
  }
  std::mutex mutex;
  for_each_unit(open, options.threads, [&](const Unit& unit, int threads) {
    std::vector<Record> records = run_unit(unit, threads, options, keeper);
    if (unit.cannot_run() == nullptr)
      for (Record& record : records) record.item.exposed = options.exposed;
    const std::lock_guard lock(mutex);
    for (Record& record : records) keeper.add(record);
    if (options.journal != nullptr) options.journal->append(unit, records);
    all.insert(all.end(), records.begin(), records.end());
    if (options.on_unit_done) options.on_unit_done(unit, records);
  });
  return all;
}

void mistrust(std::vector<Record>& records) {
  const auto group_of = [](const Record& record) {
    const Item& item = record.item;
    return std::tuple(item.variant, record.dtype, item.tensor, item.convention, item.property);
  };
  std::set<decltype(group_of(records.front()))> telling;  // groups in which some problem could see a wrong answer
  for (const Record& record : records)
    if (record.item.status != Status::SKIPPED && !record.item.trivial) telling.insert(group_of(record));
  for (Record& record : records) {
    Item& item = record.item;
    if (item.status != Status::PASS || !item.trivial || item.zero_by_definition) continue;
    if (telling.contains(group_of(record))) continue;
    item.status = Status::MISTRUSTED;
    item.note += "; no selected " + record.dtype + " problem could have seen a wrong answer in this tensor";
  }
}

Verdicts finish(std::vector<Record> records, GroupBy by, bool whole) {
  if (whole) mistrust(records);
  PictureKeeper::prune(records);
  std::stable_sort(records.begin(), records.end(), [&](const Record& a, const Record& b) {
    if (by == GroupBy::variant && a.item.variant != b.item.variant) return a.item.variant < b.item.variant;
    return a.unit < b.unit;
  });
  Verdicts verdicts;
  verdicts.remarks = list_hidden_wrong_answers(records, by);
  for (Record& record : records) verdicts.items.push_back(std::move(record.item));
  return verdicts;
}

std::string list_hidden_wrong_answers(const std::vector<Record>& records, GroupBy by) {
  const bool by_regime = by == GroupBy::variant;
  std::set<std::string> rows;
  std::map<std::string, std::map<std::string, std::set<std::string>>> hidden;  // wrong answer -> row -> tensors
  for (const Record& record : records) {
    const Item& item = record.item;
    if (is_property(item)) continue;
    const std::string& row = by_regime ? item.regime : item.case_name;
    if (item.status != Status::SKIPPED) rows.insert(row);
    for (const std::string& wrong : item.hides) hidden[wrong][row].insert(item.tensor);
  }
  if (hidden.empty()) return {};
  std::string text = "Wrong answers that a bound would hide in some problem:\n";
  for (const auto& [wrong, places] : hidden) {
    text += fmt::format("  {:<9} in {} of {} {}:", wrong, places.size(), rows.size(), by_regime ? "regimes" : "cases");
    for (const auto& [regime, tensors] : places) text += fmt::format(" {} ({})", regime, fmt::join(tensors, " "));
    text += "\n";
  }
  return text + "\n";
}

}  // namespace mlstm::verify
