// SPDX-License-Identifier: Apache-2.0
// Runs kernels in processes of their own, so that whatever one does (crash, hang, exit, fill the memory, write over
// everything) costs one run, and no kernel shares a process with the code that judges it.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runner/confinement.hpp"
#include "runner/plugin.hpp"
#include "runner/runner.hpp"

namespace mlstm::verify {

/// The worker ended without a result, or sent something that is not a result. The message says how, and the last line
/// that it wrote to its output.
class WorkerError : public std::exception {
 public:
  explicit WorkerError(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

/// Half of the machine's memory, or of what its control group may use.
std::uint64_t default_memory_limit();

struct WorkerOptions {
  std::filesystem::path program = "/proc/self/exe";  ///< is started as `program worker ...`, which calls worker_main
  double timeout = 300;  ///< seconds that one run of a kernel with all its repeats may take; 0: any time
  /// Bytes that a worker may use; 0: any number. For CPU variants the operating system refuses more (RLIMIT_DATA). A
  /// CUDA process reserves more than it uses, so there, as for everything else, a worker that holds more is killed.
  std::uint64_t memory_limit = default_memory_limit();
  /// What a kernel wrote to stdout and stderr (the beginning), after a run that succeeded. From any thread.
  std::function<void(const std::string& key, const std::string& text)> on_output;
  /// A line for the user. From any thread.
  std::function<void(const std::string& line)> on_notice;
  /// Parts of Confinement to do without though the system has them: for tests of what they are good for.
  std::uint32_t without = 0;
};

/// Worker processes, started when needed and used again. A worker runs either registered variants of one device, or one
/// variant of a plugin. After a run that did not succeed it is thrown away; if registered variants other than the one
/// that ran had used it before, the run is made once more in a fresh one, so that what they left behind is not blamed
/// on it. Whatever a kernel started is gone with its worker, and workers are gone when the pool, or this process, is.
/// This process becomes the reaper of its orphaned descendants, and cannot be traced any more.
class WorkerPool {
 public:
  explicit WorkerPool(WorkerOptions options);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// As run_kernel (whose exceptions it throws), and TimeoutError or WorkerError. `kernel` is a registered variant or
  /// one of load_plugin. May be called from several threads, each of which uses a worker; runs on a GPU take turns.
  KernelData run(const Kernel& kernel, const Case& c, std::optional<Convention> convention, const RunOptions& options);
  RunFunction runner();

  /// As verify::unavailable, asked in a worker: this process does not touch the device.
  std::string unavailable(const Kernel& kernel);

  /// The variants of a plugin, which is loaded in workers only: forward, backward and the sizes of its buffers cannot
  /// be asked here (std::logic_error). unsupported() asks a worker if the plugin has a function for that. The pool has
  /// to outlive them. Throws PluginError.
  PluginVariants load_plugin(const std::filesystem::path& library);

  /// What a kernel that means harm could reach, because this system lacks something (exposed_by); empty: nothing that
  /// verdicts depend on. Throws WorkerError if workers cannot be started.
  std::vector<std::string> exposed();

 private:
  class Impl;
  class RemoteVariant;
  std::unique_ptr<Impl> impl_;
};

/// What a worker is told when it is started.
struct WorkerLimits {
  std::uint64_t data = 0;     ///< bytes that it can have beyond those it starts with (RLIMIT_DATA); 0: any number
  std::uint64_t memory = 0;   ///< bytes of memory that it may hold before it is killed; 0: any number
  std::uint64_t without = 0;  ///< parts of Confinement that this system does not have
};

/// Where a worker finds registered variants by their full key; null if there is none.
using FindKernel = std::function<const Kernel*(std::string_view key)>;

/// The whole life of a worker. This process starts one that watches: that starts the one that runs kernels, and when
/// that one ends, or the verifier is gone or wants it so, ends it and all that it has started. All three are confined.
/// Returns the exit status. Throws std::runtime_error if it was not started by a WorkerPool.
int worker_main(const WorkerLimits& limits, const FindKernel& find = find_kernel);

/// What `program worker --probe` does: finds out how workers can be confined. The exit status says it to the
/// WorkerPool.
int probe_main();

}  // namespace mlstm::verify
