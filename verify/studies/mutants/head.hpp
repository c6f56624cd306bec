// SPDX-License-Identifier: Apache-2.0
// The inputs of one head: where they lie in memory, and what follows from the gates alone.
#pragma once

#include <Eigen/Core>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

#include "mlstm/kernel.hpp"
#include "studies/mutants/context.hpp"

namespace mlstm::verify::planted {

/// `count` elements from `offset` on of a tensor of `total` elements, which begins again after its end.
template <class T, class Real>
void read(const void* tensor, Index offset, Index count, Index total, Real* out) {
  const T* const from = static_cast<const T*>(tensor);
  if (offset + count <= total)
    for (Index at = 0; at < count; ++at) out[at] = static_cast<Real>(from[offset + at]);
  else
    for (Index at = 0; at < count; ++at) out[at] = static_cast<Real>(from[(offset + at) % total]);
}

/// First element of `head` in a tensor with `size` elements per head.
inline Index offset_of(const Context& c, std::string_view name, Index head, Index size) {
  const Shape& shape = c.problem.shape;
  const bool is_gate = name == "i" || name == "f", is_key = name == "k", is_value = name == "v";
  if (c.has("key_stride_of_value") && is_key) size = shape.S * shape.DHV;
  if (c.has("value_stride_of_key") && is_value) size = shape.S * shape.DHQK;
  if (c.has("shared_key_heads") && (is_key || is_value)) head -= head % shape.NH % 2;
  if (c.has("batch_and_head_swapped") && is_gate) head = head % shape.NH * shape.B + head / shape.NH;
  if (c.has("first_batch_gates") && is_gate) head %= shape.NH;
  if (c.has("head_zero_value") && is_value) head -= head % shape.NH;
  if (c.has("head_of_5_bits") && is_gate) head &= 0x1f;
  if (c.has("head_of_16_bits") && (is_key || is_value)) head &= 0xffff;
  Index offset = head * size;
  if (c.has("ragged_batch_offset") && is_value && c.is_ragged())
    offset -= head / shape.NH * (shape.S % c.problem.chunk_size) * shape.DHV;
  if (c.has("offset_of_20_bits")) offset &= 0xfffff;
  if (c.has("offset_of_22_bits")) offset &= 0x3fffff;
  return c.has("offset_of_16_bits") ? offset & 0xffff : offset;
}

/// `rows` x `cols` elements of one head, of which the tensor has `rows_per_head`.
template <class Real>
Matrix<Real> load(const Context& c, const void* tensor, std::string_view name, DType dtype, Index head, Index rows,
                  Index cols, Index rows_per_head) {
  if (tensor == nullptr) throw std::invalid_argument(std::string(name) + " is null; the problem needs it");
  Matrix<Real> out(rows, cols);
  Index total = c.problem.shape.heads() * rows_per_head * cols;
  const Index offset = offset_of(c, name, head, rows_per_head * cols) % total;
  if (c.has("reads_past_end")) total = std::max(total, offset + out.size());
  switch (dtype) {
    case DType::float64:
      read<double>(tensor, offset, out.size(), total, out.data());
      break;
    case DType::float32:
      read<float>(tensor, offset, out.size(), total, out.data());
      break;
    case DType::float16:
      read<Eigen::half>(tensor, offset, out.size(), total, out.data());
      break;
    case DType::bfloat16:
      read<Eigen::bfloat16>(tensor, offset, out.size(), total, out.data());
      break;
    case DType::tfloat32:
      throw std::logic_error("load: tfloat32 is not a storage type");
  }
  return out;
}

/// Of a sequence; `rows` may go beyond the S of the head.
template <class Real>
Matrix<Real> load_sequence(const Context& c, const void* tensor, std::string_view name, Index head, Index rows,
                           Index cols) {
  Matrix<Real> out = load<Real>(c, tensor, name, c.problem.dtype, head, rows, cols, c.problem.shape.S);
  const Index most = c.has("time_of_10_bits") && name == "k"   ? 1024
                     : c.has("time_of_12_bits") && name == "v" ? 4096
                                                               : rows;
  for (Index t = most; t < rows; ++t) std::copy_n(out[t % most], cols, out[t]);
  return out;
}

template <class Real>
Matrix<Real> load_state(const Context& c, const void* tensor, std::string_view name, Index head, Index rows,
                        Index cols) {
  return load<Real>(c, tensor, name, state_dtype_of(c.problem.dtype), head, rows, cols, rows);
}

/// C (DHQK,DHV) and n (DHQK), one behind the other, or their cotangents.
template <class Real>
struct State {
  Real *C, *n;
  static Index size(const Shape& shape) { return shape.DHQK * (shape.DHV + 1); }
  static State at(Real* memory, const Shape& shape) { return {memory, memory + shape.DHQK * shape.DHV}; }
};

template <class Real>
struct Gates {
  std::vector<Real> log_f, log_i;      ///< logσ(f_t), and i_t or logσ(i_t)
  std::vector<Real> slope_f, slope_i;  ///< their derivatives
  std::vector<Real> m;                 ///< m_t; 0 with the sigmoid gate
  std::vector<bool> newest;            ///< whether m_t is i_t
  Real m_initial = 0;
  Real m_before(Index t) const { return t == 0 ? m_initial : m[static_cast<std::size_t>(t - 1)]; }
};

/// A forget gate that begins a new document.
template <class Real>
bool is_reset(Real log_f) {
  return log_f < -20;
}

template <class Real>
Real log_sigmoid(const Context& c, Real x) {
  if (c.has("forget_clamped_150")) x = std::max(x, Real(-150));
  if (c.has("forget_clamped_1000")) x = std::max(x, Real(-1000));
  if (c.has("log_of_sigmoid")) return std::log(1 / (1 + std::exp(-x)));
  if (c.has("forget_gate_exp")) return x;
  if (c.has("forget_gate_hard")) return std::min(x, Real(0));
  const Real value = std::min(x, Real(0)) - std::log1p(std::exp(-std::abs(x)));
  return rounded(c.has("log_gate_16_bit") ? rounding_of(c.problem.dtype) : c.gate, value);
}

template <class Real>
Real sigmoid(Real x) {
  const Real e = std::exp(-std::abs(x));
  return (x < 0 ? e : Real(1)) / (1 + e);
}

/// m_t = max(logσ(f_t) + m_{t-1}, i_t) from the gates, before all else. On a tie i_t wins.
template <class Real>
void scan_stabilizer(const Context& c, Gates<Real>& gates) {
  for (std::size_t t = 0; t < gates.m.size(); ++t) {
    const bool keeps = c.has("m_kept_at_reset") && is_reset(gates.log_f[t]);
    const Real past = (keeps ? Real(0) : gates.log_f[t]) + gates.m_before(static_cast<Index>(t));
    const bool newest = gates.log_i[t] >= past;
    gates.newest[t] = newest;
    gates.m[t] = newest ? gates.log_i[t] : past;
    gates.m[t] = rounded(c.gate, gates.m[t]);
    if (c.has("m_bfloat16")) gates.m[t] = rounded(Rounding::bfloat16, gates.m[t]);
  }
}

/// `Args` is ForwardArgs or BackwardArgs.
template <class Real, class Args>
Gates<Real> load_gates(const Context& c, const Args& args, Index head, Index rows) {
  const Problem& problem = c.problem;
  const Matrix<Real> i = load_sequence<Real>(c, args.i, "i", head, rows, 1);
  const Matrix<Real> f = load_sequence<Real>(c, args.f, "f", head, rows, 1);
  const auto n = static_cast<std::size_t>(rows);
  Gates<Real> gates{std::vector<Real>(n),
                    std::vector<Real>(n),
                    std::vector<Real>(n),
                    std::vector<Real>(n, 1),
                    std::vector<Real>(n, 0),
                    std::vector<bool>(n),
                    0};
  for (std::size_t t = 0; t < n; ++t) {
    const Real input = i.data()[t], forget = f.data()[t];
    gates.log_f[t] = log_sigmoid(c, forget);
    gates.slope_f[t] = sigmoid(c.has("df_sigmoid_of_f") ? forget : -forget);
    if (c.has("df_without_sigmoid")) gates.slope_f[t] = 1;
    gates.log_i[t] = rounded(c.gate, input);
    if (c.has("input_clamped_150")) gates.log_i[t] = std::max(input, Real(-150));
    if (c.has("input_clamped_1000")) gates.log_i[t] = std::max(input, Real(-1000));
    if (problem.gate == Gate::exp || c.has("input_gate_exp")) continue;
    gates.log_i[t] = log_sigmoid(c, input);
    if (!c.has("di_without_sigmoid")) gates.slope_i[t] = sigmoid(-input);
  }
  if (problem.gate == Gate::sigmoid) return gates;
  const bool swapped = c.has("stabilizer_init_swapped");
  if (problem.has_initial_state && !c.has("m_initial_ignored"))
    gates.m_initial = load_state<Real>(c, args.m_initial, "m_initial", head, 1, 1).data()[0];
  else if (!problem.has_initial_state && (problem.stabilizer_init == StabilizerInit::neg_inf) != swapped)
    gates.m_initial = -std::numeric_limits<Real>::infinity();
  scan_stabilizer(c, gates);
  return gates;
}

template <class Real>
struct Head {
  Matrix<Real> q, k, v;
  Gates<Real> gates;
  Real scale;                  ///< of q
  std::vector<Real> initial_;  ///< memory of `initial`
  State<Real> initial;         ///< zero if none is given
};

template <class Real>
Real scale_of(const Context& c) {
  const Shape& shape = c.problem.shape;
  const Real scale = 1 / std::sqrt(static_cast<Real>(c.has("scale_of_value") ? shape.DHV : shape.DHQK));
  if (c.has("scale_missing")) return 1;
  if (c.has("scale_in_library")) return static_cast<Real>(c.library->scale.load());
  if (c.has("scale_twice")) return scale * scale;
  return c.has("scale_bfloat16") ? rounded(Rounding::bfloat16, scale) : scale;
}

/// Loads `rows` steps (S, unless a bug reads on) and the initial state.
template <class Real, class Args>
Head<Real> load_head(const Context& c, const Args& args, Index head, Index rows) {
  const Shape& shape = c.problem.shape;
  Head<Real> out{load_sequence<Real>(c, args.q, "q", head, rows, shape.DHQK),
                 load_sequence<Real>(c, args.k, "k", head, rows, shape.DHQK),
                 load_sequence<Real>(c, args.v, "v", head, rows, shape.DHV),
                 load_gates<Real>(c, args, head, rows),
                 scale_of<Real>(c),
                 std::vector<Real>(static_cast<std::size_t>(State<Real>::size(shape))),
                 {}};
  out.initial = State<Real>::at(out.initial_.data(), shape);
  if (c.operand != rounding_of(c.problem.dtype))  // else the stored values are what products read
    for (Matrix<Real>* const x : {&out.q, &out.k, &out.v}) round_all(c.operand, x->data(), x->size());
  if (!c.problem.has_initial_state) return out;
  const Matrix<Real> C = load_state<Real>(c, args.c_initial, "c_initial", head, shape.DHQK, shape.DHV);
  const Matrix<Real> n = load_state<Real>(c, args.n_initial, "n_initial", head, shape.DHQK, 1);
  if (c.has("c_initial_transposed") && shape.DHQK == shape.DHV) {
    const Matrix<Real> turned = transposed(C.from(0), shape.DHQK, shape.DHV);
    std::copy_n(turned.data(), C.size(), out.initial.C);
  } else if (!c.has("c_initial_ignored")) {
    std::copy_n(C.data(), C.size(), out.initial.C);
  }
  if (!c.has("n_initial_ignored")) std::copy_n(n.data(), n.size(), out.initial.n);
  return out;
}

}  // namespace mlstm::verify::planted
