// SPDX-License-Identifier: Apache-2.0
#include "cases/problems.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <regex>
#include <set>
#include <stdexcept>
#include <utility>

#include "base/memory.hpp"
#include "cases/problems_draw.hpp"

namespace mlstm::verify {
namespace {

[[noreturn]] void refuse(std::string_view key, std::string_view value, std::string_view expected) {
  throw std::invalid_argument(fmt::format("{} is \"{}\"; expected {}", key, value, expected));
}

template <class Number>
Number parse_number(std::string_view key, std::string_view text, std::string_view expected) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) refuse(key, text, expected);
  return value;
}

bool parse_flag(std::string_view key, std::string_view text) {
  if (text != "0" && text != "1") refuse(key, text, "0 or 1");
  return text == "1";
}

std::string regime_list() {
  std::string names;
  for (const auto* list : {&regimes(), &simple_regimes()})
    for (const Regime& regime : *list) names += (names.empty() ? "" : ", ") + regime.name;
  return names;
}

void require_regime(std::string_view name) {
  for (const auto* list : {&regimes(), &simple_regimes()})
    for (const Regime& regime : *list)
      if (regime.name == name) return;
  refuse("regime", name, "one of " + regime_list());
}

void set_field(ProblemSpec& spec, std::string_view key, std::string_view text) {
  Problem& problem = spec.problem;
  Shape& shape = problem.shape;
  const std::pair<std::string_view, std::int64_t*> sizes[] = {{"B", &shape.B},     {"NH", &shape.NH},
                                                              {"S", &shape.S},     {"DHQK", &shape.DHQK},
                                                              {"DHV", &shape.DHV}, {"L", &problem.chunk_size}};
  for (const auto& [name, size] : sizes)
    if (key == name) {
      *size = parse_number<std::int64_t>(key, text, "an integer");
      return;
    }
  const std::pair<std::string_view, bool*> flags[] = {{"normalize", &problem.normalize},
                                                      {"initial_states", &problem.has_initial_state},
                                                      {"cotangents", &spec.cotangents},
                                                      {"last_state_cotangents", &spec.last_state_cotangents}};
  for (const auto& [name, flag] : flags)
    if (key == name) {
      *flag = parse_flag(key, text);
      return;
    }
  if (key == "regime") {
    require_regime(text);
    spec.regime = text;
  } else if (key == "seed") {
    spec.seed = parse_number<std::uint64_t>(key, text, "an integer from 0 to 2^64 - 1");
  } else if (key == "gate") {
    problem.gate = parse_gate(text);
  } else if (key == "eps") {
    problem.eps = parse_number<double>(key, text, "a finite number >= 0");
  } else if (key == "dtype") {
    problem.dtype = parse_storage_dtype(text);
  } else if (key == "stabilizer_init") {
    problem.stabilizer_init = parse_stabilizer_init(text);
  } else {
    refuse("key", key,
           "regime, seed, gate, normalize, eps, dtype, stabilizer_init, B, NH, S, DHQK, DHV, L, initial_states, "
           "cotangents or last_state_cotangents");
  }
}

void validate(const ProblemSpec& spec) {
  require_regime(spec.regime);
  mlstm::validate(spec.problem);
  if (spec.last_state_cotangents && !spec.cotangents) refuse("last_state_cotangents", "1", "0 when cotangents is 0");
}

std::vector<Regime> describe(const std::vector<Recipe>& recipes) {
  std::vector<Regime> list;
  for (const Recipe& recipe : recipes) list.push_back({recipe.name, recipe.description});
  return list;
}

TensorMap to_arrays(const Values& tensors, const Shape& shape) {
  TensorMap arrays;
  for (const auto& [name, values] : tensors) {
    const auto extents = shape_of(name, shape);
    Array array = Array::from_shape(std::vector<std::size_t>(extents.begin(), extents.end()));
    std::copy(values.begin(), values.end(), array.data());
    arrays.emplace(name, std::move(array));
  }
  return arrays;
}

}  // namespace

const std::vector<Regime>& regimes() {
  static const std::vector<Regime> all = describe(recipes());
  return all;
}

const std::vector<Regime>& simple_regimes() {
  static const std::vector<Regime> all = describe(simple_recipes());
  return all;
}

std::string to_line(const ProblemSpec& spec) {
  const Problem& p = spec.problem;
  const Shape& s = p.shape;
  return fmt::format(
      "regime={},seed={},gate={},normalize={:d},eps={},dtype={},stabilizer_init={},B={},NH={},S={},DHQK={},DHV={},L={},"
      "initial_states={:d},cotangents={:d},last_state_cotangents={:d}",
      spec.regime, spec.seed, to_string(p.gate), p.normalize, p.eps, to_string(p.dtype), to_string(p.stabilizer_init),
      s.B, s.NH, s.S, s.DHQK, s.DHV, p.chunk_size, p.has_initial_state, spec.cotangents, spec.last_state_cotangents);
}

namespace {

/// `seen` are the keys that the line has, as parts of it.
ProblemSpec parse_words(std::string_view line, std::set<std::string_view>& seen) {
  for (const char c : line)  // or it would be in messages
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      throw std::invalid_argument(
          fmt::format("a problem holds the control character 0x{:02x}; expected one line of key=value words", c));
  ProblemSpec spec;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    std::string_view word = line.substr(begin, end - begin);
    begin = end + 1;
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos) refuse("word", word, "key=value words separated by commas");
    const std::string_view key = word.substr(0, equals);
    if (!seen.insert(key).second) refuse("key", key, "each key once");
    set_field(spec, key, word.substr(equals + 1));
  }
  validate(spec);
  return spec;
}

}  // namespace

ProblemSpec parse_spec(std::string_view line) {
  std::set<std::string_view> seen;
  return parse_words(line, seen);
}

namespace {

/// The line that makes the problem of this case_name, which in headings of properties follows the property's name;
/// nothing if it is none.
std::optional<std::string> line_of_name(const std::string& name) {
  constexpr std::size_t kLongest = 300;
  static const std::regex parts(
      "(?:property:[a-z_]+/"
      ")?([a-z0-9_]+)_(exp|sigmoid)(_unnormalized)?_(float64|float32|float16|bfloat16)_eps([^_]+)_(zero|neg_inf)"
      "_B(\\d+)_NH(\\d+)_S(\\d+)_(\\d+)x(\\d+)_L(\\d+)(_initial)?(_dlast|_forward)?_seed(\\d+)");
  std::smatch part;
  if (name.size() > kLongest || !std::regex_match(name, part, parts)) return {};
  return fmt::format(
      "regime={},gate={},normalize={:d},dtype={},eps={},stabilizer_init={},B={},NH={},S={},DHQK={},DHV={},L={},"
      "initial_states={:d},cotangents={:d},last_state_cotangents={:d},seed={}",
      part.str(1), part.str(2), !part[3].matched, part.str(4), part.str(5), part.str(6), part.str(7), part.str(8),
      part.str(9), part.str(10), part.str(11), part.str(12), part[13].matched, part.str(14) != "_forward",
      part.str(14) == "_dlast", part.str(15));
}

}  // namespace

ProblemSpec parse_case(const std::string& text) {
  if (text.find('=') == std::string::npos) {
    if (const std::optional<std::string> line = line_of_name(text)) return parse_spec(*line);
    refuse("problem", text.substr(0, text.find_first_of("\n\r")).substr(0, 100),
           "a line of key=value words, or the name of a problem as reports give it");
  }
  std::set<std::string_view> seen;
  const ProblemSpec spec = parse_words(text, seen);
  std::vector<std::string_view> missing;
  for (const std::string_view key : {"regime", "dtype", "S", "DHQK", "DHV"})
    if (!seen.contains(key)) missing.push_back(key);
  if (missing.empty()) return spec;
  throw std::invalid_argument(
      fmt::format("the problem lacks {}; expected regime, dtype, S, DHQK and DHV at least", fmt::join(missing, ", ")));
}

std::string case_name(const ProblemSpec& spec) {
  const Problem& p = spec.problem;
  const Shape& s = p.shape;
  return fmt::format("{}_{}{}_{}_eps{}_{}_B{}_NH{}_S{}_{}x{}_L{}{}{}_seed{}", spec.regime, to_string(p.gate),
                     p.normalize ? "" : "_unnormalized", to_string(p.dtype), p.eps, to_string(p.stabilizer_init), s.B,
                     s.NH, s.S, s.DHQK, s.DHV, p.chunk_size, p.has_initial_state ? "_initial" : "",
                     spec.last_state_cotangents ? "_dlast"
                     : spec.cotangents          ? ""
                                                : "_forward",
                     spec.seed);
}

Case make_case(const ProblemSpec& spec) {
  validate(spec);
  return naming_who_ran_out("the verifier", "it made the inputs", [&] {
    const Drawn drawn = draw({spec.regime, spec.problem, spec.seed, spec.cotangents, spec.last_state_cotangents});
    Case result;
    result.name = case_name(spec);
    result.problem = spec.problem;
    result.inputs = to_arrays(drawn.inputs, spec.problem.shape);
    result.cotangents = to_arrays(drawn.cotangents, spec.problem.shape);
    result.attributes["spec"] = to_line(spec);
    return result;
  });
}

double cost_of(const Problem& problem, bool gradients) {
  const Shape& s = problem.shape;
  const auto length = static_cast<double>(s.S), qk = static_cast<double>(s.DHQK), hv = static_cast<double>(s.DHV);
  const double chunk = std::min(problem.chunk_size > 0 ? static_cast<double>(problem.chunk_size) : 64.0, length);
  const double tokens = static_cast<double>(s.heads()) * length;
  // FLOPs of the forward and of a backward pass, two to a multiplication; one backward for each convention
  const double forward = tokens * (chunk * (qk + hv) + 4 * qk * hv);
  const double backward = tokens * (chunk * (3 * qk + 2 * hv) + 10 * qk * hv);
  return (forward + (gradients ? 2 * backward : 0)) / 2;
}

}  // namespace mlstm::verify
