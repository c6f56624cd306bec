// SPDX-License-Identifier: Apache-2.0
// A right kernel that keeps to itself what belongs to a call, or takes arguments together that come one by one:
// MLSTM_TEST_SHARES says which.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "mlstm_kernel.h"

extern "C" const mlstm_kernel_library* honest_kernels(std::uint32_t abi_version);

namespace {

const mlstm_kernel& honest() { return *honest_kernels(MLSTM_KERNEL_ABI_VERSION)->kernels[0]; }

bool shares(std::string_view what) {
  const char* const text = std::getenv("MLSTM_TEST_SHARES");
  return text != nullptr && text == what;
}

std::mutex mutex;
std::vector<float> saved, scratch;
thread_local std::vector<float> saved_by_thread;

std::vector<float>& keeper() { return shares("thread") ? saved_by_thread : saved; }

/// h is put together in static memory.
void pass_through(float* h, std::size_t count) {
  {
    const std::lock_guard lock(mutex);
    scratch.assign(h, h + count);
  }
  for (int n = 0; n < 10; ++n) std::this_thread::yield();
  const std::lock_guard lock(mutex);
  std::copy_n(scratch.begin(), std::min(count, scratch.size()), h);
}

int forward(const mlstm_kernel*, const mlstm_problem* p, const mlstm_forward_args* given, char* message,
            std::size_t message_size) {
  mlstm_forward_args args = *given;
  if (shares("outputs") && args.n_last == nullptr) args.c_last = nullptr;
  const int status = honest().forward(&honest(), p, &args, message, message_size);
  if (args.saved != nullptr && (shares("library") || shares("thread"))) {
    const auto* const floats = static_cast<const float*>(args.saved);
    const std::lock_guard lock(mutex);
    keeper().assign(floats, floats + honest().saved_size(&honest(), p) / sizeof(float));
  }
  if (shares("workspace"))
    pass_through(static_cast<float*>(args.h), static_cast<std::size_t>(p->B * p->NH * p->S * p->DHV));
  return status;
}

int backward(const mlstm_kernel*, const mlstm_problem* p, const mlstm_backward_args* given, char* message,
             std::size_t message_size) {
  mlstm_backward_args args = *given;
  std::vector<float> kept;
  if (shares("library") || shares("thread")) {
    const std::lock_guard lock(mutex);
    kept = keeper();
    kept.resize(honest().saved_size(&honest(), p) / sizeof(float));
    args.saved = kept.data();
  }
  if (shares("gradients") && args.dm_initial == nullptr && p->has_initial_state) args.dc_initial = nullptr;
  return honest().backward(&honest(), p, &args, message, message_size);
}

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(std::uint32_t) {
  static mlstm_kernel kernel = honest();
  static const mlstm_kernel* const pointers[] = {&kernel};
  static const mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, pointers};
  kernel.name = "sharing";
  kernel.forward = forward;
  kernel.backward = backward;
  return &library;
}
