// SPDX-License-Identifier: Apache-2.0
// mlstm list: every variant and what it declares.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/json.hpp"
#include "cli/cli.hpp"

namespace mlstm::cli {
namespace {
using verify::Json;

template <class E>
std::vector<std::string_view> names_of(const std::vector<E>& values) {
  std::vector<std::string_view> names;
  for (const E value : values) names.push_back(to_string(value));
  return names;
}

template <class E>
Json array_of(const std::vector<E>& values) {
  return names_of(values);
}

bool has_max(const SizeLimit& limit) { return limit.max != std::numeric_limits<std::int64_t>::max(); }

Json to_json(const SizeLimit& limit) {
  return {{"min", limit.min},
          {"max", has_max(limit) ? Json(limit.max) : Json(nullptr)},
          {"multiple_of", limit.multiple_of}};
}

Json dtype_or_null(const std::optional<DType>& dtype) { return dtype ? Json(to_string(*dtype)) : Json(nullptr); }

Json to_json(const VariantInfo& info) {
  Json limits{{"S", to_json(info.S)}, {"DHQK", to_json(info.DHQK)}, {"DHV", to_json(info.DHV)}};
  limits["L"] = info.module == Module::chunkwise ? Json(to_json(info.L)) : Json(nullptr);
  limits["unnormalized"] = info.unnormalized;
  limits["last_state_cotangents"] = info.last_state_cotangents;
  Json object;
  object["key"] = info.key();
  object["module"] = to_string(info.module);
  object["description"] = info.description;
  object["dtypes"] = array_of(info.dtypes);
  object["gates"] = array_of(info.gates);
  object["gradient_conventions"] = array_of(info.gradient_conventions);
  object["stabilizer_init"] = array_of(info.stabilizer_init);
  object["operand_dtype"] = dtype_or_null(info.operand_dtype);
  object["state_dtype"] = dtype_or_null(info.state_dtype);
  object["gate_dtype"] = dtype_or_null(info.gate_dtype);
  object["product_dtype"] = dtype_or_null(info.product_dtype);
  object["rounding"] = info.truncates ? "truncate" : "nearest";
  object["initial_states"] = info.initial_states;
  object["last_states"] = info.last_states;
  object["device"] = to_string(info.device);
  object["limits"] = std::move(limits);
  return object;
}

std::string limit_text(std::string_view name, const SizeLimit& limit) {
  if (limit.min == 1 && !has_max(limit) && limit.multiple_of == 1) return "";
  std::string text = fmt::format("{} {}..{}", name, limit.min, has_max(limit) ? fmt::format("{}", limit.max) : "");
  if (limit.multiple_of != 1) text += fmt::format(" in {}s", limit.multiple_of);
  return text;
}

std::string to_text(const VariantInfo& info) {
  std::vector<std::string> facts{std::string(to_string(info.device)),
                                 fmt::format("{}", fmt::join(names_of(info.dtypes), " ")),
                                 fmt::format("gates {}", fmt::join(names_of(info.gates), " ")),
                                 fmt::format("m_0 {}", fmt::join(names_of(info.stabilizer_init), " "))};
  facts.push_back(info.gradient_conventions.empty()
                      ? "forward only"
                      : fmt::format("gradients {}", fmt::join(names_of(info.gradient_conventions), " ")));
  if (info.operand_dtype) facts.push_back(fmt::format("operands {}", to_string(*info.operand_dtype)));
  if (info.state_dtype) facts.push_back(fmt::format("states {}", to_string(*info.state_dtype)));
  if (info.gate_dtype) facts.push_back(fmt::format("gates in {}", to_string(*info.gate_dtype)));
  if (info.product_dtype) facts.push_back(fmt::format("products {}", to_string(*info.product_dtype)));
  if (info.truncates) facts.push_back("rounding truncate");
  std::vector<std::string_view> states;
  if (info.initial_states) states.push_back("initial");
  if (info.last_states) states.push_back("last");
  if (info.last_state_cotangents) states.push_back("cotangents");
  facts.push_back(states.empty() ? "no states" : fmt::format("states: {}", fmt::join(states, ", ")));
  for (const std::string& limit :
       {limit_text("S", info.S), info.module == Module::chunkwise ? limit_text("L", info.L) : "",
        limit_text("DHQK", info.DHQK), limit_text("DHV", info.DHV)})
    if (!limit.empty()) facts.push_back(limit);
  return fmt::format("{}\n    {}\n    {}\n", info.key(), info.description, fmt::join(facts, "; "));
}

}  // namespace

void add_list(Command& app, int& status) {
  auto format = std::make_shared<std::string>("table");
  auto options = std::make_shared<IsolationOptions>();
  Command* command = app.add_subcommand("list", "Every variant and what it declares");
  command->add_option("--format", *format, "table (the default) or json");
  options->add_plugins_to(*command);
  command->callback([format, options, &status] {
    require_choice(*format, "--format", {"table", "json"});
    const Isolation isolation(*options);
    const std::vector<const Kernel*> kernels = select_kernels({"*"}, isolation.plugins());
    std::string text;
    if (*format == "json") {
      const char* separator = "[\n";
      for (const Kernel* kernel : kernels) {
        text += separator + verify::serialize(to_json(kernel->info()));
        separator = ",\n";
      }
      text += text.empty() ? "[]\n" : "\n]\n";
    } else {
      for (const Kernel* kernel : kernels) text += to_text(kernel->info());
      text += fmt::format("{} variants\n", kernels.size());
    }
    fmt::print("{}", text);
    status = kOk;
  });
}

}  // namespace mlstm::cli
