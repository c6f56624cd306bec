// SPDX-License-Identifier: Apache-2.0
#include "studies/mutation/mutate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>

#include "base/text.hpp"
#include "mlstm/parallel_for.hpp"
#include "report/report.hpp"
#include "studies/mutation/rule_board.hpp"
#include "studies/mutation/solved_unit.hpp"
#include "sweep/sweep_properties.hpp"

namespace mlstm::verify {
namespace {

/// Problems of at most so many elements get all repeats of a mutant's budget; the rest get the default.
constexpr std::int64_t kSmallProblem = std::int64_t{1} << 15;

std::int64_t elements_of(const Shape& shape) {
  return shape.heads() * (shape.S * (shape.DHQK + shape.DHV) + shape.DHQK * shape.DHV);
}

bool kills(const Item& item) {
  return item.status == Status::FAIL || item.status == Status::ERROR || item.status == Status::TIMEOUT;
}

bool has_number(const Item& item) { return item.error_ratio.has_value(); }

double strength_of(const Item& item) {
  return has_number(item) ? std::max(*item.error_ratio, item.bias_ratio.value_or(0))
                          : std::numeric_limits<double>::infinity();
}

/// Everything that is run: mutants first, then specimens.
struct Subjects {
  std::vector<const Kernel*> kernels;
  std::map<const Kernel*, std::size_t> index;
  std::vector<int> repeats;
  std::vector<const Kernel*> honest;  ///< what each was made from

  explicit Subjects(const MutationOptions& options) {
    for (const Mutant* mutant : options.mutants) add(mutant->kernel, mutant->repeats, specimen_of(*mutant));
    for (const Kernel* specimen : options.specimens) add(specimen, 1, *specimen);
  }
  /// In the order in which they run: what honest kernels do has to be known first.
  std::vector<const Kernel*> in_order(const MutationOptions& options) const {
    std::vector<const Kernel*> all = options.specimens;
    all.insert(all.end(), kernels.begin(), kernels.begin() + static_cast<std::ptrdiff_t>(options.mutants.size()));
    return all;
  }
  void add(const Kernel* kernel, int wanted, const Kernel& specimen) {
    if (!index.emplace(kernel, kernels.size()).second)
      throw std::logic_error(kernel->info().key() + " stands for two mutants");
    kernels.push_back(kernel);
    repeats.push_back(wanted);
    honest.push_back(&specimen);
  }
};

/// The units of one regime, the cheapest first: most mutants are dead before the dear ones.
struct Group {
  std::vector<const Unit*> units;
  std::int64_t cost = 0;
  RuleScope scope = RuleScope::suite;
};

std::vector<Group> groups_of(const std::vector<Unit>& units, RuleScope scope) {
  std::map<std::string, Group> by_regime;
  for (const Unit& unit : units) {
    const ProblemRuns* const work = unit.problem();
    if (work == nullptr) continue;
    Group& group = by_regime[work->spec.regime];
    group.scope = scope;
    group.units.push_back(&unit);
    group.cost += elements_of(work->spec.problem.shape);
  }
  std::vector<Group> groups;
  for (auto& [regime, group] : by_regime) {
    std::stable_sort(group.units.begin(), group.units.end(), [](const Unit* a, const Unit* b) {
      return elements_of(a->problem()->spec.problem.shape) < elements_of(b->problem()->spec.problem.shape);
    });
    groups.push_back(std::move(group));
  }
  return groups;
}

class Mutation {
 public:
  Mutation(const std::vector<ProblemSpec>& specs, const MutationOptions& options)
      : options_(options), specs_(specs), subjects_(options), results_(subjects_.kernels.size()) {
    plan_ = make_plan(subjects_.in_order(options), specs, options.adapt);
    groups_ = groups_of(plan_.units, RuleScope::suite);
    if (options.rules) {
      board_.emplace(subjects_.kernels.size(), options.mutants.size());
      setting_ = make_plan(subjects_.in_order(options), published_setting(), true);
      for (Group& group : groups_of(setting_.units, RuleScope::setting)) groups_.push_back(std::move(group));
    }
    std::stable_sort(groups_.begin(), groups_.end(), [](const Group& a, const Group& b) { return a.cost > b.cost; });
  }

  MutationReport run() {
    std::int64_t units = 0;
    for (const Group& group : groups_) units += static_cast<std::int64_t>(group.units.size());
    if (options_.on_total) options_.on_total(units);
    const int inside = groups_.size() > 1 && options_.threads != 1 ? 1 : options_.threads;
    parallel_for(static_cast<std::int64_t>(groups_.size()), options_.threads, [&](std::int64_t n) {
      const Group& group = groups_[static_cast<std::size_t>(n)];
      std::vector<bool> dead(subjects_.kernels.size(), false);
      for (const Unit* unit : group.units) {
        run_unit(*unit, group.scope, dead, inside);
        const std::lock_guard lock(mutex_);
        if (options_.on_unit_done) options_.on_unit_done();
      }
    });
    check_properties();
    return report();
  }

 private:
  /// Properties on honest kernels, and on mutants that are still unknown: the interface's, which come last, first.
  void check_properties() {
    if (options_.properties.empty()) return;
    std::vector<std::size_t> open;
    for (std::size_t n = 0; n < results_.size(); ++n)
      if (n >= options_.mutants.size() || !results_[n].detected()) open.push_back(n);
    const std::vector<std::string> names(options_.properties.rbegin(), options_.properties.rend());
    parallel_for(static_cast<std::int64_t>(open.size()), options_.threads, [&](std::int64_t n) {
      const std::size_t subject = open[static_cast<std::size_t>(n)];
      const bool honest = subject >= options_.mutants.size();
      Plan plan;
      PropertySelection selection{.names = names};
      if (!options_.adapt) selection.cases = specs_;
      add_properties(plan, {subjects_.kernels[subject]}, selection);
      SweepOptions sweep;
      sweep.runner = options_.runner;
      sweep.threads = 1;
      for (const Unit& unit : plan.units) {
        if (unit.cannot_run() != nullptr) continue;
        const std::vector<Record> records = run_sweep({unit}, sweep);
        const std::lock_guard lock(mutex_);
        if (add(subject, records) && !honest) break;
      }
    });
  }

  /// What a check of a property gave; true if it has found something.
  bool add(std::size_t subject, const std::vector<Record>& records) {
    MutantResult& mine = results_[subject];
    const bool honest = subject >= options_.mutants.size();
    bool found = false;
    for (const Record& record : records) {
      const Item& item = record.item;
      if (honest) verdicts_.add(kills(item));
      if (!kills(item)) continue;
      found = true;
      if (!honest && !mine.by_property) mine.by_property = {item.property, *item.problem, describe(item)};
      if (honest || options_.keep_items) mine.failures.push_back(item);
    }
    return found;
  }

  /// Runs those that are not `dead` in this regime, and marks those that die.
  void run_unit(const Unit& unit, RuleScope scope, std::vector<bool>& dead, int threads) {
    const auto& [spec, runs] = *unit.problem();
    const DType dtype = spec.problem.dtype;
    const auto idle = [&](std::size_t subject) {
      return dead[subject] && !(board_ && board_->open(subject, scope, dtype));
    };
    if (std::all_of(runs.begin(), runs.end(), [&](const Run& run) { return idle(subjects_.index.at(run.kernel)); }))
      return;
    SolvedUnit solved(*unit.problem(), threads);
    const Case untouched = solved.problem;
    RuleProblem rules(untouched, solved.reference, options_.plain, threads);
    HonestRejections honest;
    for (std::size_t n = 0; n < runs.size();) {
      std::size_t end = n;  // of the runs of one kernel, which follow each other
      while (end < runs.size() && runs[end].kernel == runs[n].kernel) ++end;
      const std::size_t subject = subjects_.index.at(runs[n].kernel);
      std::vector<Item> items;
      std::optional<Array> h;
      for (; n < end; ++n) {
        const Run& run = runs[n];
        solved.problem.kernel.reset();
        if (!dead[subject]) {
          std::vector<Item> more = solved.judge(run, sweep_of(spec, subject));
          if (board_) board_->add_verdict(subject, scope, std::any_of(more.begin(), more.end(), kills));
          std::move(more.begin(), more.end(), std::back_inserter(items));
        }
        if (board_ && board_->open(subject, scope, dtype))
          try_rules(run, scope, subject, solved.problem, h, rules, honest);
      }
      if (items.empty()) continue;
      // Honest kernels run everywhere.
      if (!options_.exhaustive && subject < options_.mutants.size())
        dead[subject] = std::any_of(items.begin(), items.end(), kills);
      if (scope == RuleScope::setting) continue;
      const std::lock_guard lock(mutex_);
      add(unit, subject, std::move(items));
    }
  }

  SweepOptions sweep_of(const ProblemSpec& spec, std::size_t subject) const {
    SweepOptions sweep;
    sweep.runner = options_.runner;
    if (elements_of(spec.problem.shape) <= kSmallProblem)
      sweep.run.repeats = std::max(sweep.run.repeats, subjects_.repeats[subject]);
    return sweep;
  }

  /// Which rules reject an honest kernel on the problem at hand.
  using HonestRejections = std::map<std::pair<const Kernel*, std::optional<Convention>>, std::vector<bool>>;

  void try_rules(const Run& run, RuleScope scope, std::size_t subject, const Case& c, std::optional<Array>& h,
                 RuleProblem& rules, HonestRejections& honest) {
    std::optional<KernelData> unchecked;
    const KernelData* data = c.kernel ? &*c.kernel : nullptr;
    if (data == nullptr) {  // not judged, or stopped by a check that others do not have
      try {
        unchecked = run_unchecked(*run.kernel, rules.problem_case(), run.convention);
        data = &*unchecked;
      } catch (const std::exception&) {
      }
    }
    if (data != nullptr && data->outputs.contains("h")) h = data->outputs.at("h");
    const bool is_honest = subject >= options_.mutants.size();
    std::vector<bool>& useless = honest[{subjects_.honest[subject], run.convention}];
    const std::vector<bool> rejects =
        board_->add(subject, run, scope, data, h ? &*h : nullptr, rules, is_honest ? std::vector<bool>{} : useless);
    if (is_honest) useless = rejects;
  }

  void add(const Unit& unit, std::size_t subject, std::vector<Item> items) {
    MutantResult& mine = results_[subject];
    const auto& [spec, runs] = *unit.problem();
    auto& checks = mine.by_regime[spec.regime];
    Outcome outcome;
    outcome.problem = unit.index;
    const Item* telling = nullptr;
    for (const Item& item : items) {
      Tally& tally = checks[check_of(item)];
      if (has_number(item))
        tally.add(kills(item));
      else
        tally.found += kills(item);
      if (kills(item) && (telling == nullptr || strength_of(item) > strength_of(*telling))) telling = &item;
    }
    if (telling != nullptr) {
      outcome.killed = true;
      outcome.check = check_of(*telling);
      outcome.strength = strength_of(*telling);
      outcome.finding = describe(*telling);
    }
    mine.outcomes.push_back(std::move(outcome));
    runs_[{subject, spec.regime}] += std::count_if(
        runs.begin(), runs.end(), [&](const Run& run) { return run.kernel == subjects_.kernels[subject]; });
    const bool honest = subject >= options_.mutants.size();
    for (Item& item : items) {
      if (honest) verdicts_.add(kills(item));
      if (kills(item) && (honest || options_.keep_items)) mine.failures.push_back(std::move(item));
    }
  }

  MutationReport report() {
    MutationReport report;
    for (const Unit& unit : plan_.units)
      report.problems.push_back(unit.problem() != nullptr ? unit.problem()->spec : ProblemSpec{});
    std::vector<bool> counted;
    for (std::size_t n = 0; n < results_.size(); ++n) {
      MutantResult& result = results_[n];
      result.kernel = subjects_.kernels[n];
      std::sort(result.outcomes.begin(), result.outcomes.end(),
                [](const Outcome& a, const Outcome& b) { return a.problem < b.problem; });
      for (auto& [regime, checks] : result.by_regime)
        for (auto& [check, tally] : checks)
          if (tally.runs == 0) tally.runs = runs_.at({n, regime});  // a check of whole runs
      if (n >= options_.mutants.size()) {
        report.specimens.push_back(std::move(result));
        continue;
      }
      result.mutant = options_.mutants[n];
      const bool real = result.mutant->equivalent.empty();
      counted.push_back(real && !result.outcomes.empty());
      if (result.outcomes.empty() && !result.by_property)
        report.unrun.push_back(result.mutant->name);
      else
        (real ? report.mutants : report.equivalent).push_back(std::move(result));
    }
    report.verdicts = verdicts_;
    if (board_) report.rules = board_->results(counted);
    return report;
  }

  const MutationOptions& options_;
  const std::vector<ProblemSpec>& specs_;
  Subjects subjects_;
  Plan plan_, setting_;
  std::vector<Group> groups_;
  std::optional<RuleBoard> board_;
  std::mutex mutex_;
  std::vector<MutantResult> results_;
  std::map<std::pair<std::size_t, std::string>, std::int64_t> runs_;  ///< of a subject in a regime
  Tally verdicts_;
};

bool smaller(const MutationReport& report, const Outcome& a, const Outcome& b) {
  const auto size = [&](const Outcome& o) {
    return elements_of(report.problems[static_cast<std::size_t>(o.problem)].problem.shape);
  };
  return size(a) < size(b);
}

}  // namespace

std::string check_of(const Item& item) {
  if (!has_number(item)) return item.check;
  // found by nothing but its bias
  const bool biased = item.status == Status::FAIL && *item.error_ratio <= 1 && item.bias_ratio > 1;
  const std::string name = biased ? "bias of " + item.tensor : item.tensor;
  return item.convention.empty() ? name : name + " (" + item.convention + ")";
}

bool MutantResult::detected() const {
  return by_property.has_value() ||
         std::any_of(outcomes.begin(), outcomes.end(), [](const Outcome& outcome) { return outcome.killed; });
}

const Outcome* MutationReport::evidence(const MutantResult& result) const {
  constexpr double clear = 2;
  const Outcome* best = nullptr;
  for (const Outcome& outcome : result.outcomes) {
    if (!outcome.killed) continue;
    if (best == nullptr) {
      best = &outcome;
    } else if (outcome.strength >= clear && best->strength >= clear) {
      if (smaller(*this, outcome, *best)) best = &outcome;
    } else if (outcome.strength > best->strength) {
      best = &outcome;
    }
  }
  return best;
}

Tally MutationReport::score() const {
  Tally tally;
  for (const MutantResult& result : mutants) tally.add(result.detected());
  return tally;
}

int MutationReport::exit_status() const {
  constexpr double wanted = 0.99;
  const Tally found = score();
  if (found.runs == 0 && verdicts.runs == 0) return 3;
  const bool disproved =
      std::any_of(equivalent.begin(), equivalent.end(), [](const MutantResult& result) { return result.detected(); });
  return verdicts.found > 0 || disproved || static_cast<double>(found.found) < wanted * static_cast<double>(found.runs)
             ? 1
             : 0;
}

MutationReport run_mutants(const std::vector<ProblemSpec>& specs, const MutationOptions& options) {
  return Mutation(specs, options).run();
}

std::vector<ProblemSpec> published_setting() {
  std::vector<ProblemSpec> specs;
  for (const char* gate : {"gate=exp", "gate=sigmoid", "gate=sigmoid,normalize=0"})
    for (const char* dtype : {"float32", "bfloat16", "float16"})
      specs.push_back(
          parse_spec(fmt::format("regime=forget0,NH=2,S=256,DHQK=64,DHV=128,L=64,eps=1e-06,{},dtype={}", gate, dtype)));
  return specs;
}

std::vector<std::size_t> minimal_suite(const MutationReport& report) {
  std::vector<std::vector<std::size_t>> killers;  // of every mutant that something kills
  for (const MutantResult& result : report.mutants) {
    std::vector<std::size_t> problems;
    for (const Outcome& outcome : result.outcomes)
      if (outcome.killed) problems.push_back(static_cast<std::size_t>(outcome.problem));
    if (!problems.empty()) killers.push_back(std::move(problems));
  }
  const auto cost = [&](std::size_t problem) { return elements_of(report.problems[problem].problem.shape); };
  const auto holds = [](const std::vector<std::size_t>& list, std::size_t x) {
    return std::find(list.begin(), list.end(), x) != list.end();
  };
  std::vector<std::size_t> chosen;
  std::vector<bool> covered(killers.size(), false);
  while (std::find(covered.begin(), covered.end(), false) != covered.end()) {
    std::vector<std::size_t> gain(report.problems.size(), 0);
    for (std::size_t n = 0; n < killers.size(); ++n)
      if (!covered[n])
        for (const std::size_t problem : killers[n]) ++gain[problem];
    std::size_t best = 0;
    for (std::size_t problem = 1; problem < gain.size(); ++problem)
      if (gain[problem] > gain[best] || (gain[problem] == gain[best] && cost(problem) < cost(best))) best = problem;
    chosen.push_back(best);
    for (std::size_t n = 0; n < killers.size(); ++n) covered[n] = covered[n] || holds(killers[n], best);
  }
  // The costliest first: is every mutant killed without it?
  std::vector<std::size_t> by_cost = chosen;
  std::sort(by_cost.begin(), by_cost.end(), [&](std::size_t a, std::size_t b) { return cost(a) > cost(b); });
  for (const std::size_t problem : by_cost) {
    std::vector<std::size_t> rest;
    std::copy_if(chosen.begin(), chosen.end(), std::back_inserter(rest), [&](std::size_t x) { return x != problem; });
    const bool enough = std::all_of(killers.begin(), killers.end(), [&](const std::vector<std::size_t>& mine) {
      return std::any_of(mine.begin(), mine.end(), [&](std::size_t x) { return holds(rest, x); });
    });
    if (enough) chosen = rest;
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::string repro_line(const Mutant& mutant, const ProblemSpec& spec, std::string_view property) {
  std::string line = "mlstm mutate --mutant " + shell_word(mutant.name);
  if (!property.empty()) line.append(" --property ").append(property);
  return line + " --case \"" + to_line(spec) + "\"";
}

}  // namespace mlstm::verify
