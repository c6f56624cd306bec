// SPDX-License-Identifier: Apache-2.0
// Runs a kernel variant on a case in host memory.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cases/case.hpp"
#include "mlstm/kernel.hpp"
#include "runner/run_check.hpp"

namespace mlstm::verify {

/// Whether this machine can run the variant now; the reason if not (no CUDA device, say).
std::string unavailable(const Kernel& kernel);

/// What else a kernel does while, or between, the calls of a run.
enum class Company {
  alone,
  interleaved,  ///< forward of the other case, between forward and backward of this one
  moved,    ///< the other case, all of it, between them; backward then runs in another thread, and finds its inputs,
            ///< h and the saved data at other addresses
  streams,  ///< both cases by turns on two streams, unsynchronised (CUDA; on the CPU the calls take turns)
  threads,  ///< the other case again and again in a second thread
};

struct RunOptions {
  int repeats = 0;  ///< further runs with the same poison that have to give the same bits
  /// False: buffers of just the size asked for, neither poisoned nor between red zones. For compute-sanitizer: it takes
  /// poisoned memory for initialised and a red zone for a part of the buffer.
  bool guarded = true;
  /// Bits that differ from run to run are no CheckFailure: how far they do is in KernelData::spread, for whoever
  /// judges.
  bool accept_nondeterminism = false;
  /// Arguments that are null, by their names in ForwardArgs and BackwardArgs: results that are not wanted ("c_last",
  /// "dn_initial") and are then not in the answer, and cotangents that the case has, of zeros ("dh").
  std::vector<std::string> nulls = {};
  Company company = Company::alone;
  std::shared_ptr<const Case> other = {};  ///< what the company runs; null: alone
};

/// Runs forward and, if `convention` is given and the case has cotangents, backward. Converts to the problem's dtypes,
/// poisons outputs, saved data and workspace with NaN, surrounds every buffer with red zones and checks them and the
/// inputs afterwards (in backward, h and the saved data are inputs). Runs everything 2 + `repeats` times, once with
/// another poison, and compares bitwise (1 + `repeats` times if not `guarded`). Runs on a GPU take turns; all else may
/// happen at the same time. Throws std::invalid_argument if the kernel does not support the problem; CheckFailure
/// naming the buffer for a write outside it, a damaged input, or a result that depends on the poison or differs from
/// run to run; std::runtime_error for an error of the device that the kernel caused; OutOfMemory (base/memory.hpp) if
/// the host has no memory left, which says whether the kernel or this process ran out; other exceptions if the device
/// has none left or is out of order. The attributes of the result say what it ran on (`device`, ...) and what bounds
/// need to know
/// (`saved_dtype`, `rounding`, `gate_gradient`).
/// In company the kernel runs alone first, and then in that company, in some kinds of it several times. The answer is
/// the first one that is not bit for bit what it gave alone, if there is one. Nothing is run with other poison, nor
/// repeated: what a kernel that shares memory between calls gives is left to whoever compares.
KernelData run_kernel(const Kernel& kernel, const Case& c, std::optional<Convention> convention,
                      const RunOptions& options = {});

/// Runs once, as a test does that has neither poison nor red zones: memory starts as zeros, a write outside a buffer
/// falls into a margin beside it, and nothing is checked. Throws what the kernel throws, and std::invalid_argument if
/// it does not support the problem.
KernelData run_unchecked(const Kernel& kernel, const Case& c, std::optional<Convention> convention);

/// A result without its tensors: what a run of this variant says of itself by what the variant declares.
KernelData declared_data(const VariantInfo& info, const Problem& problem, std::optional<Convention> convention);

/// A run that was stopped because it took too long.
class TimeoutError : public std::exception {
 public:
  explicit TimeoutError(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

/// Runs kernels as run_kernel does, perhaps in another process: the same results and exceptions, or TimeoutError. May
/// be called from several threads at a time.
using RunFunction = std::function<KernelData(const Kernel&, const Case&, std::optional<Convention>, const RunOptions&)>;

/// What the published interface of mLSTM kernels takes beside the tensors (contract §4), with its defaults.
struct InterfaceOptions {
  bool return_last_states = false;
  double eps = 1e-6;
  DType autocast_kernel_dtype = DType::float16;
  std::int64_t chunk_size = 64;
};

struct InterfaceResult {
  Array h;
  std::optional<Array> c_last, n_last, m_last;
};

/// The interface every variant is reached through: casts inputs to autocast_kernel_dtype, runs the forward pass.
/// q, k (B,NH,S,DHQK), v (B,NH,S,DHV), i, f (B,NH,S); states all or none. Gate exp, or sigmoid when the variant has
/// only that.
InterfaceResult mlstm_interface(const Kernel& kernel, const Array& q, const Array& k, const Array& v, const Array& i,
                                const Array& f, const std::optional<Array>& c_initial = {},
                                const std::optional<Array>& n_initial = {}, const std::optional<Array>& m_initial = {},
                                const InterfaceOptions& options = {});

}  // namespace mlstm::verify
