// SPDX-License-Identifier: Apache-2.0
// A right kernel as a plugin declares it that was compiled with the first edition of mlstm_kernel.h, in which the
// structure of a kernel ended with `backward`. Behind its last byte is memory that nobody may read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "mlstm_kernel.h"

extern "C" const mlstm_kernel_library* honest_kernels(std::uint32_t abi_version);

namespace {

constexpr std::size_t kFirstEdition = offsetof(mlstm_kernel, backward) + sizeof(void*);

/// At the very end of a page that no other follows.
const mlstm_kernel* at_the_edge(mlstm_kernel kernel, std::size_t size) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const pages = mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(static_cast<char*>(pages) + page, page, PROT_NONE) != 0) std::abort();
  void* const place = static_cast<char*>(pages) + page - size;
  kernel.struct_size = static_cast<std::uint32_t>(size);
  std::memcpy(place, &kernel, size);
  return static_cast<const mlstm_kernel*>(place);
}

/// One field less than the first edition had.
bool is_too_old() {
  const char* const text = std::getenv("MLSTM_TEST_EDITION");
  return text != nullptr && std::string_view(text) == "none";
}

}  // namespace

extern "C" const mlstm_kernel_library* mlstm_kernels(std::uint32_t) {
  static const mlstm_kernel* const pointers[] = {[] {
    mlstm_kernel kernel = *honest_kernels(MLSTM_KERNEL_ABI_VERSION)->kernels[0];
    kernel.name = "first_edition";
    return at_the_edge(kernel, is_too_old() ? offsetof(mlstm_kernel, backward) : kFirstEdition);
  }()};
  static const mlstm_kernel_library library{sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, pointers};
  return &library;
}
