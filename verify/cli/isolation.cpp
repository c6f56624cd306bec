// SPDX-License-Identifier: Apache-2.0
// Where kernels run, and whose: workers and plugins as the command line wants them.
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <csignal>
#include <map>
#include <mutex>
#include <set>

#include "cli/cli.hpp"

namespace mlstm::cli {
namespace {

double parse_seconds(const std::string& text) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(seconds) || seconds < 0)
    throw std::invalid_argument(
        fmt::format("--timeout is \"{}\"; expected a number of seconds, or 0 for no limit", text));
  return seconds;
}

/// "4G" -> 4 * 2^30.
std::uint64_t parse_memory(const std::string& text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const std::map<std::string_view, int> shifts{{"", 0}, {"K", 10}, {"M", 20}, {"G", 30}, {"T", 40}};
  const auto shift = shifts.find(unit);
  if (error != std::errc{} || shift == shifts.end() || number > (UINT64_MAX >> shift->second))
    throw std::invalid_argument(
        fmt::format("--memory-limit is \"{}\"; expected bytes, as in 4G or 512M, or 0 for no limit", text));
  return number << shift->second;
}

/// Once for each variant: a kernel that prints does so in every run.
void show_output(const std::string& key, const std::string& text) {
  static std::mutex mutex;
  static std::set<std::string> shown;
  const std::lock_guard lock(mutex);
  if (shown.insert(key).second)
    fmt::print(stderr, "mlstm: {} writes to its output (--in-process shows all of it):\n{}{}", key, text,
               text.ends_with('\n') ? "" : "\n");
}

extern "C" void end_at_once(int signal) {
  constexpr std::string_view text = "\nmlstm: interrupted; with --report, --resume goes on from here\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  _exit(128 + signal);  // the workers end when their sockets close
}

void end_on_signals() {
  for (const int number : {SIGINT, SIGTERM}) {
    struct sigaction before {};
    sigaction(number, nullptr, &before);
    if (before.sa_handler == SIG_IGN) continue;  // as in the background, or under nohup
    struct sigaction action {};
    action.sa_handler = end_at_once;
    sigaction(number, &action, nullptr);
  }
}

}  // namespace

void IsolationOptions::add_plugins_to(Command& command) {
  command
      .add_option("--plugin", plugins,
                  "shared library with variants of yours, as mlstm_kernel.h describes it; may be repeated. Without "
                  "--variant only these are run")
      ->repeated();
}

void IsolationOptions::add_to(Command& command) {
  add_plugins_to(command);
  const std::string group = "Processes";
  auto* seconds = command
                      .add_option("--timeout", timeout,
                                  "seconds that a variant may take for one problem with all its repeats, before it "
                                  "is stopped; default: 300; 0: any time")
                      ->group(group);
  auto* memory = command
                     .add_option("--memory-limit", memory_limit,
                                 "memory that a process that runs kernels may use, as in 4G; default: half of the "
                                 "machine's; 0: any")
                     ->group(group);
  command
      .add_flag("--in-process", in_process,
                "run kernels in this process, for debuggers and compute-sanitizer: what they do to it, they do to the "
                "verifier")
      ->group(group)
      ->excludes(seconds)
      ->excludes(memory);
}

Isolation::Isolation(const IsolationOptions& options) {
  if (!options.in_process) {
    verify::WorkerOptions how;
    if (!options.timeout.empty()) how.timeout = parse_seconds(options.timeout);
    if (!options.memory_limit.empty()) how.memory_limit = parse_memory(options.memory_limit);
    how.on_output = show_output;
    how.on_notice = print_error;
    worker_memory_ = how.memory_limit;
    workers_.emplace(how);
    end_on_signals();
  }
  std::map<std::string, std::string> owners;
  for (const Kernel* kernel : registered_kernels()) owners[kernel->info().key()] = "mlstm itself";
  for (const std::string& library : options.plugins) {
    plugins_.push_back(workers_ ? workers_->load_plugin(library) : verify::load_plugin(library));
    for (const auto& variant : plugins_.back())
      if (const auto [owner, is_new] = owners.emplace(variant->info().key(), library); !is_new)
        throw verify::PluginError(fmt::format("plugin {}: variant {} is there already, from {}; expected another name",
                                              library, owner->first, owner->second));
  }
}

std::vector<const Kernel*> Isolation::plugins() const {
  std::vector<const Kernel*> kernels;
  for (const verify::PluginVariants& variants : plugins_)
    for (const auto& variant : variants) kernels.push_back(variant.get());
  return kernels;
}

verify::RunFunction Isolation::runner() { return workers_ ? workers_->runner() : verify::run_kernel; }

std::vector<std::string> Isolation::exposed() {
  return workers_ ? workers_->exposed() : std::vector<std::string>{"verifier"};
}

verify::UnavailableFunction Isolation::unavailable() {
  if (!workers_) return [](const Kernel& kernel) { return verify::unavailable(kernel); };
  return [this](const Kernel& kernel) { return workers_->unavailable(kernel); };
}

}  // namespace mlstm::cli
