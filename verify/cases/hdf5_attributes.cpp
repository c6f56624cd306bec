// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "cases/case_file.hpp"
#include "cases/hdf5.hpp"

namespace mlstm::verify::hdf5 {
namespace {

constexpr hssize_t kLargestAttributeBytes = hssize_t{1} << 24;

herr_t collect_name(hid_t, const char* name, const H5A_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

std::string encoded_type(hid_t type, std::string_view what) {
  std::size_t size = 0;
  check(H5Tencode(type, nullptr, &size), what);
  std::string bytes(size, '\0');
  check(H5Tencode(type, bytes.data(), &size), what);
  return bytes;
}

/// H5Sencode, which takes an access list since HDF5 1.12. The default one asks for the encoding that 1.10 has.
herr_t encode_space(hid_t space, void* bytes, std::size_t* size) {
#if H5_VERSION_GE(1, 12, 0)
  return H5Sencode2(space, bytes, size, H5P_DEFAULT);
#else
  return H5Sencode(space, bytes, size);
#endif
}

std::string encoded_space(hid_t space, std::string_view what) {
  std::size_t size = 0;
  check(encode_space(space, nullptr, &size), what);
  std::string bytes(size, '\0');
  check(encode_space(space, bytes.data(), &size), what);
  return bytes;
}

Handle string_type(std::size_t size) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "string type");
  check(H5Tset_size(type, std::max<std::size_t>(size, 1)), "string type");
  check(H5Tset_cset(type, H5T_CSET_UTF8), "string type");
  check(H5Tset_strpad(type, H5T_STR_NULLPAD), "string type");
  return type;
}

/// The elements of a variable-length string attribute.
std::vector<std::string> read_variable_strings(hid_t attribute, hid_t type, hid_t space, std::size_t count,
                                               const std::string& what) {
  std::vector<char*> pointers(count, nullptr);
  check(H5Aread(attribute, type, pointers.data()), what);
  std::vector<std::string> strings;
  for (const char* text : pointers) strings.emplace_back(text == nullptr ? "" : text);
  H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data());
  return strings;
}

std::string read_fixed_string(hid_t attribute, hid_t type, const std::string& what) {
  std::string text(H5Tget_size(type), '\0');
  check(H5Aread(attribute, type, text.data()), what);
  const H5T_str_t padding = H5Tget_strpad(type);
  if (padding == H5T_STR_NULLTERM) text.resize(std::min(text.find('\0'), text.size()));
  // Zeros at the end are never text: they could not be written again.
  const std::string_view filler(" \0", 2);
  text.resize(text.find_last_not_of(padding == H5T_STR_SPACEPAD ? filler : filler.substr(1)) + 1);  // npos + 1 = 0
  return text;
}

/// Variable-length strings become fixed-length ones; other variable-length types and references have no meaning
/// outside their file.
OpaqueAttribute read_opaque(hid_t attribute, hid_t type, hid_t space, std::size_t count, const std::string& what) {
  if (check(H5Tis_variable_str(type), what) > 0) {
    const std::vector<std::string> strings = read_variable_strings(attribute, type, space, count, what);
    std::size_t width = 1;
    for (const std::string& text : strings) width = std::max(width, text.size());
    std::string data;
    for (const std::string& text : strings) data += text + std::string(width - text.size(), '\0');
    return {encoded_type(string_type(width), what), encoded_space(space, what), data};
  }
  const auto has = [&](H5T_class_t part) { return check(H5Tdetect_class(type, part), what) > 0; };
  if (has(H5T_VLEN) || has(H5T_REFERENCE) || (has(H5T_STRING) && H5Tget_class(type) != H5T_STRING))
    throw FileError(what + " is a reference, of variable length or a record with strings; expected numbers or strings");
  std::string data(count * H5Tget_size(type), '\0');
  if (!data.empty()) check(H5Aread(attribute, type, data.data()), what);
  return {encoded_type(type, what), encoded_space(space, what), data};
}

Attribute read_attribute(hid_t object, const std::string& name, const std::string& path) {
  const std::string what = fmt::format("attribute {} of {}", in_quotes(name), path);
  const Handle attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose, what);
  const Handle type(H5Aget_type(attribute), H5Tclose, what);
  const Handle space(H5Aget_space(attribute), H5Sclose, what);
  const hssize_t count = check(H5Sget_simple_extent_npoints(space), what);
  const std::size_t size = H5Tget_size(type);
  if (size == 0 ||
      count > kLargestAttributeBytes / static_cast<hssize_t>(std::min<std::size_t>(size, kLargestAttributeBytes)))
    throw FileError(fmt::format("{} has {} elements of {} bytes; expected at most 2^24 bytes", what, count, size));

  const H5T_class_t kind = H5Tget_class(type);
  if (count == 1 && (kind == H5T_INTEGER || kind == H5T_ENUM) && size <= 8) {
    const Handle integer(kind == H5T_ENUM ? H5Tget_super(type) : H5Tcopy(type), H5Tclose, what);
    if (H5Tget_sign(integer) == H5T_SGN_NONE) {
      std::uint64_t value = 0;
      check(H5Aread(attribute, H5T_NATIVE_UINT64, &value), what);
      if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return static_cast<std::int64_t>(value);
    } else {
      std::int64_t value = 0;
      check(H5Aread(attribute, H5T_NATIVE_INT64, &value), what);
      return value;
    }
  }
  if (count == 1 && kind == H5T_FLOAT && size <= 8) {
    double value = 0;
    check(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), what);
    return value;
  }
  if (count == 1 && kind == H5T_STRING)
    return check(H5Tis_variable_str(type), what) > 0 ? read_variable_strings(attribute, type, space, 1, what).front()
                                                     : read_fixed_string(attribute, type, what);
  return read_opaque(attribute, type, space, static_cast<std::size_t>(count), what);
}

struct Writer {
  hid_t object;
  const std::string& name;

  void write(hid_t file_type, hid_t memory_type, hid_t space, const void* data) const {
    const std::string what = "attribute " + in_quotes(name);
    const Handle attribute(H5Acreate2(object, name.c_str(), file_type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                           what);
    if (H5Sget_simple_extent_npoints(space) > 0) check(H5Awrite(attribute, memory_type, data), what);
  }
  void write_scalar(hid_t file_type, hid_t memory_type, const void* data) const {
    write(file_type, memory_type, Handle(H5Screate(H5S_SCALAR), H5Sclose, name), data);
  }
  void operator()(std::int64_t value) const { write_scalar(H5T_STD_I64LE, H5T_NATIVE_INT64, &value); }
  void operator()(double value) const { write_scalar(H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value); }
  void operator()(const std::string& value) const {
    const Handle type = string_type(value.size());
    write_scalar(type, type, value.c_str());
  }
  void operator()(const OpaqueAttribute& value) const {
    const Handle type(H5Tdecode(value.type.data()), H5Tclose, name);
    write(type, type, Handle(H5Sdecode(value.space.data()), H5Sclose, name), value.data.data());
  }
};

}  // namespace

Attributes read_attributes(hid_t object, const std::string& path) {
  std::vector<std::string> names;
  check(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &names), path);
  Attributes attributes;
  for (const std::string& name : names) attributes[name] = read_attribute(object, name, path);
  return attributes;
}

void write_attribute(hid_t object, const std::string& name, const Attribute& value) {
  std::visit(Writer{object, name}, value);
}

}  // namespace mlstm::verify::hdf5
