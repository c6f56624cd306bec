// SPDX-License-Identifier: Apache-2.0
#include "studies/mutation/honest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>

#include "base/json.hpp"
#include "base/random.hpp"
#include "judge/bounds.hpp"
#include "report/report.hpp"
#include "studies/mutation/solved_unit.hpp"

namespace mlstm::verify {
namespace {

/// Draws what a seed decides, one question after the other.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : stream_(seed, "random problem") {}
  std::int64_t integer(std::int64_t lowest, std::int64_t highest) { return stream_.integer(lowest, highest, next()); }
  bool happens(double probability) { return stream_.uniform(next()) < probability; }
  template <class T>
  T one_of(const std::vector<T>& choices) {
    return choices[static_cast<std::size_t>(integer(0, static_cast<std::int64_t>(choices.size()) - 1))];
  }
  /// About evenly distributed in its logarithm.
  std::int64_t size(std::int64_t highest) {
    const double exponent = stream_.uniform(next()) * portable_log(static_cast<double>(highest) + 1);
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(portable_exp(exponent)), 1, highest);
  }

 private:
  Cell next() { return {0, question_++, 0}; }
  RandomStream stream_;
  std::int64_t question_ = 0;
};

/// Mostly a multiple of 8, which tensor cores take.
std::int64_t dimension(Dice& dice) { return dice.happens(0.7) ? 8 * dice.integer(2, 8) : dice.integer(1, 48); }

/// What the constants of bound_constants go by.
DType operand_dtype(const Kernel& kernel, DType dtype) { return kernel.info().operand_dtype.value_or(dtype); }

/// Whether anything could be seen in a tensor of a variant, over all problems (see mistrust).
struct Trust {
  bool telling = false;
  std::vector<Item> trivial;  ///< passed, but zeros would have as well; the first few
};

using LargestRatios = std::map<std::pair<DType, std::string>, LargestRatio>;

void keep_largest(LargestRatios& largest, DType operand, double ratio, const Item& item) {
  LargestRatio& mine = largest[{operand, item.tensor}];
  // the smaller line where two are equal: the order in which threads finish must not matter
  if (ratio > mine.ratio || (ratio == mine.ratio && item.repro < mine.repro)) mine = {ratio, item.variant, item.repro};
}

class Honest {
 public:
  explicit Honest(const HonestOptions& options) : options_(options) {}

  HonestReport run() {
    std::vector<ProblemSpec> specs;
    for (std::int64_t n = 0; n < options_.seeds; ++n)
      for (const DType dtype : options_.dtypes) {
        ProblemSpec spec = random_problem(options_.first_seed + static_cast<std::uint64_t>(n));
        spec.problem.dtype = dtype;
        specs.push_back(spec);
      }
    const Plan plan = make_plan(options_.kernels, specs, true);
    report_.seeds = options_.seeds;
    report_.unrun = plan.unselected;
    if (options_.on_total) options_.on_total(static_cast<std::int64_t>(plan.units.size()));
    SweepOptions sweep;
    sweep.runner = options_.runner;
    for_each_unit(plan.units, options_.threads, [&](const Unit& unit, int threads) {
      sweep_unit(unit, threads, sweep);
      const std::lock_guard lock(mutex_);
      if (options_.on_unit_done) options_.on_unit_done();
    });
    for (auto& [group, trust] : trust_) {
      if (trust.telling) continue;
      for (Item& item : trust.trivial) {
        item.status = Status::MISTRUSTED;
        report_.alarms.push_back(std::move(item));
      }
    }
    std::stable_sort(report_.alarms.begin(), report_.alarms.end(), [](const Item& a, const Item& b) {
      return std::tie(a.variant, a.case_name, a.convention) < std::tie(b.variant, b.case_name, b.convention);
    });
    return std::move(report_);
  }

 private:
  void sweep_unit(const Unit& unit, int threads, const SweepOptions& sweep) {
    if (const CannotRun* cannot = unit.cannot_run()) {
      const std::lock_guard lock(mutex_);
      report_.unrun.push_back(cannot->kernel->info().key() + ": " + cannot->reason);
      return;
    }
    const ProblemRuns& work = *unit.problem();
    SolvedUnit solved(work, threads);
    std::vector<std::pair<const Kernel*, std::vector<Item>>> judged;
    for (const Run& run : work.runs) judged.emplace_back(run.kernel, solved.judge(run, sweep));
    const std::lock_guard lock(mutex_);
    ++report_.problems;
    for (auto& [kernel, items] : judged) {
      ++report_.runs;
      for (Item& item : items) add(*kernel, work.spec.problem.dtype, std::move(item));
    }
  }

  void add(const Kernel& kernel, DType dtype, Item item) {
    ++report_.verdicts;
    const DType operand = operand_dtype(kernel, dtype);
    if (item.error_ratio) keep_largest(report_.largest, operand, *item.error_ratio, item);
    if (item.bias_ratio) keep_largest(report_.largest_bias, operand, *item.bias_ratio, item);
    if (item.status == Status::SKIPPED) return;  // no bound, as the note says
    if (item.status != Status::PASS) {
      report_.alarms.push_back(std::move(item));
      return;
    }
    constexpr std::size_t kept = 3;
    Trust& trust = trust_[{item.variant, dtype, item.tensor + item.convention}];
    if (!item.trivial)
      trust.telling = true;
    else if (!item.zero_by_definition && trust.trivial.size() < kept)
      trust.trivial.push_back(std::move(item));
  }

  const HonestOptions& options_;
  std::mutex mutex_;
  HonestReport report_;
  std::map<std::tuple<std::string, DType, std::string>, Trust> trust_;
};

/// A line a tensor, a column a dtype: the largest ratio and, in brackets, the constant; with `proportional` how much of
/// it is needed, too.
std::string table_of(const LargestRatios& all, double (*constant)(DType, std::string_view), bool proportional) {
  std::set<DType> dtypes;
  for (const auto& [key, largest] : all) dtypes.insert(key.first);
  std::string text = fmt::format("{:<12}", "");
  for (const DType dtype : dtypes) text += fmt::format("{:>18}", to_string(dtype));
  text += "\n";
  for (const std::string_view tensor : kTensors) {
    std::string line = fmt::format("{:<12}", tensor);
    bool any = false;
    for (const DType dtype : dtypes) {
      const auto found = all.find({dtype, std::string(tensor)});
      const bool has = found != all.end();
      any |= has;
      const double c = constant(dtype, tensor);
      std::string cell;
      if (has) cell = fmt::format("{:.3f} ({})", found->second.ratio, c);
      if (has && proportional)
        cell = fmt::format("{:.3f} ({:.2f}/{})", found->second.ratio, found->second.ratio * c, c);
      line += fmt::format("{:>18}", cell);
    }
    if (any) text += line + "\n";
  }
  return text + "\n";
}

Json to_array(const LargestRatios& all, double (*constant)(DType, std::string_view), const char* name) {
  Json array = Json::array();
  for (const auto& [key, value] : all) {
    const bool finite = std::isfinite(value.ratio);
    array.push_back(Json{{"dtype", to_string(key.first)},
                         {"tensor", key.second},
                         {"constant", constant(key.first, key.second)},
                         {name, finite ? Json(value.ratio) : Json(nullptr)},
                         {"variant", value.variant},
                         {"repro", value.repro}});
  }
  return array;
}

}  // namespace

ProblemSpec random_problem(std::uint64_t seed) {
  Dice dice(seed);
  ProblemSpec spec;
  spec.seed = seed;
  std::vector<std::string> names;
  for (const Regime& regime : regimes()) names.push_back(regime.name);
  spec.regime = dice.one_of(names);
  Problem& p = spec.problem;
  p.gate = dice.happens(0.6) ? Gate::exp : Gate::sigmoid;
  p.normalize = p.gate == Gate::exp || dice.happens(0.6);
  p.eps = dice.one_of<double>({0, 1e-6, 1e-6, 1e-6, 1e-3, 1e-2, 1});
  p.stabilizer_init = dice.happens(0.5) ? StabilizerInit::zero : StabilizerInit::neg_inf;
  p.has_initial_state = dice.happens(0.4);
  p.shape.B = dice.integer(1, 2);
  p.shape.NH = dice.integer(1, 3);
  p.shape.S = dice.happens(0.05) ? 1 : dice.size(320);
  p.shape.DHQK = dimension(dice);
  p.shape.DHV = dice.happens(0.3) ? p.shape.DHQK : dimension(dice);
  p.chunk_size = dice.happens(0.7) ? dice.one_of<std::int64_t>({16, 32, 64, 128}) : dice.size(100);
  spec.cotangents = dice.happens(0.95);
  spec.last_state_cotangents = spec.cotangents && dice.happens(0.4);
  return spec;
}

int HonestReport::exit_status() const { return !alarms.empty() ? 1 : verdicts == 0 ? 3 : 0; }

HonestReport run_honest(const HonestOptions& options) { return Honest(options).run(); }

std::string to_text(const HonestReport& report) {
  std::string text =
      "Largest error / bound of honest kernels, and in brackets the constant of the bound times that: what it would "
      "have to be at least\n\n";
  text += table_of(report.largest, bound_constant, true);
  text += "Largest bias / what is allowed, and in brackets the constant, one part of what is allowed\n\n";
  text += table_of(report.largest_bias, bias_constant, false);
  text += list_failures(report.alarms);
  for (const std::string& line : report.unrun) text += "not run: " + line + "\n";
  return text + fmt::format("{} seeds, {} problems, {} runs, {} verdicts on honest kernels: {} other than PASS\n",
                            report.seeds, report.problems, report.runs, report.verdicts, report.alarms.size());
}

std::string to_json(const HonestReport& report) {
  std::string text =
      fmt::format("{{\"seeds\": {}, \"problems\": {}, \"runs\": {}, \"verdicts\": {}, \"not_passed\": {},\n",
                  report.seeds, report.problems, report.runs, report.verdicts, report.alarms.size());
  text += fmt::format("\"largest\": {},\n", serialize(to_array(report.largest, bound_constant, "error_ratio")));
  text += fmt::format("\"largest_bias\": {},\n\"alarms\": ",
                      serialize(to_array(report.largest_bias, bias_constant, "bias_ratio")));
  // the items of a report are an array of their own in its JSON
  return text + to_json(report.alarms) + "}\n";
}

}  // namespace mlstm::verify
