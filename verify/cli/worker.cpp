// SPDX-License-Identifier: Apache-2.0
// mlstm worker: the process that runs kernels for mlstm verify. Not for people.
#include "cli/cli.hpp"

namespace mlstm::cli {

void add_worker(Command& app, int& status) {
  auto limits = std::make_shared<verify::WorkerLimits>();
  Command* command = app.add_subcommand("worker", "Runs kernels for another mlstm, which starts it")->group("");
  command->add_option("--data-limit", limits->data, "bytes of memory that it can have; 0: any number");
  command->add_option("--memory-limit", limits->memory, "bytes of memory that it may hold; 0: any number");
  command->callback([limits, &status] { status = verify::worker_main(*limits); });
}

}  // namespace mlstm::cli
