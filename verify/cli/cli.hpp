// SPDX-License-Identifier: Apache-2.0
// What the subcommands of `mlstm` share. Each subcommand is one file with one add_ function.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cases/problems.hpp"
#include "cli/command.hpp"
#include "cli/progress.hpp"
#include "mlstm/kernel.hpp"
#include "runner/plugin.hpp"
#include "runner/workers.hpp"
#include "sweep/explain.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::cli {

/// Exit status (contract §6).
inline constexpr int kOk = 0, kFailed = 1, kBadArguments = 2, kNothingJudged = 3;

/// Each adds one subcommand, which stores its exit status in `status` when it has run. Bad arguments and unreadable
/// files leave as exceptions.
void add_list(Command& app, int& status);
void add_reference(Command& app, int& status);
void add_verify(Command& app, int& status);
void add_capture(Command& app, int& status);
void add_gradcheck(Command& app, int& status);
void add_fixtures(Command& app, int& status);
void add_report(Command& app, int& status);
void add_bench(Command& app, int& status);
void add_mutate(Command& app, int& status);
void add_worker(Command& app, int& status);

/// Prints "mlstm: <message>" as one line on stderr.
void print_error(std::string_view message);

/// Columns that text on standard output may take: $COLUMNS, else those of the terminal, else 80.
std::size_t text_width();

/// Numbers from the command line. Throw std::invalid_argument that names the argument, its value and what was expected.
std::int64_t parse_integer(std::string_view text, std::string_view argument, std::int64_t at_least);
double parse_eps(std::string_view text, std::string_view argument);

/// Throws std::invalid_argument unless `text` is one of `choices`.
void require_choice(std::string_view text, std::string_view argument, const std::vector<std::string>& choices);

/// The options that choose problems, as they stand on the command line.
struct ProblemOptions {
  std::string suite, seed;
  std::vector<std::string> dtypes, eps, gates, regimes, shapes, cases;

  void add_to(Command& command);
  bool empty() const;  ///< no option was given
  /// What the options select of any list of problems.
  verify::Selection selection() const;
  /// The problems that --case names.
  std::vector<verify::ProblemSpec> named_cases() const;
  /// The problems; those of the smoke suite if neither a suite nor a case is given.
  std::vector<verify::ProblemSpec> specs() const;
};

/// Variants, registered or of `plugins`, whose key (or name without module) matches one of the globs. For no globs
/// those of the plugins, or without plugins all. Throws std::invalid_argument for a glob that matches none.
std::vector<const Kernel*> select_kernels(const std::vector<std::string>& globs,
                                          const std::vector<const Kernel*>& plugins = {});

/// The options that name plugins and say in which processes kernels run, as they stand on the command line.
struct IsolationOptions {
  std::vector<std::string> plugins;
  std::string timeout, memory_limit;
  bool in_process = false;

  /// --plugin alone, for commands that run nothing.
  void add_plugins_to(Command& command);
  void add_to(Command& command);
};

/// What runs kernels: workers, or with --in-process this process. Ctrl-C and SIGTERM end this program with 128 +
/// signal, and all workers with it.
class Isolation {
 public:
  /// Throws std::invalid_argument for a bad option, verify::PluginError for a plugin that cannot be used or has a
  /// variant of a name that is taken.
  explicit Isolation(const IsolationOptions& options);

  /// The plugins' variants.
  std::vector<const Kernel*> plugins() const;
  verify::RunFunction runner();
  /// Bytes that a process that runs kernels may use, 0: any number; absent: kernels run in this process.
  std::optional<std::uint64_t> worker_memory() const { return worker_memory_; }
  verify::UnavailableFunction unavailable();
  /// verify::Item::exposed of what is run.
  std::vector<std::string> exposed();

 private:
  std::optional<std::uint64_t> worker_memory_;
  std::optional<verify::WorkerPool> workers_;  // before the variants, which use it
  std::vector<verify::PluginVariants> plugins_;
};

/// --threads with its help, and its value.
struct ThreadsOption {
  std::string text;
  void add_to(Command& command);
  int value() const;
};

/// --explain, --shrink and --failures.
struct ExplainArguments {
  bool stages = false;
  std::string shrink, failures;
  bool shrinks = false;

  void add_to(Command& command);
  /// What is asked for, if anything; SweepOptions are the caller's. Throws std::invalid_argument.
  std::optional<verify::ExplainOptions> wanted() const;
};

}  // namespace mlstm::cli
