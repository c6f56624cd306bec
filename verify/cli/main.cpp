// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "base/memory.hpp"
#include "base/text.hpp"
#include "cli/cli.hpp"
#include "report/report.hpp"

namespace {

constexpr std::string_view kFooter = R"(
Exit status, the first that applies:
  2  bad arguments or an unreadable file (the other files are still judged)
  1  something failed, errored, timed out, was mistrusted or is stale
  3  nothing was judged
  0  everything judged passed

"mlstm COMMAND --help" describes a command.)";

/// `status`, if everything that was printed has been taken.
int after_output(int status) {
  std::cout.flush();
  if (std::cout && std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  mlstm::cli::print_error(fmt::format("standard output cannot be written: {}", std::strerror(errno)));
  return mlstm::cli::kBadArguments;
}

int run(int argc, char** argv) {
  using namespace mlstm;
  int status = cli::kOk;
  cli::Command app("Reference and verifier for mLSTM (xLSTM) kernels", "mlstm", std::string(verify::program_source()));
  app.require_subcommand(0, 1);
  app.footer(std::string(kFooter));
  cli::add_list(app, status);
  cli::add_reference(app, status);
  cli::add_verify(app, status);
  cli::add_capture(app, status);
  cli::add_gradcheck(app, status);
  cli::add_fixtures(app, status);
  cli::add_report(app, status);
  cli::add_bench(app, status);
  cli::add_mutate(app, status);
  cli::add_worker(app, status);
  if (const std::optional<int> ended = app.parse(argc, argv))
    return *ended == cli::kOk ? after_output(cli::kOk) : *ended;
  if (!app.subcommand_was_given()) {
    cli::print_error("COMMAND is missing; expected one of those that --help lists");
    return cli::kBadArguments;
  }
  return after_output(status);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files is an error like a full disk, not a reason to die
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    mlstm::cli::print_error(std::ferror(stdout) != 0
                                ? fmt::format("standard output cannot be written: {}", error.what())
                                : mlstm::verify::reason_of(error));
  } catch (...) {
    mlstm::cli::print_error("unknown error");
  }
  return mlstm::cli::kBadArguments;
}
