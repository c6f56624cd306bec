// SPDX-License-Identifier: Apache-2.0
// The whole sequence as one block between the initial and the last state, a tile of queries at a time, like flash
// attention; dk and dv are summed over the tiles.
#include "studies/mutants/block_backward.hpp"
#include "studies/mutants/formulations.hpp"

namespace mlstm::verify::planted {

template <class Real>
void parallel_forward(const Context& c, const ForwardArgs& args, Index head, Memory<Real> memory) {
  const Shape& shape = c.problem.shape;
  const Head<Real> in = load_head<Real>(c, args, head, shape.S);
  Matrix<Real> h(shape.S, shape.DHV);
  std::vector<Real> l(static_cast<std::size_t>(shape.S));
  block_h(c, in, 0, shape.S, in.initial, l.data(), h);
  if (c.has("sum_order_race") && c.raced)
    for (Index t = 0; t < shape.S; ++t) h[t][0] = std::nextafter(h[t][0], Real(0));
  save_rows(c, memory.saved, l, in.gates.m);
  clear_padded_rows(c, in.gates, h);
  store(c, args.h, "h", c.problem.dtype, head, std::move(h));
  if (args.c_last != nullptr || args.n_last != nullptr || args.m_last != nullptr) {
    const State<Real> last = State<Real>::at(memory.workspace, shape);
    block_state(c, in, 0, shape.S, in.initial, last);
    store_last_states(c, args, head, last, in.gates.m.back());
  }
  damage_inputs(c, args, head, in.scale);
}

template <class Real>
void parallel_backward(const Context& c, const BackwardArgs& args, Index head, Memory<Real> memory) {
  const Shape& shape = c.problem.shape;
  const Index size = State<Real>::size(shape);
  Head<Real> in = load_head<Real>(c, args, head, shape.S);
  load_saved_m(c, memory.saved, in.gates);
  const State<Real> last = State<Real>::at(memory.workspace, shape);
  const State<Real> before = State<Real>::at(memory.workspace + size, shape);
  const std::vector<Real> left(memory.workspace, memory.workspace + size);
  const HeadCotangents<Real> given = load_cotangents(c, args, head, in, memory.saved, last);
  Gradients<Real> out(shape);
  std::vector<Real> nothing(static_cast<std::size_t>(size));
  const State<Real> initial = c.has("backward_initial_ignored") ? State<Real>::at(nothing.data(), shape) : in.initial;
  BlockGradients<Real>(c, in, given, 0, shape.S, initial, last).add_to(out, memory.workspace + 2 * size);
  if (c.has("workspace_of_forward")) out.after_product = dot(last.C, left.data(), size);
  block_dstate(c, in, given, 0, shape.S, last, before);
  out.before = before;
  store_gradients(c, args, head, in, given.rows, out);
  damage_inputs<Real>(c, args, head);
}

template void parallel_forward(const Context&, const ForwardArgs&, Index, Memory<double>);
template void parallel_forward(const Context&, const ForwardArgs&, Index, Memory<float>);
template void parallel_backward(const Context&, const BackwardArgs&, Index, Memory<double>);
template void parallel_backward(const Context&, const BackwardArgs&, Index, Memory<float>);

}  // namespace mlstm::verify::planted
