// SPDX-License-Identifier: Apache-2.0
// mlstm bench: how fast variants are.
#include <fmt/format.h>

#include <cstdio>

#include "cases/case_file.hpp"
#include "cli/cli.hpp"
#include "report/report.hpp"
#include "runner/runner.hpp"
#include "studies/bench/bench.hpp"

namespace mlstm::cli {
namespace {

struct Options {
  std::vector<std::string> variants, dtypes, gates, shapes, chunk_sizes;
  std::string convention, seconds, repetitions, format = "table", peers, out;
  bool forward_only = false, initial_states = false;
};

verify::BenchSelection selection_of(const Options& options) {
  verify::BenchSelection selection;
  for (const std::string& text : options.dtypes) {
    require_choice(text, "--dtype", {"float64", "float32", "float16", "bfloat16"});
    selection.dtypes.push_back(parse_storage_dtype(text, "--dtype"));
  }
  for (const std::string& text : options.gates) selection.gates.push_back(parse_gate(text, "--gate"));
  for (const std::string& text : options.shapes) selection.shapes.push_back(verify::parse_shape(text, "--shape"));
  for (const std::string& text : options.chunk_sizes)
    selection.chunk_sizes.push_back(parse_integer(text, "--chunk-size", 1));
  if (!options.convention.empty()) selection.convention = parse_convention(options.convention, "--convention");
  selection.forward_only = options.forward_only;
  selection.initial_states = options.initial_states;
  return selection;
}

verify::BenchBudget budget_of(const Options& options) {
  verify::BenchBudget budget;
  if (!options.seconds.empty()) budget.seconds = parse_eps(options.seconds, "--seconds");
  if (!options.repetitions.empty()) budget.repetitions = parse_integer(options.repetitions, "--repetitions", 1);
  return budget;
}

int bench(const Options& options) {
  require_choice(options.format, "--format", {"table", "json"});
  const verify::BenchPlan plan = verify::plan_bench(select_kernels(options.variants), selection_of(options));
  verify::Bench bench(budget_of(options));
  std::optional<verify::BenchPeers> peers;
  if (!options.peers.empty()) peers = verify::BenchPeers::parse(verify::read_text_file(options.peers), options.peers);
  const bool table = options.format == "table";

  for (const std::string& line : plan.unselected)
    fmt::print(stderr, "not run, supports no selected problem: {}\n", line);
  for (const Kernel* kernel : plan.unavailable)
    fmt::print(stderr, "SKIPPED  {}  {}\n", kernel->info().key(), verify::unavailable(*kernel));

  std::map<Device, verify::BenchDevice> devices;
  for (const verify::BenchTask& task : plan.tasks) {
    const Device device = task.kernel->info().device;
    if (!devices.contains(device)) devices[device] = verify::Bench::describe(device);
  }
  if (peers && devices.contains(Device::cuda) && !devices.at(Device::cuda).name.starts_with(peers->device()))
    fmt::print(stderr, "the times in {} were measured on another device: {}\n", options.peers, peers->device());
  if (table && !plan.tasks.empty()) fmt::print("{}", verify::bench_heading(devices, peers.has_value()));

  // What is done is said at once, and is in the file: measuring takes long, and may be cut short.
  std::vector<verify::BenchRow> rows;
  for (const verify::BenchTask& task : plan.tasks) {
    if (table && (rows.empty() || rows.back().task.kernel != task.kernel))
      fmt::print("{}\n", task.kernel->info().key());
    std::fflush(stdout);
    rows.push_back(bench.run(task));
    if (peers) rows.back().peer = peers->find(task);
    if (table) fmt::print("{}", verify::bench_line(rows.back(), peers.has_value()));
    std::fflush(stdout);
    if (!options.out.empty()) verify::replace_file(options.out, verify::bench_json(devices, rows));
  }
  if (!options.out.empty() && rows.empty()) verify::replace_file(options.out, verify::bench_json(devices, rows));
  if (!table) fmt::print("{}", verify::bench_json(devices, rows));
  return verify::exit_status(rows);
}

}  // namespace

void add_bench(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command =
      app.add_subcommand("bench", "Times variants, once they have passed a small problem of the same kind");
  command->footer(R"(
What passes on a small problem (one head, some 300 steps, the same dtype, gate, dimensions and chunk size) is
timed; what fails has no speed. What the timed calls computed is checked too: two heads against the reference, all
heads against a call by itself. Inputs are random, and alternate where they would stay in the cache. A call of less than
a millisecond on a GPU is timed in batches, as a CUDA graph where that is possible.

Bytes and FLOPs are those that cannot be avoided: with T = B*NH*S, d = DHQK, e = DHV and L steps a chunk (S for the
parallel formulation, without the terms in d*e; 0 for the recurrent one)
  forward   T*(L*(d+e) + 4*d*e) FLOPs,      T*(2*d+2*e) numbers of the dtype
  backward  T*(L*(3*d+2*e) + 10*d*e) FLOPs, T*(4*d+3*e) numbers of the dtype
and with given states 2*B*NH*(d*e+d+1) numbers of the state dtype more in each pass, which is nearly everything in a
decoding step.)");
  const std::string group = "Problems";
  command->add_option("--variant", options->variants, "only variants whose key matches this glob; may be repeated")
      ->delimiter(',')
      ->group(group);
  command
      ->add_option("--dtype", options->dtypes, "float64, float32, float16 or bfloat16 (the default); several: commas")
      ->delimiter(',')
      ->group(group);
  command->add_option("--gate", options->gates, "exp (the default) or sigmoid; several: commas")
      ->delimiter(',')
      ->group(group);
  command
      ->add_option(
          "--shape", options->shapes,
          "B,NH,S,DHQK,DHV; may be repeated. Default: 65,536 tokens or 128 decoding steps on a GPU, little on a "
          "CPU. Decoding steps take S = 1 alone")
      ->repeated()
      ->group(group);
  command->add_option("--chunk-size", options->chunk_sizes, "L of chunkwise variants; default: 64,128")
      ->delimiter(',')
      ->group(group);
  command
      ->add_option("--convention", options->convention,
                   "exact (the default, where a variant has it) or detached gradients")
      ->group(group);
  command->add_flag("--forward-only", options->forward_only, "no backward pass")->group(group);
  command
      ->add_flag("--initial-states", options->initial_states,
                 "with given states, and last states returned; decoding steps always have them")
      ->group(group);
  auto* seconds = command->add_option("--seconds", options->seconds, "to measure each number for; default: 0.5");
  command->add_option("--repetitions", options->repetitions, "samples of each number, instead of --seconds")
      ->excludes(seconds);
  command->add_option("--format", options->format, "table (the default) or json");
  command->add_option("--peers", options->peers,
                      "JSON file with the times of other kernels, as verify/bench_published.py writes it");
  command->add_option("--out", options->out, "write the results as JSON to this file too");
  command->callback([options, &status] { status = bench(*options); });
}

}  // namespace mlstm::cli
