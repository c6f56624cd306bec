// SPDX-License-Identifier: Apache-2.0
// The recurrence, step by step; and one step of it, for decoding.
//
//   C_t = F C_{t-1} + I k vᵀ    h_t = C_tᵀ (s q) / d_t    dC_t = s q (dh/d)ᵀ + F_{t+1} dC_{t+1}    dk = I (dC v + dn)
//
// Backward runs segments of 16 steps again from the state that forward kept before each. Nothing is rounded but what
// is stored.
#include "studies/mutants/formulations.hpp"

namespace mlstm::verify::planted {
namespace {

template <class Real>
struct StepGates {
  Real decay, input;
  StepGates(const Context& c, const Gates<Real>& gates, Index t) {
    const auto row = static_cast<std::size_t>(t);
    const Real log_f = gates.log_f[row];
    decay = c.exp(c.has("m_not_rescaled") ? log_f : log_f + gates.m_before(t) - gates.m[row]);
    input = c.exp(c.has("input_unstabilized") ? gates.log_i[row] : gates.log_i[row] - gates.m[row]);
    decay = rounded(c.gate, decay);
    input = rounded(c.gate, input);
  }
};

/// out += a * x with every term rounded to `to`.
template <class Real>
void add_rounded(Rounding to, Real* out, Real a, const Real* x, Index n) {
  if (to == Rounding::none) return add_scaled(out, a, x, n);
  for (Index at = 0; at < n; ++at) out[at] += rounded(to, a * x[at]);
}

template <class Real>
Real dot_rounded(Rounding to, const Real* a, const Real* b, Index n) {
  if (to == Rounding::none) return dot(a, b, n);
  Real sum = 0;
  for (Index at = 0; at < n; ++at) sum += rounded(to, a[at] * b[at]);
  return sum;
}

/// A state as products read it: as it is, or (a habit) rounded to the operands' dtype.
template <class Real>
class Reading {
 public:
  Reading(const Context& c, Index cols) : to_(c.does(kReadsRoundedState) ? c.operand : Rounding::none), cols_(cols) {}

  /// One row of it, valid until the next is read.
  const Real* of(const Real* row) {
    if (to_ == Rounding::none) return row;
    row_.assign(row, row + cols_);
    round_all(to_, row_.data(), cols_);
    return row_.data();
  }
  Real of(Real value) const { return rounded(to_, value); }

 private:
  Rounding to_;
  Index cols_;
  std::vector<Real> row_;
};

/// The state one step further, in place; h_t d_t to `numerator` (DHV). Returns l_t.
template <class Real>
Real advance(const Context& c, const Head<Real>& in, Index t, State<Real> state, Real* numerator) {
  const Index DHQK = in.q.cols(), DHV = in.v.cols();
  const StepGates<Real> gates(c, in.gates, t);
  const Real *const q = in.q[t], *const k = in.k[t], *const v = in.v[t];
  Real decay = gates.decay, decay_n = gates.decay, l = 0;
  if (c.has("state_not_decayed")) decay = decay_n = 1;
  if (c.has("n_not_decayed")) decay_n = 1;
  if (c.has("state_decayed_twice")) decay *= decay, decay_n = decay;
  const bool resets = is_reset(in.gates.log_f[static_cast<std::size_t>(t)]);
  if (c.has("n_kept_at_reset") && resets) decay_n = 1;
  if (c.has("c_kept_at_reset") && resets) decay = 1;
  const bool late = c.has("state_late");  // h of the state before the update
  Reading<Real> read(c, DHV);
  std::fill_n(numerator, DHV, Real(0));
  for (Index a = 0; a < DHQK; ++a) {
    Real* const C = state.C + a * DHV;
    const bool lost = c.has("state_key_remainder_lost") && DHQK > 64 && a >= DHQK / 64 * 64;
    const Real key = lost ? Real(0) : gates.input * k[a], query = in.scale * q[a];
    if (late) {
      add_scaled(numerator, query, C, DHV);
      l += query * state.n[a];
    }
    for (Index e = 0; e < DHV; ++e) C[e] = decay * C[e] + rounded(c.product, key * v[e]);
    state.n[a] = decay_n * state.n[a] + rounded(c.product, key);
    if (late) continue;
    add_rounded(c.product, numerator, query, read.of(C), DHV);
    round_all(c.accumulator, numerator, DHV);
    if (c.has("normaliser_keys_beyond_128") && a >= 128) continue;
    if (!c.has("last_key_dimension_lost") || a + 1 < DHQK) l += rounded(c.product, query * read.of(state.n[a]));
  }
  round_all(c.state, state.C, State<Real>::size(c.problem.shape));
  if (c.has("n_bfloat16")) round_all(Rounding::bfloat16, state.n, DHQK);
  return l;
}

/// One step of h from the state that `advance` made of it.
template <class Real>
void finish_row(const Context& c, const Gates<Real>& gates, Index t, Real l, Real* h, Index DHV) {
  const Real inverse = denominator(c, l, floor_m(c, gates, t)).inverse;
  for (Index e = 0; e < DHV; ++e) h[e] *= inverse;
  if (c.has("lane_race") && c.raced && DHV > 1) h[DHV - 1] = h[DHV - 2];
}

/// One step back. `d_state`: cotangent of the state after the step, replaced by that of the state before it.
template <class Real>
void step_back(const Context& c, const Head<Real>& in, const HeadCotangents<Real>& given, Index t, State<Real> before,
               State<Real> after, State<Real> d_state, Gradients<Real>& out) {
  const Index DHQK = in.q.cols(), DHV = in.v.cols();
  const auto row = static_cast<std::size_t>(t);
  const StepGates<Real> gates(c, in.gates, t);
  const Real gamma = given.rows.gamma[row];
  const Real *const q = in.q[t], *const k = in.k[t], *const v = in.v[t];
  Real *const dq = out.dq[t], *const dk = out.dk[t], *const dv = out.dv[t];
  std::vector<Real> g(static_cast<std::size_t>(DHV));
  for (Index e = 0; e < DHV; ++e) g[static_cast<std::size_t>(e)] = given.rows.inverse[row] * given.dh[t][e];
  const State<Real> seen = c.has("dq_of_state_before") ? before : after;
  const State<Real> past = c.has("df_of_state_after") ? after : before;
  Real d_log_f = 0;
  Reading<Real> read(c, DHV);
  std::fill_n(dv, DHV, Real(0));
  for (Index a = 0; a < DHQK; ++a) {
    Real *const dC = d_state.C + a * DHV, *const C = seen.C + a * DHV;
    const Real query = (c.has("dstate_query_unscaled") ? Real(1) : in.scale) * q[a];
    add_rounded(c.product, dC, query, g.data(), DHV);
    if (!c.has("dn_without_gamma")) d_state.n[a] += query * gamma;
    dq[a] =
        (c.has("dS_unscaled") ? Real(1) : in.scale) * (dot_rounded(c.product, read.of(C), g.data(), DHV) +
                                                       (c.has("dq_without_n") ? Real(0) : gamma * read.of(seen.n[a])));
    const Real* const later = read.of(dC);
    dk[a] = gates.input *
            (dot_rounded(c.product, later, v, DHV) + (c.has("dk_without_dn") ? Real(0) : read.of(d_state.n[a])));
    if (c.has("dk_without_input_gate")) dk[a] = dot(dC, v, DHV) + d_state.n[a];
    add_rounded(c.product, dv, (c.has("dv_from_queries") ? q[a] : k[a]) * gates.input, later, DHV);
    d_log_f += dot(dC, past.C + a * DHV, DHV) + (c.has("df_without_n") ? Real(0) : d_state.n[a] * past.n[a]);
  }
  out.d_log_i[row] = dot(k, dk, DHQK);
  out.d_log_f[row] = gates.decay * d_log_f;
  Real decay = gates.decay;
  if (c.has("dstate_not_decayed")) decay = 1;
  if (c.has("dstate_decayed_twice")) decay *= decay;
  if (c.has("dstate_crosses_reset") && is_reset(in.gates.log_f[row])) decay = 1;
  for (Index at = 0; at < DHQK * DHV; ++at) d_state.C[at] *= decay;
  for (Index a = 0; a < DHQK; ++a) d_state.n[a] *= c.has("dn_not_decayed") ? Real(1) : decay;
  if (c.does(kNarrowStates)) round_all(c.state, d_state.C, DHQK * (DHV + 1));
}

}  // namespace

template <class Real>
void recurrent_forward(const Context& c, const ForwardArgs& args, Index head, Memory<Real> memory) {
  const Shape& shape = c.problem.shape;
  const Index size = State<Real>::size(shape);
  const Head<Real> in = load_head<Real>(c, args, head, shape.S);
  const State<Real> state = State<Real>::at(memory.workspace, shape);
  if (c.has("state_kept_across_heads") && head > 0)
    copy_state(shape, State<Real>::at(memory.workspace - size, shape), state);
  else if (!c.has("accumulators_not_cleared") || c.problem.has_initial_state)
    copy_state(shape, in.initial, state);
  Matrix<Real> h(shape.S, shape.DHV);
  std::vector<Real> l(static_cast<std::size_t>(shape.S));
  for (Index t = 0; t < shape.S; ++t) {
    if (memory.saved != nullptr && t % kSegment == 0) {
      Real* const kept = memory.saved + 2 * shape.S + t / kSegment * size;
      std::copy_n(state.C, size, kept);
      if (c.has("saved_state_bfloat16")) round_all(Rounding::bfloat16, kept, size);
    }
    const Real l_t = l[static_cast<std::size_t>(t)] = advance(c, in, t, state, h[t]);
    finish_row(c, in.gates, t, l_t, h[t], shape.DHV);
  }
  save_rows(c, memory.saved, l, in.gates.m);
  clear_padded_rows(c, in.gates, h);
  store(c, args.h, "h", c.problem.dtype, head, std::move(h));
  store_last_states(c, args, head, state, in.gates.m.back());
  damage_inputs(c, args, head, in.scale);
}

template <class Real>
void recurrent_backward(const Context& c, const BackwardArgs& args, Index head, Memory<Real> memory) {
  const Shape& shape = c.problem.shape;
  const Index size = State<Real>::size(shape), segments = (shape.S - 1) / kSegment + 1;
  Head<Real> in = load_head<Real>(c, args, head, shape.S);
  load_saved_m(c, memory.saved, in.gates);
  const State<Real> d_state = State<Real>::at(memory.workspace, shape);
  const HeadCotangents<Real> given = load_cotangents(c, args, head, in, memory.saved, d_state);
  Gradients<Real> out(shape);
  std::vector<Real> numerator(static_cast<std::size_t>(shape.DHV));
  for (Index segment = segments - 1; segment >= 0; --segment) {
    const Index begin = segment * kSegment, n = std::min(kSegment, shape.S - begin);
    const auto state = [&](Index t) { return State<Real>::at(memory.workspace + (t - begin + 1) * size, shape); };
    Index kept = segment;
    if (c.has("segments_beyond_64")) kept = segment % 64;
    if (c.has("segment_index_late")) kept = std::max<Index>(0, segment - 1);
    std::copy_n(memory.saved + 2 * shape.S + kept * size, size, state(begin).C);
    if (c.has("backward_initial_ignored") && segment == 0) std::fill_n(state(begin).C, size, Real(0));
    for (Index t = begin; t < begin + n; ++t) {
      copy_state(shape, state(t), state(t + 1));
      advance(c, in, t, state(t + 1), numerator.data());
    }
    if (segment == segments - 1) out.after_product = dot(d_state, state(shape.S), shape);
    for (Index t = begin + n; t-- > begin;) {
      if (c.has("last_step_lost_backward") && t + 1 == shape.S && t > 0) continue;
      step_back(c, in, given, t, state(t), state(t + 1), d_state, out);
    }
    if (c.has("dstate_dropped")) std::fill_n(d_state.C, size, Real(0));
  }
  out.before = d_state;
  store_gradients(c, args, head, in, given.rows, out);
  damage_inputs<Real>(c, args, head);
}

template <class Real>
void step_forward(const Context& c, const ForwardArgs& args, Index head, Memory<Real>) {
  const Shape& shape = c.problem.shape;
  const Head<Real> in = load_head<Real>(c, args, head, 1);
  Matrix<Real> h(1, shape.DHV);
  const Real l = advance(c, in, 0, in.initial, h[0]);
  finish_row(c, in.gates, 0, l, h[0], shape.DHV);
  store(c, args.h, "h", c.problem.dtype, head, std::move(h));
  store_last_states(c, args, head, in.initial, in.gates.m.back());
  damage_inputs(c, args, head, in.scale);
}

template void recurrent_forward(const Context&, const ForwardArgs&, Index, Memory<double>);
template void recurrent_forward(const Context&, const ForwardArgs&, Index, Memory<float>);
template void recurrent_backward(const Context&, const BackwardArgs&, Index, Memory<double>);
template void recurrent_backward(const Context&, const BackwardArgs&, Index, Memory<float>);
template void step_forward(const Context&, const ForwardArgs&, Index, Memory<double>);
template void step_forward(const Context&, const ForwardArgs&, Index, Memory<float>);

}  // namespace mlstm::verify::planted
