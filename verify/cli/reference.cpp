// SPDX-License-Identifier: Apache-2.0
// mlstm reference: evaluates a case file in float64.
#include "cases/case_file.hpp"
#include "cli/cli.hpp"
#include "judge/bounds.hpp"

namespace mlstm::cli {
namespace {

struct Options {
  std::string in, out, formulation = "chunkwise", backward = "ownbw", chunk_size;
  bool bounds = false;
  ThreadsOption threads;
};

void run(const Options& options) {
  reference::Options how;
  how.formulation = parse_module(options.formulation, "--formulation");
  how.backward = reference::parse_backward(options.backward, "--backward");
  if (!options.chunk_size.empty()) how.chunk_size = parse_integer(options.chunk_size, "--chunk-size", 1);
  how.threads = options.threads.value();
  verify::check_manifest(options.in);
  verify::Case c = verify::read_case(options.in);
  verify::ReferenceData reference = verify::evaluate_reference(c, how);
  if (c.reference) {  // bounds and remarks that the file has stay
    reference.bounds = std::move(c.reference->bounds);
    reference.attributes.merge(c.reference->attributes);
  }
  if (options.bounds) reference.bounds = verify::error_bounds(c, reference, verify::precision_of(c), how.threads);
  reference.attributes["formulation"] = options.formulation;
  reference.attributes["backward"] = options.backward;
  c.reference = std::move(reference);
  verify::write_case(c, options.out);
}

}  // namespace

void add_reference(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command = app.add_subcommand(
      "reference",
      "Evaluates the inputs (and cotangents) of a mlstm-case file in float64: outputs, last states, gradients");
  command->add_option("IN", options->in, "mlstm-case file to read")->required();
  command->add_option("OUT", options->out, "file to write: all of IN and /reference; may be IN")->required();
  command->add_option("--formulation", options->formulation, "recurrent, parallel or chunkwise (the default)");
  command->add_option("--chunk-size", options->chunk_size,
                      "L of the chunkwise formulation; default: the file's, else 64");
  command->add_option("--backward", options->backward, "ownbw (derived by hand, the default) or autograd");
  command->add_flag(
      "--bounds", options->bounds,
      "also write /reference/bounds: the error bounds for the file's dtype and what its /kernel declares");
  options->threads.add_to(*command);
  command->callback([options, &status] {
    run(*options);
    status = kOk;
  });
}

}  // namespace mlstm::cli
