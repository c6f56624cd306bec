// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "cases/case_file.hpp"
#include "cases/case_image.hpp"
#include "cases/closed_image.hpp"
#include "cases/hdf5.hpp"

namespace mlstm::verify {
namespace {

using hdf5::Handle;
using hdf5::Storage;

std::vector<std::string> labels_of(const std::string& tensor) {
  switch (tensor.front()) {
    case 'q':
    case 'k':
      return {"B", "NH", "S", "DHQK"};
    case 'v':
    case 'h':
      return {"B", "NH", "S", "DHV"};
    case 'c':
      return {"B", "NH", "DHQK", "DHV"};
    case 'n':
      return {"B", "NH", "DHQK"};
    case 'm':
    case 'o':  // open_rows
      return {"B", "NH"};
    default:
      return {"B", "NH", "S"};  // i, f, f_straddling
  }
}

Handle create_group(hid_t parent, const std::string& name) {
  return {H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, hdf5::creation_properties(H5P_GROUP_CREATE), H5P_DEFAULT),
          H5Gclose, name};
}

void write_tensors(hid_t group, const TensorMap& tensors, Storage storage) {
  for (const auto& [name, array] : tensors) hdf5::write_dataset(group, name, array, storage, labels_of(name));
}

/// float32 unless a value needs more.
void write_tensors(hid_t group, const TensorMap& tensors) {
  const auto narrow = [](double value) { return !std::isfinite(value) || is_representable(DType::float32, value); };
  for (const auto& [name, array] : tensors) {
    const bool float32 = std::all_of(array.begin(), array.end(), narrow);
    hdf5::write_dataset(group, name, array, float32 ? Storage::float32 : Storage::float64, labels_of(name));
  }
}

void write_attributes(hid_t object, const Attributes& attributes) {
  for (const auto& [name, value] : attributes) hdf5::write_attribute(object, name, value);
}

void write_text(hid_t object, const std::string& name, std::string_view text) {
  hdf5::write_attribute(object, name, std::string(text));
}

/// Keys "exact/q" become datasets q of a group exact.
void write_bounds(hid_t reference, const TensorMap& bounds) {
  const Handle group = create_group(reference, "bounds");
  std::map<std::string, TensorMap> parts;
  for (const auto& [key, array] : bounds) {
    const std::size_t slash = key.find('/');
    if (slash == std::string::npos)
      parts[""][key] = array;
    else
      parts[key.substr(0, slash)][key.substr(slash + 1)] = array;
  }
  for (const auto& [part, tensors] : parts)
    if (part.empty())
      write_tensors(group, tensors, Storage::float64);
    else
      write_tensors(create_group(group, part), tensors, Storage::float64);
}

void write_reference(hid_t root, const ReferenceData& reference) {
  const Handle group = create_group(root, "reference");
  write_attributes(group, reference.attributes);
  write_tensors(create_group(group, "outputs"), reference.outputs, Storage::float64);
  if (!reference.exact.empty() || !reference.detached.empty()) {
    const Handle gradients = create_group(group, "gradients");
    write_tensors(create_group(gradients, "exact"), reference.exact, Storage::float64);
    write_tensors(create_group(gradients, "detached"), reference.detached, Storage::float64);
  }
  if (!reference.bounds.empty()) write_bounds(group, reference.bounds);
}

void write_kernel(hid_t root, const KernelData& kernel) {
  const Handle group = create_group(root, "kernel");
  write_attributes(group, kernel.attributes);
  if (!kernel.variant.empty()) write_text(group, "variant", kernel.variant);
  if (kernel.formulation) write_text(group, "formulation", to_string(*kernel.formulation));
  if (kernel.convention) write_text(group, "gradient_convention", to_string(*kernel.convention));
  if (kernel.operand_dtype) write_text(group, "operand_dtype", to_string(*kernel.operand_dtype));
  if (kernel.state_dtype) write_text(group, "state_dtype", to_string(*kernel.state_dtype));
  if (kernel.gate_dtype) write_text(group, "gate_dtype", to_string(*kernel.gate_dtype));
  if (kernel.product_dtype) write_text(group, "product_dtype", to_string(*kernel.product_dtype));
  write_tensors(create_group(group, "outputs"), kernel.outputs);
  if (!kernel.gradients.empty()) write_tensors(create_group(group, "gradients"), kernel.gradients);
}

void write_root(hid_t root, const Case& c) {
  write_attributes(root, c.attributes);
  write_text(root, "schema", "mlstm-case");
  hdf5::write_attribute(root, "schema_version", std::int64_t{1});
  write_text(root, "case", c.name);
  write_text(root, "gate", to_string(c.problem.gate));
  hdf5::write_attribute(root, "normalize", std::int64_t{c.problem.normalize});
  hdf5::write_attribute(root, "eps", c.problem.eps);
  write_text(root, "dtype", to_string(c.problem.dtype));
  write_text(root, "stabilizer_init", to_string(c.problem.stabilizer_init));
  hdf5::write_attribute(root, "chunk_size", c.problem.chunk_size);
}

}  // namespace

std::mutex& hdf5_mutex() {
  static std::mutex mutex;
  return mutex;
}

std::string encode_case(const Case& c) {
  const std::lock_guard lock(hdf5_mutex());
  const hdf5::Quiet quiet;
  hdf5::ClosedImage image;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "file access properties");
  hdf5::check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "file format");  // superblock version 3
  image.keep_file(access);
  Handle file(H5Fcreate("case", H5F_ACC_TRUNC, hdf5::creation_properties(H5P_FILE_CREATE), access), H5Fclose,
              "file in memory");
  {
    const Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "/");
    write_root(root, c);
    const Storage storage = c.problem.dtype == DType::float64 ? Storage::float64 : Storage::float32;
    write_tensors(create_group(root, "inputs"), c.inputs, storage);
    if (!c.cotangents.empty()) write_tensors(create_group(root, "cotangents"), c.cotangents, storage);
    if (c.reference) write_reference(root, *c.reference);
    if (c.kernel) write_kernel(root, *c.kernel);
  }
  hdf5::check(H5Fflush(file, H5F_SCOPE_GLOBAL), "file in memory");
  file.close("file in memory");
  if (image.bytes.empty()) throw FileError("not enough memory for the file");
  return std::move(image.bytes);
}

}  // namespace mlstm::verify
