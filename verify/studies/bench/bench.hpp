// SPDX-License-Identifier: Apache-2.0
// Timing variants: what is timed, what it is compared with, and how the result is written down.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "mlstm/kernel.hpp"

namespace mlstm::verify {

/// One thing to time: a variant on a problem.
struct BenchTask {
  const Kernel* kernel = nullptr;
  Problem problem;
  std::optional<Convention> convention;  ///< of the backward pass; absent: forward only
};

/// What to time. Empty lists stand for defaults.
struct BenchSelection {
  std::vector<DType> dtypes;              ///< default: bfloat16
  std::vector<Gate> gates;                ///< default: exp
  std::vector<Shape> shapes;              ///< default: by device and formulation, see default_bench_shapes
  std::vector<std::int64_t> chunk_sizes;  ///< of chunkwise variants; default: 64 and 128
  std::optional<Convention> convention;   ///< default: exact, or what the variant has
  bool forward_only = false;
  bool initial_states = false;  ///< decoding steps always have them
};

struct BenchPlan {
  std::vector<BenchTask> tasks;            ///< by variant
  std::vector<const Kernel*> unavailable;  ///< variants that this machine cannot run
  std::vector<std::string> unselected;     ///< "<key>: <reason>": variants that support no selected problem
};

/// True for a variant of a decoding step, which takes S = 1 alone.
bool is_step(const VariantInfo&);

/// On a GPU 65,536 tokens, or 128 sequences of a decoding step; on a CPU what takes milliseconds.
std::vector<Shape> default_bench_shapes(const VariantInfo&);

BenchPlan plan_bench(const std::vector<const Kernel*>& kernels, const BenchSelection& selection);

/// What a pass has to do at least. With T = B·NH·S, d = DHQK, e = DHV and L steps a chunk (S for the parallel
/// formulation, which has no states; 0 for the recurrent one, which has no chunks):
///   forward   T (L (d + e) + 4 d e) FLOPs,     T (2 d + 2 e) numbers of the problem's dtype,
///   backward  T (L (3 d + 2 e) + 10 d e) FLOPs, T (4 d + 3 e) numbers,
/// without the terms in d e for the parallel formulation. Given states are read, and last states (or the gradients of
/// the given ones) written: 2 (d e + d + 1) numbers a head, which for a decoding step is nearly everything.
struct Work {
  double flops = 0, bytes = 0;
};
Work forward_work(const BenchTask&);
Work backward_work(const BenchTask&);

/// How long to measure.
struct BenchBudget {
  double seconds = 0.5;          ///< for each number, apart from warming up
  std::int64_t repetitions = 0;  ///< if not 0, exactly so many instead
};

/// Seconds that one call takes.
struct Timing {
  double median = 0, fastest = 0;
  std::int64_t samples = 0;
  std::string method;  ///< "events", "graph" (events around a CUDA graph of many calls) or "steady_clock"
};

/// The best that the device does in the same run.
struct Ceilings {
  double copy_bytes_per_second = 0;     ///< device to device, bytes read + bytes written
  double product_flops_per_second = 0;  ///< bfloat16 cuBLAS product of two 8192 x 8192 matrices of random numbers
};

struct BenchDevice {
  std::string name;
  std::optional<Ceilings> ceilings;  ///< absent on a CPU
};

enum class BenchStatus { TIMED, NOT_VERIFIED, SKIPPED, ERROR };
std::string_view to_string(BenchStatus);

/// Times of somebody else's kernel on the same problem, in milliseconds.
struct PeerTimes {
  std::string kernel;
  std::optional<double> forward_ms, forward_backward_ms;
};

struct BenchRow {
  BenchTask task;
  BenchStatus status = BenchStatus::SKIPPED;
  std::string note;                                 ///< why there is no speed
  std::optional<Timing> forward, forward_backward;  ///< forward alone leaves nothing for a backward pass
  std::size_t forward_memory = 0;                   ///< bytes beyond inputs and outputs: the workspace
  std::size_t forward_backward_memory = 0;          ///< what forward saves, and the larger workspace
  std::optional<PeerTimes> peer;
};

/// Verifies and times. A variant is first verified on a small problem of the same dtype, gate, dimensions and chunk
/// size; one that fails has no speed. So is what the last timed call computed: two heads are judged against the
/// reference, and all have to be the bits of a call by itself.
class Bench {
 public:
  explicit Bench(BenchBudget budget) : budget_(budget) {}

  /// What the device is and can do; measures its ceilings. The device has to be there.
  static BenchDevice describe(Device device);

  /// Never throws for what a kernel does.
  BenchRow run(const BenchTask& task);

 private:
  BenchBudget budget_;
  std::map<std::string, std::string> verified_;  // what was verified -> why it failed, or empty
};

/// What other kernels took, as a program of theirs wrote it down (schema "mlstm-bench-peers", see
/// verify/bench_published.py). Which variant they compare with is data of that file.
class BenchPeers {
 public:
  /// Throws FileError that names `source` and what is wrong.
  static BenchPeers parse(std::string_view text, const std::string& source);

  const std::string& device() const { return device_; }
  /// The fastest times of the same shape, dtype, gate and presence of states, whatever the chunk size: that is a
  /// kernel's own choice.
  std::optional<PeerTimes> find(const BenchTask& task) const;

 private:
  struct Row {
    std::string compares_with;
    Shape shape;
    DType dtype;
    Gate gate;
    bool initial_states;
    PeerTimes times;
  };
  std::string device_;
  std::vector<Row> rows_;
};

/// The table, piece by piece, so that it can be printed while it is being measured.
std::string bench_heading(const std::map<Device, BenchDevice>& devices, bool with_peers);
std::string bench_line(const BenchRow& row, bool with_peers);

/// Everything as JSON (schema "mlstm-bench"), one row a line.
std::string bench_json(const std::map<Device, BenchDevice>& devices, const std::vector<BenchRow>& rows);

/// 1 if something failed its verification or ended with an error, 3 if nothing was timed, else 0.
int exit_status(const std::vector<BenchRow>& rows);

}  // namespace mlstm::verify
