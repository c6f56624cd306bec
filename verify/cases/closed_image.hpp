// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "cases/hdf5.hpp"

namespace mlstm::verify::hdf5 {

/// The bytes of a file in memory as they are when it has been closed. (H5Fget_file_image has them earlier, but with a
/// checksum of the superblock that only fits a file in use.)
class ClosedImage {
 public:
  /// The properties of a file whose bytes are to end here. `*this` has to outlive them and the file.
  void keep_file(hid_t access) {
    constexpr std::size_t kGrowth = std::size_t{1} << 16;
    H5FD_file_image_callbacks_t callbacks{allocate, copy, reallocate, release, share, unshare, this};
    check(H5Pset_fapl_core(access, kGrowth, false), "file in memory");
    check(H5Pset_file_image_callbacks(access, &callbacks), "file in memory");
  }

  std::string bytes;  ///< after closing

 private:
  static void* allocate(std::size_t size, H5FD_file_image_op_t, void*) { return std::malloc(size); }
  static void* copy(void* to, const void* from, std::size_t size, H5FD_file_image_op_t, void*) {
    return std::memcpy(to, from, size);
  }
  static void* reallocate(void* data, std::size_t size, H5FD_file_image_op_t, void*) {
    return std::realloc(data, size);
  }
  static herr_t release(void* data, H5FD_file_image_op_t operation, void* image) {
    if (operation == H5FD_FILE_IMAGE_OP_FILE_CLOSE) {
      auto* self = static_cast<ClosedImage*>(image);
      try {
        self->bytes.assign(static_cast<const char*>(data), file_size(static_cast<const char*>(data)));
      } catch (const std::bad_alloc&) {  // stays empty
      }
    }
    std::free(data);
    return 0;
  }
  /// From the superblock, version 3. The memory is larger, and closing gives unused space back.
  static std::size_t file_size(const char* superblock) {
    constexpr std::size_t kEndOfFile = 28;
    std::uint64_t size = 0;
    for (std::size_t n = sizeof size; n-- > 0;)
      size = size << 8 | static_cast<unsigned char>(superblock[kEndOfFile + n]);
    return size;
  }
  static void* share(void* image) { return image; }
  static herr_t unshare(void*) { return 0; }
};

}  // namespace mlstm::verify::hdf5
