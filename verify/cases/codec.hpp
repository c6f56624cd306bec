// SPDX-License-Identifier: Apache-2.0
// How cases, and what belongs to them, go from one process of this program to another: from the one that reads files,
// and to and from those that run kernels. One description of the format serves both directions. Both ends are the same
// program, so that the representation of plain values is free; but the receiving one believes no size, and takes no
// value that its type does not have: the other may have lost its mind.
//
// A pipe is a type with bytes(address, size), which sends or fills, kReceives, and the size of the longest text.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cases/case.hpp"
#include "mlstm/kernel.hpp"

namespace mlstm::verify {

/// What arrived is not what it should be.
class CodecError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace codec {

constexpr std::size_t kPiece = std::size_t{1} << 16;  // of bytes or numbers, for which memory is taken at once
constexpr std::size_t kLargestRank = 32;              // HDF5's

/// Into a string.
class MemoryWriter {
 public:
  static constexpr bool kReceives = false;
  static constexpr std::size_t kLongestText = 64 << 10;
  void bytes(const void* data, std::size_t size) { bytes_.append(static_cast<const char*>(data), size); }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

/// Out of a string. Throws CodecError where it ends early.
class MemoryReader {
 public:
  static constexpr bool kReceives = true;
  static constexpr std::size_t kLongestText = MemoryWriter::kLongestText;
  explicit MemoryReader(std::string_view bytes) : rest_(bytes) {}
  void bytes(void* data, std::size_t size) {
    if (size > rest_.size()) throw CodecError("its fields end early");
    std::memcpy(data, rest_.data(), size);
    rest_.remove_prefix(size);
  }
  /// Throws CodecError unless everything was read.
  void finish() const {
    if (!rest_.empty()) throw CodecError(fmt::format("it has {} bytes more than its fields", rest_.size()));
  }

 private:
  std::string_view rest_;
};

template <class T>
inline constexpr T kLast = T{};
template <>
inline constexpr Gate kLast<Gate> = Gate::sigmoid;
template <>
inline constexpr StabilizerInit kLast<StabilizerInit> = StabilizerInit::neg_inf;
template <>
inline constexpr Convention kLast<Convention> = Convention::detached;
template <>
inline constexpr DType kLast<DType> = DType::bfloat16;
template <>
inline constexpr Module kLast<Module> = Module::chunkwise;
template <>
inline constexpr Device kLast<Device> = Device::cuda;

template <class Pipe, class T>
requires std::is_arithmetic_v<T>
void transfer(Pipe& pipe, T& value) { pipe.bytes(&value, sizeof value); }

template <class Pipe, class T>
requires std::is_enum_v<T>
void transfer(Pipe& pipe, T& value) {
  auto number = static_cast<int>(value);
  transfer(pipe, number);
  if (number < 0 || number > static_cast<int>(kLast<T>))
    throw CodecError(fmt::format("a field is {}; expected 0 to {}", number, static_cast<int>(kLast<T>)));
  value = static_cast<T>(number);
}

template <class Pipe>
void transfer(Pipe& pipe, bool& value) {
  char byte = value ? 1 : 0;
  transfer(pipe, byte);
  if (byte != 0 && byte != 1) throw CodecError(fmt::format("a flag is {}; expected 0 or 1", static_cast<int>(byte)));
  value = byte == 1;
}

template <class Pipe, class T>
void transfer(Pipe& pipe, std::optional<T>& value) {
  bool present = value.has_value();
  transfer(pipe, present);
  if (!present) return;
  if constexpr (Pipe::kReceives) value.emplace();
  transfer(pipe, *value);
}

template <class Pipe>
void transfer(Pipe& pipe, std::string& text) {
  std::size_t size = text.size();
  transfer(pipe, size);
  if (size > Pipe::kLongestText)
    throw CodecError(fmt::format("a text has {} bytes; expected at most {}", size, Pipe::kLongestText));
  if constexpr (Pipe::kReceives) text.clear();
  for (std::size_t done = 0, piece; done < size; done += piece) {
    piece = std::min(size - done, kPiece);
    if constexpr (Pipe::kReceives) text.resize(done + piece);
    pipe.bytes(text.data() + done, piece);
  }
}

/// At least `least` and at most `most` elements.
template <class Pipe, class T>
void transfer_list(Pipe& pipe, std::vector<T>& list, std::size_t least, std::size_t most) {
  std::size_t size = list.size();
  transfer(pipe, size);
  if (size < least || size > most)
    throw CodecError(fmt::format("a list has {} elements; expected {} to {}", size, least, most));
  if constexpr (Pipe::kReceives) list.resize(size);
  for (T& element : list) transfer(pipe, element);
}

template <class Pipe>
void transfer(Pipe& pipe, Problem& problem) {
  Shape& shape = problem.shape;
  for (std::int64_t* extent : {&shape.B, &shape.NH, &shape.S, &shape.DHQK, &shape.DHV}) transfer(pipe, *extent);
  transfer(pipe, problem.gate);
  transfer(pipe, problem.normalize);
  transfer(pipe, problem.eps);
  transfer(pipe, problem.dtype);
  transfer(pipe, problem.stabilizer_init);
  transfer(pipe, problem.chunk_size);
  transfer(pipe, problem.has_initial_state);
}

template <class Pipe>
void transfer(Pipe& pipe, Array& array) {
  std::size_t rank = array.dimension();
  transfer(pipe, rank);
  if (rank > kLargestRank) throw CodecError("an array has too many dimensions");
  std::vector<std::size_t> shape(array.shape().begin(), array.shape().end());
  shape.resize(rank);
  pipe.bytes(shape.data(), rank * sizeof(std::size_t));
  std::size_t count = 1, stride = 1;  // strides are computed from the other extents if one is zero
  for (const std::size_t extent : shape) {
    if (__builtin_mul_overflow(stride, std::max<std::size_t>(extent, 1), &stride))
      throw CodecError("an array is too large");
    count *= extent;
  }
  if (stride > std::numeric_limits<std::ptrdiff_t>::max() / sizeof(double)) throw CodecError("an array is too large");
  if constexpr (Pipe::kReceives) {
    // No memory is taken before there is something to fill it; what is too large for one piece is put together later.
    std::deque<std::vector<double>> pieces;
    for (std::size_t done = 0; done < count; done += pieces.back().size()) {
      pieces.emplace_back(std::min(count - done, kPiece));
      pipe.bytes(pieces.back().data(), pieces.back().size() * sizeof(double));
    }
    array = Array::from_shape({shape.begin(), shape.end()});
    for (double* next = array.data(); !pieces.empty(); pieces.pop_front())
      next = std::copy(pieces.front().begin(), pieces.front().end(), next);
  } else {
    pipe.bytes(array.data(), array.size() * sizeof(double));
  }
}

template <class Pipe>
void transfer(Pipe& pipe, OpaqueAttribute& attribute) {
  transfer(pipe, attribute.type);
  transfer(pipe, attribute.space);
  transfer(pipe, attribute.data);
}

template <class Pipe>
void transfer(Pipe& pipe, Attribute& attribute) {
  std::size_t index = attribute.index();
  transfer(pipe, index);
  if constexpr (Pipe::kReceives) {
    switch (index) {
      case 0:
        attribute = std::int64_t{};
        break;
      case 1:
        attribute = double{};
        break;
      case 2:
        attribute = std::string{};
        break;
      case 3:
        attribute = OpaqueAttribute{};
        break;
      default:
        throw CodecError("an attribute is of no known type");
    }
  }
  std::visit([&](auto& value) { transfer(pipe, value); }, attribute);
}

template <class Pipe, class T>
void transfer(Pipe& pipe, std::map<std::string, T>& map) {
  std::size_t size = map.size();
  transfer(pipe, size);
  if constexpr (Pipe::kReceives) {
    for (std::size_t n = 0; n < size; ++n) {
      std::string key;
      transfer(pipe, key);
      transfer(pipe, map[key]);
    }
  } else {
    for (auto& [key, value] : map) {
      std::string name = key;
      transfer(pipe, name);
      transfer(pipe, value);
    }
  }
}

template <class Pipe>
void transfer(Pipe& pipe, ReferenceData& reference) {
  for (TensorMap* tensors : {&reference.outputs, &reference.exact, &reference.detached, &reference.bounds})
    transfer(pipe, *tensors);
  transfer(pipe, reference.attributes);
}

template <class Pipe>
void transfer(Pipe& pipe, KernelData& kernel) {
  transfer(pipe, kernel.variant);
  transfer(pipe, kernel.formulation);
  transfer(pipe, kernel.convention);
  transfer(pipe, kernel.operand_dtype);
  transfer(pipe, kernel.state_dtype);
  transfer(pipe, kernel.gate_dtype);
  transfer(pipe, kernel.product_dtype);
  transfer(pipe, kernel.outputs);
  transfer(pipe, kernel.gradients);
  transfer(pipe, kernel.attributes);
}

template <class Pipe>
void transfer(Pipe& pipe, Case& c) {
  transfer(pipe, c.name);
  transfer(pipe, c.problem);
  transfer(pipe, c.inputs);
  transfer(pipe, c.cotangents);
  transfer(pipe, c.reference);
  transfer(pipe, c.kernel);
  transfer(pipe, c.attributes);
}

}  // namespace codec

}  // namespace mlstm::verify
