// SPDX-License-Identifier: Apache-2.0
#include "runner/worker_frames.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/text.hpp"

namespace mlstm::verify {
namespace {

constexpr std::uint32_t kDTypes = 5, kGates = 2, kStabilizers = 2, kConventions = 2, kModules = 3, kDevices = 2;
constexpr std::uint32_t kMostVariants = 1024;

/// What memory_of(device).description() may say. Others would let a worker change what bounds are computed from.
constexpr std::array<std::string_view, 6> kDeviceAttributes{
    "device", "device_name", "compute_capability", "driver_version", "driver_cuda_version", "cuda_runtime_version"};

template <class E>
void put_choice(FieldWriter& fields, E value) {
  fields.put(static_cast<std::uint32_t>(value));
}

void put_flag(FieldWriter& fields, bool value) { fields.put(static_cast<std::uint8_t>(value)); }

template <class E>
void put_optional(FieldWriter& fields, const std::optional<E>& value) {
  put_flag(fields, value.has_value());
  if (value) put_choice(fields, *value);
}

template <class E>
std::optional<E> get_optional(FieldReader& fields, std::uint32_t count) {
  return fields.flag() ? std::optional(fields.choice<E>(count)) : std::nullopt;
}

template <class E>
void put_set(FieldWriter& fields, const std::vector<E>& values) {
  fields.put(static_cast<std::uint32_t>(values.size()));
  for (const E value : values) put_choice(fields, value);
}

template <class E>
std::vector<E> get_set(FieldReader& fields, std::uint32_t count) {
  std::vector<E> values(fields.number_below(count + 1));
  for (E& value : values) value = fields.choice<E>(count);
  return values;
}

void put(FieldWriter& fields, const SizeLimit& limit) {
  for (const std::int64_t n : {limit.min, limit.max, limit.multiple_of}) fields.put(n);
}

SizeLimit get_limit(FieldReader& fields) {
  SizeLimit limit;
  for (std::int64_t* n : {&limit.min, &limit.max, &limit.multiple_of}) *n = fields.get<std::int64_t>();
  return limit;
}

void put(FieldWriter& fields, const VariantInfo& info) {
  put_choice(fields, info.module);
  fields.text(info.name);
  fields.text(info.description);
  put_set(fields, info.dtypes);
  put_set(fields, info.gates);
  put_set(fields, info.gradient_conventions);
  put_set(fields, info.stabilizer_init);
  put_optional(fields, info.operand_dtype);
  put_optional(fields, info.state_dtype);
  for (const bool flag : {info.full_precision_rows, info.straddling_gate_gradients, info.unnormalized,
                          info.initial_states, info.last_states, info.last_state_cotangents})
    put_flag(fields, flag);
  for (const SizeLimit& limit : {info.S, info.L, info.DHQK, info.DHV}) put(fields, limit);
  put_choice(fields, info.device);
}

VariantInfo get_info(FieldReader& fields) {
  VariantInfo info;
  info.module = fields.choice<Module>(kModules);
  info.name = fields.text();
  info.description = fields.text();
  info.dtypes = get_set<DType>(fields, kDTypes);
  info.gates = get_set<Gate>(fields, kGates);
  info.gradient_conventions = get_set<Convention>(fields, kConventions);
  info.stabilizer_init = get_set<StabilizerInit>(fields, kStabilizers);
  info.operand_dtype = get_optional<DType>(fields, kDTypes);
  info.state_dtype = get_optional<DType>(fields, kDTypes);
  for (bool* flag : {&info.full_precision_rows, &info.straddling_gate_gradients, &info.unnormalized,
                     &info.initial_states, &info.last_states, &info.last_state_cotangents})
    *flag = fields.flag();
  for (SizeLimit* limit : {&info.S, &info.L, &info.DHQK, &info.DHV}) *limit = get_limit(fields);
  info.device = fields.choice<Device>(kDevices);
  return info;
}

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

}  // namespace

void FieldWriter::text(std::string_view text) {
  text = text.substr(0, kLongestText);
  put(static_cast<std::uint32_t>(text.size()));
  bytes_.append(text);
}

void FieldReader::copy(void* to, std::size_t size) {
  if (size > rest_.size()) throw FrameError("its fields end early");
  std::memcpy(to, rest_.data(), size);
  rest_.remove_prefix(size);
}

std::uint32_t FieldReader::number_below(std::uint32_t bound) {
  const auto number = get<std::uint32_t>();
  if (number >= bound) throw FrameError(fmt::format("a field is {}; expected less than {}", number, bound));
  return number;
}

bool FieldReader::flag() {
  const auto byte = get<std::uint8_t>();
  if (byte > 1) throw FrameError(fmt::format("a flag is {}; expected 0 or 1", byte));
  return byte == 1;
}

std::string FieldReader::text() {
  std::string text(number_below(kLongestText + 1), '\0');
  copy(text.data(), text.size());
  return text;
}

void FieldReader::finish() const {
  if (!rest_.empty()) throw FrameError(fmt::format("it has {} bytes more than its fields", rest_.size()));
}

std::uint64_t size_of(const Source& source) { return total(source); }
std::uint64_t size_of(const Target& target) { return total(target); }

void put(FieldWriter& fields, const Problem& problem) {
  const Shape& shape = problem.shape;
  for (const std::int64_t n : {shape.B, shape.NH, shape.S, shape.DHQK, shape.DHV, problem.chunk_size}) fields.put(n);
  put_choice(fields, problem.gate);
  put_choice(fields, problem.dtype);
  put_choice(fields, problem.stabilizer_init);
  put_flag(fields, problem.normalize);
  put_flag(fields, problem.has_initial_state);
  fields.put(problem.eps);
}

Problem get_problem(FieldReader& fields) {
  Problem problem;
  Shape& shape = problem.shape;
  for (std::int64_t* n : {&shape.B, &shape.NH, &shape.S, &shape.DHQK, &shape.DHV, &problem.chunk_size})
    *n = fields.get<std::int64_t>();
  problem.gate = fields.choice<Gate>(kGates);
  problem.dtype = fields.choice<DType>(kDTypes);
  problem.stabilizer_init = fields.choice<StabilizerInit>(kStabilizers);
  problem.normalize = fields.flag();
  problem.has_initial_state = fields.flag();
  problem.eps = fields.get<double>();
  return problem;
}

std::string encode(const RunRequest& request) {
  FieldWriter fields;
  fields.text(request.library);
  fields.text(request.key);
  put(fields, request.problem);
  fields.put(static_cast<std::uint32_t>(request.cotangents.size()));
  for (const std::string& name : request.cotangents) fields.text(name);
  put_optional(fields, request.convention);
  fields.put(static_cast<std::int64_t>(request.options.repeats));
  put_flag(fields, request.options.guarded);
  return fields.take();
}

RunRequest decode_run(std::string_view bytes) {
  FieldReader fields(bytes);
  RunRequest request;
  request.library = fields.text();
  request.key = fields.text();
  request.problem = get_problem(fields);
  request.cotangents.resize(fields.number_below(5));
  for (std::string& name : request.cotangents) name = fields.text();
  request.convention = get_optional<Convention>(fields, kConventions);
  request.options.repeats = static_cast<int>(fields.get<std::int64_t>());
  request.options.guarded = fields.flag();
  fields.finish();
  return request;
}

Source tensors_of(const Case& c) {
  Source source;
  for (const std::string& name : input_names(c.problem)) source.push_back(bytes_of(c.inputs.at(name)));
  for (const auto& [name, array] : c.cotangents) source.push_back(bytes_of(array));
  return source;
}

Case make_room(const RunRequest& request) {
  Case c;
  c.problem = request.problem;
  for (const std::string& name : input_names(c.problem)) c.inputs[name] = array_for(name, c.problem.shape);
  for (const std::string& name : request.cotangents) c.cotangents[name] = array_for(name, c.problem.shape);
  return c;
}

Target room_in(Case& c) {
  Target target;
  for (const std::string& name : input_names(c.problem)) target.push_back(room_of(c.inputs.at(name)));
  for (auto& [name, array] : c.cotangents) target.push_back(room_of(array));
  return target;
}

std::string encode(const std::vector<Described>& variants) {
  FieldWriter fields;
  fields.put(static_cast<std::uint32_t>(variants.size()));
  for (const Described& variant : variants) {
    put(fields, variant.info);
    put_flag(fields, variant.has_supports);
  }
  return fields.take();
}

std::vector<Described> decode_variants(std::string_view bytes) {
  FieldReader fields(bytes);
  std::vector<Described> variants;
  const std::uint32_t count = fields.number_below(kMostVariants + 1);
  if (count == 0) throw FrameError("it names no variant");
  for (std::uint32_t n = 0; n < count; ++n) {
    Described variant;
    variant.info = get_info(fields);
    variant.has_supports = fields.flag();
    try {
      validate(variant.info);
    } catch (const std::invalid_argument& error) {
      throw FrameError(error.what());
    }
    variants.push_back(std::move(variant));
  }
  fields.finish();
  return variants;
}

std::string encode_device(const Attributes& attributes) {
  FieldWriter fields;
  for (const std::string_view name : kDeviceAttributes) {
    const auto found = attributes.find(std::string(name));
    const auto* text = found == attributes.end() ? nullptr : std::get_if<std::string>(&found->second);
    fields.text(text == nullptr ? "" : *text);
  }
  return fields.take();
}

Attributes decode_device(std::string_view bytes) {
  FieldReader fields(bytes);
  Attributes attributes;
  for (const std::string_view name : kDeviceAttributes)
    if (std::string text = fields.text(); !text.empty()) attributes[std::string(name)] = std::move(text);
  fields.finish();
  return attributes;
}

std::string encode(const CheckFailure& failure) {
  FieldWriter fields;
  fields.text(failure.what());
  fields.put(static_cast<std::uint32_t>(failure.check()));
  fields.text(failure.buffer());
  return fields.take();
}

CheckFailure decode_failure(std::string_view bytes) {
  FieldReader fields(bytes);
  const std::string text = one_line(fields.text());
  const auto check = fields.choice<RunCheck>(kRunChecks.size());
  const std::string buffer = one_line(fields.text());
  fields.finish();
  return {check, buffer, text};
}

KernelData make_room(const VariantInfo& info, const Problem& problem, std::optional<Convention> convention) {
  KernelData data = declared_data(info, problem, convention);
  for (const std::string& name : output_names(problem))
    if (name == "h" || info.last_states) data.outputs[name] = array_for(name, problem.shape);
  if (convention)
    for (const std::string& name : input_names(problem)) data.gradients[name] = array_for(name, problem.shape);
  return data;
}

Target room_in(KernelData& data) {
  Target target;
  for (TensorMap* tensors : {&data.outputs, &data.gradients})
    for (auto& [name, array] : *tensors) target.push_back(room_of(array));
  return target;
}

Source tensors_of(const KernelData& data) {
  Source source;
  for (const TensorMap* tensors : {&data.outputs, &data.gradients})
    for (const auto& [name, array] : *tensors) source.push_back(bytes_of(array));
  return source;
}

}  // namespace mlstm::verify
