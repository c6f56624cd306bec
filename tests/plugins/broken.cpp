// SPDX-License-Identifier: Apache-2.0
// A plugin with a mistake in its declaration, or one that misbehaves while it is loaded or asked: MLSTM_TEST_BROKEN
// says which.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

#include "mlstm_kernel.h"

extern "C" const mlstm_kernel_library* honest_kernels(std::uint32_t abi_version);

namespace {

std::string_view mistake() {
  const char* const text = std::getenv("MLSTM_TEST_BROKEN");
  return text == nullptr ? "" : text;
}

[[noreturn]] void crash() { std::abort(); }

struct AtLoad {
  AtLoad() {
    if (mistake() == "constructor crashes") crash();
    if (mistake() == "constructor exits") _exit(0);
    while (mistake() == "constructor hangs") pause();
  }
} at_load;

int supports(const mlstm_kernel*, const mlstm_problem* problem, char* message, std::size_t message_size) {
  if (mistake() == "supports crashes") crash();
  if (mistake() == "supports throws") throw 1;
  while (mistake() == "supports hangs") pause();
  if (mistake() == "supports fills its message") return std::memset(message, 'x', message_size), 1;
  if (mistake() == "supports says nothing") return 5;
  if (mistake() != "no even S" || problem->S % 2 == 1) return 0;
  std::strncpy(message, "S has to be odd", message_size);
  return 1;
}

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(std::uint32_t) {
  static const std::string long_text(5000, 'x');
  static mlstm_kernel kernel = *honest_kernels(MLSTM_KERNEL_ABI_VERSION)->kernels[0];
  static const mlstm_kernel* pointers[] = {&kernel, &kernel};
  static mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, pointers};
  kernel.name = "broken";
  kernel.supports = supports;
  const auto is = [](std::string_view which) { return mistake() == which; };
  if (is("no library")) return nullptr;
  if (is("entry crashes")) crash();
  if (is("entry throws")) throw 1;
  if (is("other version")) library.abi_version = 99;
  if (is("small library")) library.struct_size = 8;
  if (is("no kernels")) library.kernel_count = 0;
  if (is("too many kernels")) library.kernel_count = std::numeric_limits<std::size_t>::max();
  if (is("null array")) library.kernels = nullptr;
  if (is("null kernel")) pointers[0] = nullptr;
  if (is("same name")) library.kernel_count = 2;
  if (is("small kernel")) kernel.struct_size = 16;
  if (is("no module")) kernel.module = 0;
  if (is("no name")) kernel.name = nullptr;
  if (is("bad name")) kernel.name = "../x y";
  if (is("taken name")) kernel.name = "sequence_eigen_ownbw";
  if (is("long name")) kernel.name = long_text.c_str();
  if (is("no description")) kernel.description = nullptr;
  if (is("two lines")) kernel.description = "one\ntwo";
  if (is("no device")) kernel.device = 9;
  if (is("no dtypes")) kernel.dtypes = 0;
  if (is("unknown dtypes")) kernel.dtypes = 1u << 20;
  if (is("tfloat32")) kernel.dtypes = MLSTM_TFLOAT32;
  if (is("no gates")) kernel.gates = 0;
  if (is("no stabilizer")) kernel.stabilizer_inits = 0;
  if (is("operand dtype")) kernel.operand_dtype = 3;
  if (is("gate dtype")) kernel.gate_dtype = 3;
  if (is("product dtype")) kernel.product_dtype = 5;
  if (is("unknown flags")) kernel.flags = 1u << 30;
  if (is("cotangents")) kernel.flags = MLSTM_TAKES_LAST_STATE_COTANGENTS;
  if (is("empty limit")) kernel.DHQK = {9, 15, 8};
  if (is("negative limit")) kernel.S = {-4, 0, 0};
  if (is("null forward")) kernel.forward = nullptr;
  if (is("null backward")) kernel.backward = nullptr;
  if (is("spare backward")) kernel.gradients = 0;
  if (is("cuda")) kernel.device = MLSTM_DEVICE_CUDA;
  return &library;
}
