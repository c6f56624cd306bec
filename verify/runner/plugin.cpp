// SPDX-License-Identifier: Apache-2.0
#include "runner/plugin.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string_view>

#include "base/text.hpp"
#include "mlstm/reference/fields.hpp"
#include "mlstm_kernel.h"

namespace mlstm::verify {
namespace {

constexpr std::size_t kMostKernels = 1024, kLongestText = 1024, kMessage = 1024;

/// An exception that a plugin let out, which C functions may not. No std::runtime_error: it says nothing about numbers.
class EscapedException : public std::exception {
 public:
  explicit EscapedException(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

std::string type_of_current_exception() {
  const std::type_info* const type = abi::__cxa_current_exception_type();
  if (type == nullptr) return "an unknown type";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(type->name(), nullptr, nullptr, &status),
                                                    std::free);
  return status == 0 ? name.get() : type->name();
}

/// Calls a function of a plugin.
template <class Call>
auto guarded(const char* function, const Call& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& error) {
    throw EscapedException(
        fmt::format("an exception of type {} left {}: {}", type_of_current_exception(), function, error.what()));
  } catch (...) {
    throw EscapedException(fmt::format("an exception of type {} left {}", type_of_current_exception(), function));
  }
}

template <class T>
struct Value {
  std::uint32_t bit;
  T value;
  const char* name;
};

constexpr std::array<Value<DType>, 5> kDTypes{{{MLSTM_FLOAT64, DType::float64, "MLSTM_FLOAT64"},
                                               {MLSTM_FLOAT32, DType::float32, "MLSTM_FLOAT32"},
                                               {MLSTM_TFLOAT32, DType::tfloat32, "MLSTM_TFLOAT32"},
                                               {MLSTM_FLOAT16, DType::float16, "MLSTM_FLOAT16"},
                                               {MLSTM_BFLOAT16, DType::bfloat16, "MLSTM_BFLOAT16"}}};
constexpr std::array<Value<Gate>, 2> kGates{
    {{MLSTM_GATE_EXP, Gate::exp, "MLSTM_GATE_EXP"}, {MLSTM_GATE_SIGMOID, Gate::sigmoid, "MLSTM_GATE_SIGMOID"}}};
constexpr std::array<Value<StabilizerInit>, 2> kStabilizers{
    {{MLSTM_STABILIZER_ZERO, StabilizerInit::zero, "MLSTM_STABILIZER_ZERO"},
     {MLSTM_STABILIZER_NEG_INF, StabilizerInit::neg_inf, "MLSTM_STABILIZER_NEG_INF"}}};
constexpr std::array<Value<Convention>, 2> kConventions{
    {{MLSTM_GRADIENT_EXACT, Convention::exact, "MLSTM_GRADIENT_EXACT"},
     {MLSTM_GRADIENT_DETACHED, Convention::detached, "MLSTM_GRADIENT_DETACHED"}}};
constexpr std::array<Value<Module>, 3> kModules{{{MLSTM_RECURRENT, Module::recurrent, "MLSTM_RECURRENT"},
                                                 {MLSTM_PARALLEL, Module::parallel, "MLSTM_PARALLEL"},
                                                 {MLSTM_CHUNKWISE, Module::chunkwise, "MLSTM_CHUNKWISE"}}};
constexpr std::array<Value<Device>, 2> kDevices{
    {{MLSTM_DEVICE_CPU, Device::cpu, "MLSTM_DEVICE_CPU"}, {MLSTM_DEVICE_CUDA, Device::cuda, "MLSTM_DEVICE_CUDA"}}};

template <class T, std::size_t N>
std::uint32_t bit_of(const std::array<Value<T>, N>& values, T value) {
  return std::find_if(values.begin(), values.end(), [&](const auto& known) { return known.value == value; })->bit;
}

template <class T, std::size_t N>
std::string names_of(const std::array<Value<T>, N>& values) {
  std::string names;
  for (const auto& known : values) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

template <class T, std::size_t N>
T one_of(const std::array<Value<T>, N>& values, std::uint32_t bits, const char* field) {
  for (const auto& known : values)
    if (known.bit == bits) return known.value;
  throw std::invalid_argument(fmt::format("{} is {}; expected one of {}", field, bits, names_of(values)));
}

template <class T, std::size_t N>
std::vector<T> set_of(const std::array<Value<T>, N>& values, std::uint32_t bits, const char* field) {
  std::vector<T> set;
  std::uint32_t rest = bits;
  for (const auto& known : values)
    if ((bits & known.bit) != 0) {
      set.push_back(known.value);
      rest &= ~known.bit;
    }
  if (rest != 0)
    throw std::invalid_argument(fmt::format("{} is {}; expected a set of {}", field, bits, names_of(values)));
  return set;
}

std::optional<DType> optional_dtype(std::uint32_t bit, const char* field) {
  return bit == 0 ? std::nullopt : std::optional(one_of(kDTypes, bit, field));
}

SizeLimit limit_of(const mlstm_size_limit& declared) {
  SizeLimit limit;
  if (declared.min != 0) limit.min = declared.min;
  if (declared.max != 0) limit.max = declared.max;
  if (declared.multiple_of != 0) limit.multiple_of = declared.multiple_of;
  return limit;
}

std::string text_of(const char* text, const char* field) {
  if (text == nullptr) throw std::invalid_argument(fmt::format("{} is null; expected text", field));
  const std::size_t length = strnlen(text, kLongestText + 1);
  if (length > kLongestText)
    throw std::invalid_argument(fmt::format("{} is longer than {} bytes", field, kLongestText));
  return {text, length};
}

/// What the plugin filled of its structure; all else is 0. `least`: the size of its first edition.
template <class T>
T copy_of(const T* given, const char* what, std::size_t least = sizeof(T)) {
  if (given == nullptr) throw std::invalid_argument(fmt::format("{} is null", what));
  if (given->struct_size < least)
    throw std::invalid_argument(
        fmt::format("struct_size of {} is {}; expected at least {}", what, given->struct_size, least));
  T copy{};
  std::memcpy(&copy, given, std::min<std::size_t>(given->struct_size, sizeof copy));
  return copy;
}

VariantInfo declaration_of(const mlstm_kernel& kernel) {
  constexpr std::uint32_t kFlags = MLSTM_TAKES_INITIAL_STATES | MLSTM_RETURNS_LAST_STATES |
                                   MLSTM_TAKES_LAST_STATE_COTANGENTS | MLSTM_TAKES_UNNORMALIZED |
                                   MLSTM_FULL_PRECISION_ROWS | MLSTM_STRADDLING_GATE_SUMS | MLSTM_TRUNCATES;
  if ((kernel.flags & ~kFlags) != 0)
    throw std::invalid_argument(fmt::format("flags is {}; expected no others than {}", kernel.flags, kFlags));
  const auto flag = [&](std::uint32_t bit) { return (kernel.flags & bit) != 0; };
  VariantInfo info;
  info.module = one_of(kModules, kernel.module, "module");
  info.name = text_of(kernel.name, "name");
  info.description = text_of(kernel.description, "description");
  info.dtypes = set_of(kDTypes, kernel.dtypes, "dtypes");
  info.gates = set_of(kGates, kernel.gates, "gates");
  info.gradient_conventions = set_of(kConventions, kernel.gradients, "gradients");
  info.stabilizer_init = set_of(kStabilizers, kernel.stabilizer_inits, "stabilizer_inits");
  info.operand_dtype = optional_dtype(kernel.operand_dtype, "operand_dtype");
  info.state_dtype = optional_dtype(kernel.state_dtype, "state_dtype");
  info.gate_dtype = optional_dtype(kernel.gate_dtype, "gate_dtype");
  info.product_dtype = optional_dtype(kernel.product_dtype, "product_dtype");
  info.full_precision_rows = flag(MLSTM_FULL_PRECISION_ROWS);
  info.truncates = flag(MLSTM_TRUNCATES);
  info.straddling_gate_gradients = flag(MLSTM_STRADDLING_GATE_SUMS);
  info.unnormalized = flag(MLSTM_TAKES_UNNORMALIZED);
  info.initial_states = flag(MLSTM_TAKES_INITIAL_STATES);
  info.last_states = flag(MLSTM_RETURNS_LAST_STATES);
  info.last_state_cotangents = flag(MLSTM_TAKES_LAST_STATE_COTANGENTS);
  info.S = limit_of(kernel.S);
  info.L = limit_of(kernel.L);
  info.DHQK = limit_of(kernel.DHQK);
  info.DHV = limit_of(kernel.DHV);
  info.device = one_of(kDevices, kernel.device, "device");
  if (kernel.forward == nullptr) throw std::invalid_argument("forward is null; expected a function");
  if ((kernel.backward == nullptr) != (kernel.gradients == 0))
    throw std::invalid_argument(kernel.backward == nullptr
                                    ? "backward is null; expected a function, as gradients is not 0"
                                    : "backward is given, but gradients is 0");
  validate(info);
  return info;
}

mlstm_problem to_c(const Problem& problem) {
  mlstm_problem c{};
  c.struct_size = sizeof c;
  c.dtype = bit_of(kDTypes, problem.dtype);
  c.gate = bit_of(kGates, problem.gate);
  c.stabilizer_init = bit_of(kStabilizers, problem.stabilizer_init);
  c.normalize = problem.normalize ? 1 : 0;
  c.has_initial_state = problem.has_initial_state ? 1 : 0;
  c.eps = problem.eps;
  c.B = problem.shape.B;
  c.NH = problem.shape.NH;
  c.S = problem.shape.S;
  c.DHQK = problem.shape.DHQK;
  c.DHV = problem.shape.DHV;
  c.chunk_size = problem.chunk_size;
  return c;
}

template <class C, class Args>
C inputs_to_c(const Args& args) {
  C c{};
  c.struct_size = sizeof c;
  reference::copy_fields(args, reference::input_fields<Args>(), c, reference::input_fields<C>());
  c.workspace = args.workspace;
  c.stream = args.stream;
  return c;
}

class LoadedVariant final : public PluginVariant {
 public:
  /// `address` is what the plugin's functions get; `kernel` a copy of it.
  LoadedVariant(const std::string& library, VariantInfo info, const mlstm_kernel* address, const mlstm_kernel& kernel)
      : PluginVariant(library, std::move(info)), address_(address), kernel_(kernel) {}

  bool has_supports() const override { return kernel_.supports != nullptr; }

  std::string unsupported(const Problem& problem) const override {
    std::string reason = declared_limits(problem);
    if (!reason.empty() || kernel_.supports == nullptr) return reason;
    const mlstm_problem c = to_c(problem);
    Message message{};
    const int status =
        guarded("supports", [&] { return kernel_.supports(address_, &c, message.data(), message.size()); });
    if (status == 0) return {};
    reason = message_text(message);
    return reason.empty() ? fmt::format("supports returned {}", status) : reason;
  }

  std::size_t saved_size(const Problem& problem) const override {
    if (kernel_.saved_size == nullptr) return 0;
    const mlstm_problem c = to_c(problem);
    return guarded("saved_size", [&] { return kernel_.saved_size(address_, &c); });
  }

  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    if (kernel_.workspace_size == nullptr) return 0;
    const mlstm_problem c = to_c(problem);
    return guarded("workspace_size", [&] { return kernel_.workspace_size(address_, &c, backward ? 1 : 0); });
  }

  void forward(const Problem& problem, const ForwardArgs& args) const override {
    auto c_args = inputs_to_c<mlstm_forward_args>(args);
    reference::copy_fields(args, reference::output_fields<ForwardArgs>(), c_args,
                           reference::output_fields<mlstm_forward_args>());
    c_args.saved = args.saved;
    call("forward", kernel_.forward, problem, c_args);
  }

  void backward(const Problem& problem, const BackwardArgs& args) const override {
    if (kernel_.backward == nullptr) return Kernel::backward(problem, args);
    auto c_args = inputs_to_c<mlstm_backward_args>(args);
    c_args.convention = bit_of(kConventions, args.convention);
    c_args.h = args.h;
    c_args.saved = args.saved;
    reference::copy_fields(args, reference::cotangent_fields<BackwardArgs>(), c_args,
                           reference::cotangent_fields<mlstm_backward_args>());
    reference::copy_fields(args, reference::gradient_fields<BackwardArgs>(), c_args,
                           reference::gradient_fields<mlstm_backward_args>());
    call("backward", kernel_.backward, problem, c_args);
  }

 private:
  using Message = std::array<char, kMessage>;

  static std::string message_text(Message& message) {
    message.back() = 0;
    return one_line(message.data());
  }

  template <class Function, class Args>
  void call(const char* name, Function function, const Problem& problem, const Args& args) const {
    if (const std::string reason = declared_limits(problem); !reason.empty())
      throw std::invalid_argument(info().key() + ": " + reason);
    const mlstm_problem c = to_c(problem);
    Message message{};
    const int status = guarded(name, [&] { return function(address_, &c, &args, message.data(), message.size()); });
    if (status == 0) return;
    const std::string text = message_text(message);
    throw std::runtime_error(fmt::format("{} returned {}{}{}", name, status, text.empty() ? "" : ": ", text));
  }

  const mlstm_kernel* address_;
  mlstm_kernel kernel_;
};

/// Opens the library and finds its kernels. Its constructors, and mlstm_kernels, run here.
mlstm_kernel_library open_library(const std::filesystem::path& path) {
  void* const handle = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::invalid_argument(fmt::format("cannot be loaded ({})", dlerror()));
  void* const symbol = dlsym(handle, "mlstm_kernels");
  if (symbol == nullptr)
    throw std::invalid_argument("exports no function mlstm_kernels; expected a plugin as mlstm_kernel.h describes it");
  const auto entry = reinterpret_cast<decltype(&mlstm_kernels)>(symbol);
  const mlstm_kernel_library* const library = guarded("mlstm_kernels", [&] { return entry(MLSTM_KERNEL_ABI_VERSION); });
  if (library == nullptr)
    throw std::invalid_argument(
        fmt::format("mlstm_kernels returned null: the plugin does not serve version {} of mlstm_kernel.h",
                    MLSTM_KERNEL_ABI_VERSION));
  // The version first: of another one, nothing else is known.
  if (library->abi_version != MLSTM_KERNEL_ABI_VERSION)
    throw std::invalid_argument(
        fmt::format("abi_version is {}; expected {}", library->abi_version, MLSTM_KERNEL_ABI_VERSION));
  const auto copy = copy_of(library, "mlstm_kernel_library");
  if (copy.kernel_count == 0 || copy.kernel_count > kMostKernels)
    throw std::invalid_argument(fmt::format("kernel_count is {}; expected 1 to {}", copy.kernel_count, kMostKernels));
  if (copy.kernels == nullptr) throw std::invalid_argument("kernels is null; expected an array");
  return copy;
}

}  // namespace

void validate(const VariantInfo& info) {
  const auto refuse = [](std::string_view field, std::string_view value, std::string_view expected) {
    throw std::invalid_argument(fmt::format("{} is \"{}\"; expected {}", field, one_line(value), expected));
  };
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  if (info.name.empty() || info.name.size() > 100 || info.name.find_first_not_of(letters) != std::string::npos)
    refuse("name", info.name.substr(0, 100), "1 to 100 letters, digits, '_', '-' and '.'");
  if (info.description.empty() || info.description.size() > kLongestText ||
      info.description != one_line(info.description))
    refuse("description", info.description.substr(0, 100), "one line of UTF-8 text");
  if (info.dtypes.empty()) refuse("dtypes", "0", "at least one");
  if (std::find(info.dtypes.begin(), info.dtypes.end(), DType::tfloat32) != info.dtypes.end())
    refuse("dtypes", "tfloat32", "storage formats only: float64, float32, float16, bfloat16");
  if (info.gates.empty()) refuse("gates", "0", "at least one");
  const bool has_exp = std::find(info.gates.begin(), info.gates.end(), Gate::exp) != info.gates.end();
  if (has_exp && info.stabilizer_init.empty()) refuse("stabilizer_inits", "0", "at least one with the exp gate");
  if (!has_exp && !info.stabilizer_init.empty()) refuse("stabilizer_inits", "not 0", "0 without the exp gate");
  if (info.last_state_cotangents && (!info.last_states || info.gradient_conventions.empty()))
    refuse("last_state_cotangents", "1", "it only of a variant that returns last states and computes gradients");
  for (const auto& [name, limit] :
       {std::pair{"S", info.S}, std::pair{"L", info.L}, std::pair{"DHQK", info.DHQK}, std::pair{"DHV", info.DHV}})
    if (limit.min < 1 || limit.multiple_of < 1 || limit.max < limit.min ||
        limit.max / limit.multiple_of < (limit.min - 1) / limit.multiple_of + 1)
      refuse(fmt::format("the limit of {}", name),
             fmt::format("{} to {} in multiples of {}", limit.min, limit.max, limit.multiple_of),
             "positive numbers that admit some size");
}

PluginVariants load_plugin(const std::filesystem::path& path) {
  const std::string name = path.string();
  PluginVariants variants;
  std::string place;
  try {
    const mlstm_kernel_library library = open_library(path);
    for (std::size_t n = 0; n < library.kernel_count; ++n) {
      place = fmt::format("kernel {}: ", n);
      const mlstm_kernel* const address = library.kernels[n];
      const mlstm_kernel kernel = copy_of(address, "mlstm_kernel", offsetof(mlstm_kernel, gate_dtype));
      if (kernel.name != nullptr) place = fmt::format("kernel {} ({}): ", n, text_of(kernel.name, "name"));
      variants.push_back(std::make_unique<LoadedVariant>(name, declaration_of(kernel), address, kernel));
      for (std::size_t other = 0; other < n; ++other)
        if (variants[other]->info().key() == variants[n]->info().key())
          throw std::invalid_argument(fmt::format("is named {} as kernel {} is", variants[n]->info().key(), other));
    }
  } catch (const std::exception& error) {
    throw PluginError(fmt::format("plugin {}: {}{}", name, place, error.what()));
  }
  return variants;
}

}  // namespace mlstm::verify
