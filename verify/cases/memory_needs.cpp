// SPDX-License-Identifier: Apache-2.0
#include "cases/memory_needs.hpp"

#include <algorithm>
#include <cmath>
#include <thread>

namespace mlstm::verify {
namespace {

/// Numbers of elements. In floating point: a product of extents may be beyond 64 bits, and is then far too large.
struct Elements {
  explicit Elements(const Shape& s)
      : heads(static_cast<double>(s.heads())),
        S(static_cast<double>(s.S)),
        d(static_cast<double>(s.DHQK)),
        e(static_cast<double>(s.DHV)) {}
  double heads, S, d, e;
  double sequences() const { return S * (2 * d + e + 2); }  ///< q, k, v, i, f of one head
  double state() const { return d * e + d + 1; }            ///< c, n, m of one head
  double inputs(const Problem& p) const { return sequences() + (p.has_initial_state ? state() : 0); }
  double outputs() const { return S * e + state(); }
};

std::uint64_t bytes_of(double float64s) { return static_cast<std::uint64_t>(std::min(8 * float64s, 0x1p62)); }

double chunks_of(double S, std::int64_t chunk) { return std::ceil(S / static_cast<double>(chunk)); }

/// evaluate_head of the chunkwise formulation: copies in aligned memory, vectors of rows, states entering chunks.
double reference_scratch(const Problem& p, const Elements& n, bool gradients) {
  const std::int64_t L = std::min(p.chunk_size > 0 ? p.chunk_size : 64, p.shape.S);
  const double block = static_cast<double>(L) * static_cast<double>(L);
  const double copies = n.inputs(p) + n.outputs() + (gradients ? n.S * n.e + 2 * n.inputs(p) : 0);
  const double rows = gradients ? 12 * n.S : 5 * n.S;
  const double states = (gradients ? chunks_of(n.S, L) + 1 : 2) * n.state();
  return copies + rows + states + (gradients ? 5 : 2) * block;
}

/// head_bounds: values and squares, rows, and for every chunk its weights and what is known of its past; gradients add
/// their parts row by row.
double bounds_scratch(const Problem& p, const Elements& n, bool gradients, Module formulation) {
  std::int64_t chunk = 128;  // as error_bounds cuts the window
  if (formulation == Module::recurrent) chunk = 64;
  if (formulation == Module::chunkwise && p.chunk_size > 0) chunk = std::min(p.chunk_size, chunk);
  chunk = std::min(chunk, p.shape.S);
  const double L = static_cast<double>(chunk), chunks = chunks_of(n.S, chunk);
  const double values = n.S * (4 * n.d + 3 * n.e), rows = n.S * (17 + (gradients ? 4 : 1) * n.e);
  const double weights = chunks * (2 * L * L + 2 * L);
  const double past = chunks * (3 * n.d * n.e + n.d * n.d + (gradients ? 0 : n.e * n.e));
  const double backward = gradients ? n.S * (11 * n.d + 4 * n.e + 40) : 0;
  return values + rows + weights + past + backward;
}

}  // namespace

VerifierNeeds verifier_needs(const Problem& problem, bool gradients, int threads, Module formulation) {
  const Elements n(problem.shape);
  const double parallel = std::min(
      n.heads, threads > 0 ? threads : std::max(1.0, static_cast<double>(std::thread::hardware_concurrency())));
  const double inputs = n.heads * n.inputs(problem), outputs = n.heads * n.outputs();
  VerifierNeeds needs;
  needs.inputs = bytes_of(inputs + (gradients ? n.heads * n.S * n.e : 0));
  needs.reference = bytes_of(outputs + (gradients ? 2 * inputs : 0));
  needs.results = bytes_of(outputs + (gradients ? inputs : 0));
  needs.bounds = bytes_of(outputs + (gradients ? 2 * (inputs + n.heads * (n.S + 1)) : 0));
  // The reference is done before there are results and bounds.
  const std::uint64_t of_reference = bytes_of(parallel * reference_scratch(problem, n, gradients));
  needs.until_reference = needs.inputs + needs.reference + of_reference;
  const std::uint64_t later = needs.results + needs.bounds;
  needs.scratch = std::max(bytes_of(parallel * bounds_scratch(problem, n, gradients, formulation)),
                           of_reference > later ? of_reference - later : 0);
  return needs;
}

}  // namespace mlstm::verify
