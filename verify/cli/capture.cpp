// SPDX-License-Identifier: Apache-2.0
// mlstm capture: runs variants and records what they produce.
#include <fmt/format.h>

#include <atomic>
#include <mutex>

#include "base/memory.hpp"
#include "cases/case_file.hpp"
#include "cases/source_digest.hpp"
#include "cli/cli.hpp"
#include "report/report.hpp"
#include "runner/kernel_needs.hpp"
#include "runner/runner.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::cli {
namespace {

struct Options {
  ProblemOptions problems;
  ThreadsOption threads;
  IsolationOptions isolation;
  std::vector<std::string> variants;
  std::string convention, out;
};

/// "<variant>--<case>[--<convention>]": the capture's file name, and the case it holds, so that cases stay apart when
/// several variants are judged together.
std::string capture_name(const verify::Run& run, const verify::ProblemSpec& spec) {
  std::string name = run.kernel->info().key() + "--" + verify::case_name(spec);
  if (run.convention) name += "--" + std::string(to_string(*run.convention));
  return name;
}

verify::Case record(const verify::Run& run, const verify::ProblemSpec& spec, verify::Case c,
                    const verify::RunFunction& runner) {
  c.name = capture_name(run, spec);
  c.attributes["spec"] = verify::to_line(spec);
  const VariantInfo& info = run.kernel->info();
  verify::KernelData data = runner(*run.kernel, c, run.convention, {});
  data.variant = info.key();
  data.formulation = info.module;
  data.convention = run.convention;
  data.operand_dtype = info.operand_dtype;
  data.state_dtype = info.state_dtype;
  data.gate_dtype = info.gate_dtype;
  data.product_dtype = info.product_dtype;
  // A plugin is no source of this tree, and its captures are never STALE.
  const auto* plugin = dynamic_cast<const verify::PluginVariant*>(run.kernel);
  data.attributes["source"] = plugin == nullptr
                                  ? std::string(verify::program_source())
                                  : fmt::format("plugin {}, run by {}", plugin->library(), verify::program_source());
  data.attributes["source_sha256"] =
      plugin == nullptr ? verify::source_digest(info.key()) : verify::sha256_of_file(plugin->library());
  c.kernel = std::move(data);
  return c;
}

/// Why this process and the one that runs the kernel cannot have the memory for this run; empty if they can.
std::string why_too_large(const verify::ProblemSpec& spec, const verify::Run& run, const Isolation& isolation) {
  verify::VerifierNeeds own = verify::verifier_needs(spec.problem, spec.cotangents, 1, Module::recurrent);
  own.reference = own.bounds = own.scratch = 0;  // nothing is judged here
  own.results *= 2;                              // once more as a file
  return verify::why_too_large(own, verify::kernel_needs(*run.kernel, spec.problem, run.convention.has_value()),
                               {.worker = isolation.worker_memory()});
}

int capture(const Options& options) {
  std::optional<Convention> convention;
  if (!options.convention.empty()) convention = parse_convention(options.convention, "--convention");
  Isolation isolation(options.isolation);
  const verify::RunFunction runner = isolation.runner();
  const verify::Plan plan =
      verify::make_plan(select_kernels(options.variants, isolation.plugins()), options.problems.specs(),
                        options.problems.cases.empty(), convention, isolation.unavailable());
  for (const verify::CannotRun& declined : plan.declined)
    fmt::print(stderr, "{} {}\n", declined.kernel->info().key(), declined.reason);
  for (const std::string& line : plan.unselected)
    fmt::print(stderr, "not run, supports no selected problem: {}\n", line);
  std::error_code error;
  std::filesystem::create_directories(options.out, error);
  if (error) throw verify::FileError(options.out + ": cannot create the directory (" + error.message() + ")");

  std::int64_t written = 0, failed = 0;
  std::mutex mutex;  // also over writing: the HDF5 library need not be thread-safe
  const auto fail = [&](const verify::Run& run, const verify::ProblemSpec& spec, const char* what) {
    ++failed;
    print_error(fmt::format("{}: {}\n{}", capture_name(run, spec), what, verify::repro_line(spec, run)));
  };
  {
    Progress progress("problems", static_cast<std::int64_t>(plan.units.size()), false);  // failures are told one by one
    verify::for_each_unit(plan.units, options.threads.value(), [&](const verify::Unit& unit, int) {
      std::int64_t failed_before = 0;
      if (const verify::ProblemRuns* work = unit.problem()) {
        std::optional<verify::Case> inputs;
        for (const verify::Run& run : work->runs) {
          std::optional<verify::Case> c;
          std::string problem;
          try {
            problem = why_too_large(work->spec, run, isolation);
            if (problem.empty()) {
              if (!inputs) inputs = verify::make_case(work->spec);
              c = record(run, work->spec, *inputs, runner);
            }
          } catch (const std::exception& reason) {
            problem = verify::reason_of(reason);
          }
          const std::lock_guard lock(mutex);
          if (c) {
            verify::write_case(*c, std::filesystem::path(options.out) / (c->name + ".h5"));
            ++written;
          } else {
            fail(run, work->spec, problem.c_str());
            ++failed_before;
          }
        }
      }
      const std::lock_guard lock(mutex);
      progress.advance(failed_before);
    });
  }
  for (const verify::Unit& unit : plan.units)
    if (const verify::CannotRun* cannot = unit.cannot_run())
      fmt::print(stderr, "SKIPPED  {}  {}\n", cannot->kernel->info().key(), cannot->reason);
  if (written > 0) verify::write_manifest(options.out);
  fmt::print("{} captures written to {}\n", written, options.out);
  return failed > 0 ? kFailed : written == 0 ? kNothingJudged : kOk;
}

}  // namespace

void add_capture(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command = app.add_subcommand(
      "capture",
      "Runs variants and records inputs and results as captures: one file per variant, problem and convention");
  command->add_option("--out", options->out, "directory to write to (and its MANIFEST.sha256)")->required();
  options->problems.add_to(*command);
  command->add_option("--variant", options->variants, "only variants whose key matches this glob; may be repeated")
      ->delimiter(',')
      ->group("Problems");
  command->add_option("--convention", options->convention, "exact or detached: the only gradient convention to run");
  options->isolation.add_to(*command);
  options->threads.add_to(*command);
  command->callback([options, &status] { status = capture(*options); });
}

}  // namespace mlstm::cli
