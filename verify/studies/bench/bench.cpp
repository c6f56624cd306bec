// SPDX-License-Identifier: Apache-2.0
#include "studies/bench/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/memory.hpp"
#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "report/report.hpp"
#include "runner/runner.hpp"
#include "studies/bench/clock.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {
namespace {

/// Verdicts and speeds are of the same kind of input: gates that remember some twenty steps.
constexpr std::string_view kRegime = "forget3";
constexpr double kForgetOffset = 3;

/// Inputs alternate until together they are so many times as large as the cache.
constexpr std::size_t kCaches = 3, kMostSets = 64;

/// Thrown where a problem does not fit the device.
struct TooLarge : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Large enough for several chunks and a ragged last one.
ProblemSpec small_spec(const BenchTask& task) {
  ProblemSpec spec;
  spec.regime = kRegime;
  spec.problem = task.problem;
  spec.cotangents = task.convention.has_value();
  Shape& shape = spec.problem.shape;
  shape.B = shape.NH = 1;
  const std::int64_t chunk = std::min<std::int64_t>(task.problem.chunk_size, 1024);
  shape.S = std::min(shape.S, std::max<std::int64_t>(300, chunk + 40));
  return spec;
}

/// Empty if the variant passes on the problem; else what is wrong, and the line that reproduces it. Throws DeviceError.
std::string failure_of(const BenchTask& task, const ProblemSpec& spec) {
  const std::string repro = "; " + repro_line(spec, {task.kernel, task.convention, true});
  try {
    Case c = make_case(spec);
    const ReferenceData reference = evaluate_reference(c);
    c.kernel = run_kernel(*task.kernel, c, task.convention);
    JudgeOptions options;
    options.convention = task.convention;
    for (const Item& item : judge(c, reference, options))
      if (item.status != Status::PASS) return describe(item) + repro;
  } catch (const DeviceError&) {
    throw;  // says nothing of the variant
  } catch (const std::exception& error) {
    return reason_of(error) + repro;
  }
  return {};
}

/// The buffers of one task: `sets` times everything that is read and written, and one workspace.
class Workload {
 public:
  Workload(const BenchTask& task, DeviceMemory& memory, const BenchClock& clock) : task_(task), memory_(memory) {
    const Problem& problem = task.problem;
    const Kernel& kernel = *task.kernel;
    std::size_t forward_bytes = 0;
    for (const std::string& name : input_names(problem)) forward_bytes += bytes_of(name);
    for (const std::string& name : outputs()) forward_bytes += bytes_of(name);
    std::size_t set_bytes = forward_bytes;
    workspace_bytes_ = kernel.workspace_size(problem, false);
    forward_memory_ = workspace_bytes_;
    if (task.convention) {
      saved_bytes_ = kernel.saved_size(problem);
      workspace_bytes_ = std::max(workspace_bytes_, kernel.workspace_size(problem, true));
      set_bytes += saved_bytes_ + bytes_of("h");
      for (const std::string& name : input_names(problem)) set_bytes += bytes_of(name);
    }
    const std::size_t sets = std::clamp(kCaches * clock.cache_bytes() / forward_bytes + 1, std::size_t{1}, kMostSets);
    const double needed =
        static_cast<double>(sets) * static_cast<double>(set_bytes) + static_cast<double>(workspace_bytes_);
    if (const auto free = static_cast<double>(clock.free_bytes()); needed > 0.97 * free)
      throw TooLarge(fmt::format("needs {:.1f} GiB, and {:.1f} GiB are free", needed / 0x1p30, free / 0x1p30));
    workspace_ = add(workspace_bytes_);
    for (std::size_t n = 0; n < sets; ++n) sets_.push_back(make_set());
  }

  std::int64_t sets() const { return static_cast<std::int64_t>(sets_.size()); }
  std::size_t forward_memory() const { return forward_memory_; }
  std::size_t forward_backward_memory() const { return saved_bytes_ + workspace_bytes_; }

  void forward(std::int64_t turn, bool save) {
    last_turn_ = turn;
    ForwardArgs args = set(turn).forward;
    if (!save) args.saved = nullptr;
    task_.kernel->forward(task_.problem, args);
  }
  void backward(std::int64_t turn) { task_.kernel->backward(task_.problem, set(turn).backward); }
  void forward_backward(std::int64_t turn) {
    forward(turn, true);
    backward(turn);
  }

  /// Overwrites all that is computed.
  void poison(std::byte byte) {
    for (const Set& one : sets_)
      for (const auto& [name, data] : one.results) memory_.fill(data, byte, bytes_of(tensor_of(name)));
  }

  // Of the set that was used last: that of the last call that was timed, also where a graph repeats it.

  void repeat_last(bool with_backward) {
    if (with_backward)
      forward_backward(last_turn_);
    else
      forward(last_turn_, false);
  }

  /// A digest of each tensor that was computed.
  std::map<std::string, std::size_t> digests(bool with_gradients) const {
    constexpr std::size_t block = std::size_t{64} << 20;
    std::map<std::string, std::size_t> found;
    std::string text;
    for (const auto& [name, data] : set(last_turn_).results) {
      if (is_gradient(name) && !with_gradients) continue;
      const std::size_t bytes = bytes_of(tensor_of(name));
      std::size_t& digest = found[name];
      for (std::size_t begin = 0; begin < bytes; begin += block) {
        text.resize(std::min(block, bytes - begin));
        memory_.download(text.data(), static_cast<const std::byte*>(data) + begin, text.size());
        digest = digest * 31 + std::hash<std::string>{}(text);
      }
    }
    return found;
  }

  /// One head as a problem of its own, with what was computed.
  Case one_head(std::int64_t head, bool with_gradients) const {
    const Set& from = set(last_turn_);
    const std::optional<Convention> convention = with_gradients ? task_.convention : std::nullopt;
    Case c;
    c.problem = task_.problem;
    c.problem.shape.B = c.problem.shape.NH = 1;
    const auto read = [&](const void* data, const std::string& tensor) {
      std::vector<std::byte> bytes(bytes_of(tensor) / static_cast<std::size_t>(task_.problem.shape.heads()));
      memory_.download(bytes.data(),
                       static_cast<const std::byte*>(data) + static_cast<std::size_t>(head) * bytes.size(),
                       bytes.size());
      return unpack(bytes, storage_dtype(tensor, c.problem), shape_of(tensor, c.problem.shape));
    };
    for (const auto& [name, data] : from.inputs) c.inputs[name] = read(data, name);
    if (convention) c.cotangents["h"] = read(from.backward.dh, "h");
    c.kernel = declared_data(task_.kernel->info(), c.problem, convention);
    for (const auto& [name, data] : from.results)
      if (!is_gradient(name))
        c.kernel->outputs[name] = read(data, name);
      else if (convention)
        c.kernel->gradients[tensor_of(name)] = read(data, tensor_of(name));
    return c;
  }

 private:
  struct Set {
    ForwardArgs forward;
    BackwardArgs backward;
    std::map<std::string, const void*> inputs;
    std::map<std::string, void*> results;  ///< gradients as "dq", ...
  };

  static bool is_gradient(const std::string& name) { return name.front() == 'd'; }
  static std::string tensor_of(const std::string& name) { return is_gradient(name) ? name.substr(1) : name; }

  const Set& set(std::int64_t turn) const { return sets_[static_cast<std::size_t>(turn) % sets_.size()]; }

  /// Last states are computed by what continues a sequence: variants with given states.
  std::vector<std::string> outputs() const {
    const bool states = task_.problem.has_initial_state && task_.kernel->info().last_states;
    return states ? output_names(task_.problem) : std::vector<std::string>{"h"};
  }

  std::size_t bytes_of(std::string_view tensor) const {
    const Problem& problem = task_.problem;
    return static_cast<std::size_t>(size_of(tensor, problem.shape)) * size_of(storage_dtype(tensor, problem));
  }

  void* add(std::size_t bytes) {
    if (bytes == 0) return nullptr;
    buffers_.push_back(std::make_unique<GuardedBuffer>(memory_, "bench", bytes, std::nullopt));
    return buffers_.back()->data();
  }

  const void* add_random(std::string_view tensor, double mean = 0, double deviation = 1) {
    void* const data = add(bytes_of(tensor));
    fill_normal(memory_, data, size_of(tensor, task_.problem.shape), storage_dtype(tensor, task_.problem), mean,
                deviation, tensor);
    return data;
  }

  Set make_set() {
    const Problem& problem = task_.problem;
    Set set;
    const auto input = [&](const char* name, double mean = 0, double deviation = 1) {
      return set.inputs[name] = add_random(name, mean, deviation);
    };
    ForwardArgs& fw = set.forward;
    fw.q = input("q");
    fw.k = input("k");
    fw.v = input("v");
    fw.i = input("i");
    fw.f = input("f", kForgetOffset);
    if (problem.has_initial_state) {
      fw.c_initial = input("c_initial", 0, 2);
      fw.n_initial = input("n_initial", 0, 2);
      if (problem.has_m()) fw.m_initial = input("m_initial");
    }
    const auto result = [&](const std::string& name) { return set.results[name] = add(bytes_of(tensor_of(name))); };
    for (const std::string& name : outputs())
      *(name == "h"        ? &fw.h
        : name == "c_last" ? &fw.c_last
        : name == "n_last" ? &fw.n_last
                           : &fw.m_last) = result(name);
    fw.workspace = workspace_;
    fw.stream = memory_.stream();
    if (!task_.convention) return set;

    fw.saved = add(saved_bytes_);
    BackwardArgs& bw = set.backward;
    bw.convention = *task_.convention;
    bw.q = fw.q;
    bw.k = fw.k;
    bw.v = fw.v;
    bw.i = fw.i;
    bw.f = fw.f;
    bw.c_initial = fw.c_initial;
    bw.n_initial = fw.n_initial;
    bw.m_initial = fw.m_initial;
    bw.h = fw.h;
    bw.saved = fw.saved;
    bw.dh = add_random("h");
    bw.dq = result("dq");
    bw.dk = result("dk");
    bw.dv = result("dv");
    bw.di = result("di");
    bw.df = result("df");
    if (problem.has_initial_state) {
      bw.dc_initial = result("dc_initial");
      bw.dn_initial = result("dn_initial");
      if (problem.has_m()) bw.dm_initial = result("dm_initial");
    }
    bw.workspace = workspace_;
    bw.stream = fw.stream;
    return set;
  }

  const BenchTask& task_;
  DeviceMemory& memory_;
  std::vector<std::unique_ptr<GuardedBuffer>> buffers_;  // without zones, undefined contents
  std::vector<Set> sets_;
  std::size_t forward_memory_ = 0, saved_bytes_ = 0, workspace_bytes_ = 0;
  void* workspace_ = nullptr;
  std::int64_t last_turn_ = 0;
};

// Two byte patterns that no kernel computes: NaN in every dtype, and a finite number.
constexpr std::byte kNaN{0xff}, kFinite{0x3c};

/// What is wrong with the outputs that the timed calls left; empty if nothing. Two heads are judged against the
/// reference; all are compared with a call by itself.
std::string fault_of_timed(Workload& work, const BenchTask& task, DeviceMemory& memory, bool with_backward) {
  memory.synchronize();
  const auto timed = work.digests(with_backward);
  const std::int64_t heads = task.problem.shape.heads();
  for (const std::int64_t head : std::set{heads / 2, heads - 1}) {
    Case c = work.one_head(head, with_backward);
    JudgeOptions options;
    options.convention = c.kernel->convention;
    for (const Item& item : judge(c, evaluate_reference(c), options))
      if (item.status != Status::PASS)
        return fmt::format("what was timed is wrong: head {} of {}: {}", head, heads, describe(item));
  }
  work.poison(kFinite);
  work.repeat_last(with_backward);
  memory.synchronize();
  const auto alone = work.digests(with_backward);
  for (const auto& [name, digest] : timed)
    if (alone.at(name) != digest) return "what was timed is not what a call by itself computes: " + name;
  return {};
}

}  // namespace

std::string_view to_string(BenchStatus status) {
  switch (status) {
    case BenchStatus::TIMED:
      return "TIMED";
    case BenchStatus::NOT_VERIFIED:
      return "NOT VERIFIED";
    case BenchStatus::SKIPPED:
      return "SKIPPED";
    case BenchStatus::ERROR:
      break;
  }
  return "ERROR";
}

BenchDevice Bench::describe(Device device) {
  BenchClock& clock = *clock_of(device);
  return {clock.device_name(), clock.ceilings()};
}

BenchRow Bench::run(const BenchTask& task) {
  BenchRow row;
  row.task = task;
  const Device device = task.kernel->info().device;
  if (row.note = unavailable(*task.kernel); !row.note.empty()) return row;

  try {
    const ProblemSpec spec = small_spec(task);
    const std::string what = repro_line(spec, {task.kernel, task.convention, true});
    if (!verified_.contains(what)) verified_[what] = failure_of(task, spec);
    if (row.note = verified_.at(what); !row.note.empty()) {
      row.status = BenchStatus::NOT_VERIFIED;
      return row;
    }
    DeviceMemory& memory = *memory_of(device);
    BenchClock& clock = *clock_of(device);
    Workload work(task, memory, clock);
    const auto poison = [&] { work.poison(kNaN); };
    row.forward_memory = work.forward_memory();
    row.forward = clock.time([&](std::int64_t turn) { work.forward(turn, false); }, work.sets(), budget_, poison);
    row.note = fault_of_timed(work, task, memory, false);
    if (task.convention && row.note.empty()) {
      row.forward_backward_memory = work.forward_backward_memory();
      row.forward_backward =
          clock.time([&](std::int64_t turn) { work.forward_backward(turn); }, work.sets(), budget_, poison);
      row.note = fault_of_timed(work, task, memory, true);
    }
    row.status = row.note.empty() ? BenchStatus::TIMED : BenchStatus::NOT_VERIFIED;
    if (!row.note.empty()) {
      row.forward.reset();
      row.forward_backward.reset();
    }
  } catch (const TooLarge& reason) {
    row.note = reason.what();
  } catch (const std::exception& error) {
    row.status = BenchStatus::ERROR;
    row.note = reason_of(error);
    row.forward.reset();  // of a run that did not end well
    row.forward_backward.reset();
  }
  return row;
}

int exit_status(const std::vector<BenchRow>& rows) {
  const auto any = [&](BenchStatus status) {
    return std::any_of(rows.begin(), rows.end(), [&](const BenchRow& row) { return row.status == status; });
  };
  if (any(BenchStatus::NOT_VERIFIED) || any(BenchStatus::ERROR)) return 1;
  return any(BenchStatus::TIMED) ? 0 : 3;
}

}  // namespace mlstm::verify
