// SPDX-License-Identifier: Apache-2.0
// A right kernel whose sums over DHQK begin elsewhere in each call, as sums by atomic additions do. With
// MLSTM_TEST_ATOMICS = lost some additions get lost, too.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "mlstm_kernel.h"

extern "C" const mlstm_kernel_library* honest_kernels(std::uint32_t abi_version);

namespace {

using Floats = std::vector<float>;

const mlstm_kernel& honest() { return *honest_kernels(MLSTM_KERNEL_ABI_VERSION)->kernels[0]; }

bool loses_additions() {
  const char* const text = std::getenv("MLSTM_TEST_ATOMICS");
  return text != nullptr && std::string_view(text) == "lost";
}

std::atomic<std::int64_t> counter;

/// An array of [outer][K][inner] with the middle index moved on by `by`.
void rotate(const void* from, float* to, std::int64_t outer, std::int64_t K, std::int64_t inner, std::int64_t by) {
  const auto* const values = static_cast<const float*>(from);
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t k = 0; k < K; ++k)
      std::copy_n(values + (o * K + k) * inner, inner, to + (o * K + (k + by) % K) * inner);
}

const void* rotated(const void* from, Floats& to, std::int64_t outer, std::int64_t K, std::int64_t inner,
                    std::int64_t by) {
  if (from == nullptr) return nullptr;
  to.resize(static_cast<std::size_t>(outer * K * inner));
  rotate(from, to.data(), outer, K, inner, by);
  return to.data();
}

void rotate_back(void* values, std::int64_t outer, std::int64_t K, std::int64_t inner, std::int64_t by) {
  if (values == nullptr) return;
  const auto* const given = static_cast<const float*>(values);
  const Floats copy(given, given + outer * K * inner);
  rotate(copy.data(), static_cast<float*>(values), outer, K, inner, K - by);
}

/// The state in what forward saves is in the order of that call, which is saved behind it.
std::size_t own_saved_size(const mlstm_problem* p) { return (honest().saved_size(&honest(), p) + 7) / 8 * 8; }

std::size_t saved_size(const mlstm_kernel*, const mlstm_problem* p) { return own_saved_size(p) + sizeof(std::int64_t); }

int forward(const mlstm_kernel*, const mlstm_problem* p, const mlstm_forward_args* given, char* message,
            std::size_t message_size) {
  const std::int64_t heads = p->B * p->NH, K = p->DHQK, V = p->DHV, call = counter++, by = call % K;
  Floats q, k, c, n;
  mlstm_forward_args args = *given;
  args.q = rotated(args.q, q, heads * p->S, K, 1, by);
  args.k = rotated(args.k, k, heads * p->S, K, 1, by);
  args.c_initial = rotated(args.c_initial, c, heads, K, V, by);
  args.n_initial = rotated(args.n_initial, n, heads, K, 1, by);
  const int status = honest().forward(&honest(), p, &args, message, message_size);
  rotate_back(args.c_last, heads, K, V, by);
  rotate_back(args.n_last, heads, K, 1, by);
  if (args.saved != nullptr) std::memcpy(static_cast<char*>(args.saved) + own_saved_size(p), &by, sizeof by);
  if (loses_additions() && call % 2 == 1) {
    auto* const h = static_cast<float*>(args.h);
    for (std::int64_t x = 0; x < heads * p->S * V; x += 7) h[x] *= 0.999F;
  }
  return status;
}

int backward(const mlstm_kernel*, const mlstm_problem* p, const mlstm_backward_args* given, char* message,
             std::size_t message_size) {
  const std::int64_t heads = p->B * p->NH, K = p->DHQK, V = p->DHV;
  std::int64_t by = 0;
  std::memcpy(&by, static_cast<const char*>(given->saved) + own_saved_size(p), sizeof by);
  Floats q, k, c, n;
  mlstm_backward_args args = *given;
  args.q = rotated(args.q, q, heads * p->S, K, 1, by);
  args.k = rotated(args.k, k, heads * p->S, K, 1, by);
  args.c_initial = rotated(args.c_initial, c, heads, K, V, by);
  args.n_initial = rotated(args.n_initial, n, heads, K, 1, by);
  const int status = honest().backward(&honest(), p, &args, message, message_size);
  for (void* gradient : {args.dq, args.dk}) rotate_back(gradient, heads * p->S, K, 1, by);
  rotate_back(args.dc_initial, heads, K, V, by);
  rotate_back(args.dn_initial, heads, K, 1, by);
  return status;
}

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(std::uint32_t) {
  static mlstm_kernel kernel = honest();
  static const mlstm_kernel* const pointers[] = {&kernel};
  static const mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, pointers};
  kernel.name = "atomics";
  kernel.saved_size = saved_size;
  kernel.forward = forward;
  kernel.backward = backward;
  return &library;
}
