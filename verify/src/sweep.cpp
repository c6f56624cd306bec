// SPDX-License-Identifier: Apache-2.0
#include "mlstm/verify/sweep.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <set>
#include <tuple>

#include "mlstm/parallel_for.hpp"
#include "mlstm/verify/runner.hpp"

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
    item.repro = repro_line(unit.spec, run);
  } else {
    item.case_name = std::string("all");
  }
  return item;
}

}  // namespace

std::vector<Item> judge_run(const Unit& unit, const Run& run, Case& c, const ReferenceData& reference,
                            Yardsticks& known, int threads, const SweepOptions& sweep) {
  const RunOptions& how = sweep.run;
  c.kernel.reset();
  try {
    c.kernel = sweep.runner(*run.kernel, c, run.convention, how);
  } catch (const std::runtime_error& error) {
    std::vector<Item> items{stopped(unit, run, Status::FAIL, error.what())};
    if (how.repeats != SweepOptions{}.run.repeats) items.front().repro += fmt::format(" --repeat {}", how.repeats);
    if (!how.guarded) items.front().repro += " --unguarded";
    return items;
  } catch (const std::exception& error) {
    return {stopped(unit, run, Status::ERROR, error.what())};
  }
  if (!run.judge_outputs) c.kernel->outputs.clear();
  JudgeOptions options;
  options.convention = run.convention;
  options.threads = threads;
  options.known = &known;
  std::vector<Item> items = judge(c, reference, options);
  for (Item& item : items) {
    item.variant = run.kernel->info().key();
    item.case_name = c.name;
    item.repro = repro_line(unit.spec, run);
  }
  return items;
}

namespace {

std::vector<Record> run_unit(const Unit& unit, int threads, const SweepOptions& sweep) {
  std::vector<Record> records;
  if (!unit.unavailable.empty()) {
    records.push_back({stopped(unit, unit.runs.front(), Status::SKIPPED, unit.unavailable), {}, {}, unit.index});
    return records;
  }
  const std::string dtype(to_string(unit.spec.problem.dtype));
  const auto add = [&](const Item& item) { records.push_back({item, dtype, unit.spec.regime, unit.index}); };
  std::size_t next = 0;
  try {
    Case c = make_case(unit.spec);
    c.name = case_name(unit.spec);
    reference::Options options;
    options.threads = threads;
    const ReferenceData reference = evaluate_reference(c, options);
    Yardsticks known;
    for (; next < unit.runs.size(); ++next)
      for (const Item& item : judge_run(unit, unit.runs[next], c, reference, known, threads, sweep)) add(item);
  } catch (const std::exception& error) {
    for (; next < unit.runs.size(); ++next) add(stopped(unit, unit.runs[next], Status::ERROR, error.what()));
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
  for (const Unit& unit : units) {
    if (options.journal == nullptr || !options.journal->done().contains(unit.index)) {
      open.push_back(unit);
      continue;
    }
    const std::vector<Record>& records = options.journal->done().at(unit.index);
    all.insert(all.end(), records.begin(), records.end());
    if (options.on_unit_done) options.on_unit_done(unit, records);
  }
  std::mutex mutex;
  for_each_unit(open, options.threads, [&](const Unit& unit, int threads) {
    const std::vector<Record> records = run_unit(unit, threads, options);
    const std::lock_guard lock(mutex);
    if (options.journal != nullptr) options.journal->append(unit, records);
    all.insert(all.end(), records.begin(), records.end());
    if (options.on_unit_done) options.on_unit_done(unit, records);
  });
  return all;
}

void mistrust(std::vector<Record>& records) {
  const auto group_of = [](const Record& record) {
    return std::tuple(record.item.variant, record.dtype, record.item.tensor, record.item.convention);
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

Verdicts finish(std::vector<Record> records, GroupBy by) {
  mistrust(records);
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
