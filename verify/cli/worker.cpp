// SPDX-License-Identifier: Apache-2.0
// mlstm worker: the process that runs kernels for mlstm verify. Not for people.
#include "cli/cli.hpp"

namespace mlstm::cli {

void add_worker(Command& app, int& status) {
  auto limits = std::make_shared<verify::WorkerLimits>();
  Command* command = app.add_subcommand("worker", "Runs kernels for another mlstm, which starts it")->group("");
  command->add_option("--data-limit", limits->data, "bytes of memory that it can have; 0: any number");
  command->add_option("--memory-limit", limits->memory, "bytes of memory that it may hold; 0: any number");
  command->add_option("--without", limits->without, "what it is not confined by, since this system does not have it");
  auto probe = std::make_shared<bool>(false);
  command->add_flag("--probe", *probe, "only find out how it can be confined; the exit status says it");
  command->callback(
      [limits, probe, &status] { status = *probe ? verify::probe_main() : verify::worker_main(*limits); });
}

}  // namespace mlstm::cli
