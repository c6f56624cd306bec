// SPDX-License-Identifier: Apache-2.0
// Chunks of L steps, the last one ragged, in the order of GPU kernels: first the states before all chunks, one after
// the other, then h of every chunk; backward, first the cotangents of the states, last chunk first, then the gradients.
#include "studies/mutants/block_backward.hpp"
#include "studies/mutants/formulations.hpp"

namespace mlstm::verify::planted {
namespace {

/// Which state the chunk's h reads.
Index state_read(const Context& c, Index chunk) {
  if (c.has("state_late") || (c.has("state_race") && c.raced && chunk == 1)) return std::max<Index>(0, chunk - 1);
  if (c.has("state_early")) return chunk + 1;
  if (c.has("every_second_state")) return chunk / 2 * 2;
  if (c.has("chunk_of_4_bits")) return chunk & 0xf;
  return chunk;
}

/// Which cotangent of a state the chunk's gradients read: that after it.
Index dstate_read(const Context& c, Index chunk, Index chunks) {
  const bool large = c.problem.chunk_size > 128;
  if (c.has("dstate_late") || (c.has("large_chunk_index") && large)) return std::min(chunk + 2, chunks);
  if (c.has("chunk_of_6_bits")) return (chunk & 0x3f) + 1;
  return c.has("dstate_early") ? chunk : chunk + 1;
}

/// Which state before a chunk backward reads.
Index saved_state_read(const Context& c, Index head, Index chunk, Index chunks) {
  const Shape& shape = c.problem.shape;
  const auto L = static_cast<std::uint64_t>(c.problem.chunk_size);
  const bool late_here = c.has("ragged_batch_state_late") && head >= shape.NH && c.is_ragged() && chunk + 1 == chunks;
  if (c.has("backward_state_late") || late_here) return std::max<Index>(0, chunk - 1);
  if (c.has("chunk_of_7_bits")) return chunk & 0x7f;
  if (c.has("chunk_by_shift"))
    return std::min(chunks - 1, chunk * c.problem.chunk_size / static_cast<Index>(std::bit_floor(L)));
  return chunk;
}

/// Forgets what a scan over so many chunks at a time does not carry on.
template <class Real>
void lose_carry(const Context& c, Index chunk, State<Real> state, bool backward) {
  const Shape& shape = c.problem.shape;
  if (chunk == 0) return;
  if (c.has("scan_of_16_chunks") && backward && chunk % 16 == 0)
    std::fill_n(state.C, State<Real>::size(shape), Real(0));
  if (c.has("scan_of_64_chunks") && !backward && chunk % 64 == 0) std::fill_n(state.n, shape.DHQK, Real(0));
  if (c.has("scan_of_128_chunks") && !backward && chunk % 128 == 0)
    std::fill_n(state.C, State<Real>::size(shape), Real(0));
}

Index chunks_run(const Context& c) {
  const Problem& problem = c.problem;
  return c.has("ragged_chunk_lost") ? std::max<Index>(1, problem.shape.S / problem.chunk_size) : chunks_of(problem);
}

}  // namespace

template <class Real>
void chunkwise_forward(const Context& c, const ForwardArgs& args, Index head, Memory<Real> memory) {
  const Shape& shape = c.problem.shape;
  const Index L = c.problem.chunk_size, chunks = chunks_run(c), size = State<Real>::size(shape);
  const bool reads_past_end = c.has("reads_past_end") && head == shape.heads() - 1;
  const Index rows = c.has("ragged_chunk_reads_on") ? chunks * L : reads_past_end ? shape.S + 1 : shape.S;
  const Head<Real> in = load_head<Real>(c, args, head, rows);
  const auto state = [&](Index chunk) { return State<Real>::at(memory.workspace + chunk * size, shape); };
  const bool kept = c.has("state_kept_across_heads") && head > 0;
  copy_state(shape, kept ? State<Real>::at(memory.workspace - size, shape) : in.initial, state(0));
  for (Index chunk = 0; chunk < chunks; ++chunk) {
    const Index left = rows - chunk * L, n = reads_past_end && chunk + 1 == chunks ? left : std::min(L, left);
    lose_carry(c, chunk, state(chunk), false);
    block_state(c, in, chunk * L, n, state(chunk), state(chunk + 1));
  }

  if (c.has("scratch_in_library", "state")) c.library->pass_through(memory.workspace, (chunks + 1) * size);
  Matrix<Real> h(shape.S, shape.DHV);
  std::vector<Real> l(static_cast<std::size_t>(shape.S));
  for (Index chunk = 0; chunk < chunks; ++chunk)
    block_h(c, in, chunk * L, std::min(L, shape.S - chunk * L), state(state_read(c, chunk)), l.data(), h);
  const bool wants_states = args.c_last != nullptr || args.n_last != nullptr || args.m_last != nullptr;
  if (memory.saved != nullptr && (wants_states || !c.has("saved_needs_last_states"))) {
    Real* const states = memory.saved + 2 * shape.S;
    std::copy_n(memory.workspace, chunks * size, states);
    if (c.has("saved_state_bfloat16")) round_all(Rounding::bfloat16, states, chunks * size);
  }
  save_rows(c, memory.saved, l, in.gates.m);
  clear_padded_rows(c, in.gates, h);
  store(c, args.h, "h", c.problem.dtype, head, std::move(h));
  const bool early = c.has("m_last_of_chunk_before") && chunks > 1;
  store_last_states(c, args, head, state(chunks), early ? in.gates.m_before((chunks - 1) * L) : in.gates.m.back());
  damage_inputs(c, args, head, in.scale);
}

template <class Real>
void chunkwise_backward(const Context& c, const BackwardArgs& args, Index head, Memory<Real> memory) {
  const Shape& shape = c.problem.shape;
  const Index L = c.problem.chunk_size, chunks = chunks_run(c), size = State<Real>::size(shape);
  Head<Real> in = load_head<Real>(c, args, head, shape.S);
  load_saved_m(c, memory.saved, in.gates);
  const auto d_state = [&](Index chunk) { return State<Real>::at(memory.workspace + chunk * size, shape); };
  const HeadCotangents<Real> given = load_cotangents(c, args, head, in, memory.saved, d_state(chunks));
  const auto steps = [&](Index chunk) { return std::min(L, shape.S - chunk * L); };
  for (Index chunk = chunks - 1; chunk >= 0; --chunk) {
    block_dstate(c, in, given, chunk * L, steps(chunk), d_state(chunk + 1), d_state(chunk));
    if (c.has("reverse_scan_starts_early") && chunk == chunks - 1 && chunk > 0)
      copy_state(shape, d_state(chunk + 1), d_state(chunk));
    lose_carry(c, chunk, d_state(chunk), true);
  }

  Gradients<Real> out(shape);
  std::vector<Real> nothing(static_cast<std::size_t>(size));
  const State<Real> zero = State<Real>::at(nothing.data(), shape);
  Real after_product = 0;
  for (Index chunk = 0; chunk < chunks; ++chunk) {
    const Index read = saved_state_read(c, head, chunk, chunks);
    const State<Real> saved = State<Real>::at(memory.saved + 2 * shape.S + read * size, shape);
    const State<Real> before = c.has("backward_initial_ignored") && chunk == 0 ? zero : saved;
    const State<Real> after = c.has("dstate_dropped") ? zero : d_state(dstate_read(c, chunk, chunks));
    BlockGradients<Real>(c, in, given, chunk * L, steps(chunk), before, after)
        .add_to(out, memory.workspace + (chunks_of(c.problem) + (c.has("workspace_overlaps") ? 0 : 1)) * size);
    after_product = out.after_product;
  }
  out.after_product = after_product;
  out.before = d_state(0);
  store_gradients(c, args, head, in, given.rows, out);
  damage_inputs<Real>(c, args, head);
}

template void chunkwise_forward(const Context&, const ForwardArgs&, Index, Memory<double>);
template void chunkwise_forward(const Context&, const ForwardArgs&, Index, Memory<float>);
template void chunkwise_backward(const Context&, const BackwardArgs&, Index, Memory<double>);
template void chunkwise_backward(const Context&, const BackwardArgs&, Index, Memory<float>);

}  // namespace mlstm::verify::planted
