// SPDX-License-Identifier: Apache-2.0
// mlstm mutate: plants known bugs and says which are found; or runs honest kernels on random problems.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <filesystem>

#include "cases/case_file.hpp"
#include "cli/cli.hpp"
#include "properties/properties.hpp"
#include "studies/mutation/explanations.hpp"
#include "studies/mutation/honest.hpp"
#include "studies/mutation/mutate.hpp"

namespace mlstm::cli {
namespace {

using verify::Mutant;

struct Options {
  ProblemOptions problems;
  ThreadsOption threads;
  std::vector<std::string> mutants, variants, property_globs;
  std::string report, honest;
  bool explanations = false, list = false, minimal = false, no_rules = false, exhaustive = false;
  bool properties = false, no_properties = false;
};

std::vector<const Mutant*> select_mutants(const std::vector<std::string>& globs) {
  std::vector<const Mutant*> selected;
  std::vector<bool> used(globs.size(), false);
  for (const Mutant& mutant : verify::mutants()) {
    bool wanted = globs.empty();
    for (std::size_t n = 0; n < globs.size(); ++n)
      if (fnmatch(globs[n].c_str(), mutant.name.c_str(), 0) == 0) wanted = used[n] = true;
    if (wanted) selected.push_back(&mutant);
  }
  for (std::size_t n = 0; n < globs.size(); ++n)
    if (!used[n])
      throw std::invalid_argument(fmt::format(
          "--mutant is \"{}\"; expected a name or glob of mutants; mlstm mutate --list names them", globs[n]));
  return selected;
}

int list_mutants(const std::vector<const Mutant*>& mutants) {
  for (const Mutant* mutant : mutants) {
    fmt::print("{:<44} {:<12} {}\n", mutant->name, mutant->family, mutant->description);
    if (mutant->repeats > 1) fmt::print("{:<57} repeats that find it: {}\n", "", mutant->repeats);
    if (!mutant->needs.empty()) fmt::print("{:<57} shows in: {}\n", "", mutant->needs);
    if (!mutant->equivalent.empty()) fmt::print("{:<57} equivalent: {}\n", "", mutant->equivalent);
  }
  fmt::print("{} mutants of {} honest kernels\n", mutants.size(), verify::specimens().size());
  return kOk;
}

void write_files(const std::string& report, const std::string& name, const std::string& json, const std::string& text) {
  if (report.empty()) return;
  const std::filesystem::path directory = report;
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) throw verify::FileError(directory.string() + ": " + failed.message());
  verify::replace_file(directory / (name + ".json"), json);
  verify::replace_file(directory / (name + ".txt"), text);
}

/// Registered variants and specimens whose key or name matches; all of them without globs.
std::vector<const Kernel*> honest_kernels(const std::vector<std::string>& globs) {
  std::vector<const Kernel*> own = verify::specimens();
  own.insert(own.end(), verify::other_specimens().begin(), verify::other_specimens().end());
  if (!globs.empty()) return select_kernels(globs, own);
  std::vector<const Kernel*> all = registered_kernels();
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

int judge_honest(const Options& options) {
  if (!options.report.empty()) verify::require_report_directory(options.report);
  verify::HonestOptions how;
  how.seeds = parse_integer(options.honest, "--honest", 1);
  if (!options.problems.seed.empty())
    how.first_seed = static_cast<std::uint64_t>(parse_integer(options.problems.seed, "--seed", 0));
  how.kernels = honest_kernels(options.variants);
  if (!options.problems.dtypes.empty()) how.dtypes.clear();
  for (const std::string& text : options.problems.dtypes) how.dtypes.push_back(parse_storage_dtype(text, "--dtype"));
  how.threads = options.threads.value();
  std::optional<Progress> progress;
  how.on_total = [&](std::int64_t total) { progress.emplace("problems", total, false); };
  how.on_unit_done = [&] { progress->advance(0); };
  const verify::HonestReport report = verify::run_honest(how);
  progress.reset();
  fmt::print("{}", verify::to_text(report));
  write_files(options.report, "honest", verify::to_json(report), verify::to_text(report));
  return report.exit_status();
}

int explain(const Options& options, const std::vector<verify::ProblemSpec>& specs) {
  verify::ExplanationOptions how;
  how.mutants = select_mutants(options.mutants);
  how.threads = options.threads.value();
  std::optional<Progress> progress;
  how.on_total = [&](std::int64_t total) { progress.emplace("bugs", total, false); };
  how.on_unit_done = [&] { progress->advance(0); };
  const std::vector<verify::Explanation> explanations = verify::explain_mutants(specs, how);
  progress.reset();
  fmt::print("{}", verify::to_markdown(explanations));
  return verify::exit_status(explanations);
}

int plant(const Options& options) {
  ProblemOptions problems = options.problems;
  if (problems.suite.empty() && problems.cases.empty()) problems.suite = "standard";
  verify::MutationOptions how;
  how.mutants = select_mutants(options.mutants);
  if (options.list) return list_mutants(how.mutants);
  if (options.explanations) return explain(options, problems.specs());
  if (!options.report.empty()) verify::require_report_directory(options.report);
  how.specimens = verify::specimens();
  how.adapt = problems.cases.empty();
  how.threads = options.threads.value();
  how.exhaustive = options.exhaustive;
  how.rules = !options.no_rules && options.mutants.empty();
  how.plain = find_kernel("parallel--native_eigen_ownbw");
  const std::string& suite = problems.suite;
  const bool by_default = (suite == "standard" || suite == "full") && problems.shapes.empty();
  if (!options.no_properties && (by_default || options.properties || !options.property_globs.empty()))
    how.properties = verify::select_properties(options.property_globs, "--property");
  how.keep_items = !options.mutants.empty() && !problems.cases.empty();

  std::optional<Progress> progress;
  how.on_total = [&](std::int64_t total) { progress.emplace("problems", total, false); };
  how.on_unit_done = [&] { progress->advance(0); };
  const verify::MutationReport report = verify::run_mutants(problems.specs(), how);
  progress.reset();
  fmt::print("{}", verify::to_text(report));
  if (options.minimal) {
    const std::vector<std::size_t> chosen = verify::minimal_suite(report);
    fmt::print("\nThese {} of {} problems find all that were found:\n", chosen.size(), report.problems.size());
    for (const std::size_t problem : chosen) fmt::print("{}\n", verify::to_line(report.problems[problem]));
  }
  write_files(options.report, "mutate", verify::to_json(report), verify::to_text(report));
  return report.exit_status();
}

}  // namespace

void add_mutate(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command = app.add_subcommand(
      "mutate",
      "Plants known bugs in honest kernels, judges them as verify does, and says which are found, where and by what; "
      "beside that, what acceptance rules of other test suites find. Succeeds if at least 99 % are found and no honest "
      "kernel fails");
  options->problems.add_to(*command);
  command->get_option("--suite")->description("smoke, standard (the default), full, golden or captures");
  command->add_option("--mutant", options->mutants, "only these mutants (names or globs); without the other rules")
      ->delimiter(',');
  command->add_flag("--list", options->list, "lists the mutants and runs nothing");
  auto* explanations =
      command->add_flag("--explanations", options->explanations,
                        "instead: says of every bug that is found how it would be explained, and whether that is true, "
                        "as a table in Markdown. Succeeds if nothing is wrong and 70 % are right");
  command->add_flag("--minimal", options->minimal, "prints a small part of the suite that finds as many");
  command->add_flag("--exhaustive", options->exhaustive,
                    "runs every mutant in every problem; else a mutant is done with a regime when it was found there");
  command->add_flag("--no-rules", options->no_rules, "leaves out the acceptance rules of others");
  auto* properties = command->add_flag("--properties", options->properties,
                                       "what no problem shows is looked for by properties too, and honest kernels have "
                                       "to have them all. Default with the suites standard and full, unless --shape is "
                                       "given");
  auto* no_properties = command->add_flag("--no-properties", options->no_properties, "checks none");
  properties->excludes(no_properties);
  command
      ->add_option("--property", options->property_globs,
                   "only these properties (names or globs), on their own problems or on those of --case")
      ->delimiter(',')
      ->excludes(no_properties);
  command->add_option("--report", options->report, "directory for mutate.json and mutate.txt");
  const std::string honest_group = "False alarms";
  auto* honest = command
                     ->add_option("--honest", options->honest,
                                  "instead: run kernels that are right on the random problems of so many seeds (from "
                                  "--seed on, or 0), in all dtypes or those of --dtype; anything but PASS is an alarm")
                     ->group(honest_group);
  command
      ->add_option("--variant", options->variants, "registered variants and specimens whose key matches; default: all")
      ->delimiter(',')
      ->needs(honest)
      ->group(honest_group);
  for (const char* name :
       {"--suite", "--eps", "--gate", "--regime", "--shape", "--case", "--mutant", "--list", "--minimal", "--no-rules",
        "--exhaustive", "--properties", "--no-properties", "--property", "--explanations"})
    honest->excludes(command->get_option(name));
  for (const char* name : {"--list", "--minimal", "--no-rules", "--exhaustive", "--report"})
    explanations->excludes(command->get_option(name));
  options->threads.add_to(*command);
  command->callback(
      [options, &status] { status = options->honest.empty() ? plant(*options) : judge_honest(*options); });
}

}  // namespace mlstm::cli
