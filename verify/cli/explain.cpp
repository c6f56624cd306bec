// SPDX-License-Identifier: Apache-2.0
// The options of `mlstm verify` that look into failures.
#include <fmt/format.h>

#include <stdexcept>

#include "cli/cli.hpp"

namespace mlstm::cli {

void ExplainArguments::add_to(Command& command) {
  const std::string group = "Failures";
  command
      .add_flag(
          "--explain", stages,
          "say which stage goes wrong first (by runs on parts of the problem) and which known mistakes would give "
          "the same; of captures only the latter")
      ->group(group);
  auto* shrinking = command
                        .add_option("--shrink", shrink,
                                    "reduce the problem to a minimal one that fails in the same way, for at most so "
                                    "many seconds per failure; 30 if no number is given")
                        ->expected(0, 1)
                        ->type_name("SECONDS")
                        ->default_str("30")
                        ->group(group);
  command
      .add_option("--failures", failures,
                  "how many failures of each variant to look into, of different dtype or kind (outputs, gradients, "
                  "runs that stopped); default 1")
      ->group(group);
  command.parse_complete_callback([this, shrinking] { shrinks = shrinking->count() > 0; });
}

std::optional<verify::ExplainOptions> ExplainArguments::wanted() const {
  verify::ExplainOptions options;
  options.stages = stages;
  if (shrinks) options.seconds = static_cast<double>(parse_integer(shrink.empty() ? "30" : shrink, "--shrink", 1));
  if (!failures.empty()) options.failures = parse_integer(failures, "--failures", 1);
  if (!stages && !shrinks) {
    if (!failures.empty()) throw std::invalid_argument("--failures needs --explain or --shrink");
    return {};
  }
  options.progress = [](const verify::Item& item) {
    fmt::print(stderr, "looking into {} of {}\n", item.case_name, item.variant);
  };
  return options;
}

}  // namespace mlstm::cli
