// SPDX-License-Identifier: Apache-2.0
#include "cases/hdf5.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hdf5_hl.h>

#include <algorithm>
#include <array>
#include <limits>

#include "cases/case_file.hpp"

namespace mlstm::verify::hdf5 {
namespace {

constexpr unsigned kGzipLevel = 6;
constexpr hsize_t kChunkBytes = hsize_t{1} << 20;
constexpr double kLargestChunkBytes = 0x1p30;
/// Deflate shrinks at most 1032-fold; twice that leaves room for other filters.
constexpr double kLargestCompression = 2064;

/// First callback of an upward walk: the innermost error.
herr_t innermost(unsigned n, const H5E_error2_t* error, void* text) {
  if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

herr_t collect_link(hid_t, const char* name, const H5L_info_t* info, void* links) {
  static_cast<std::vector<std::pair<std::string, H5L_type_t>>*>(links)->emplace_back(name, info->type);
  return 0;
}

Handle own_type(hid_t id, std::string_view what) { return {id, H5Tclose, what}; }
Handle own_space(hid_t id, std::string_view what) { return {id, H5Sclose, what}; }

std::vector<std::int64_t> extents_of(hid_t space, const std::string& path) {
  const int rank = check(H5Sget_simple_extent_ndims(space), path);
  std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
  check(H5Sget_simple_extent_dims(space, extents.data(), nullptr), path);
  for (const hsize_t extent : extents)
    if (extent > hsize_t{1} << 58)
      throw FileError(fmt::format("{} has an extent of {}; expected at most 2^58", path, extent));
  return {extents.begin(), extents.end()};
}

void check_filters(hid_t properties, const std::string& path) {
  const int count = check(H5Pget_nfilters(properties), path);
  for (int n = 0; n < count; ++n) {
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(n), &flags, &values, nullptr,
                                               name.size() - 1, name.data(), &config);
    if (H5Zfilter_avail(filter) <= 0)
      throw FileError(fmt::format("{} is packed by the filter {} (number {}), which this machine lacks; expected gzip",
                                  path, in_quotes(name.data()), static_cast<int>(filter)));
  }
}

void check_type(hid_t dataset, const std::string& path) {
  const Handle type = own_type(H5Dget_type(dataset), path);
  const auto is = [&](hid_t known) { return check(H5Tequal(type, known), path) > 0; };
  if (!is(H5T_IEEE_F32LE) && !is(H5T_IEEE_F32BE) && !is(H5T_IEEE_F64LE) && !is(H5T_IEEE_F64BE))
    throw FileError(fmt::format("{} holds {}-byte {}; expected float32 or float64", path, H5Tget_size(type),
                                H5Tget_class(type) == H5T_FLOAT     ? "floats"
                                : H5Tget_class(type) == H5T_INTEGER ? "integers"
                                : H5Tget_class(type) == H5T_STRING  ? "strings"
                                                                    : "elements of another class"));
}

/// Every chunk is there and none is unreasonably large. A chunk that was never written would read as zeros.
void check_chunks(hid_t dataset, hid_t space, hid_t properties, const std::vector<std::int64_t>& shape,
                  double item_bytes, const std::string& path) {
  std::vector<hsize_t> chunk(shape.size());
  check(H5Pget_chunk(properties, static_cast<int>(chunk.size()), chunk.data()), path);
  double chunk_bytes = item_bytes, chunks = 1;
  for (std::size_t axis = 0; axis < chunk.size(); ++axis) {
    if (chunk[axis] == 0) throw FileError(path + " has a chunk extent of 0; expected at least 1");
    chunk_bytes *= static_cast<double>(chunk[axis]);
    chunks *= static_cast<double>((static_cast<hsize_t>(shape[axis]) + chunk[axis] - 1) / chunk[axis]);
  }
  if (chunk_bytes > kLargestChunkBytes)
    throw FileError(fmt::format("{} has chunks of {} bytes; expected at most 2^30", path, chunk_bytes));
  hsize_t stored = 0;
  check(H5Dget_num_chunks(dataset, space, &stored), path);
  if (static_cast<double>(stored) != chunks)
    throw FileError(fmt::format("{} holds {} of its chunks; expected all {}", path, stored, chunks));
}

/// Nothing may be allocated on the word of a damaged or hostile header: the data have to be in this file.
void check_storage(hid_t dataset, hid_t space, const std::vector<std::int64_t>& shape, const std::string& path) {
  const double item_bytes = static_cast<double>(H5Tget_size(own_type(H5Dget_type(dataset), path)));
  double bytes = item_bytes;
  for (const std::int64_t extent : shape) bytes *= static_cast<double>(extent);
  const Handle properties(H5Dget_create_plist(dataset), H5Pclose, path);
  const H5D_layout_t layout = H5Pget_layout(properties);
  if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT)
    throw FileError(path + " has a virtual layout; expected contiguous or chunked data in this file");
  if (layout == H5D_CONTIGUOUS && H5Pget_external_count(properties) != 0)
    throw FileError(path + " lies in external files; expected all data in this file");
  check_filters(properties, path);
  if (layout == H5D_CHUNKED) check_chunks(dataset, space, properties, shape, item_bytes, path);
  const auto stored = static_cast<double>(H5Dget_storage_size(dataset));
  if (bytes > stored * (layout == H5D_CHUNKED ? kLargestCompression : 1))
    throw FileError(fmt::format("{} has shape ({}), but {} bytes are stored; expected enough for {} bytes", path,
                                fmt::join(shape, ","), stored, bytes));
}

}  // namespace

Quiet::Quiet() {
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Quiet::~Quiet() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

std::string in_quotes(std::string_view text) {
  std::string result = "\"";
  for (const char c : text.substr(0, 60)) result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return result + (text.size() > 60 ? "...\"" : "\"");
}

void fail(std::string_view what) {
  std::string reason = "unknown HDF5 error";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, &reason);
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  throw FileError(fmt::format("{}: HDF5 says: {}", what, reason));
}

std::vector<std::string> links_of(hid_t group, const std::string& path) {
  std::vector<std::pair<std::string, H5L_type_t>> links;
  check(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_link, &links), path);
  std::vector<std::string> names;
  for (const auto& [name, type] : links) {
    if (type != H5L_TYPE_HARD && type != H5L_TYPE_SOFT)
      throw FileError(
          fmt::format("{}: link {} leaves the file; expected all data in this file", path, in_quotes(name)));
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Handle open_group(hid_t parent, const std::string& name, const std::string& path) {
  Handle object(H5Oopen(parent, name.c_str(), H5P_DEFAULT), H5Oclose, path);
  if (H5Iget_type(object) != H5I_GROUP) throw FileError(path + " is not a group; expected a group");
  return object;
}

Dataset open_dataset(hid_t group, const std::string& name, const std::string& path) {
  Handle id(H5Oopen(group, name.c_str(), H5P_DEFAULT), H5Oclose, path);
  if (H5Iget_type(id) != H5I_DATASET)
    throw FileError(path + " is not a dataset; expected a float32 or float64 dataset");
  check_type(id, path);
  const Handle space = own_space(H5Dget_space(id), path);
  if (H5Sget_simple_extent_type(space) != H5S_SIMPLE)
    throw FileError(path + " is a scalar or empty dataset; expected an array");
  std::vector<std::int64_t> shape = extents_of(space, path);
  check_storage(id, space, shape, path);
  return {std::move(id), std::move(shape)};
}

Array read_dataset(const Dataset& dataset, const std::string& path) {
  Array array = Array::from_shape({dataset.shape.begin(), dataset.shape.end()});
  check(H5Dread(dataset.id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, array.data()), path);
  return array;
}

Handle creation_properties(hid_t kind) {
  Handle properties(H5Pcreate(kind), H5Pclose, "creation properties");
  check(H5Pset_obj_track_times(properties, false), "creation properties");
  check(H5Pset_attr_phase_change(properties, std::numeric_limits<std::uint16_t>::max(), 0), "creation properties");
  return properties;
}

void write_dataset(hid_t group, const std::string& name, const Array& array, Storage storage,
                   const std::vector<std::string>& labels) {
  const std::size_t item_bytes = storage == Storage::float32 ? sizeof(float) : sizeof(double);
  const std::vector<hsize_t> extents(array.shape().begin(), array.shape().end());

  // Whole tensors up to 1 MiB, else split along the slowest axes.
  std::vector<hsize_t> chunk = extents;
  for (std::size_t axis = 0; axis < chunk.size();) {
    hsize_t bytes = item_bytes;
    for (const hsize_t extent : chunk) bytes *= extent;
    if (bytes <= kChunkBytes) break;
    if (chunk[axis] == 1)
      ++axis;
    else
      chunk[axis] = (chunk[axis] + 1) / 2;
  }

  const int rank = static_cast<int>(extents.size());
  const Handle properties = creation_properties(H5P_DATASET_CREATE);
  check(H5Pset_chunk(properties, rank, chunk.data()), name);
  check(H5Pset_shuffle(properties), name);
  check(H5Pset_deflate(properties, kGzipLevel), name);
  check(H5Pset_fletcher32(properties), name);
  const Handle space = own_space(H5Screate_simple(rank, extents.data(), nullptr), name);
  const hid_t type = storage == Storage::float32 ? H5T_IEEE_F32LE : H5T_IEEE_F64LE;
  const Handle dataset(H5Dcreate2(group, name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose,
                       name);
  if (storage == Storage::float32) {
    const std::vector<float> narrow(array.begin(), array.end());
    check(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, narrow.data()), name);
  } else {
    check(H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, array.data()), name);
  }
  for (std::size_t axis = 0; axis < labels.size(); ++axis)
    check(H5DSset_label(dataset, static_cast<unsigned>(axis), labels[axis].c_str()), name);
}

}  // namespace mlstm::verify::hdf5
