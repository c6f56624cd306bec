// SPDX-License-Identifier: Apache-2.0
#include "runner/worker_frames.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.hpp"

namespace mlstm::verify {
namespace {

constexpr std::size_t kMostVariants = 1024;
/// Last states, their cotangents and dh, gradients of initial states.
constexpr std::size_t kMostNulls = 10;

/// What memory_of(device).description() may say. Others would let a worker change what bounds are computed from.
constexpr std::array<std::string_view, 6> kDeviceAttributes{
    "device", "device_name", "compute_capability", "driver_version", "driver_cuda_version", "cuda_runtime_version"};

/// A CheckFailure in parts.
struct FailureFields {
  std::string text;
  RunCheck check = RunCheck::red_zone;
  std::string buffer;
};

}  // namespace

namespace codec {

template <class Pipe>
void transfer(Pipe& pipe, SizeLimit& limit) {
  for (std::int64_t* n : {&limit.min, &limit.max, &limit.multiple_of}) transfer(pipe, *n);
}

/// A set of values of an enumeration.
template <class Pipe, class E>
requires std::is_enum_v<E>
void transfer(Pipe& pipe, std::vector<E>& set) { transfer_list(pipe, set, 0, static_cast<std::size_t>(kLast<E>) + 1); }

template <class Pipe>
void transfer(Pipe& pipe, VariantInfo& info) {
  transfer(pipe, info.module);
  transfer(pipe, info.name);
  transfer(pipe, info.description);
  transfer(pipe, info.dtypes);
  transfer(pipe, info.gates);
  transfer(pipe, info.gradient_conventions);
  transfer(pipe, info.stabilizer_init);
  transfer(pipe, info.operand_dtype);
  transfer(pipe, info.state_dtype);
  transfer(pipe, info.gate_dtype);
  transfer(pipe, info.product_dtype);
  for (bool* flag : {&info.full_precision_rows, &info.truncates, &info.straddling_gate_gradients, &info.unnormalized,
                     &info.initial_states, &info.last_states, &info.last_state_cotangents})
    transfer(pipe, *flag);
  for (SizeLimit* limit : {&info.S, &info.L, &info.DHQK, &info.DHV}) transfer(pipe, *limit);
  transfer(pipe, info.device);
}

template <class Pipe>
void transfer(Pipe& pipe, Described& variant) {
  transfer(pipe, variant.info);
  transfer(pipe, variant.has_supports);
}

template <class Pipe>
void transfer(Pipe& pipe, std::vector<Described>& variants) {
  transfer_list(pipe, variants, 1, kMostVariants);
}

/// The values of kDeviceAttributes.
template <class Pipe>
void transfer(Pipe& pipe, std::vector<std::string>& texts) {
  transfer_list(pipe, texts, kDeviceAttributes.size(), kDeviceAttributes.size());
}

template <>
inline constexpr RunCheck kLast<RunCheck> = static_cast<RunCheck>(kRunChecks.size() - 1);

template <class Pipe>
void transfer(Pipe& pipe, FailureFields& failure) {
  transfer(pipe, failure.text);
  transfer(pipe, failure.check);
  transfer(pipe, failure.buffer);
}

template <class Pipe>
void transfer(Pipe& pipe, CaseOutline& outline) {
  transfer(pipe, outline.problem);
  transfer_list(pipe, outline.cotangents, 0, 1 + kLastStates.size());
}

template <>
inline constexpr Company kLast<Company> = Company::threads;

template <class Pipe>
void transfer(Pipe& pipe, RunRequest& request) {
  transfer(pipe, request.library);
  transfer(pipe, request.key);
  transfer(pipe, request.outline);
  transfer(pipe, request.convention);
  transfer(pipe, request.options.repeats);
  transfer(pipe, request.options.guarded);
  transfer(pipe, request.options.accept_nondeterminism);
  transfer_list(pipe, request.options.nulls, 0, kMostNulls);
  transfer(pipe, request.options.company);
  transfer(pipe, request.other);
}

}  // namespace codec

namespace {

std::span<const std::byte> bytes_of(const Array& array) {
  return std::as_bytes(std::span<const double>(array.data(), array.size()));
}

std::span<std::byte> room_of(Array& array) {
  return std::as_writable_bytes(std::span<double>(array.data(), array.size()));
}

Array array_for(const std::string& tensor, const Shape& shape) {
  const std::vector<std::int64_t> extents = shape_of(tensor, shape);
  return Array::from_shape({extents.begin(), extents.end()});
}

template <class Spans>
std::uint64_t total(const Spans& spans) {
  std::uint64_t bytes = 0;
  for (const auto& span : spans) bytes += span.size();
  return bytes;
}

/// The fields of a value.
template <class T>
std::string written(T value) {
  codec::MemoryWriter writer;
  codec::transfer(writer, value);
  return writer.take();
}

/// The value that all of these fields make. Throws FrameError.
template <class T>
T read(std::string_view fields) {
  codec::MemoryReader reader(fields);
  T value;
  codec::transfer(reader, value);
  reader.finish();
  return value;
}

}  // namespace

std::string encode_text(std::string_view text) {
  std::string cut(text.substr(0, codec::MemoryWriter::kLongestText));
  return written(cut);
}

std::string decode_text(std::string_view fields) { return read<std::string>(fields); }

std::uint64_t size_of(const Source& source) { return total(source); }
std::uint64_t size_of(const Target& target) { return total(target); }

std::string encode(const RunRequest& request) { return written(request); }
RunRequest decode_run(std::string_view fields) { return read<RunRequest>(fields); }

Source tensors_of(const Case& c) {
  Source source;
  for (const std::string& name : input_names(c.problem)) source.push_back(bytes_of(c.inputs.at(name)));
  for (const auto& [name, array] : c.cotangents) source.push_back(bytes_of(array));
  return source;
}

CaseOutline outline_of(const Case& c) {
  CaseOutline outline{c.problem, {}};
  for (const auto& [name, array] : c.cotangents) outline.cotangents.push_back(name);
  return outline;
}

Case make_room(const CaseOutline& outline) {
  Case c;
  c.problem = outline.problem;
  for (const std::string& name : input_names(c.problem)) c.inputs[name] = array_for(name, c.problem.shape);
  for (const std::string& name : outline.cotangents) c.cotangents[name] = array_for(name, c.problem.shape);
  return c;
}

Target room_in(Case& c) {
  Target target;
  for (const std::string& name : input_names(c.problem)) target.push_back(room_of(c.inputs.at(name)));
  for (auto& [name, array] : c.cotangents) target.push_back(room_of(array));
  return target;
}

std::string encode(const std::vector<Described>& variants) { return written(variants); }

std::vector<Described> decode_variants(std::string_view fields) {
  std::vector<Described> variants = read<std::vector<Described>>(fields);
  for (const Described& variant : variants) {
    try {
      validate(variant.info);
    } catch (const std::invalid_argument& error) {
      throw FrameError(error.what());
    }
  }
  return variants;
}

std::string encode_device(const Attributes& attributes) {
  std::vector<std::string> texts;
  for (const std::string_view name : kDeviceAttributes) {
    const auto found = attributes.find(std::string(name));
    const auto* text = found == attributes.end() ? nullptr : std::get_if<std::string>(&found->second);
    texts.push_back(text == nullptr ? "" : *text);
  }
  return written(texts);
}

Attributes decode_device(std::string_view fields) {
  std::vector<std::string> texts = read<std::vector<std::string>>(fields);
  Attributes attributes;
  for (std::size_t n = 0; n < texts.size(); ++n)
    if (!texts[n].empty()) attributes[std::string(kDeviceAttributes[n])] = std::move(texts[n]);
  return attributes;
}

std::string encode(const CheckFailure& failure) {
  const std::string_view text = failure.what();
  return written(FailureFields{std::string(text.substr(0, codec::MemoryWriter::kLongestText)), failure.check(),
                               std::string(failure.buffer())});
}

CheckFailure decode_failure(std::string_view bytes) {
  const auto failure = read<FailureFields>(bytes);
  return {failure.check, one_line(failure.buffer), one_line(failure.text)};
}

KernelData make_room(const VariantInfo& info, const Problem& problem, std::optional<Convention> convention,
                     const RunOptions& how) {
  KernelData data = declared_data(info, problem, convention);
  const auto wanted = [&](const std::string& name) {
    return std::find(how.nulls.begin(), how.nulls.end(), name) == how.nulls.end();
  };
  for (const std::string& name : output_names(problem))
    if ((name == "h" || info.last_states) && wanted(name)) data.outputs[name] = array_for(name, problem.shape);
  if (convention)
    for (const std::string& name : input_names(problem))
      if (wanted("d" + name)) data.gradients[name] = array_for(name, problem.shape);
  if (how.accept_nondeterminism && how.company == Company::alone) {
    for (const auto& [name, values] : data.outputs) data.spread[name] = array_for(name, problem.shape);
    for (const auto& [name, values] : data.gradients) data.spread["d" + name] = array_for(name, problem.shape);
  }
  return data;
}

Target room_in(KernelData& data) {
  Target target;
  for (TensorMap* tensors : {&data.outputs, &data.gradients, &data.spread})
    for (auto& [name, array] : *tensors) target.push_back(room_of(array));
  return target;
}

Source tensors_of(const KernelData& data) {
  Source source;
  for (const TensorMap* tensors : {&data.outputs, &data.gradients, &data.spread})
    for (const auto& [name, array] : *tensors) source.push_back(bytes_of(array));
  return source;
}

}  // namespace mlstm::verify
