// SPDX-License-Identifier: Apache-2.0
// A case as an HDF5 file, and back.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "cases/case.hpp"

namespace mlstm::verify {

/// The bytes of a mlstm-case file; the same case gives the same bytes. Made in memory, because HDF5 does not get over a
/// full disk. Throws FileError.
std::string encode_case(const Case& c);

/// Inverse of encode_case, for the bytes of a file by any program. `before_reading` is told how many bytes the next
/// step will need. Checks structure and types, not values. HDF5 may crash or hang on damaged bytes: call
/// decode_isolated instead.
Case decode_case(const std::string& image, const std::function<void(std::uint64_t)>& before_reading);

/// decode_case in a child process. A crash, a hang, or memory use out of proportion is a FileError like any other.
Case decode_isolated(const std::string& image);

/// What the child process of decode_isolated writes to a pipe: `error` unless it is empty, else the case. On a write
/// error the process ends.
void send_reply(int fd, Case& c, std::string& error);

/// Reads what send_reply wrote. False if it did not arrive whole or makes no sense: a child may have lost its mind.
/// Throws std::bad_alloc if there is no memory for what has arrived.
bool receive_reply(int fd, Case& c, std::string& error);

/// The keys of ReferenceData::bounds, and the shape of each: a tensor's, or for "f_straddling" that of f, for
/// "open_rows" (B,NH).
std::vector<std::string> bound_names(const Problem& problem);
std::vector<std::int64_t> bound_shape(std::string_view name, const Shape& shape);

/// Held while HDF5 is in use and while a child is forked, so that no child inherits a busy HDF5.
std::mutex& hdf5_mutex();

}  // namespace mlstm::verify
