// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "cases/case_file.hpp"
#include "cases/source_digest.hpp"
#include "report/report.hpp"
#include "runner/plugin.hpp"
#include "runner/runner.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {
namespace {

bool depends_on_stabilizer_init(const Problem& problem) { return problem.has_m() && !problem.has_initial_state; }

/// Why the variant does not take the problem, or empty.
std::string refusal(const Kernel& kernel, const ProblemSpec& spec) {
  std::string reason = kernel.unsupported(spec.problem);
  const VariantInfo& info = kernel.info();
  // A forward-only variant ignores cotangents; a backward pass has to take those that there are.
  if (reason.empty() && spec.last_state_cotangents && !info.last_state_cotangents && !info.gradient_conventions.empty())
    reason = "cotangents of the last states are not supported";
  return reason;
}

std::vector<Run> runs_of(const Kernel& kernel, const ProblemSpec& spec, std::optional<Convention> convention) {
  std::vector<Run> runs;
  if (spec.cotangents || spec.last_state_cotangents)
    for (const Convention declared : kernel.info().gradient_conventions)
      if (!convention || declared == *convention) runs.push_back({&kernel, declared, runs.empty()});
  if (runs.empty()) runs.push_back({&kernel, {}, true});
  return runs;
}

// One line that tells units of different plans apart, and the same ones of variants that have changed since.
std::string identity(const Run& run) {
  const std::string key = run.kernel->info().key();
  return fmt::format(" {}:{}:{}", key, source_digest(key), name_of(run));
}

std::string identity(const ProblemRuns& work) {
  std::string text = to_line(work.spec);
  for (const Run& run : work.runs) text += identity(run);
  return text;
}

std::string identity(const PropertyCheckup& work) {
  return to_line(work.spec) + identity(work.run) + " property " + work.property;
}

std::string identity(const CannotRun& work) {
  return work.reason + identity(Run{work.kernel, {}}) + (work.property.empty() ? "" : " property " + work.property);
}

std::string identity(const Unit& unit) {
  return std::visit([](const auto& work) { return identity(work); }, unit.work) + "\n";
}

/// The plugins that the variants come from.
std::set<std::string> libraries_of(const std::vector<const Kernel*>& kernels) {
  std::set<std::string> libraries;
  for (const Kernel* kernel : kernels)
    if (const auto* plugin = dynamic_cast<const PluginVariant*>(kernel)) libraries.insert(plugin->library());
  return libraries;
}

}  // namespace

ProblemSpec adapted(ProblemSpec spec, const VariantInfo& info) {
  const auto& inits = info.stabilizer_init;
  StabilizerInit& init = spec.problem.stabilizer_init;
  if (depends_on_stabilizer_init(spec.problem) && !inits.empty() &&
      std::find(inits.begin(), inits.end(), init) == inits.end())
    init = inits.front();
  return spec;
}

Plan make_plan(const std::vector<const Kernel*>& kernels, const std::vector<ProblemSpec>& specs, bool adapt,
               std::optional<Convention> convention, const UnavailableFunction& why_unavailable) {
  Plan plan;
  std::map<std::string, std::size_t> unit_of_line;
  std::vector<const Kernel*> available;
  for (const Kernel* kernel : kernels) {
    if (const std::string reason = why_unavailable(*kernel); reason.empty()) {
      available.push_back(kernel);
    } else {
      plan.units.emplace_back().work = CannotRun{kernel, {}, reason};
    }
  }
  std::map<const Kernel*, std::string> first_refusal;
  std::map<const Kernel*, std::int64_t> taken;
  std::map<const Kernel*, Refusals> refusals;
  for (const Kernel* kernel : available) refusals.emplace(kernel, *kernel);
  for (const ProblemSpec& spec : specs) {
    for (const Kernel* kernel : available) {
      const ProblemSpec wanted = adapt ? adapted(spec, kernel->info()) : spec;
      if (const std::string reason = refusal(*kernel, wanted); !reason.empty()) {
        first_refusal.emplace(kernel, reason);
        refusals.at(kernel).declined(wanted, reason);
        continue;
      }
      ++taken[kernel];
      refusals.at(kernel).took();
      const auto [place, is_new] = unit_of_line.emplace(to_line(wanted), plan.units.size());
      if (is_new) plan.units.emplace_back().work = ProblemRuns{wanted, {}};
      auto& runs = std::get<ProblemRuns>(plan.units[place->second].work).runs;
      // Two problems may become the same one for this variant.
      if (std::any_of(runs.begin(), runs.end(), [&](const Run& run) { return run.kernel == kernel; })) continue;
      for (const Run& run : runs_of(*kernel, wanted, convention)) runs.push_back(run);
    }
  }
  for (const Kernel* kernel : available)
    for (CannotRun& declined : refusals.at(kernel).report()) plan.declined.push_back(std::move(declined));
  for (const Kernel* kernel : available)
    if (taken[kernel] == 0)
      plan.unselected.push_back(kernel->info().key() + ": " +
                                (specs.empty() ? "no problem is selected" : first_refusal.at(kernel)));
  std::string all = std::string(program_source()) + "\n";
  for (const std::string& library : libraries_of(kernels)) all += "plugin " + sha256_of_file(library) + "\n";
  for (std::size_t n = 0; n < plan.units.size(); ++n) {
    plan.units[n].index = static_cast<std::int64_t>(n);
    all += identity(plan.units[n]);
  }
  plan.id = sha256_of(all);
  return plan;
}

std::vector<Unit> shard_of(const Plan& plan, std::int64_t number, std::int64_t count) {
  std::vector<Unit> units;
  for (const Unit& unit : plan.units)
    if (unit.index % count == number - 1) units.push_back(unit);
  return units;
}

void extend(Plan& plan, decltype(Unit::work) work) {
  const auto index = static_cast<std::int64_t>(plan.units.size());
  Unit& unit = plan.units.emplace_back();
  unit.index = index;
  unit.work = std::move(work);
  plan.id = sha256_of(plan.id + identity(unit));
}

std::string repro_line(const ProblemSpec& spec, const Run& run, std::string_view property) {
  std::string line = "mlstm verify --variant " + shell_word(run.kernel->info().key());
  if (!property.empty()) line += " --property " + std::string(property);
  line += " --case \"" + to_line(spec) + "\"";
  if (run.convention) line += " --convention " + std::string(to_string(*run.convention));
  if (const auto* plugin = dynamic_cast<const PluginVariant*>(run.kernel))
    line += " --plugin " + shell_word(plugin->library());
  return line;
}

}  // namespace mlstm::verify
