// SPDX-License-Identifier: Apache-2.0
#include "runner/workers.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/memory.hpp"
#include "base/text.hpp"
#include "runner/worker_process.hpp"

namespace mlstm::verify {
namespace {

/// "": registered variants of the CPU; else a device or, of a plugin, one variant: none can blame another.
std::string group_of(const Kernel& kernel) {
  if (const auto* plugin = dynamic_cast<const PluginVariant*>(&kernel))
    return plugin->library() + '\n' + plugin->info().key();
  return kernel.info().device == Device::cpu ? "" : std::string(to_string(kernel.info().device));
}

std::string library_of(const Kernel& kernel) {
  const auto* plugin = dynamic_cast<const PluginVariant*>(&kernel);
  return plugin == nullptr ? "" : plugin->library();
}

std::string text_in(std::string_view meta) {
  return one_line(decode_text(meta));  // a kernel may have written it
}

struct Worker {
  Worker(const std::filesystem::path& program, const WorkerLimits& limits) : process(program, limits) {}
  WorkerProcess process;
  std::string group;
  std::set<std::string> used_by;  // keys
};

/// A number in a file of one, such as those of control groups.
}  // namespace

std::uint64_t default_memory_limit() { return machine_memory() / 2; }

class WorkerPool::Impl {
 public:
  explicit Impl(WorkerOptions options)
      : options_(std::move(options)), most_idle_(std::max(8u, 2 * std::thread::hardware_concurrency())) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    refuse_tracing();
  }

  std::vector<std::string> exposed() { return exposed_by(missing()); }

  KernelData run(const Kernel& kernel, const Case& c, std::optional<Convention> convention, const RunOptions& how) {
    const VariantInfo& info = kernel.info();
    if (c.cotangents.empty()) convention.reset();
    Case inputs_only;
    const Case* sent = &c;
    if (!convention && !c.cotangents.empty()) {
      inputs_only.problem = c.problem;
      inputs_only.inputs = c.inputs;
      sent = &inputs_only;
    }
    require_shapes(*sent);
    RunRequest request{library_of(kernel), info.key(), outline_of(*sent), convention, how, {}};
    Source tensors = tensors_of(*sent);
    if (how.other != nullptr) {
      require_shapes(*how.other);
      request.other = outline_of(*how.other);
      for (const auto& tensor : tensors_of(*how.other)) tensors.push_back(tensor);
    }
    std::unique_lock turn(gpu_, std::defer_lock);
    if (info.device == Device::cuda) turn.lock();
    KernelData data = naming_who_ran_out("the verifier", "it made room for a kernel's results",
                                         [&] { return make_room(info, c.problem, convention, how); });
    const Target target = room_in(data);
    data.attributes.merge(
        named(kernel, [&] { return ask(kernel, FrameKind::run, encode(request), tensors, target, decode_device); }));
    return data;
  }

  std::string unavailable(const Kernel& kernel) {
    const Device device = kernel.info().device;
    if (device == Device::cpu) return {};
    const std::lock_guard lock(devices_mutex_);
    const auto known = unavailable_.find(device);
    if (known != unavailable_.end()) return known->second;
    const std::lock_guard turn(gpu_);
    std::string reason;
    try {
      reason = ask_text(kernel, FrameKind::unavailable, {});
    } catch (const std::exception& error) {
      reason = fmt::format("the {} device cannot be used: {}", to_string(device), error.what());
    }
    return unavailable_[device] = reason;
  }

  std::string unsupported(const Kernel& kernel, const Problem& problem) {
    return ask_text(kernel, FrameKind::unsupported, problem);
  }

  std::vector<Described> describe(const std::string& library) {
    // What device it is for is not known yet, so no limit of CPU variants holds.
    WorkerProcess process(options_.program, {0, options_.memory_limit, missing()});
    std::string problem;
    try {
      const auto reply = process.exchange(FrameKind::describe, encode_text(library), {}, {}, seconds(options_.timeout));
      if (reply.kind == FrameKind::done) return decode_variants(reply.meta);
      throw PluginError(text_in(reply.meta));
    } catch (const TimeoutError& error) {
      problem = error.what();
    } catch (const WorkerError& error) {
      problem = error.what();
    } catch (const FrameError& error) {
      problem = fmt::format("sent the verifier a damaged declaration: {}", error.what());
    }
    throw PluginError(fmt::format("plugin {}: while it was loaded, it {}", library, problem));
  }

 private:
  static std::optional<double> seconds(double timeout) { return timeout > 0 ? std::optional(timeout) : std::nullopt; }

  /// What a kernel is judged on has to be what it got: tensors of the problem's shapes.
  static void require_shapes(const Case& c) {
    validate(c.problem);
    const auto fits = [&](const TensorMap& tensors, const std::string& name) {
      const auto found = tensors.find(name);
      if (found == tensors.end()) return false;
      const auto shape = shape_of(name, c.problem.shape);
      return std::equal(shape.begin(), shape.end(), found->second.shape().begin(), found->second.shape().end());
    };
    const std::vector<std::string> inputs = input_names(c.problem), outputs = output_names(c.problem);
    bool good = c.inputs.size() == inputs.size();
    for (const std::string& name : inputs) good = good && fits(c.inputs, name);
    for (const auto& [name, array] : c.cotangents)
      good = good && std::find(outputs.begin(), outputs.end(), name) != outputs.end() && fits(c.cotangents, name);
    if (!good) validate(c);  // which says what is wrong
  }

  /// Calls something that runs for a variant, whose key then begins what WorkerError and TimeoutError say.
  template <class Call>
  static auto named(const Kernel& kernel, const Call& call) -> decltype(call()) {
    try {
      return call();
    } catch (const TimeoutError& error) {
      throw TimeoutError(fmt::format("{}: {}", kernel.info().key(), error.what()));
    } catch (const WorkerError& error) {
      throw WorkerError(fmt::format("{}: {}", kernel.info().key(), error.what()));
    }
  }

  std::string ask_text(const Kernel& kernel, FrameKind kind, const Problem& problem) {
    const RunRequest request{library_of(kernel), kernel.info().key(), {problem, {}}, {}, {}, {}};
    return named(kernel, [&] { return ask(kernel, kind, encode(request), {}, {}, text_in); });
  }

  /// What `parse` makes of the fields of a reply of kind `done`. Throws what the reply says if it is another one.
  template <class Parse>
  auto ask(const Kernel& kernel, FrameKind kind, const std::string& meta, const Source& source, const Target& target,
           const Parse& parse) -> decltype(parse(std::string_view())) {
    const std::string key = kernel.info().key();
    for (;;) {
      bool is_shared = false;
      std::string problem;
      try {
        std::unique_ptr<Worker> worker = take(kernel);
        is_shared = worker->used_by.size() > worker->used_by.count(key);
        return ask(std::move(worker), key, kind, meta, source, target, parse);
      } catch (const TimeoutError& error) {
        if (!is_shared) throw;
        problem = error.what();
      } catch (const WorkerError& error) {
        if (!is_shared) throw;
        problem = error.what();
      }
      if (options_.on_notice)
        options_.on_notice(
            fmt::format("{}: {}; once more in a fresh process, as other variants had run in that one", key, problem));
    }
  }

  template <class Parse>
  auto ask(std::unique_ptr<Worker> worker, const std::string& key, FrameKind kind, const std::string& meta,
           const Source& source, const Target& target, const Parse& parse) -> decltype(parse(std::string_view())) {
    const auto reply = worker->process.exchange(kind, meta, source, target, seconds(options_.timeout));
    try {
      if (reply.kind == FrameKind::done) {
        auto result = parse(reply.meta);
        give_back(std::move(worker), key);
        if (!reply.output.empty() && options_.on_output) options_.on_output(key, reply.output);
        return result;
      }
      if (reply.kind == FrameKind::found) throw decode_failure(reply.meta);
      const std::string text = text_in(reply.meta);
      if (reply.kind == FrameKind::failed) throw std::runtime_error(text);
      if (reply.kind == FrameKind::error) throw WorkerError(text);
      if (reply.kind == FrameKind::no_memory)
        throw WorkerError(text + (options_.memory_limit == 0 ? ""
                                                             : fmt::format("; --memory-limit gives that process {}",
                                                                           bytes_text(options_.memory_limit))));
      give_back(std::move(worker), key);
      throw std::invalid_argument(text);
    } catch (const FrameError& error) {
      throw WorkerError(fmt::format("sent the verifier a damaged reply: {}", error.what()));
    }
  }

  /// The parts of Confinement that workers do without. Throws WorkerError if workers cannot be started.
  std::uint32_t missing() {
    const std::lock_guard lock(missing_mutex_);
    if (!missing_) missing_ = probe_confinement(options_.program) | options_.without;
    return *missing_;
  }

  std::unique_ptr<Worker> take(const Kernel& kernel) {
    const std::string group = group_of(kernel);
    for (;;) {
      std::unique_ptr<Worker> worker;
      {
        const std::lock_guard lock(idle_mutex_);
        const auto found =
            std::find_if(idle_.begin(), idle_.end(), [&](const auto& idle) { return idle->group == group; });
        if (found == idle_.end()) break;
        worker = std::move(*found);
        idle_.erase(found);
      }
      if (worker->process.is_usable()) return worker;
    }
    const WorkerLimits limits{kernel.info().device == Device::cpu ? options_.memory_limit : 0, options_.memory_limit,
                              missing()};
    auto worker = std::make_unique<Worker>(options_.program, limits);
    worker->group = group;
    return worker;
  }

  /// Keeps the worker for later, unless something is left behind in it; the one that waits longest makes room.
  void give_back(std::unique_ptr<Worker> worker, const std::string& key) {
    if (!worker->process.is_usable()) return;
    worker->used_by.insert(key);
    std::unique_ptr<Worker> surplus;
    const std::lock_guard lock(idle_mutex_);
    idle_.push_front(std::move(worker));
    if (idle_.size() <= most_idle_) return;
    surplus = std::move(idle_.back());
    idle_.pop_back();
  }

  const WorkerOptions options_;
  const std::size_t most_idle_;
  std::mutex gpu_, idle_mutex_, devices_mutex_, missing_mutex_;
  std::optional<std::uint32_t> missing_;
  std::list<std::unique_ptr<Worker>> idle_;  // the one used last comes first
  std::map<Device, std::string> unavailable_;
};

class WorkerPool::RemoteVariant final : public PluginVariant {
 public:
  RemoteVariant(Impl& pool, std::string library, Described described)
      : PluginVariant(std::move(library), std::move(described.info)),
        pool_(pool),
        has_supports_(described.has_supports) {}

  bool has_supports() const override { return has_supports_; }

  std::string unsupported(const Problem& problem) const override {
    std::string reason = declared_limits(problem);
    if (!reason.empty() || !has_supports_ || is_broken_) return reason;
    try {
      return pool_.unsupported(*this, problem);
    } catch (const std::exception&) {
      is_broken_ = true;  // a run asks it again, and then that it fails is that run's result
      return {};
    }
  }

  std::size_t saved_size(const Problem&) const override { refuse(); }
  std::size_t workspace_size(const Problem&, bool) const override { refuse(); }
  void forward(const Problem&, const ForwardArgs&) const override { refuse(); }
  void backward(const Problem&, const BackwardArgs&) const override { refuse(); }

 private:
  [[noreturn]] void refuse() const {
    throw std::logic_error(info().key() + " is not loaded here; expected a call of WorkerPool::run");
  }

  Impl& pool_;
  bool has_supports_;
  mutable std::atomic<bool> is_broken_{false};
};

WorkerPool::WorkerPool(WorkerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
WorkerPool::~WorkerPool() = default;

KernelData WorkerPool::run(const Kernel& kernel, const Case& c, std::optional<Convention> convention,
                           const RunOptions& options) {
  return impl_->run(kernel, c, convention, options);
}

RunFunction WorkerPool::runner() {
  return [this](const Kernel& kernel, const Case& c, std::optional<Convention> convention, const RunOptions& options) {
    return run(kernel, c, convention, options);
  };
}

std::vector<std::string> WorkerPool::exposed() { return impl_->exposed(); }

std::string WorkerPool::unavailable(const Kernel& kernel) { return impl_->unavailable(kernel); }

PluginVariants WorkerPool::load_plugin(const std::filesystem::path& library) {
  PluginVariants variants;
  for (Described& described : impl_->describe(library.string()))
    variants.push_back(std::make_unique<RemoteVariant>(*impl_, library.string(), std::move(described)));
  return variants;
}

}  // namespace mlstm::verify
