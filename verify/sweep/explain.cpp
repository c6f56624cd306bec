// SPDX-License-Identifier: Apache-2.0
#include "sweep/explain.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include "base/memory.hpp"
#include "sweep/mistakes.hpp"
#include "sweep/shrink.hpp"
#include "sweep/stages.hpp"

namespace mlstm::verify {
namespace {

/// True for what another run can tell more about; not for a problem that was refused, by either side.
bool is_failure(const Item& item) {
  if (item.check == "memory" || item.check == "declined") return false;
  return item.status == Status::FAIL || item.status == Status::ERROR || item.status == Status::TIMEOUT;
}

std::string kind_of(const Item& item) {
  return !item.error_ratio ? "run" : item.convention.empty() ? "outputs" : "gradients";
}

/// The run that the item is a verdict on; null if it is none of a problem.
const Run* run_of(const ProblemRuns& work, const Item& item) {
  for (const Run& run : work.runs)
    if (run.kernel->info().key() == item.variant && name_of(run) == item.run) return &run;
  return nullptr;
}

void add_lines(Item& item, std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  if (text.empty()) return;
  item.explanation += (item.explanation.empty() ? "" : "\n") + text;
}

/// `verdicts` are those of the run that are of the item's kind.
void explain(Item& item, const ProblemRuns& work, const Run& run, const std::vector<Item>& verdicts,
             const ExplainOptions& options) {
  if (options.stages) add_lines(item, look_into(*run.kernel, work.spec, run.convention, options.sweep));
  if (!options.seconds) return;
  ShrinkOptions how;
  how.seconds = *options.seconds;
  how.sweep = options.sweep;
  const Shrunk shrunk = shrink(*run.kernel, work.spec, run.convention, *failure_of(verdicts), how);
  add_lines(item, to_text(shrunk));
  if (options.stages && shrunk.failed > 0 && !(shrunk.spec == work.spec)) {
    std::string text = look_into(*run.kernel, shrunk.spec, run.convention, options.sweep);
    if (!text.empty()) add_lines(item, "in the shrunken problem:\n" + text);
  }
}

}  // namespace

std::string look_into(const Kernel& kernel, const ProblemSpec& spec, std::optional<Convention> convention,
                      const SweepOptions& sweep) {
  Case c = make_case(spec);
  const RunFunction once = [&](const Kernel& k, const Case& part, std::optional<Convention> in, const RunOptions&) {
    return sweep.runner(
        k, part, in,
        {.repeats = 0, .guarded = sweep.run.guarded, .accept_nondeterminism = sweep.run.accept_nondeterminism});
  };
  const Stages stages = find_stages(kernel, c, convention, once);
  std::string text = stages.text;
  if (!stages.why_not.empty()) text += "not all stages could be probed: " + stages.why_not + "\n";
  try {
    c.kernel = once(kernel, c, convention, {});
  } catch (const std::exception&) {
    return text;  // there is nothing to compare with known mistakes
  }
  reference::Options how;
  how.threads = sweep.threads;
  const ReferenceData reference = evaluate_reference(c, how);
  JudgeOptions judging;
  judging.convention = convention;
  judging.threads = sweep.threads;
  const std::vector<Item> items = judge(c, reference, judging);
  if (stages.text.empty()) {
    const bool passes = std::all_of(items.begin(), items.end(), [](const Item& item) {
      return item.status == Status::PASS || item.status == Status::SKIPPED;
    });
    text += passes
                ? "run again by itself, it passes: what it gives depends on calls before, on others at the same time, "
                  "or on chance\n"
                : "no stage that was probed is outside its bounds\n";
  }
  for (const std::string& line : find_mistakes(c, reference, items, sweep.threads)) text += line + "\n";
  return text;
}

void explain_failures(std::vector<Record>& records, const std::vector<Unit>& units, const ExplainOptions& options) {
  std::map<std::int64_t, const ProblemRuns*> work_of;
  for (const Unit& unit : units)
    if (unit.problem() != nullptr) work_of[unit.index] = unit.problem();
  std::vector<Record*> failing;
  for (Record& record : records)
    if (is_failure(record.item) && work_of.contains(record.unit)) failing.push_back(&record);
  std::stable_sort(failing.begin(), failing.end(), [](const Record* a, const Record* b) { return a->unit < b->unit; });

  std::set<std::tuple<std::string, std::string, std::string>> seen;  // variant, dtype, kind
  std::map<std::string, std::int64_t> explained;                     // by variant
  for (Record* record : failing) {
    Item& item = record->item;
    const ProblemRuns& work = *work_of.at(record->unit);
    const Run* run = run_of(work, item);
    if (run == nullptr || explained[item.variant] >= options.failures) continue;
    if (!seen.insert({item.variant, record->dtype, kind_of(item)}).second) continue;
    ++explained[item.variant];
    if (options.progress) options.progress(item);
    std::vector<Item> verdicts;  // on this run, of this kind
    for (const Record* other : failing)
      if (other->unit == record->unit && run_of(work, other->item) == run && kind_of(other->item) == kind_of(item))
        verdicts.push_back(other->item);
    // The verdicts stand, whatever happens to an explanation.
    try {
      explain(item, work, *run, verdicts, options);
    } catch (const std::exception& error) {
      add_lines(item, "no further explanation: " + reason_of(error));
    }
  }
}

}  // namespace mlstm::verify
