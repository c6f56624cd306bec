// SPDX-License-Identifier: Apache-2.0
// The kernels that tests make up, in their own process: one that is made of functions, a right one that is damaged, and
// a recurrence that is written out and can be bent at every stage.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mlstm/kernel.hpp"

namespace mlstm::test {

/// A tensor in the memory of a float32 or float64 problem, as heads x rows x columns.
class Stored {
 public:
  Stored(void* data, const std::string& tensor, const Problem& problem) : data_(data) {
    const Shape& s = problem.shape;
    wide_ = storage_dtype(tensor, problem) == DType::float64;
    if (!wide_ && storage_dtype(tensor, problem) != DType::float32)
      throw std::invalid_argument("Stored: " + tensor + " is neither float32 nor float64");
    heads = s.heads();
    rows = tensor.size() == 1 ? s.S : tensor.starts_with("c_") ? s.DHQK : 1;
    columns = size_of(tensor, s) / (heads * rows);
  }
  double get(std::int64_t head, std::int64_t row, std::int64_t column = 0) const {
    const std::int64_t at = (head * rows + row) * columns + column;
    return wide_ ? static_cast<const double*>(data_)[at] : static_cast<double>(static_cast<const float*>(data_)[at]);
  }
  void set(std::int64_t head, std::int64_t row, std::int64_t column, double value) const {
    const std::int64_t at = (head * rows + row) * columns + column;
    if (wide_)
      static_cast<double*>(data_)[at] = value;
    else
      static_cast<float*>(data_)[at] = static_cast<float>(value);
  }
  /// value = change(value, head, row, column) everywhere.
  void edit(const std::function<double(double, std::int64_t, std::int64_t, std::int64_t)>& change) const {
    for (std::int64_t head = 0; head < heads; ++head)
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t column = 0; column < columns; ++column)
          set(head, row, column, change(get(head, row, column), head, row, column));
  }

  std::int64_t heads, rows, columns;

 private:
  void* data_;
  bool wide_;
};

inline Stored writable(const void* data, const std::string& tensor, const Problem& problem) {
  return {const_cast<void*>(data), tensor, problem};
}

/// What a variant has to declare: exp gate, m_0 = 0, no states, forward only.
inline VariantInfo fake_info(Module module, std::string name, std::vector<DType> dtypes) {
  VariantInfo info;
  info.module = module;
  info.name = std::move(name);
  info.description = "a fake";
  info.dtypes = std::move(dtypes);
  info.gates = {Gate::exp};
  info.stabilizer_init = {StabilizerInit::zero};
  return info;
}

/// Bytes that a fake asks for.
struct FakeSizes {
  std::size_t saved = 0, workspace = 0, backward_workspace = 0;
};

/// A variant made of functions; forward only without `backward`.
class FakeKernel : public Kernel {
 public:
  using Forward = std::function<void(const Problem&, const ForwardArgs&)>;
  using Backward = std::function<void(const Problem&, const BackwardArgs&)>;
  FakeKernel(VariantInfo info, Forward forward, Backward backward = {}, FakeSizes sizes = {})
      : info_(std::move(info)), forward_(std::move(forward)), backward_(std::move(backward)), sizes_(sizes) {}

  const VariantInfo& info() const override { return info_; }
  std::size_t saved_size(const Problem&) const override { return sizes_.saved; }
  std::size_t workspace_size(const Problem&, bool backward) const override {
    return backward ? sizes_.backward_workspace : sizes_.workspace;
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override { forward_(problem, args); }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    backward_ ? backward_(problem, args) : Kernel::backward(problem, args);
  }

 private:
  VariantInfo info_;
  Forward forward_;
  Backward backward_;
  FakeSizes sizes_;
};

/// Bytes of a tensor as the problem stores it.
inline std::size_t bytes_of(std::string_view tensor, const Problem& problem) {
  return static_cast<std::size_t>(size_of(tensor, problem.shape)) * size_of(storage_dtype(tensor, problem));
}

/// Not an mLSTM, on the CPU: h = v, last states = initial states or 0, dv = dh, all other gradients 0. Saves one byte,
/// and writes all of its workspaces of 8 and 24 bytes.
inline const Kernel& copying_kernel() {
  static const FakeKernel kernel = [] {
    VariantInfo info = fake_info(Module::chunkwise, "native_eigen_ownbw",
                                 {DType::float64, DType::float32, DType::float16, DType::bfloat16});
    info.gradient_conventions = {Convention::detached};
    info.stabilizer_init = {StabilizerInit::neg_inf};
    info.operand_dtype = DType::tfloat32;
    info.initial_states = info.last_states = true;
    constexpr FakeSizes sizes{.saved = 1, .workspace = 8, .backward_workspace = 24};
    const auto copy_or_clear = [](void* to, const void* from, std::string_view tensor, const Problem& problem) {
      if (to == nullptr) return;
      from != nullptr ? std::memcpy(to, from, bytes_of(tensor, problem))
                      : std::memset(to, 0, bytes_of(tensor, problem));
    };
    const auto forward = [=](const Problem& problem, const ForwardArgs& args) {
      copy_or_clear(args.h, args.v, "h", problem);
      copy_or_clear(args.c_last, args.c_initial, "c_last", problem);
      copy_or_clear(args.n_last, args.n_initial, "n_last", problem);
      copy_or_clear(args.m_last, args.m_initial, "m_last", problem);
      if (args.saved != nullptr) std::memset(args.saved, 7, sizes.saved);
      std::memset(args.workspace, 9, sizes.workspace);
    };
    const auto backward = [=](const Problem& problem, const BackwardArgs& args) {
      const std::pair<void*, const char*> zeros[] = {{args.dq, "q"},
                                                     {args.dk, "k"},
                                                     {args.di, "i"},
                                                     {args.df, "f"},
                                                     {args.dc_initial, "c_initial"},
                                                     {args.dn_initial, "n_initial"},
                                                     {args.dm_initial, "m_initial"}};
      for (const auto& [gradient, tensor] : zeros) copy_or_clear(gradient, nullptr, tensor, problem);
      copy_or_clear(args.dv, args.dh, "v", problem);
      std::memset(args.workspace, 9, sizes.backward_workspace);
    };
    return FakeKernel(std::move(info), forward, backward, sizes);
  }();
  return kernel;
}

/// What is done to a right variant: to its results when it is done, or to what it is given.
struct Damage {
  std::function<void(const Problem&, const ForwardArgs&)> forward = {};
  std::function<void(const Problem&, const BackwardArgs&)> backward = {};
  std::function<void(Problem&, ForwardArgs&)> before_forward = {};
  std::function<void(Problem&, BackwardArgs&)> before_backward = {};
};

/// A right variant, damaged.
class DamagedKernel : public Kernel {
 public:
  /// The registered variant `key` in float64 and float32, in which `Stored` can write.
  explicit DamagedKernel(Damage damage, const std::string& key = "chunkwise--native_eigen_ownbw")
      : DamagedKernel(std::move(damage), *find_kernel(key)) {
    info_.dtypes = {DType::float64, DType::float32};
  }
  /// `right` has to outlive this.
  DamagedKernel(Damage damage, const Kernel& right) : right_(right), damage_(std::move(damage)), info_(right.info()) {}

  VariantInfo& change() { return info_; }
  const VariantInfo& info() const override { return info_; }
  std::size_t saved_size(const Problem& problem) const override { return right_.saved_size(problem); }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return right_.workspace_size(problem, backward);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    Problem taken = problem;
    ForwardArgs taken_args = args;
    if (damage_.before_forward) damage_.before_forward(taken, taken_args);
    right_.forward(taken, taken_args);
    if (damage_.forward) damage_.forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    Problem taken = problem;
    BackwardArgs taken_args = args;
    if (damage_.before_backward) damage_.before_backward(taken, taken_args);
    right_.backward(taken, taken_args);
    if (damage_.backward) damage_.backward(problem, args);
  }

 private:
  const Kernel& right_;
  Damage damage_;
  VariantInfo info_;
};

/// What one step of the recurrence works on: the state so far, and the factors of this step.
struct Step {
  const Problem& problem;
  std::int64_t head, t;
  std::vector<double>&C, &n;
  double& m;  ///< of the step before, until `bend_state`
  double log_forget, input;
};

/// The mLSTM of contract §2, step by step, forward only, bent by the functions that are given.
class BentRecurrence : public Kernel {
 public:
  explicit BentRecurrence(Module module = Module::recurrent) {
    info_ = fake_info(module, "native_eigen", {DType::float64, DType::float32});
    info_.gates = {Gate::exp, Gate::sigmoid};
    info_.initial_states = info_.last_states = true;
  }
  std::function<void(Step&)> bend_gates;              ///< before the step: m, log_forget and input of the step
  std::function<void(Step&)> bend_state;              ///< after it: C, n and m
  std::function<double(const Step&, double)> bend_h;  ///< each element of h
  VariantInfo& change() { return info_; }
  const VariantInfo& info() const override { return info_; }

  void forward(const Problem& p, const ForwardArgs& args) const override {
    const Shape& s = p.shape;
    const auto in = [&](const void* data, const char* name) { return writable(data, name, p); };
    const Stored q = in(args.q, "q"), k = in(args.k, "k"), v = in(args.v, "v"), i = in(args.i, "i"),
                 f = in(args.f, "f");
    const Stored h = in(args.h, "h");
    const auto soft = [](double x) { return -(std::max(-x, 0.0) + std::log1p(std::exp(-std::abs(x)))); };
    for (std::int64_t head = 0; head < s.heads(); ++head) {
      std::vector<double> C(static_cast<std::size_t>(s.DHQK * s.DHV)), n(static_cast<std::size_t>(s.DHQK));
      double m = 0;
      const auto C_at = [&](std::int64_t a, std::int64_t b) -> double& {
        return C[static_cast<std::size_t>(a * s.DHV + b)];
      };
      const auto n_at = [&](std::int64_t a) -> double& { return n[static_cast<std::size_t>(a)]; };
      for (std::int64_t a = 0; p.has_initial_state && a < s.DHQK; ++a) {
        n_at(a) = in(args.n_initial, "n_initial").get(head, 0, a);
        for (std::int64_t b = 0; b < s.DHV; ++b) C_at(a, b) = in(args.c_initial, "c_initial").get(head, a, b);
      }
      if (p.has_initial_state && p.has_m()) m = in(args.m_initial, "m_initial").get(head, 0);
      for (std::int64_t t = 0; t < s.S; ++t) {
        Step step{p, head, t, C, n, m, soft(f.get(head, t)), p.has_m() ? i.get(head, t) : soft(i.get(head, t))};
        if (bend_gates) bend_gates(step);
        const double now = p.has_m() ? std::max(step.log_forget + m, step.input) : 0;
        const double F = std::exp(step.log_forget + m - now), I = std::exp(step.input - now);
        m = now;
        for (std::int64_t a = 0; a < s.DHQK; ++a) {
          n_at(a) = F * n_at(a) + I * k.get(head, t, a);
          for (std::int64_t b = 0; b < s.DHV; ++b)
            C_at(a, b) = F * C_at(a, b) + I * k.get(head, t, a) * v.get(head, t, b);
        }
        if (bend_state) bend_state(step);
        double l = 0;
        for (std::int64_t a = 0; a < s.DHQK; ++a) l += n_at(a) * q.get(head, t, a);
        const double scale = 1 / std::sqrt(static_cast<double>(s.DHQK));
        const double d = p.normalized() ? std::max(std::abs(scale * l), std::exp(-m)) + p.eps : 1;
        for (std::int64_t b = 0; b < s.DHV; ++b) {
          double sum = 0;
          for (std::int64_t a = 0; a < s.DHQK; ++a) sum += C_at(a, b) * q.get(head, t, a);
          const double value = scale * sum / d;
          h.set(head, t, b, bend_h ? bend_h(step, value) : value);
        }
      }
      if (args.c_last != nullptr)
        for (std::int64_t a = 0; a < s.DHQK; ++a)
          for (std::int64_t b = 0; b < s.DHV; ++b) in(args.c_last, "c_last").set(head, a, b, C_at(a, b));
      if (args.n_last != nullptr)
        for (std::int64_t a = 0; a < s.DHQK; ++a) in(args.n_last, "n_last").set(head, 0, a, n_at(a));
      if (args.m_last != nullptr && p.has_m()) in(args.m_last, "m_last").set(head, 0, 0, m);
    }
  }

 private:
  VariantInfo info_;
};

}  // namespace mlstm::test
