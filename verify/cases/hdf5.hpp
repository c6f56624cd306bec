// SPDX-License-Identifier: Apache-2.0
// Thin RAII over the HDF5 C API. Every failed call is a FileError with HDF5's own innermost reason; nothing is printed.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "cases/case.hpp"

namespace mlstm::verify::hdf5 {

/// Silences HDF5's error printing while it lives.
class Quiet {
 public:
  Quiet();
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

/// Throws FileError "<what>: <HDF5's reason>".
[[noreturn]] void fail(std::string_view what);

/// Passes a result through; a negative one, HDF5's sign of an error, throws.
template <class T>
T check(T result, std::string_view what) {
  if (result < 0) fail(what);
  return result;
}

/// Owns one HDF5 identifier.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  /// Throws FileError if `id` is an error.
  Handle(hid_t id, Close closer, std::string_view what) : id_(check(id, what)), close_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  /// Closes now, so that an error of a delayed write is seen.
  void close(std::string_view what) { check(close_(std::exchange(id_, H5I_INVALID_HID)), what); }
  operator hid_t() const { return id_; }  // NOLINT: HDF5 calls take it as it is

 private:
  hid_t id_;
  Close close_;
};

/// `text` as it may stand in a one-line message: quoted, no control characters, at most 60 bytes.
std::string in_quotes(std::string_view text);

/// All attributes of an object. Integers of any width (and enumerations of them), floats up to float64, and strings,
/// fixed or variable-length, as scalars or arrays of one; anything else is kept as it is.
Attributes read_attributes(hid_t object, const std::string& path);

/// Strings are written with a fixed length: they then lie in the checksummed object header.
void write_attribute(hid_t object, const std::string& name, const Attribute& value);

/// Names of the links of a group, sorted. Throws FileError for a link that leaves the file.
std::vector<std::string> links_of(hid_t group, const std::string& path);

/// Opens a group; `path` is for messages.
Handle open_group(hid_t parent, const std::string& name, const std::string& path);

/// An open dataset of float32 or float64 whose size is plausible for what is stored.
struct Dataset {
  Handle id;
  std::vector<std::int64_t> shape;
};

/// Opens a dataset and checks everything that can be checked without reading it: it is a float32 or float64 array,
/// contiguous, chunked or compact, stored completely and within this file.
Dataset open_dataset(hid_t group, const std::string& name, const std::string& path);

/// Reads all of it.
Array read_dataset(const Dataset& dataset, const std::string& path);

enum class Storage { float32, float64 };

/// Writes a dataset chunked, shuffled, gzipped, with Fletcher32, its dimensions labelled.
void write_dataset(hid_t group, const std::string& name, const Array& array, Storage storage,
                   const std::vector<std::string>& labels);

/// Property list of kind H5P_GROUP_CREATE, H5P_FILE_CREATE or H5P_DATASET_CREATE for files that have the same bytes
/// whenever they are written: no times; attributes in the object header.
Handle creation_properties(hid_t kind);

}  // namespace mlstm::verify::hdf5
