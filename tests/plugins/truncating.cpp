// SPDX-License-Identifier: Apache-2.0
// A right kernel in bfloat16 that computes in float32 and truncates what it returns. It says so, unless
// MLSTM_TEST_TRUNCATES is undeclared.
#include <bit>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "mlstm_kernel.h"

extern "C" const mlstm_kernel_library* honest_kernels(std::uint32_t abi_version);

namespace {

const mlstm_kernel& honest() { return *honest_kernels(MLSTM_KERNEL_ABI_VERSION)->kernels[0]; }

/// A tensor in bfloat16 as float32: a copy of an input, or room for a result, which `truncate_into` writes.
class Wide {
 public:
  Wide(const void* from, std::int64_t elements) : floats_(static_cast<std::size_t>(elements)) {
    const auto* const bits = static_cast<const std::uint16_t*>(from);
    for (std::size_t n = 0; n < floats_.size(); ++n)
      floats_[n] = std::bit_cast<float>(static_cast<std::uint32_t>(bits[n]) << 16U);
  }
  explicit Wide(std::int64_t elements) : floats_(static_cast<std::size_t>(elements)) {}
  float* data() { return floats_.data(); }
  void truncate_into(void* to) const {
    auto* const bits = static_cast<std::uint16_t*>(to);
    for (std::size_t n = 0; n < floats_.size(); ++n)
      bits[n] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(floats_[n]) >> 16U);
  }

 private:
  std::vector<float> floats_;
};

mlstm_problem in_float32(mlstm_problem p) {
  p.dtype = MLSTM_FLOAT32;
  return p;
}

std::size_t saved_size(const mlstm_kernel*, const mlstm_problem* given) {
  const mlstm_problem p = in_float32(*given);
  return honest().saved_size(&honest(), &p);
}

std::size_t workspace_size(const mlstm_kernel*, const mlstm_problem* given, int backward) {
  const mlstm_problem p = in_float32(*given);
  return honest().workspace_size(&honest(), &p, backward);
}

int forward(const mlstm_kernel*, const mlstm_problem* given, const mlstm_forward_args* a, char* message,
            std::size_t message_size) {
  const mlstm_problem p = in_float32(*given);
  const std::int64_t rows = p.B * p.NH * p.S;
  Wide q(a->q, rows * p.DHQK), k(a->k, rows * p.DHQK), v(a->v, rows * p.DHV), i(a->i, rows), f(a->f, rows);
  Wide h(rows * p.DHV);
  mlstm_forward_args args = *a;  // states are float32 anyway
  args.q = q.data(), args.k = k.data(), args.v = v.data(), args.i = i.data(), args.f = f.data(), args.h = h.data();
  const int status = honest().forward(&honest(), &p, &args, message, message_size);
  h.truncate_into(a->h);
  return status;
}

int backward(const mlstm_kernel*, const mlstm_problem* given, const mlstm_backward_args* a, char* message,
             std::size_t message_size) {
  const mlstm_problem p = in_float32(*given);
  const std::int64_t rows = p.B * p.NH * p.S;
  Wide q(a->q, rows * p.DHQK), k(a->k, rows * p.DHQK), v(a->v, rows * p.DHV), i(a->i, rows), f(a->f, rows);
  Wide h(a->h, rows * p.DHV), dh(rows * p.DHV);
  if (a->dh != nullptr) dh = Wide(a->dh, rows * p.DHV);
  Wide dq(rows * p.DHQK), dk(rows * p.DHQK), dv(rows * p.DHV), di(rows), df(rows);
  mlstm_backward_args args = *a;
  args.q = q.data(), args.k = k.data(), args.v = v.data(), args.i = i.data(), args.f = f.data(), args.h = h.data();
  args.dh = dh.data();
  args.dq = dq.data(), args.dk = dk.data(), args.dv = dv.data(), args.di = di.data(), args.df = df.data();
  const int status = honest().backward(&honest(), &p, &args, message, message_size);
  dq.truncate_into(a->dq), dk.truncate_into(a->dk), dv.truncate_into(a->dv);
  di.truncate_into(a->di), df.truncate_into(a->df);
  return status;
}

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(std::uint32_t) {
  static mlstm_kernel kernel = honest();
  static const mlstm_kernel* const pointers[] = {&kernel};
  static const mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, pointers};
  const char* const text = std::getenv("MLSTM_TEST_TRUNCATES");
  kernel.name = "truncating";
  kernel.dtypes = MLSTM_BFLOAT16;
  kernel.flags |= MLSTM_FULL_PRECISION_ROWS;
  if (text == nullptr || std::string_view(text) != "undeclared") kernel.flags |= MLSTM_TRUNCATES;
  kernel.saved_size = saved_size;
  kernel.workspace_size = workspace_size;
  kernel.forward = forward;
  kernel.backward = backward;
  return &library;
}
