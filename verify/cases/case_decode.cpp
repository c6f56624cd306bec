// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <span>

#include "cases/case_file.hpp"
#include "cases/case_image.hpp"
#include "cases/hdf5.hpp"

namespace mlstm::verify {
namespace {

using hdf5::Handle;

/// Attributes of /kernel that mean something to this program or are written by it. Others are kept as they are, but one
/// that looks like a misspelling of these is an error: ignoring it would change a verdict.
constexpr std::array<std::string_view, 18> kKernelNames{"variant",
                                                        "formulation",
                                                        "gradient_convention",
                                                        "operand_dtype",
                                                        "state_dtype",
                                                        "gate_dtype",
                                                        "product_dtype",
                                                        "saved_dtype",
                                                        "rounding",
                                                        "gate_gradient",
                                                        "source",
                                                        "source_sha256",
                                                        "device",
                                                        "device_name",
                                                        "compute_capability",
                                                        "driver_version",
                                                        "driver_cuda_version",
                                                        "cuda_runtime_version"};

void refuse_misspelling(std::string_view kind, std::string_view name, std::string_view path,
                        std::span<const std::string_view> known) {
  if (const std::string_view meant = misspelt_name(name, known); !meant.empty())
    throw FileError(fmt::format("{} {} of {} is unknown; expected {}, or another name that is not so near to it", kind,
                                hdf5::in_quotes(name), path, meant));
}

/// Errors that are told together: whoever writes such files then learns of all of them at once.
class Complaints {
 public:
  /// Calls read(); its FileError becomes one of the complaints.
  template <class Read>
  void collect(const Read& read) {
    try {
      read();
    } catch (const FileError& error) {
      all_.push_back(error.what());
    }
  }
  /// Throws FileError if there are any.
  void raise() const {
    if (all_.empty()) return;
    if (all_.size() == 1) throw FileError(all_.front());
    std::string text = fmt::format("{} errors", all_.size());
    for (std::size_t n = 0; n < all_.size(); ++n) text += fmt::format("{} ({}) {}", n == 0 ? ":" : ",", n + 1, all_[n]);
    throw FileError(text);
  }

 private:
  std::vector<std::string> all_;
};

/// Takes the contract's attributes out of what an object holds.
class AttributeReader {
 public:
  AttributeReader(hid_t object, std::string path)
      : path_(std::move(path)), rest_(hdf5::read_attributes(object, path_)) {}

  /// `expected` is what a missing one should have been.
  std::string text(const std::string& name, std::string_view expected = "a string") {
    return take<std::string>(name, "a string", expected);
  }
  std::int64_t integer(const std::string& name, std::string_view expected = "an integer") {
    return take<std::int64_t>(name, "an integer", expected);
  }
  double number(const std::string& name, std::string_view expected = "a number") {
    const auto found = rest_.find(name);
    if (found != rest_.end() && std::holds_alternative<std::int64_t>(found->second))
      return static_cast<double>(integer(name));
    return take<double>(name, "a number", expected);
  }
  bool has(const std::string& name) const { return rest_.contains(name); }
  std::string label(const std::string& name) const { return fmt::format("attribute {} of {}", name, path_); }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, value] : rest_) names.push_back(name);
    return names;
  }
  Attributes rest() && { return std::move(rest_); }

  /// text(), parsed by one of the contract's parse functions.
  template <class Parse>
  auto parsed(const std::string& name, Parse parse, std::string_view expected = "a string") {
    std::string value = hdf5::in_quotes(text(name, expected));
    value = value.substr(1, value.size() - 2);
    try {
      return parse(value, label(name));
    } catch (const std::invalid_argument& error) {
      throw FileError(error.what());
    }
  }

 private:
  template <class T>
  T take(const std::string& name, std::string_view expected, std::string_view if_missing) {
    const auto found = rest_.find(name);
    if (found == rest_.end()) throw FileError(fmt::format("{} is missing; expected {}", label(name), if_missing));
    T* value = std::get_if<T>(&found->second);
    if (value == nullptr)
      throw FileError(fmt::format("{} is {}; expected {}", label(name), kind(found->second), expected));
    T result = std::move(*value);
    rest_.erase(found);
    return result;
  }
  static std::string kind(const Attribute& value) {
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("the integer {}", *integer);
    if (const auto* number = std::get_if<double>(&value)) return fmt::format("the number {}", *number);
    if (const auto* text = std::get_if<std::string>(&value)) return "the string " + hdf5::in_quotes(*text);
    return "an array or of another type";
  }

  std::string path_;
  Attributes rest_;
};

/// An open group with the names in it.
struct Group {
  Handle id;
  std::string path;
  std::vector<std::string> links;

  Group(Handle handle, std::string object_path)
      : id(std::move(handle)), path(std::move(object_path)), links(hdf5::links_of(id, path)) {}
  bool has(std::string_view name) const { return std::find(links.begin(), links.end(), name) != links.end(); }
  std::string path_of(const std::string& name) const { return (path == "/" ? "" : path) + "/" + name; }
  Group child(const std::string& name) const { return {hdf5::open_group(id, name, path_of(name)), path_of(name)}; }
};

class Decoder {
 public:
  Decoder(Handle root, const std::function<void(std::uint64_t)>& before_reading)
      : root_(std::move(root), "/"), before_reading_(before_reading) {}

  Case decode() {
    Case c;
    Complaints complaints;
    read_root(c, complaints);
    constexpr std::array<std::string_view, 4> kGroups{"inputs", "cotangents", "reference", "kernel"};
    for (const std::string& link : root_.links)
      complaints.collect([&] { refuse_misspelling("object", link, "/", kGroups); });
    if (!root_.has("inputs"))
      complaints.collect([] {
        throw FileError(
            "/inputs is missing; expected a group with q, k (B,NH,S,DHQK), v (B,NH,S,DHV), i and f (B,NH,S)");
      });
    else
      complaints.collect([&] { require_inputs(root_.child("inputs"), complaints); });
    if (root_.has("cotangents"))
      complaints.collect([&] {
        const Group cotangents = root_.child("cotangents");
        if (!cotangents.links.empty() && !cotangents.has("h"))
          throw FileError("/cotangents/h is missing; expected a dataset (B,NH,S,DHV)");
      });
    complaints.raise();
    const Group inputs = root_.child("inputs");
    read_shape(inputs, c.problem.shape);
    c.problem.has_initial_state =
        std::any_of(kInitialStates.begin(), kInitialStates.end(), [&](auto name) { return inputs.has(name); });
    try {
      validate(c.problem);
    } catch (const std::invalid_argument& error) {
      throw FileError(fmt::format("/: {}", error.what()));
    }
    problem_ = c.problem;
    c.inputs = read_tensors(inputs, input_names(problem_));
    c.cotangents = read_tensors(root_, "cotangents", output_names(problem_));
    if (root_.has("reference")) c.reference = read_reference(root_.child("reference"));
    if (root_.has("kernel")) c.kernel = read_kernel(root_.child("kernel"));
    return c;
  }

 private:
  void read_root(Case& c, Complaints& complaints) {
    AttributeReader attributes(root_.id, "/");
    const auto read = [&](const auto& one) { complaints.collect(one); };
    // What is of another schema, or of another version of it, has nothing else to be complained about.
    if (attributes.has("schema") && attributes.has("schema_version")) {
      const std::string schema = attributes.text("schema");
      if (schema != "mlstm-case")
        throw FileError(fmt::format("attribute schema of / is {}; expected \"mlstm-case\"", hdf5::in_quotes(schema)));
      const std::int64_t version = attributes.integer("schema_version");
      if (version != 1)
        throw FileError(fmt::format("attribute schema_version of / is {}; expected 1{}", version,
                                    version > 1 ? " (the file was written for a later version of this program)" : ""));
    } else {
      read([&] { attributes.text("schema", "\"mlstm-case\""); });
      read([&] { attributes.integer("schema_version", "1"); });
    }
    read([&] { c.name = attributes.text("case", "a string, the name of the problem"); });
    read([&] { c.problem.gate = attributes.parsed("gate", parse_gate, "\"exp\" or \"sigmoid\""); });
    read([&] {
      const std::int64_t normalize = attributes.integer("normalize", "0 or 1 (1 with the exp gate)");
      if (normalize != 0 && normalize != 1)
        throw FileError(fmt::format("attribute normalize of / is {}; expected 0 or 1", normalize));
      c.problem.normalize = normalize == 1;
    });
    read([&] { c.problem.eps = attributes.number("eps", "a number >= 0"); });
    read([&] {
      c.problem.dtype = attributes.parsed("dtype", parse_storage_dtype, "float64, float32, float16 or bfloat16");
    });
    read([&] {
      c.problem.stabilizer_init =
          attributes.parsed("stabilizer_init", parse_stabilizer_init, "\"zero\" or \"neg_inf\"");
    });
    read([&] { c.problem.chunk_size = attributes.integer("chunk_size", "an integer, 0 if not applicable"); });
    c.attributes = std::move(attributes).rest();
  }

  /// Complains about every sequence input that is missing.
  static void require_inputs(const Group& inputs, Complaints& complaints) {
    for (const std::string_view name : kSequenceInputs)
      complaints.collect([&] {
        if (inputs.has(name)) return;
        const char* const shape = name == "v"                  ? "(B,NH,S,DHV)"
                                  : name == "i" || name == "f" ? "(B,NH,S)"
                                                               : "(B,NH,S,DHQK)";
        throw FileError(fmt::format("/inputs/{} is missing; expected a dataset {}", name, shape));
      });
  }

  /// q gives B, NH, S and DHQK, v gives DHV; every tensor is then checked against these.
  static void read_shape(const Group& inputs, Shape& shape) {
    const auto extents = [&](const std::string& name, const char* expected) {
      const std::string path = inputs.path_of(name);
      std::vector<std::int64_t> result = hdf5::open_dataset(inputs.id, name, path).shape;
      if (result.size() != 4)
        throw FileError(fmt::format("{} has shape ({}); expected {}", path, fmt::join(result, ","), expected));
      return result;
    };
    const std::vector<std::int64_t> q = extents("q", "(B,NH,S,DHQK)"), v = extents("v", "(B,NH,S,DHV)");
    shape = {.B = q[0], .NH = q[1], .S = q[2], .DHQK = q[3], .DHV = v[3]};
  }

  Array read_tensor(const Group& group, const std::string& name, const std::vector<std::int64_t>& shape) const {
    const std::string path = group.path_of(name);
    const hdf5::Dataset dataset = hdf5::open_dataset(group.id, name, path);
    if (dataset.shape != shape)
      throw FileError(
          fmt::format("{} has shape ({}); expected ({})", path, fmt::join(dataset.shape, ","), fmt::join(shape, ",")));
    std::uint64_t bytes = sizeof(double);
    for (const std::int64_t extent : shape) bytes *= static_cast<std::uint64_t>(extent);
    before_reading_(bytes);
    return hdf5::read_dataset(dataset, path);
  }

  /// Every tensor in the group has to be an expected one; "part/name" is the dataset `name` of the group `part`.
  TensorMap read_tensors(const Group& group, const std::vector<std::string>& expected) const {
    TensorMap tensors;
    for (const std::string& link : group.links) {
      if (std::find(expected.begin(), expected.end(), link) != expected.end()) {
        tensors[link] = read_tensor(group, link, bound_shape(link, problem_.shape));
        continue;
      }
      std::vector<std::string> below;
      for (const std::string& name : expected)
        if (name.starts_with(link + "/")) below.push_back(name.substr(link.size() + 1));
      if (below.empty())
        throw FileError(
            fmt::format("{} holds {}; expected only {}", group.path, hdf5::in_quotes(link), fmt::join(expected, ", ")));
      for (auto& [name, array] : read_tensors(group.child(link), below)) tensors[link + "/" + name] = std::move(array);
    }
    return tensors;
  }

  /// The same for a group that may be absent.
  TensorMap read_tensors(const Group& parent, const std::string& name, const std::vector<std::string>& expected) const {
    return parent.has(name) ? read_tensors(parent.child(name), expected) : TensorMap{};
  }

  ReferenceData read_reference(const Group& group) const {
    ReferenceData reference;
    reference.attributes = hdf5::read_attributes(group.id, group.path);
    reference.outputs = read_tensors(group, "outputs", output_names(problem_));
    if (group.has("gradients")) {
      const Group gradients = group.child("gradients");
      reference.exact = read_tensors(gradients, "exact", input_names(problem_));
      reference.detached = read_tensors(gradients, "detached", input_names(problem_));
    }
    reference.bounds = read_tensors(group, "bounds", bound_names(problem_));
    return reference;
  }

  KernelData read_kernel(const Group& group) const {
    AttributeReader attributes(group.id, group.path);
    for (const std::string& name : attributes.names()) refuse_misspelling("attribute", name, group.path, kKernelNames);
    constexpr std::array<std::string_view, 2> kGroups{"outputs", "gradients"};
    for (const std::string& link : group.links) refuse_misspelling("object", link, group.path, kGroups);
    KernelData kernel;
    if (attributes.has("variant")) kernel.variant = attributes.text("variant");
    if (attributes.has("formulation")) kernel.formulation = attributes.parsed("formulation", parse_module);
    if (attributes.has("gradient_convention"))
      kernel.convention = attributes.parsed("gradient_convention", parse_convention);
    if (attributes.has("operand_dtype")) kernel.operand_dtype = attributes.parsed("operand_dtype", parse_dtype);
    if (attributes.has("state_dtype")) kernel.state_dtype = attributes.parsed("state_dtype", parse_dtype);
    if (attributes.has("gate_dtype")) kernel.gate_dtype = attributes.parsed("gate_dtype", parse_dtype);
    if (attributes.has("product_dtype")) kernel.product_dtype = attributes.parsed("product_dtype", parse_dtype);
    kernel.attributes = std::move(attributes).rest();
    kernel.outputs = read_tensors(group, "outputs", output_names(problem_));
    kernel.gradients = read_tensors(group, "gradients", input_names(problem_));
    return kernel;
  }

  Group root_;
  const std::function<void(std::uint64_t)>& before_reading_;
  Problem problem_;
};

}  // namespace

Case decode_case(const std::string& image, const std::function<void(std::uint64_t)>& before_reading) {
  const hdf5::Quiet quiet;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "file access properties");
  constexpr std::size_t kGrowth = std::size_t{1} << 16;
  hdf5::check(H5Pset_fapl_core(access, kGrowth, false), "file in memory");
  std::string copy = image;  // HDF5 wants it writable, and an empty one is none
  if (copy.empty()) throw FileError("the file is empty; expected an HDF5 file");
  hdf5::check(H5Pset_file_image(access, copy.data(), copy.size()), "file in memory");
  const Handle file(H5Fopen("case", H5F_ACC_RDONLY, access), H5Fclose, "not a readable HDF5 file");
  return Decoder(hdf5::open_group(file, "/", "/"), before_reading).decode();
}

}  // namespace mlstm::verify
