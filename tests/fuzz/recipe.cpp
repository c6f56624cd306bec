// SPDX-License-Identifier: Apache-2.0
#include "recipe.hpp"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <vector>

#include "cases/case_image.hpp"
#include "cases/closed_image.hpp"
#include "small_case.hpp"

namespace mlstm::fuzz {
namespace {

/// Closes an identifier of any kind; one of an error is of none.
class Id {
 public:
  explicit Id(hid_t id) : id_(id) {}
  ~Id() {
    if (id_ >= 0) H5Idec_ref(id_);
  }
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Id& operator=(Id&&) = delete;
  operator hid_t() const { return id_; }  // NOLINT: HDF5 calls take it as it is

 private:
  hid_t id_;
};

class Recipe {
 public:
  explicit Recipe(std::string_view bytes) : bytes_(bytes) {}
  bool done() const { return bytes_.empty(); }
  /// The next byte, 0 after the end.
  unsigned char byte() {
    if (bytes_.empty()) return 0;
    const auto value = static_cast<unsigned char>(bytes_.front());
    bytes_.remove_prefix(1);
    return value;
  }
  std::size_t below(std::size_t limit) { return byte() % limit; }
  std::string text(std::size_t size) {
    const std::string value(bytes_.substr(0, size));
    bytes_.remove_prefix(value.size());
    return value + std::string(size - value.size(), 'x');
  }
  template <std::size_t N>
  std::string one_of(const std::array<const char*, N>& words) {
    return words[below(N)];
  }

 private:
  std::string_view bytes_;
};

constexpr std::array kGroups{"/",
                             "/inputs",
                             "/cotangents",
                             "/kernel",
                             "/kernel/outputs",
                             "/kernel/gradients",
                             "/reference",
                             "/reference/outputs",
                             "/reference/gradients/exact",
                             "/reference/bounds"};
constexpr std::array kLinks{"q",         "k",
                            "v",         "i",
                            "f",         "h",
                            "c_initial", "n_initial",
                            "m_initial", "c_last",
                            "n_last",    "m_last",
                            "inputs",    "cotangents",
                            "kernel",    "reference",
                            "outputs",   "gradients",
                            "exact",     "detached",
                            "bounds",    "f_straddling",
                            "open_rows", "other"};
constexpr std::array kAttributes{
    "schema",      "schema_version",  "case",          "gate",    "normalize",           "eps",
    "dtype",       "stabilizer_init", "chunk_size",    "variant", "gradient_convention", "operand_dtype",
    "state_dtype", "gate_dtype",      "product_dtype", "source",  "precision",           "other",
    "\xff\n"};
constexpr std::array kTexts{"mlstm-case", "exp",        "sigmoid",  "float64", "float32", "tfloat32",
                            "float16",    "bfloat16",   "zero",     "neg_inf", "exact",   "detached",
                            "",           "two\nlines", "\xc3\x28", "0"};

/// Types of atoms: `H5T_...` are calls, so this cannot be a constant.
Id atom(Recipe& recipe) {
  const std::array known{H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_IEEE_F64LE,  H5T_IEEE_F64BE,
                         H5T_STD_I8LE,   H5T_STD_U8BE,   H5T_STD_I16BE,   H5T_STD_U16LE,
                         H5T_STD_I32LE,  H5T_STD_U32BE,  H5T_STD_I64BE,   H5T_STD_U64LE,
                         H5T_STD_B32LE,  H5T_UNIX_D32LE, H5T_STD_REF_OBJ, H5T_NATIVE_LDOUBLE};
  Id type(H5Tcopy(known[recipe.below(known.size())]));
  switch (recipe.below(6)) {
    case 0:  // as bfloat16 or something like it
      if (H5Tget_class(type) == H5T_FLOAT) {
        H5Tset_fields(type, 15, 7, 8, 0, 7);
        H5Tset_size(type, 2);
      }
      break;
    case 1:
      H5Tset_precision(type, 1 + recipe.below(64));
      H5Tset_offset(type, static_cast<size_t>(recipe.below(8)));
      break;
    default:
      break;
  }
  return type;
}

Id any_type(Recipe& recipe) {
  switch (recipe.below(10)) {
    case 0: {
      Id type(H5Tcopy(H5T_C_S1));
      H5Tset_size(type, recipe.below(3) == 0 ? H5T_VARIABLE : 1 + recipe.below(80));
      H5Tset_strpad(type, static_cast<H5T_str_t>(recipe.below(3)));
      H5Tset_cset(type, static_cast<H5T_cset_t>(recipe.below(2)));
      return type;
    }
    case 1:
      return Id(H5Tvlen_create(atom(recipe)));
    case 2: {
      const hsize_t extent = 1 + recipe.below(5);
      return Id(H5Tarray_create2(atom(recipe), 1, &extent));
    }
    case 3: {
      Id type(H5Tcreate(H5T_COMPOUND, 16));
      H5Tinsert(type, "a", 0, atom(recipe));
      H5Tinsert(type, "b", 8, atom(recipe));
      return type;
    }
    case 4: {
      Id type(H5Tenum_create(H5T_STD_I8LE));
      const std::array<signed char, 2> values{0, 1};
      H5Tenum_insert(type, "FALSE", values.data());
      H5Tenum_insert(type, "TRUE", values.data() + 1);
      return type;
    }
    case 5: {
      Id type(H5Tcreate(H5T_OPAQUE, 1 + recipe.below(40)));
      H5Tset_tag(type, "tag");
      return type;
    }
    default:
      return atom(recipe);
  }
}

Id any_space(Recipe& recipe, bool resizable) {
  switch (recipe.below(8)) {
    case 0:
      return Id(H5Screate(H5S_SCALAR));
    case 1:
      return Id(H5Screate(H5S_NULL));
    default:
      break;
  }
  std::vector<hsize_t> extents;
  for (std::size_t rank = recipe.below(6); rank > 0; --rank) extents.push_back(recipe.below(5));
  const std::vector<hsize_t> unlimited(extents.size(), H5S_UNLIMITED);
  const bool open = resizable && recipe.below(4) == 0;
  return Id(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), open ? unlimited.data() : nullptr));
}

/// Memory for all elements, filled from the recipe. Nothing in it may be taken for a pointer.
std::vector<char> content(Recipe& recipe, hid_t type, hid_t space) {
  const hssize_t count = std::max<hssize_t>(H5Sget_simple_extent_npoints(space), 0);
  std::vector<char> bytes(static_cast<std::size_t>(count) * H5Tget_size(type) + 1);
  const bool pointers = H5Tdetect_class(type, H5T_VLEN) != 0 || H5Tis_variable_str(type) != 0 ||
                        H5Tdetect_class(type, H5T_REFERENCE) != 0;
  if (pointers) return bytes;
  const std::string pattern = recipe.text(1 + recipe.below(8));
  for (std::size_t n = 0; n + 1 < bytes.size(); ++n) bytes[n] = pattern[n % pattern.size()];
  return bytes;
}

void put_attribute(Recipe& recipe, hid_t object) {
  const std::string name = recipe.one_of(kAttributes);
  if (H5Aexists(object, name.c_str()) > 0) H5Adelete(object, name.c_str());
  switch (recipe.below(4)) {
    case 0:  // gone
      return;
    case 1: {  // a known word
      const std::string text = recipe.one_of(kTexts);
      const Id type(H5Tcopy(H5T_C_S1)), space(H5Screate(H5S_SCALAR));
      const bool variable = recipe.below(2) == 0;
      H5Tset_size(type, variable ? H5T_VARIABLE : text.size() + 1);
      const Id attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT));
      const char* pointer = text.c_str();
      H5Awrite(attribute, type, variable ? static_cast<const void*>(&pointer) : pointer);
      return;
    }
    default: {
      const Id type = any_type(recipe), space = any_space(recipe, false);
      const Id attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT));
      const std::vector<char> bytes = content(recipe, type, space);
      if (recipe.below(4) != 0) H5Awrite(attribute, type, bytes.data());
    }
  }
}

void put_dataset(Recipe& recipe, hid_t group, const std::string& name) {
  const Id type = any_type(recipe), space = any_space(recipe, true), properties(H5Pcreate(H5P_DATASET_CREATE));
  const int rank = std::max(0, H5Sget_simple_extent_ndims(space));
  switch (recipe.below(4)) {
    case 0:
      H5Pset_layout(properties, H5D_COMPACT);
      break;
    case 1:
      H5Pset_external(properties, "/nowhere/data", 0, H5F_UNLIMITED);
      break;
    case 2: {
      const std::vector<hsize_t> chunk(static_cast<std::size_t>(rank) + 1, 1 + recipe.below(4));
      if (rank > 0) H5Pset_chunk(properties, rank, chunk.data());
      if (recipe.below(2) == 0) H5Pset_shuffle(properties);
      if (recipe.below(2) == 0) H5Pset_deflate(properties, 1);
      if (recipe.below(2) == 0) H5Pset_fletcher32(properties);
      // HDF5 1.10 writes past its buffer where a type has bytes or bits without meaning.
      if (recipe.below(8) == 0 && H5Tget_precision(type) == 8 * H5Tget_size(type)) H5Pset_nbit(properties);
      break;
    }
    default:
      break;
  }
  const Id dataset(H5Dcreate2(group, name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT));
  const std::vector<char> bytes = content(recipe, type, space);
  if (dataset >= 0 && recipe.below(4) != 0) H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
}

/// New values for a dataset that is there.
void put_values(Recipe& recipe, hid_t group, const std::string& name) {
  if (H5Lexists(group, name.c_str(), H5P_DEFAULT) <= 0) return;
  const Id dataset(H5Oopen(group, name.c_str(), H5P_DEFAULT));
  if (dataset < 0 || H5Iget_type(dataset) != H5I_DATASET) return;
  const Id space(H5Dget_space(dataset)), type(H5Dget_type(dataset));
  if (H5Tget_class(type) != H5T_FLOAT) return;
  const std::vector<char> bytes = content(recipe, type, space);
  H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
}

void change(Recipe& recipe, hid_t file) {
  const std::string group_name = recipe.one_of(kGroups);
  const Id group(H5Gopen2(file, group_name.c_str(), H5P_DEFAULT));
  if (group < 0) return;
  const std::size_t kind = recipe.below(9);
  if (kind < 3) return put_attribute(recipe, group);
  const std::string name = recipe.one_of(kLinks);
  if (kind == 3) return put_values(recipe, group, name);
  if (H5Lexists(group, name.c_str(), H5P_DEFAULT) > 0) H5Ldelete(group, name.c_str(), H5P_DEFAULT);
  switch (kind) {
    case 4:  // gone
      return;
    case 5:
      H5Lcreate_soft(recipe.one_of(kGroups).c_str(), group, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      return;
    case 6:
      if (recipe.below(2) == 0)
        H5Lcreate_external("/nowhere/else.h5", "/inputs/q", group, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      else  // a loop, or two names for one object; not for the root, which HDF5 frees with the last of its names
        H5Lcreate_hard(file, kGroups[1 + recipe.below(kGroups.size() - 1)], group, name.c_str(), H5P_DEFAULT,
                       H5P_DEFAULT);
      return;
    case 7: {
      const Id created(H5Gcreate2(group, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
      return;
    }
    default:
      return put_dataset(recipe, group, name);
  }
}

/// Files to begin from: everything, and next to nothing.
const std::array<std::string, 2>& originals() {
  static const std::array<std::string, 2> images = [] {
    verify::Case plain = test::small_case(DType::float64, Gate::sigmoid, false, {1, 1, 2, 1, 1});
    plain.reference.reset();
    plain.kernel.reset();
    plain.attributes.clear();
    return std::array{verify::encode_case(plain),
                      verify::encode_case(test::small_case(DType::bfloat16, Gate::exp, true, {1, 1, 2, 1, 1}))};
  }();
  return images;
}

}  // namespace

std::string cook(std::string_view bytes) {
  H5E_auto2_t print = nullptr;
  void* data = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &print, &data);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Recipe recipe(bytes);
  std::string original = originals()[recipe.below(2)];
  verify::hdf5::ClosedImage image;
  {
    const Id access(H5Pcreate(H5P_FILE_ACCESS));
    image.keep_file(access);
    H5Pset_libver_bounds(access, recipe.below(2) == 0 ? H5F_LIBVER_EARLIEST : H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_file_image(access, original.data(), original.size());
    const Id file(H5Fopen("recipe", H5F_ACC_RDWR, access));
    for (int n = 0; n < 8 && !recipe.done(); ++n) change(recipe, file);
  }
  H5Eset_auto2(H5E_DEFAULT, print, data);
  return std::move(image.bytes);
}

}  // namespace mlstm::fuzz
