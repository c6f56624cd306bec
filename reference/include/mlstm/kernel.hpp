// SPDX-License-Identifier: Apache-2.0
// What a kernel variant declares and how it is called (contract §4). Kernels implement this; the verifier
// reaches them only through it. Plain C++ on purpose: .cu files include this header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "mlstm/problem.hpp"

namespace mlstm {

enum class Device { cpu, cuda };
std::string_view to_string(Device);

/// An inclusive range of sizes; only multiples of `multiple_of` are accepted.
struct SizeLimit {
  std::int64_t min = 1, max = std::numeric_limits<std::int64_t>::max(), multiple_of = 1;
  bool admits(std::int64_t n) const { return n >= min && n <= max && n % multiple_of == 0; }
};

/// The declaration of a variant. Bounds follow it, so it has to be true.
struct VariantInfo {
  Module module{};
  std::string name;         ///< registry name: <specifier>_<backend>[_<autograd|ownbw>]
  std::string description;  ///< one line
  std::vector<DType> dtypes;
  std::vector<Gate> gates;
  std::vector<Convention> gradient_conventions;  ///< empty for a forward-only variant
  std::vector<StabilizerInit> stabilizer_init;   ///< the ones it can run
  std::optional<DType> operand_dtype;            ///< what matrix products read, if not the problem's dtype
  std::optional<DType> state_dtype;              ///< what chunk states are kept in, if not state_dtype_of(dtype)
  std::optional<DType> gate_dtype;               ///< what logσ, m, F and I are computed or kept in, if not float32/64
  std::optional<DType> product_dtype;            ///< what the terms of sums are rounded to, if they are
  bool full_precision_rows =
      false;               ///< m and d are saved for the backward pass in the state dtype, not in the problem's
  bool truncates = false;  ///< operands of products and results lose bits instead of being rounded to nearest
  bool straddling_gate_gradients = false;  ///< df from unrounded terms over pairs j < r <= t: held to a tighter bound
  bool unnormalized = true;                ///< takes sigmoid problems without normalize
  bool initial_states = false;             ///< takes c_initial, n_initial, m_initial (and gives their gradients)
  bool last_states = false;                ///< returns c_last, n_last, m_last
  bool last_state_cotangents = false;      ///< takes cotangents of the last states
  SizeLimit S, L, DHQK, DHV;               ///< L is looked at by chunkwise variants only
  Device device = Device::cpu;

  /// Full key: "<module>--<name>".
  std::string key() const;
};

/// Device (or host) pointers of a forward call, aligned to 256 bytes, as allocations of the device are. q, k, v, i, f
/// and h are required. A decoding step may write its last states over its initial ones; other variants may not. Element
/// types: storage_dtype(tensor, problem). Row-major, contiguous, shapes by shape_of. Null states: not given, or not
/// wanted.
struct ForwardArgs {
  const void *q = nullptr, *k = nullptr, *v = nullptr, *i = nullptr, *f = nullptr;
  const void *c_initial = nullptr, *n_initial = nullptr, *m_initial = nullptr;
  void *h = nullptr, *c_last = nullptr, *n_last = nullptr, *m_last = nullptr;
  void* saved = nullptr;      ///< saved_size() bytes that backward will read; null if no backward follows
  void* workspace = nullptr;  ///< workspace_size() bytes, contents undefined before and after
  void* stream = nullptr;     ///< cudaStream_t of a CUDA variant
};

struct BackwardArgs {
  Convention convention = Convention::exact;
  const void *q = nullptr, *k = nullptr, *v = nullptr, *i = nullptr, *f = nullptr;
  const void *c_initial = nullptr, *n_initial = nullptr, *m_initial = nullptr;
  const void* h = nullptr;      ///< the output of forward; read in the exact convention
  const void* saved = nullptr;  ///< what forward saved
  const void* dh = nullptr;     ///< cotangents; null = zero
  const void *dc_last = nullptr, *dn_last = nullptr, *dm_last = nullptr;
  void *dq = nullptr, *dk = nullptr, *dv = nullptr, *di = nullptr, *df = nullptr;
  void *dc_initial = nullptr, *dn_initial = nullptr, *dm_initial = nullptr;  ///< null: not wanted
  void* workspace = nullptr;
  void* stream = nullptr;
};

/// One variant. Stateless (except that a cuBLAS variant makes one handle per host thread and device, at the first
/// call): calls with different buffers may run at the same time.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual const VariantInfo& info() const = 0;

  /// Empty if the variant can run `problem`, else the reason. Overrides call `declared_limits` first.
  virtual std::string unsupported(const Problem& problem) const { return declared_limits(problem); }

  /// Bytes that forward leaves for backward.
  virtual std::size_t saved_size(const Problem&) const { return 0; }
  /// Bytes of scratch that one forward or backward call needs.
  virtual std::size_t workspace_size(const Problem&, bool /*backward*/) const { return 0; }

  /// Both throw std::invalid_argument if unsupported(problem) is not empty. No hidden allocation on the device,
  /// no synchronisation; errors of the device runtime are exceptions that name the call.
  virtual void forward(const Problem&, const ForwardArgs&) const = 0;
  /// Throws std::logic_error for a forward-only variant.
  virtual void backward(const Problem&, const BackwardArgs&) const;

 protected:
  /// Checks a problem against info(): dtype, gate, normalize, stabilizer_init, initial states, sizes.
  std::string declared_limits(const Problem& problem) const;
};

/// All registered variants, sorted by key.
const std::vector<const Kernel*>& registered_kernels();

/// The variant with this full key, or null.
const Kernel* find_kernel(std::string_view key);

/// Registers a variant for the life of the program: `static const RegisterKernel<MyKernel> registration;` in the
/// variant's register.cpp. Throws std::logic_error on a second variant with the same key.
void register_kernel(const Kernel* kernel);

template <class K>
struct RegisterKernel {
  RegisterKernel() {
    static const K kernel;
    register_kernel(&kernel);
  }
};

}  // namespace mlstm
