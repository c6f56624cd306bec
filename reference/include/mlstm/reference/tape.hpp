// SPDX-License-Identifier: Apache-2.0
// A scalar that records what is computed with it, for reverse-mode differentiation. One tape per thread.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mlstm::reference {

/// The operations on Vars of this thread, in order. An operation has at most two operands.
class Tape {
 public:
  using Id = std::uint32_t;  ///< 0 is every constant
  static constexpr std::size_t kMaxNodes = std::size_t{1} << 26;

  static Tape& current();
  void clear() { nodes_.assign(1, Node{}); }
  std::size_t size() const { return nodes_.size(); }

  /// Records y with dy/da = weight_a, dy/db = weight_b.
  Id record(Id a, double weight_a, Id b = 0, double weight_b = 0) {
    if (nodes_.size() == kMaxNodes) refuse_growth();
    nodes_.push_back({a, b, weight_a, weight_b});
    return static_cast<Id>(nodes_.size() - 1);
  }

  /// Turns cotangents of the recorded values (indexed by Id, size()) into those of all they were computed from.
  void sweep(std::vector<double>& adjoints) const {
    for (std::size_t at = nodes_.size(); at-- > 1;) {
      const double adjoint = adjoints[at];
      if (adjoint == 0.0) continue;
      adjoints[nodes_[at].a] += adjoint * nodes_[at].weight_a;
      adjoints[nodes_[at].b] += adjoint * nodes_[at].weight_b;
    }
  }

 private:
  struct Node {
    Id a = 0, b = 0;
    double weight_a = 0, weight_b = 0;
  };
  [[noreturn]] static void refuse_growth();
  std::vector<Node> nodes_{Node{}};
};

/// A number on the tape, or a constant.
class Var {
 public:
  Var() = default;
  Var(double constant) : value_(constant) {}
  Var(int constant) : value_(constant) {}
  Var(double value, Tape::Id id) : value_(value), id_(id) {}

  /// An independent variable.
  static Var leaf(double value) { return {value, Tape::current().record(0, 0.0)}; }

  double value() const { return value_; }
  Tape::Id id() const { return id_; }

  friend Var operator+(const Var& a, const Var& b) { return of(a.value_ + b.value_, a, 1.0, b, 1.0); }
  friend Var operator-(const Var& a, const Var& b) { return of(a.value_ - b.value_, a, 1.0, b, -1.0); }
  friend Var operator*(const Var& a, const Var& b) {
    if (a.is_zero() || b.is_zero()) return {};
    return of(a.value_ * b.value_, a, b.value_, b, a.value_);
  }
  friend Var operator/(const Var& a, const Var& b) {
    const double y = a.value_ / b.value_;
    return of(y, a, 1.0 / b.value_, b, -y / b.value_);
  }
  friend Var operator-(const Var& a) { return of(-a.value_, a, -1.0); }
  Var& operator+=(const Var& b) { return *this = *this + b; }
  Var& operator-=(const Var& b) { return *this = *this - b; }
  Var& operator*=(const Var& b) { return *this = *this * b; }
  Var& operator/=(const Var& b) { return *this = *this / b; }

  friend bool operator==(const Var& a, const Var& b) { return a.value_ == b.value_; }
  friend auto operator<=>(const Var& a, const Var& b) { return a.value_ <=> b.value_; }

  friend Var exp(const Var& a) {
    const double y = std::exp(a.value_);
    return of(y, a, y);
  }
  friend Var log1p(const Var& a) { return of(std::log1p(a.value_), a, 1.0 / (1.0 + a.value_)); }
  friend Var sqrt(const Var& a) {
    const double y = std::sqrt(a.value_);
    return of(y, a, 0.5 / y);
  }
  /// Derivative 0 at 0 (contract §3).
  friend Var abs(const Var& a) {
    const double sign = a.value_ > 0 ? 1.0 : a.value_ < 0 ? -1.0 : 0.0;
    return of(std::abs(a.value_), a, sign);
  }

 private:
  bool is_zero() const { return id_ == 0 && value_ == 0.0; }
  static Var of(double y, const Var& a, double weight_a) {
    return a.id_ == 0 ? Var(y) : Var(y, Tape::current().record(a.id_, weight_a));
  }
  static Var of(double y, const Var& a, double weight_a, const Var& b, double weight_b) {
    if (a.id_ == 0 && b.id_ == 0) return y;
    // x + 0 is x: sums start at a constant zero
    if (a.is_zero() && weight_b == 1.0 && y == b.value_) return b;
    if (b.is_zero() && weight_a == 1.0 && y == a.value_) return a;
    return {y, Tape::current().record(a.id_, weight_a, b.id_, weight_b)};
  }

  double value_ = 0;
  Tape::Id id_ = 0;
};

}  // namespace mlstm::reference

template <>
struct Eigen::NumTraits<mlstm::reference::Var> : Eigen::GenericNumTraits<double> {
  using Real = mlstm::reference::Var;
  using NonInteger = mlstm::reference::Var;
  using Nested = mlstm::reference::Var;
  enum {
    IsComplex = 0,
    IsInteger = 0,
    IsSigned = 1,
    RequireInitialization = 1,
    ReadCost = 1,
    AddCost = 3,
    MulCost = 3
  };
};
