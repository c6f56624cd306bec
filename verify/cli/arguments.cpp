// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "cli/cli.hpp"

namespace mlstm::cli {
namespace {

[[noreturn]] void refuse(std::string_view argument, std::string_view value, std::string_view expected) {
  throw std::invalid_argument(fmt::format("{} is \"{}\"; expected {}", argument, value, expected));
}

template <class T>
bool parse_whole(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

bool matches(const std::string& glob, const std::string& text) { return fnmatch(glob.c_str(), text.c_str(), 0) == 0; }

}  // namespace

void print_error(std::string_view message) {
  std::string line(message);
  std::replace(line.begin(), line.end(), '\n', ' ');
  fmt::print(stderr, "mlstm: {}\n", line);
}

std::int64_t parse_integer(std::string_view text, std::string_view argument, std::int64_t at_least) {
  std::int64_t value = 0;
  if (!parse_whole(text, value) || value < at_least)
    refuse(argument, text, fmt::format("an integer of at least {}", at_least));
  return value;
}

double parse_eps(std::string_view text, std::string_view argument) {
  double value = 0;
  if (!parse_whole(text, value) || !std::isfinite(value) || value < 0) refuse(argument, text, "a finite number >= 0");
  return value;
}

void require_choice(std::string_view text, std::string_view argument, const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), text) == choices.end())
    refuse(argument, text, fmt::format("one of {}", fmt::join(choices, ", ")));
}

void ProblemOptions::add_to(Command& command) {
  const std::string group = "Problems";
  command
      .add_option("--suite", suite,
                  "smoke (the quickest, the default), standard (every regime in every dtype), full (that with three "
                  "seeds, and longer sequences), golden (tiny), or captures (tiny; what "
                  "data/captures/cuda records: every dtype and gate)")
      ->group(group);
  command.add_option("--dtype", dtypes, "only float64, float32, float16 or bfloat16; several: separated by commas")
      ->delimiter(',')
      ->group(group);
  command.add_option("--eps", eps, "only these eps")->delimiter(',')->group(group);
  command.add_option("--gate", gates, "only exp or sigmoid")->delimiter(',')->group(group);
  command.add_option("--regime", regimes, "only these gate regimes (names or globs)")->delimiter(',')->group(group);
  command.add_option("--shape", shapes, "B,NH,S,DHQK,DHV: replaces the suite's shapes; may be repeated")
      ->repeated()
      ->group(group);
  command.add_option("--seed", seed, "replaces the suite's seeds")->group(group);
  auto* one_case = command
                       .add_option("--case", cases,
                                   "one problem, as a reproduction line or the heading of a failure names it; may be "
                                   "repeated. Needs regime, dtype, S, DHQK and DHV")
                       ->repeated()
                       ->group(group);
  for (const char* other : {"--suite", "--dtype", "--eps", "--gate", "--regime", "--shape", "--seed"})
    one_case->excludes(command.get_option(other));
}

bool ProblemOptions::empty() const {
  return suite.empty() && seed.empty() && dtypes.empty() && eps.empty() && gates.empty() && regimes.empty() &&
         shapes.empty() && cases.empty();
}

std::vector<verify::ProblemSpec> ProblemOptions::named_cases() const {
  std::vector<verify::ProblemSpec> result;
  for (const std::string& line : cases) {
    try {
      result.push_back(verify::parse_case(line));
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string("--case: ") + error.what());
    }
  }
  return result;
}

verify::Selection ProblemOptions::selection() const {
  verify::Selection selection;
  for (const std::string& text : dtypes) selection.dtypes.push_back(parse_storage_dtype(text, "--dtype"));
  for (const std::string& text : eps) selection.eps.push_back(parse_eps(text, "--eps"));
  for (const std::string& text : gates) selection.gates.push_back(parse_gate(text, "--gate"));
  selection.regimes = regimes;
  selection.shapes = shapes;
  if (!seed.empty()) {
    std::uint64_t value = 0;
    if (!parse_whole(seed, value)) refuse("--seed", seed, "an integer from 0 to 2^64 - 1");
    selection.seed = value;
  }
  return selection;
}

std::vector<verify::ProblemSpec> ProblemOptions::specs() const {
  return cases.empty() ? verify::suite(suite.empty() ? "smoke" : suite, selection()) : named_cases();
}

std::vector<const Kernel*> select_kernels(const std::vector<std::string>& globs,
                                          const std::vector<const Kernel*>& plugins) {
  if (globs.empty() && !plugins.empty()) return plugins;
  std::vector<const Kernel*> known = registered_kernels(), selected;
  known.insert(known.end(), plugins.begin(), plugins.end());
  std::vector<bool> used(globs.size(), false);
  std::vector<std::string> keys;
  for (const Kernel* kernel : known) {
    const VariantInfo& info = kernel->info();
    bool wanted = globs.empty();
    for (std::size_t n = 0; n < globs.size(); ++n)
      if (matches(globs[n], info.key()) || matches(globs[n], info.name)) wanted = used[n] = true;
    if (wanted) selected.push_back(kernel);
    keys.push_back(info.key());
  }
  for (std::size_t n = 0; n < globs.size(); ++n)
    if (!used[n]) refuse("--variant", globs[n], fmt::format("a glob that matches one of {}", fmt::join(keys, ", ")));
  return selected;
}

void ThreadsOption::add_to(Command& command) {
  command.add_option("--threads", text, "threads to use; 0, the default: one per core. Results do not depend on it");
}

int ThreadsOption::value() const {
  return text.empty() ? 0 : static_cast<int>(std::min<std::int64_t>(parse_integer(text, "--threads", 0), 4096));
}

}  // namespace mlstm::cli
