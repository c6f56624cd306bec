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

/// The verdict on a run that produced nothing to judge. It stands for all tensors of the run, under the name of the
/// first of them.
Item stopped(const Unit& unit, const Run& run, Status status, const std::string& why) {
  Item item;
  item.variant = run.kernel->info().key();
  item.tensor = std::string("h");
  item.status = status;
  item.note = why;
  if (unit.unavailable.empty()) {
    item.case_name = case_name(unit.spec);
    item.repro = repro_line(unit.spec, run, unit.property);
  } else {
    item.case_name = std::string("all");
  }
  if (!unit.property.empty())
    item.case_name = "property:" + unit.property + (unit.unavailable.empty() ? "/" + item.case_name : "");
  return item;
}

/// The verdict for the exception that is being handled.
Item why_stopped(const Unit& unit, const Run& run, const RunOptions& how) {
  try {
    throw;
  } catch (const std::runtime_error& error) {
    Item item = stopped(unit, run, Status::FAIL, error.what());
    if (how.repeats != SweepOptions{}.run.repeats) item.repro += fmt::format(" --repeat {}", how.repeats);
    if (!how.guarded) item.repro += " --unguarded";
    return item;
  } catch (const TimeoutError& error) {
    return stopped(unit, run, Status::TIMEOUT, error.what());
  } catch (const std::exception& error) {
    return stopped(unit, run, Status::ERROR, reason_of(error));
  }
}

}  // namespace

std::vector<Item> judge_run(const Unit& unit, const Run& run, Case& c, const ReferenceData& reference,
                            JudgeOptions judging, const SweepOptions& sweep) {
  c.kernel.reset();
  try {
    c.kernel = sweep.runner(*run.kernel, c, run.convention, sweep.run);
  } catch (...) {
    return {why_stopped(unit, run, sweep.run)};
  }
  if (!run.judge_outputs) c.kernel->outputs.clear();
  judging.convention = run.convention;
  std::vector<Item> items = judge(c, reference, judging);
  for (Item& item : items) {
    item.variant = run.kernel->info().key();
    item.case_name = c.name;
    item.repro = repro_line(unit.spec, run);
  }
  return items;
}

namespace {

std::vector<Item> check_unit(const Unit& unit, int threads, const SweepOptions& sweep) {
  const Run& run = unit.runs.front();
  try {
    std::vector<Item> items = check_property(unit.property, *run.kernel, unit.spec,
                                             {run.convention, threads, sweep.run.guarded, sweep.runner});
    for (Item& item : items) item.repro = repro_line(unit.spec, run, unit.property);
    return items;
  } catch (...) {
    return {why_stopped(unit, run, sweep.run)};
  }
}

/// For each run of the unit why its memory cannot suffice, or nothing; says what a large problem needs.
std::vector<std::string> check_memory(const Unit& unit, int threads, const SweepOptions& sweep) {
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

std::vector<Record> run_unit(const Unit& unit, int threads, const SweepOptions& sweep, const PictureKeeper& keeper) {
  std::vector<Record> records;
  if (!unit.unavailable.empty()) {
    records.push_back({stopped(unit, unit.runs.front(), Status::SKIPPED, unit.unavailable), {}, {}, unit.index});
    return records;
  }
  const std::string dtype(to_string(unit.spec.problem.dtype));
  const auto add = [&](const Item& item) { records.push_back({item, dtype, unit.spec.regime, unit.index}); };
  if (!unit.property.empty()) {
    for (const Item& item : check_unit(unit, threads, sweep)) add(item);
    return records;
  }
  const std::vector<std::string> too_large = check_memory(unit, threads, sweep);
  if (std::none_of(too_large.begin(), too_large.end(), [](const std::string& reason) { return reason.empty(); })) {
    for (std::size_t n = 0; n < unit.runs.size(); ++n) add(stopped(unit, unit.runs[n], Status::ERROR, too_large[n]));
    return records;
  }
  std::size_t next = 0;
  try {
    Case c = make_case(unit.spec);
    c.name = case_name(unit.spec);
    reference::Options options;
    options.threads = threads;
    const ReferenceData reference = evaluate_reference(c, options);
    Yardsticks known;
    JudgeOptions judging;
    judging.threads = threads;
    judging.known = &known;
    judging.wants_picture = [&](const Item& item) { return keeper.wants(item, c.problem.dtype, unit.index); };
    for (; next < unit.runs.size(); ++next)
      if (!too_large[next].empty())
        add(stopped(unit, unit.runs[next], Status::ERROR, too_large[next]));
      else
        for (const Item& item : judge_run(unit, unit.runs[next], c, reference, judging, sweep)) add(item);
  } catch (const std::exception& error) {
    for (; next < unit.runs.size(); ++next) add(stopped(unit, unit.runs[next], Status::ERROR, reason_of(error)));
  }
  return records;
}

bool is_trivial(const Item& item) { return item.note.find("trivial") != std::string::npos; }
bool is_zero_by_definition(const Item& item) { return item.note.find("zero by definition") != std::string::npos; }

}  // namespace

void for_each_unit(const std::vector<Unit>& units, int threads, const std::function<void(const Unit&, int)>& body) {
  std::vector<const Unit*> small, large;
  for (const Unit& unit : units)
    (elements_of(unit.spec.problem.shape) > kLargeProblem ? large : small).push_back(&unit);
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
    const std::string property = is_property(item) ? item.case_name.substr(0, item.case_name.find('/')) : "";
    return std::tuple(item.variant, record.dtype, item.tensor, item.convention, property);
  };
  std::set<decltype(group_of(records.front()))> telling;  // groups in which some problem could see a wrong answer
  for (const Record& record : records)
    if (record.item.status != Status::SKIPPED && !is_trivial(record.item)) telling.insert(group_of(record));
  for (Record& record : records) {
    Item& item = record.item;
    if (item.status != Status::PASS || !is_trivial(item) || is_zero_by_definition(item)) continue;
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
  verdicts.remarks = list_hidden_wrong_answers(records, by == GroupBy::variant ? "regimes" : "cases");
  for (Record& record : records) verdicts.items.push_back(std::move(record.item));
  return verdicts;
}

std::string list_hidden_wrong_answers(const std::vector<Record>& records, std::string_view noun) {
  std::set<std::string> regimes;
  std::map<std::string, std::map<std::string, std::set<std::string>>> hidden;  // wrong answer -> regime -> tensors
  for (const Record& record : records) {
    if (is_property(record.item)) continue;
    if (record.item.status != Status::SKIPPED) regimes.insert(record.regime);
    for (const std::string& wrong : record.item.hides) hidden[wrong][record.regime].insert(record.item.tensor);
  }
  if (hidden.empty()) return {};
  std::string text = "Wrong answers that a bound would hide in some problem:\n";
  for (const auto& [wrong, places] : hidden) {
    text += fmt::format("  {:<9} in {} of {} {}:", wrong, places.size(), regimes.size(), noun);
    for (const auto& [regime, tensors] : places) text += fmt::format(" {} ({})", regime, fmt::join(tensors, " "));
    text += "\n";
  }
  return text + "\n";
}

}  // namespace mlstm::verify
