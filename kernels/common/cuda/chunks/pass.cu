// SPDX-License-Identifier: Apache-2.0
// Order of launches and memory of the tensor-core variants; what each launch computes is in the headers.
#include "common/cuda/chunks/pass.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "common/cuda/launch.hpp"
#include "common/cuda/types.cuh"
#include "common/cuda/variant.hpp"

namespace mlstm::kernels::cuda {
namespace {

/// Bytes that take() of a layout hands out for the problem's dtype.
template <template <class> class Layout>
std::size_t bytes_of(const Problem& problem, std::int64_t L) {
  const ChunkSizes sizes = ChunkSizes::of(problem, L);
  Arena arena(nullptr);
  dispatch<float, bfloat16, float16>(problem.dtype, [&]<class T>(T) { Layout<T>::take(arena, problem, sizes); });
  return arena.size();
}

/// Fewest columns of a result that a block makes.
constexpr int kTileColumns = 64;

void require_aligned(const char* name, const void* pointer) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % 16 != 0)
    throw std::invalid_argument(std::string(name) + " is not aligned; expected a multiple of 16 bytes");
}

/// What is read or written in pieces of up to 16 bytes.
template <class Args>
void require_tensors(const Args& args) {
  require_aligned("q", args.q);
  require_aligned("k", args.k);
  require_aligned("v", args.v);
  require_aligned("h", args.h);
  require_aligned("c_initial", args.c_initial);
  require_aligned("saved", args.saved);
  require_aligned("workspace", args.workspace);
}

}  // namespace

std::size_t chunk_saved_size(const Problem& problem, std::int64_t L) { return bytes_of<SavedChunks>(problem, L); }

std::size_t chunk_workspace_size(const Problem& problem, std::int64_t L, bool backward) {
  // A forward call without `saved` keeps the same things in its workspace.
  return backward ? bytes_of<ChunkScratch>(problem, L) : bytes_of<SavedChunks>(problem, L);
}

std::string too_many_blocks(const Problem& problem, std::int64_t L) {
  const ChunkSizes sizes = ChunkSizes::of(problem, L);
  const int width = std::max(sizes.DHQK, sizes.DHV);
  const double blocks =
      static_cast<double>(sizes.heads) * sizes.chunks * sizes.tiles * ((width - 1) / kTileColumns + 1);
  if (blocks <= static_cast<double>(kMaxGridX)) return {};
  return std::to_string(sizes.heads) + " heads of " + std::to_string(sizes.chunks) +
         " chunks are not supported (at most " + std::to_string(kMaxGridX) + " blocks in a launch)";
}

template <class T>
ForwardPass<T> begin_forward(const Problem& problem, std::int64_t L, const ForwardArgs& args) {
  require_tensors(args);
  require_pointer("h", args.h);
  require_aligned("c_last", args.c_last);
  const ChunkSizes sizes = ChunkSizes::of(problem, L);
  const void* const memory = args.saved != nullptr ? args.saved : args.workspace;
  require_pointer(args.saved != nullptr ? "saved" : "workspace", memory);
  Arena arena(memory);
  const SavedChunks<T> saved = SavedChunks<T>::take(arena, problem, sizes);
  const cudaStream_t stream = static_cast<cudaStream_t>(args.stream);
  scan_gates(problem, sizes.L, args.i, args.f, args.m_initial, saved.gates, args.m_last, stream);

  const bool borders = sizes.chunks > 1 || problem.has_initial_state;
  const bool last = args.c_last != nullptr || args.n_last != nullptr || args.saved != nullptr;
  if (borders || last) {
    StateForward<T> states{};
    states.k = static_cast<const T*>(args.k);
    states.v = static_cast<const T*>(args.v);
    if (problem.has_initial_state) {
      states.c_initial = static_cast<const float*>(args.c_initial);
      states.n_initial = static_cast<const float*>(args.n_initial);
    }
    states.c_last = static_cast<float*>(args.c_last);
    states.n_last = static_cast<float*>(args.n_last);
    if (args.saved != nullptr) {
      states.c_end = saved.c_end;
      states.n_end = saved.n_end;
    }
    if (borders) states.states = saved.states;
    states_forward(sizes, saved.gates, states, stream);
  }
  return {sizes,
          static_cast<const T*>(args.q),
          static_cast<const T*>(args.k),
          static_cast<const T*>(args.v),
          saved.gates,
          saved.states,
          static_cast<T*>(args.h),
          saved.l,
          stream};
}

template <class T>
BackwardPass<T> begin_backward(const Problem& problem, std::int64_t L, const BackwardArgs& args) {
  require_tensors(args);
  require_pointer("saved", args.saved);
  require_pointer("workspace", args.workspace);
  if (args.convention == Convention::exact && args.dh != nullptr) require_pointer("h", args.h);
  require_aligned("dh", args.dh);
  require_aligned("dq", args.dq);
  require_aligned("dk", args.dk);
  require_aligned("dv", args.dv);
  require_aligned("dc_last", args.dc_last);
  require_aligned("dc_initial", args.dc_initial);
  ChunkSizes sizes = ChunkSizes::of(problem, L);
  sizes.ends_unwanted = args.dc_last == nullptr && args.dn_last == nullptr;
  Arena saved_arena(args.saved), scratch_arena(args.workspace);
  const SavedChunks<T> saved = SavedChunks<T>::take(saved_arena, problem, sizes);
  const ChunkScratch<T> scratch = ChunkScratch<T>::take(scratch_arena, problem, sizes);
  const cudaStream_t stream = static_cast<cudaStream_t>(args.stream);
  row_cotangents(problem, args.convention, saved.l, saved.gates, args.dh, args.h, scratch.rows, scratch.g, stream);

  const bool borders = sizes.chunks > 1 || problem.has_initial_state || !sizes.ends_unwanted;
  StateBackward<T> states{};
  if (borders) {
    states.q = static_cast<const T*>(args.q);
    states.g = scratch.g;
    states.gamma = static_cast<const float*>(scratch.rows.gamma);
    states.dc_last = static_cast<const float*>(args.dc_last);
    states.dn_last = static_cast<const float*>(args.dn_last);
    if (problem.has_initial_state) {
      states.dc_initial = args.dc_initial != nullptr ? static_cast<float*>(args.dc_initial) : scratch.dc_initial;
      states.dn_initial = args.dn_initial != nullptr ? static_cast<float*>(args.dn_initial) : scratch.dn_initial;
    }
    states.states = saved.states;
    states.d_states = scratch.d_states;
    states.crossing = scratch.crossing;
    states_backward(sizes, saved.gates, states, stream);
  }

  BackwardPass<T> pass{};
  pass.sizes = sizes;
  pass.in.q = static_cast<const T*>(args.q);
  pass.in.k = static_cast<const T*>(args.k);
  pass.in.v = static_cast<const T*>(args.v);
  pass.in.dh = args.dh != nullptr ? static_cast<const T*>(args.dh) : scratch.g;  // which is zero then
  pass.in.g = scratch.g;
  pass.in.gates = saved.gates;
  pass.in.inverse = static_cast<const float*>(scratch.rows.inverse);
  pass.in.gamma = static_cast<const float*>(scratch.rows.gamma);
  pass.in.states = saved.states;
  pass.in.d_states = scratch.d_states;
  pass.dots = scratch.dots;
  pass.diagonal = scratch.diagonal;
  pass.dq = static_cast<T*>(args.dq);
  pass.dk = static_cast<T*>(args.dk);
  pass.dv = static_cast<T*>(args.dv);
  pass.stream = stream;
  pass.saved = saved;
  pass.scratch = scratch;
  pass.crossing_parts = borders ? state_blocks<T>(sizes) : 0;
  pass.dc_initial = states.dc_initial;
  pass.dn_initial = states.dn_initial;
  return pass;
}

template <class T>
void finish_backward(const Problem& problem, const BackwardArgs& args, const BackwardPass<T>& pass) {
  const ChunkSizes& sizes = pass.sizes;
  const ChunkScratch<T>& scratch = pass.scratch;
  const GateSums sums{pass.dots, pass.diagonal, scratch.crossing, pass.crossing_parts};
  gate_sums(sizes, sums, scratch.d_log_i, scratch.d_log_f, pass.stream);

  GateCotangents cotangents{scratch.d_log_i, scratch.d_log_f, nullptr, nullptr};
  const std::int64_t state = static_cast<std::int64_t>(sizes.DHQK) * sizes.DHV;
  if (problem.has_m() && args.convention == Convention::exact) {
    if (!sizes.ends_unwanted) {
      dot_per_head(problem, args.dc_last, pass.saved.c_end, state, args.dn_last, pass.saved.n_end, sizes.DHQK,
                   scratch.after_product, pass.stream);
      cotangents.after_product = scratch.after_product;
    }
    if (problem.has_initial_state && args.dm_initial != nullptr) {
      dot_per_head(problem, pass.dc_initial, args.c_initial, state, pass.dn_initial, args.n_initial, sizes.DHQK,
                   scratch.before_product, pass.stream);
      cotangents.before_product = scratch.before_product;
    }
  }
  finish_gates(problem, args, pass.saved.gates, scratch.rows.dm, cotangents, pass.stream);
}

#define MLSTM_INSTANTIATE(T)                                                                  \
  template ForwardPass<T> begin_forward(const Problem&, std::int64_t, const ForwardArgs&);    \
  template BackwardPass<T> begin_backward(const Problem&, std::int64_t, const BackwardArgs&); \
  template void finish_backward(const Problem&, const BackwardArgs&, const BackwardPass<T>&);
MLSTM_INSTANTIATE(float)
MLSTM_INSTANTIATE(bfloat16)
MLSTM_INSTANTIATE(float16)
#undef MLSTM_INSTANTIATE

}  // namespace mlstm::kernels::cuda
