// SPDX-License-Identifier: Apache-2.0
#include "runner/runner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/memory.hpp"
#include "mlstm/reference/fields.hpp"
#include "runner/repeated_runs.hpp"
#include "runner/runner_memory.hpp"

namespace mlstm::verify {
namespace {

constexpr std::byte kZero{0};  // of run_unchecked: what fresh memory often holds

/// Who runs out of memory before, between and after the kernel's own calls.
constexpr std::string_view kWho = "the process that runs the kernel";

/// The buffers of one run.
class Buffers {
 public:
  Buffers(DeviceMemory& memory, std::optional<std::byte> fill) : memory_(memory), fill_(fill) {}

  /// Throws OutOfMemory.
  void* add(const std::string& name, std::size_t bytes) {
    return naming_who_ran_out(kWho, fmt::format("it got a buffer of {} for {}", bytes_text(bytes), name), [&] {
      return buffers_.emplace(name, std::make_unique<GuardedBuffer>(memory_, name, bytes, fill_)).first->second->data();
    });
  }

  /// A buffer with contents that the kernel must not change. `contents` has to outlive this object.
  const void* add_constant(const std::string& name, const Bytes& contents) {
    void* const address = add(name, contents.size());
    buffers_.at(name)->upload(contents);
    constants_[name] = &contents;
    return address;
  }

  /// What the buffer holds.
  Bytes copy(const std::string& name) const { return buffers_.at(name)->download(); }

  void wipe(std::byte byte) {
    for (const auto& [name, buffer] : buffers_) buffer->wipe(byte);
    memory_.synchronize();
  }

  /// From now on the buffer is constant.
  void freeze(const std::string& name) {
    Bytes& contents = frozen_[name] = buffers_.at(name)->download();
    constants_[name] = &contents;
  }

  /// What the buffer holds, for the last time.
  Bytes take(const std::string& name) {
    const auto known = frozen_.find(name);
    return known != frozen_.end() ? std::move(known->second) : buffers_.at(name)->download();
  }

  /// Waits for the kernel and looks for writes outside its buffers.
  void check_zones() const {
    memory_.synchronize();
    for (const auto& [name, buffer] : buffers_) buffer->check_zones();
  }

  void check_constants() const {
    for (const auto& [name, contents] : constants_)
      if (!buffers_.at(name)->holds(*contents))
        throw CheckFailure(RunCheck::input_damage, name, name + " was changed, though it is an input");
  }

 private:
  DeviceMemory& memory_;
  std::optional<std::byte> fill_;
  std::map<std::string, std::unique_ptr<GuardedBuffer>> buffers_;
  std::map<std::string, Bytes> frozen_;
  std::map<std::string, const Bytes*> constants_;
};

/// What all runs read, as it is stored: inputs by name, cotangents by "cotangent of " + name.
using Packed = std::map<std::string, Bytes>;

std::string cotangent_of(std::string_view output) { return "cotangent of " + std::string(output); }

Packed pack_all(const Case& c, bool backward) {
  Packed packed;
  for (const auto& [name, array] : c.inputs) packed[name] = pack(array, storage_dtype(name, c.problem));
  if (backward)
    for (const auto& [name, array] : c.cotangents)
      packed[cotangent_of(name)] = pack(array, storage_dtype(name, c.problem));
  return packed;
}

template <class Args>
void set_inputs(Args& args, const std::map<std::string, const void*>& inputs) {
  for (const auto& field : reference::input_fields<Args>())
    if (const auto found = inputs.find(std::string(field.name)); found != inputs.end())
      args.*(field.member) = found->second;
}

/// What forward left for backward, and what else it gave, outside the device's memory.
struct Moved {
  Bytes h;
  std::optional<Bytes> saved;
  Results outputs;
};

/// One forward call and, with a convention, one backward call in fresh memory.
class Run {
 public:
  /// Without `checked` memory is filled and has its zones all the same, but nothing is looked for.
  Run(const Kernel& kernel, const Problem& problem, const Packed& packed, std::optional<Convention> convention,
      DeviceMemory& memory, std::optional<std::byte> fill, bool checked, std::vector<std::string> nulls = {})
      : kernel_(kernel),
        problem_(problem),
        packed_(packed),
        convention_(convention),
        memory_(memory),
        buffers_(memory, fill),
        guarded_(fill.has_value()),
        checked_(checked),
        nulls_(std::move(nulls)) {
    for (const std::string& name : input_names(problem)) inputs_[name] = buffers_.add_constant(name, packed.at(name));
  }

  Results results() {
    forward();
    if (convention_) backward();
    return take();
  }

  void forward() {
    prepare_forward();
    call_forward();
    finish();
  }

  void backward() {
    prepare_backward();
    call_backward();
    finish();
  }

  /// Backward as it is after all that forward left has been moved to where this run has its memory.
  void backward(const Moved& moved) {
    h_ = const_cast<void*>(buffers_.add_constant("h", moved.h));
    if (moved.saved) saved_ = const_cast<void*>(buffers_.add_constant("saved", *moved.saved));
    was_moved_ = true;
    backward();
  }

  /// What forward left, and the outputs, which `backward(Moved)` of another run cannot take.
  Moved move() const {
    Moved moved{buffers_.copy("h"), {}, {}};
    if (saved_ != nullptr) moved.saved = buffers_.copy("saved");
    for (const std::string& name : written_) moved.outputs[name] = buffers_.copy(name);
    return moved;
  }

  /// Overwrites all memory of this run, which is over.
  void wipe() { buffers_.wipe(kNaN); }

  Results take() {
    if (checked_) buffers_.check_constants();
    Results results;
    for (const std::string& name : written_) results[name] = buffers_.take(name);
    return results;
  }

  // forward() and backward() in parts: those that allocate, those that call the kernel and return when it does, and
  // waiting for it.
  void prepare_forward() {
    ForwardArgs& args = forward_;
    set_inputs(args, inputs_);
    for (const auto& field : reference::output_fields<ForwardArgs>())
      if (field.name == "h" || (kernel_.info().last_states && has(output_names(problem_), field.tensor)))
        args.*(field.member) = add_result(field.name, field.tensor);
    if (convention_) args.saved = saved_ = add_scratch("saved", kernel_.saved_size(problem_));
    args.workspace = add_scratch("workspace of forward", kernel_.workspace_size(problem_, false));
    args.stream = memory_.stream();
    h_ = args.h;
  }

  void call_forward() {
    naming_who_ran_out("the kernel", "it ran forward", [&] { kernel_.forward(problem_, forward_); });
  }

  void prepare_backward() {
    BackwardArgs& args = backward_;
    args.convention = *convention_;
    set_inputs(args, inputs_);
    if (!was_moved_) buffers_.freeze("h");
    args.h = h_;
    // without poison, what forward left unwritten of it (padding) is undefined, and reading it a finding of initcheck
    if (saved_ != nullptr && guarded_ && !was_moved_) buffers_.freeze("saved");
    args.saved = saved_;
    for (const auto& field : reference::cotangent_fields<BackwardArgs>())
      if (const auto found = packed_.find(cotangent_of(field.tensor));
          found != packed_.end() && !has(nulls_, field.name))
        args.*(field.member) = buffers_.add_constant(found->first, found->second);
    for (const auto& field : reference::gradient_fields<BackwardArgs>())
      if (has(input_names(problem_), field.tensor)) args.*(field.member) = add_result(field.name, field.tensor);
    args.workspace = add_scratch("workspace of backward", kernel_.workspace_size(problem_, true));
    args.stream = memory_.stream();
  }

  void call_backward() {
    naming_who_ran_out("the kernel", "it ran backward", [&] { kernel_.backward(problem_, backward_); });
  }

  void finish() {
    if (checked_)
      buffers_.check_zones();
    else
      memory_.synchronize();
  }

 private:
  static bool has(const std::vector<std::string>& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  }

  /// Null if the result is not wanted.
  void* add_result(std::string_view name, std::string_view tensor) {
    if (has(nulls_, name)) return nullptr;
    written_.emplace_back(name);
    return buffers_.add(written_.back(), static_cast<std::size_t>(size_of(tensor, problem_.shape)) *
                                             size_of(storage_dtype(tensor, problem_)));
  }

  void* add_scratch(const std::string& name, std::size_t bytes) {
    return bytes > 0 ? buffers_.add(name, bytes) : nullptr;
  }

  const Kernel& kernel_;
  const Problem& problem_;
  const Packed& packed_;
  std::optional<Convention> convention_;
  DeviceMemory& memory_;
  Buffers buffers_;
  bool guarded_, checked_, was_moved_ = false;
  std::vector<std::string> nulls_;
  std::map<std::string, const void*> inputs_;
  std::vector<std::string> written_;
  void *h_ = nullptr, *saved_ = nullptr;
  ForwardArgs forward_;
  BackwardArgs backward_;
};

/// What kernels in company run on.
struct Companion {
  const Case& c;
  Packed packed;
};

/// Runs of one kernel on two cases.
class Pair {
 public:
  Pair(const Kernel& kernel, const Problem& problem, const Packed& packed, std::optional<Convention> convention,
       const Companion& other, const RunOptions& options)
      : kernel_(kernel),
        problem_(problem),
        packed_(packed),
        convention_(convention),
        other_(other),
        options_(options),
        fill_(options.guarded ? std::optional(kNaN) : std::nullopt) {}

  /// What the kernel gives for the first case alone or, if that is anything else, in this company.
  Results results() const {
    const Results alone = mine()->results();
    const auto first_other = [&](int times, const auto& in_company) {
      for (int n = 0; n < times; ++n)
        if (Results found = in_company(); found != alone) return found;
      return alone;
    };
    switch (options_.company) {
      case Company::alone:
        break;
      case Company::interleaved:
        return first_other(1, [&] { return interleaved(); });
      case Company::moved:
        return first_other(1, [&] { return moved(); });
      case Company::streams:
        return first_other(kRounds, [&] { return on_two_streams(); });
      case Company::threads:
        return in_two_threads(alone);
    }
    return alone;
  }

 private:
  /// Calls beside each other of which most should overlap.
  static constexpr int kCalls = 16, kRounds = 4;

  std::unique_ptr<Run> mine() const {
    return std::make_unique<Run>(kernel_, problem_, packed_, convention_, lane(0), fill_, true, options_.nulls);
  }
  std::unique_ptr<Run> others(int of_lane = 0) const {
    return std::make_unique<Run>(kernel_, other_.c.problem, other_.packed, convention_, lane(of_lane), fill_, true);
  }
  DeviceMemory& lane(int number) const { return *memory_of(kernel_.info().device, number); }

  Results interleaved() const {
    const std::unique_ptr<Run> a = mine(), b = others();
    a->forward();
    b->forward();
    if (convention_) a->backward();
    return a->take();
  }

  Results moved() const {
    const std::unique_ptr<Run> a = mine(), b = others();  // kept: what is read there later is wrong, not undefined
    a->forward();
    b->results();
    if (!convention_) return a->take();
    Moved left = a->move();
    a->wipe();
    const std::unique_ptr<Run> later = mine();
    std::exception_ptr error;
    std::thread([&] {
      try {
        later->backward(left);
      } catch (...) {
        error = std::current_exception();
      }
    }).join();
    if (error) std::rethrow_exception(error);
    Results results = later->take();
    results.merge(left.outputs);
    return results;
  }

  Results on_two_streams() const {
    const std::unique_ptr<Run> a = mine(), b = others(1);
    const auto by_turns = [&](void (Run::*prepare)(), void (Run::*call)()) {
      for (Run* run : {a.get(), b.get()}) (run->*prepare)();
      for (int n = 0; n < kCalls; ++n)
        for (Run* run : {a.get(), b.get()}) (run->*call)();
      for (Run* run : {a.get(), b.get()}) run->finish();
    };
    by_turns(&Run::prepare_forward, &Run::call_forward);
    if (convention_) by_turns(&Run::prepare_backward, &Run::call_backward);
    return a->take();
  }

  /// The first result that is not `alone`, if there is one.
  Results in_two_threads(const Results& alone) const {
    std::atomic<bool> is_running = false, is_done = false;
    std::exception_ptr error;
    std::thread beside([&] {
      try {
        do {
          others(1)->results();
          is_running = true;
        } while (!is_done);
      } catch (...) {
        error = std::current_exception();
        is_running = true;
      }
    });
    Results found = alone;
    std::exception_ptr mine_failed;
    try {
      while (!is_running) std::this_thread::yield();
      for (int n = 0; n < kCalls && found == alone; ++n) found = mine()->results();
    } catch (...) {
      mine_failed = std::current_exception();
    }
    is_done = true;
    beside.join();
    if (mine_failed) std::rethrow_exception(mine_failed);
    if (error) std::rethrow_exception(error);
    return found;
  }

  const Kernel& kernel_;
  const Problem& problem_;
  const Packed& packed_;
  std::optional<Convention> convention_;
  const Companion& other_;
  const RunOptions& options_;
  std::optional<std::byte> fill_;
};

void require_supported(const Kernel& kernel, const Case& c, std::optional<Convention> convention) {
  const VariantInfo& info = kernel.info();
  const auto refuse = [&](const std::string& reason) { throw std::invalid_argument(info.key() + ": " + reason); };
  if (const std::string reason = kernel.unsupported(c.problem); !reason.empty()) refuse(reason);
  if (const std::string reason = unavailable(kernel); !reason.empty()) refuse(reason);
  if (!convention) return;
  const auto& conventions = info.gradient_conventions;
  if (std::find(conventions.begin(), conventions.end(), *convention) == conventions.end())
    refuse(fmt::format("{} gradients are not supported", to_string(*convention)));
  if (c.cotangents.size() > c.cotangents.count("h") && !info.last_state_cotangents)
    refuse("cotangents of the last states are not supported");
}

}  // namespace

KernelData declared_data(const VariantInfo& info, const Problem& problem, std::optional<Convention> convention) {
  KernelData data;
  data.variant = info.key();
  data.formulation = info.module;
  data.convention = convention;
  data.operand_dtype = info.operand_dtype;
  data.state_dtype = info.state_dtype;
  data.gate_dtype = info.gate_dtype;
  data.product_dtype = info.product_dtype;
  // What the bounds need to know beside the contract's attributes.
  if (info.full_precision_rows) data.attributes["saved_dtype"] = std::string(to_string(state_dtype_of(problem.dtype)));
  if (info.truncates) data.attributes["rounding"] = std::string("truncate");
  if (info.straddling_gate_gradients) data.attributes["gate_gradient"] = std::string("straddling");
  return data;
}

std::string unavailable(const Kernel& kernel) { return unavailable(kernel.info().device); }

namespace {

/// run_kernel, or run_unchecked without `options`.
KernelData run_case(const Kernel& kernel, const Case& c, std::optional<Convention> convention,
                    const RunOptions* options) {
  validate(c);
  if (c.cotangents.empty()) convention.reset();
  require_supported(kernel, c, convention);
  const VariantInfo& info = kernel.info();
  DeviceMemory& memory = *memory_of(info.device);
  const Packed packed = pack_all(c, convention.has_value());
  const std::vector<std::string> nulls = options != nullptr ? options->nulls : std::vector<std::string>{};
  const auto run = [&](std::optional<std::byte> fill) {
    return Run(kernel, c.problem, packed, convention, memory, fill, options != nullptr, nulls).results();
  };
  std::optional<Companion> other;
  if (options != nullptr && options->company != Company::alone) {
    if (options->other == nullptr) throw std::logic_error("run_kernel: company without another case");
    validate(*options->other);
    require_supported(kernel, *options->other, convention);
    if (convention && options->other->cotangents.empty())
      throw std::logic_error("run_kernel: the other case has no cotangents");
    other.emplace(Companion{*options->other, pack_all(*options->other, convention.has_value())});
  }
  Results results;
  TensorMap spread;
  try {
    static std::mutex one_device;  // runs side by side would compete for its memory
    std::unique_lock lock(one_device, std::defer_lock);
    if (info.device == Device::cuda) lock.lock();
    if (other)
      results = Pair(kernel, c.problem, packed, convention, *other, *options).results();
    else if (options == nullptr)
      results = run(kZero);
    else
      results = repeated_results(run, c.problem, *options, spread);
  } catch (const std::system_error& error) {  // no thread to be had, say: nothing that the numbers are to blame for
    throw DeviceError(info.key() + ": " + error.what());
  } catch (const CheckFailure& failure) {
    throw CheckFailure(failure.check(), failure.buffer(), info.key() + ": " + failure.what());
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(info.key() + ": " + error.what());
  }

  KernelData data = declared_data(info, c.problem, convention);
  data.attributes.merge(memory.description());
  for (const auto& [name, bytes] : results) {
    const std::string tensor = tensor_of(name);
    TensorMap& tensors = tensor == name ? data.outputs : data.gradients;
    tensors[tensor] = unpack(bytes, storage_dtype(tensor, c.problem), shape_of(tensor, c.problem.shape));
  }
  data.spread = std::move(spread);
  return data;
}

}  // namespace

KernelData run_kernel(const Kernel& kernel, const Case& c, std::optional<Convention> convention,
                      const RunOptions& options) {
  return naming_who_ran_out(kWho, "it compared the kernel's runs",
                            [&] { return run_case(kernel, c, convention, &options); });
}

KernelData run_unchecked(const Kernel& kernel, const Case& c, std::optional<Convention> convention) {
  return run_case(kernel, c, convention, nullptr);
}

}  // namespace mlstm::verify
