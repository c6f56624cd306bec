// SPDX-License-Identifier: Apache-2.0
// Writing results, and the mistakes that a kernel's last lines make: an element, a lane, a tile, a row, a write beside.
#pragma once

#include "studies/mutants/rows.hpp"

namespace mlstm::verify::planted {

/// Tiles of results, and the warp's width, by which some bugs go.
inline constexpr Index kTile = 16, kLanes = 32;

/// Values that the bug spoils on their way into `tensor`.
template <class Real>
void spoil(const Context& c, std::string_view tensor, Index head, Matrix<Real>& x) {
  const Index rows = x.rows(), cols = x.cols();
  const auto is = [&](Bug bug) { return c.has(bug, tensor); };
  if (is("element_wrong") && head == c.problem.shape.heads() - 1) x[rows / 2][cols / 2] = 0;  // of one head
  if (is("lane_wrong"))
    for (Index r = 0; r < rows; ++r)
      for (Index lane = kLanes - 1; lane < cols; lane += kLanes) x[r][lane] = x[r][lane - 1];
  if (is("time_lane_wrong"))
    for (Index r = kLanes - 1; r < rows; r += kLanes) std::copy_n(x[r - 1], cols, x[r]);
  if (is("tile_wrong"))
    for (Index r = kTile; r < std::min(2 * kTile, rows); ++r)
      for (Index col = kTile; col < std::min(2 * kTile, cols); ++col) x[r][col] *= Real(0.5);
  if (is("last_row_lost")) std::fill_n(x[rows - 1], cols, Real(0));
  if (is("last_column_lost"))
    for (Index r = 0; r < rows; ++r) x[r][cols - 1] = 0;
  if (is("all_zero")) std::fill_n(x.data(), x.size(), Real(0));
  if (is("doubled"))
    for (Index at = 0; at < x.size(); ++at) x.data()[at] *= 2;
  const auto scale = [&](Index begin, Index end) {
    const Real factor = tensor == "h" ? Real(1.0156) : tensor == "df" ? Real(1.03) : Real(1.01);
    for (Index at = begin * cols; at < end * cols; ++at) x.data()[at] *= factor;
  };
  if (is("too_large") || is("states_too_large")) scale(0, rows);
  if (is("head_too_large") && head == c.problem.shape.heads() - 1) scale(0, rows);
  if (is("range_too_large")) scale(rows / 2, rows / 2 + (rows + 3) / 4);
  if (is("stored_truncated")) round_all(truncated(rounding_of(c.problem.dtype)), x.data(), x.size());
  if (is("shifted"))
    for (Index r = rows - 1; r > 0; --r) std::copy_n(x[r - 1], cols, x[r]);
  if (is("stored_transposed") && rows == cols) x = transposed(std::as_const(x).from(0), rows, cols);
  const Index whole = cols / 64 * 64, tiles = (cols + 63) / 64;
  if (is("remainder_of_64_stale") && cols > 64)
    for (Index r = 0; r < rows; ++r) std::copy_n(x[r] + whole - 64, cols - whole, x[r] + whole);
  if (is("tiles_no_power_of_two"))
    for (Index tile = 2; tile < tiles; ++tile)
      if (std::has_single_bit(static_cast<std::uint64_t>(tile)) &&
          !std::has_single_bit(static_cast<std::uint64_t>(tiles)))
        for (Index r = 0; r < rows; ++r) std::copy_n(x[r], std::min<Index>(64, cols - 64 * tile), x[r] + 64 * tile);
  if (is("columns_beyond_256"))
    for (Index r = 0; r < rows; ++r)
      for (Index e = 256; e < cols; ++e) x[r][e] = x[r][e - 256];
  if (is("heads_beyond_32") && head >= 32) std::fill_n(x.data(), x.size(), Real(0));
  if (is("stored_bfloat16")) round_all(Rounding::bfloat16, x.data(), x.size());
}

/// Whether the bug leaves element `at` of one head unwritten.
inline bool unwritten(const Context& c, std::string_view tensor, Index at, Index rows, Index cols) {
  if (c.has("first_row_unwritten", tensor)) return at < cols;
  if (c.has("ragged_lanes_unwritten", tensor)) return cols % kTile != 0 && at % cols >= cols / kTile * kTile;
  return c.has("last_element_unwritten", tensor) && at == rows * cols - 1;
}

template <class T, class Real>
void write(const Context& c, void* tensor, std::string_view name, Index head, const Matrix<Real>& x) {
  T* const first = static_cast<T*>(tensor);
  T* const out = first + head * x.size();
  const bool adds = c.has("output_added", name) || c.has("added", name);
  for (Index at = 0; at < x.size(); ++at) {
    if (unwritten(c, name, at, x.rows(), x.cols())) continue;
    const Real value = x.data()[at];
    out[at] = static_cast<T>(adds ? static_cast<Real>(out[at]) + value : value);
  }
  if (c.has("written_past_end", name) && head == c.problem.shape.heads() - 1) out[x.size()] = T(0);
  if (c.has("written_before_start", name) && head == 0) first[-1] = T(0);
}

/// Rounds `x`, all of one head, to `dtype`. Does nothing if `tensor` is null, which means: not wanted.
template <class Real>
void store(const Context& c, void* tensor, std::string_view name, DType dtype, Index head, Matrix<Real> x) {
  if (tensor == nullptr || (c.has("heads_beyond_65535_unwritten", name) && head > 0xffff)) return;
  spoil(c, name, head, x);
  if (c.has("scratch_in_library", name)) c.library->pass_through(x.data(), x.size());
  switch (dtype) {
    case DType::float64:
      return write<double>(c, tensor, name, head, x);
    case DType::float32:
      return write<float>(c, tensor, name, head, x);
    case DType::float16:
      return write<Eigen::half>(c, tensor, name, head, x);
    case DType::bfloat16:
      return write<Eigen::bfloat16>(c, tensor, name, head, x);
    case DType::tfloat32:
      throw std::logic_error("store: tfloat32 is not a storage type");
  }
}

template <class Real>
Matrix<Real> column(const Real* values, Index n) {
  Matrix<Real> out(n, 1);
  std::copy_n(values, n, out.data());
  return out;
}

/// State, or cotangent of one: `prefix` "" or "d", `suffix` "_last" or "_initial".
template <class Real>
void store_state(const Context& c, void* C, void* n, const std::string& prefix, const std::string& suffix, Index head,
                 State<Real> state) {
  const Shape& shape = c.problem.shape;
  const DType dtype = state_dtype_of(c.problem.dtype);
  Matrix<Real> values(shape.DHQK, shape.DHV);
  std::copy_n(state.C, values.size(), values.data());
  store(c, C, prefix + "c" + suffix, dtype, head, std::move(values));
  store(c, n, prefix + "n" + suffix, dtype, head, column(state.n, shape.DHQK));
}

template <class Real>
void store_last_states(const Context& c, const ForwardArgs& args, Index head, State<Real> last, Real m) {
  const auto go_on = [&](Real log_f, Real input) {  // over steps of padding, whose keys are 0
    const Real before = c.problem.has_m() ? m : 0;
    m = c.problem.has_m() ? std::max(log_f + m, input) : 0;
    for (Index at = 0; at < State<Real>::size(c.problem.shape); ++at) last.C[at] *= std::exp(log_f + before - m);
  };
  if (c.has("short_sequence_padded") && c.is_short())
    go_on(static_cast<Real>(c.problem.chunk_size - c.problem.shape.S) * std::log(Real(0.5)), 0);
  if (c.has("padded_by_minus_25") && c.is_ragged()) go_on(0, -25);
  store_state(c, args.c_last, args.n_last, "", "_last", head, last);
  if (c.problem.has_m()) store(c, args.m_last, "m_last", state_dtype_of(c.problem.dtype), head, column(&m, 1));
}

/// A kernel that scales its input where it lies.
template <class Real>
void damage(const Context& c, const void* tensor, std::string_view name, DType dtype, Index count, Real factor) {
  if (!c.has("input_damaged", name) || tensor == nullptr) return;
  const auto scale = [&](auto* values) {
    for (Index at = 0; at < count; ++at)
      values[at] = static_cast<std::remove_pointer_t<decltype(values)>>(static_cast<Real>(values[at]) * factor);
  };
  void* const mine = const_cast<void*>(tensor);
  switch (dtype) {
    case DType::float64:
      return scale(static_cast<double*>(mine));
    case DType::float16:
      return scale(static_cast<Eigen::half*>(mine));
    case DType::bfloat16:
      return scale(static_cast<Eigen::bfloat16*>(mine));
    default:
      return scale(static_cast<float*>(mine));
  }
}

}  // namespace mlstm::verify::planted
