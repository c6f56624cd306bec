// SPDX-License-Identifier: Apache-2.0
// Which problems a suite runs, and why.
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <stdexcept>
#include <utility>

#include "cases/problems.hpp"

namespace mlstm::verify {
namespace {

using Specs = std::vector<ProblemSpec>;
using Words = std::vector<std::string>;

const Words kDTypes{"float64", "float32", "bfloat16", "float16"};

/// The lines in each dtype.
void add_lines(Specs& specs, const Words& lines, const Words& dtypes = kDTypes) {
  for (const std::string& line : lines)
    for (const std::string& dtype : dtypes) specs.push_back(parse_spec(line + ",dtype=" + dtype));
}

// Small, and still: every regime, every dtype, both gates, several chunks with a ragged last one, S below and above L,
// DHQK = DHV and both orders of DHQK != DHV, eps 0 to 1, given and returned states.
Specs smoke() {
  Specs specs;
  add_lines(specs,
            {"regime=standard,NH=2,S=128,DHQK=16,DHV=32,L=32", "regime=forget6,NH=2,S=100,DHQK=32,DHV=32,L=16,eps=0.01",
             "regime=forget3,B=2,NH=2,S=1,DHQK=32,DHV=64,L=16,initial_states=1"});
  add_lines(specs,
            {"regime=forget3,B=2,NH=2,S=128,DHQK=64,DHV=64,L=64,eps=1",
             "regime=forget6,S=160,DHQK=64,DHV=128,L=64,initial_states=1,last_state_cotangents=1"},
            {"float32", "bfloat16"});
  add_lines(
      specs,
      {"regime=forget0,NH=2,S=64,DHQK=32,DHV=16,L=16,stabilizer_init=neg_inf,eps=0.01",
       "regime=remember,S=96,DHQK=16,DHV=16,L=16,eps=0", "regime=forget_underflow,S=48,DHQK=16,DHV=32,L=16",
       "regime=spikes,S=96,DHQK=16,DHV=16,L=32,eps=0.01", "regime=ties,NH=3,S=64,DHQK=16,DHV=16,L=16,eps=1",
       "regime=positive,S=100,DHQK=16,DHV=32,L=32", "regime=extreme,S=64,DHQK=16,DHV=16,L=16",
       "regime=zero_q,S=17,DHQK=16,DHV=16,L=64", "regime=standard,S=1,DHQK=16,DHV=32,L=16",
       "regime=standard,S=5,DHQK=1,DHV=1,L=2", "regime=standard,gate=sigmoid,NH=2,S=100,DHQK=16,DHV=32,L=32,eps=0.01"},
      {"float32"});
  add_lines(specs,
            {"regime=forget_all,S=64,DHQK=16,DHV=16,L=16",
             "regime=input_closed,NH=2,S=100,DHQK=16,DHV=32,L=32,stabilizer_init=neg_inf,eps=0.01",
             "regime=input_open,S=96,DHQK=32,DHV=16,L=32,eps=1", "regime=crossover,NH=2,S=100,DHQK=16,DHV=16,L=32",
             "regime=xlstm7b,NH=2,S=128,DHQK=32,DHV=64,L=64", "regime=wide,S=64,DHQK=16,DHV=16,L=16",
             "regime=retrieval,S=128,DHQK=32,DHV=32,L=32", "regime=forget6,NH=3,S=300,DHQK=64,DHV=128,L=144",
             "regime=forget3,gate=sigmoid,S=1,DHQK=16,DHV=32,L=16,initial_states=1",
             "regime=forget6,gate=sigmoid,normalize=0,S=100,DHQK=16,DHV=16,L=32,initial_states=1"},
            {"bfloat16"});
  add_lines(specs,
            {"regime=large_m,NH=2,S=96,DHQK=16,DHV=32,L=32,initial_states=1",
             "regime=denominator_zero,S=64,DHQK=16,DHV=16,L=32",
             "regime=standard,S=40,DHQK=16,DHV=16,L=16,eps=0.01,last_state_cotangents=1",
             "regime=integers,S=64,DHQK=16,DHV=16,L=16,initial_states=1,last_state_cotangents=1"},
            {"float64"});
  add_lines(specs,
            {"regime=repeated,S=96,DHQK=16,DHV=16,L=32", "regime=heavy_tails,S=100,DHQK=16,DHV=32,L=32",
             "regime=zero_q_open,S=48,DHQK=16,DHV=16,L=16"},
            {"float16"});
  // 138 chunks, sums beyond 1024 and 4096 steps, chunks that are no power of two or longer than S or 256, many heads,
  // wide v
  add_lines(specs,
            {"regime=remember,S=1100,DHQK=8,DHV=8,L=8,eps=0.01", "regime=reset,NH=2,S=75,DHQK=16,DHV=16,L=16",
             "regime=tail_closed,NH=3,S=57,DHQK=16,DHV=16,L=16,last_state_cotangents=1",
             "regime=forget3,NH=34,S=70,DHQK=8,DHV=16,L=16,stabilizer_init=neg_inf,last_state_cotangents=1"},
            {"float32", "bfloat16"});
  add_lines(specs,
            {"regime=forget6,B=2,NH=2,S=70,DHQK=80,DHV=96,L=48", "regime=forget6,S=20,DHQK=16,DHV=328,L=64",
             "regime=padded,S=80,DHQK=16,DHV=16,L=32"},
            {"bfloat16"});
  add_lines(specs,
            {"regime=forget6,S=700,DHQK=8,DHV=8,L=320",
             "regime=input_closed,NH=40,S=1,DHQK=16,DHV=96,L=16,eps=0,initial_states=1,last_state_cotangents=1",
             "regime=tail_closed,NH=3,S=1,DHQK=16,DHV=16,L=16,initial_states=1,cotangents=0",
             "regime=forget6,S=40,DHQK=192,DHV=80,L=16",
             "regime=forget6,NH=4,S=1030,DHQK=8,DHV=8,L=64,eps=0.01,last_state_cotangents=1",
             "regime=forget3,S=1100,DHQK=8,DHV=8,L=64", "regime=forget6,S=4200,DHQK=8,DHV=8,L=32,eps=0.01",
             "regime=forget6,gate=sigmoid,stabilizer_init=neg_inf,S=40,DHQK=8,DHV=8,L=24"},
            {"float32"});
  return specs;
}

/// regime x dtype with the rest as in `rest`.
void add_regimes(Specs& specs, const Words& names, const std::string& rest, const Words& dtypes = kDTypes) {
  for (const std::string& regime : names) add_lines(specs, {"regime=" + regime + "," + rest}, dtypes);
}

Words regime_words() {
  Words names;
  for (const Regime& regime : regimes()) names.push_back(regime.name);
  return names;
}

Specs standard() {
  Specs specs = smoke();
  // every regime in every dtype, several chunks; of sequences with an end or with resets see below
  Words names = regime_words();
  std::erase_if(names,
                [](const std::string& name) { return name == "reset" || name == "padded" || name == "tail_closed"; });
  add_regimes(specs, names, "NH=3,S=256,DHQK=64,DHV=64,L=64");
  // eps: missing, squared or inside the maximum; the gradient through the stabiliser
  for (const std::string eps : {"0", "0.01", "1"})
    add_regimes(specs, {"standard", "forget6", "input_open", "large_m", "crossover"},
                "NH=2,S=192,DHQK=32,DHV=64,L=32,eps=" + eps);
  // the other start of the stabiliser
  add_regimes(specs, regime_words(), "NH=3,S=200,DHQK=64,DHV=32,L=64,stabilizer_init=neg_inf,eps=0.01",
              {"float32", "bfloat16"});
  // sigmoid gate
  for (const std::string normalize : {"0", "1"})
    add_regimes(specs, {"standard", "forget6", "input_closed", "crossover", "extreme", "forget_underflow", "xlstm7b"},
                "gate=sigmoid,normalize=" + normalize + ",NH=2,S=200,DHQK=32,DHV=64,L=64,eps=0.01");
  // states in, states out and their cotangents
  add_regimes(specs, {"standard", "forget6", "remember", "input_closed", "large_m"},
              "NH=2,S=160,DHQK=64,DHV=64,L=64,initial_states=1,last_state_cotangents=1");
  add_regimes(specs, {"standard", "remember"}, "NH=2,S=100,DHQK=32,DHV=64,L=32,eps=0.01,last_state_cotangents=1");
  for (const std::string normalize : {"0", "1"})
    add_regimes(specs, {"forget6"},
                "gate=sigmoid,normalize=" + normalize +
                    ",NH=2,S=160,DHQK=64,DHV=64,L=64,initial_states=1,last_state_cotangents=1");
  // decoding: one step from given states
  add_regimes(specs, {"standard", "forget_underflow", "input_closed", "large_m", "crossover", "extreme", "zero_q"},
              "B=4,NH=2,S=1,DHQK=64,DHV=128,L=64,initial_states=1");
  add_regimes(specs, {"standard"}, "gate=sigmoid,B=4,NH=2,S=1,DHQK=64,DHV=128,L=64,initial_states=1,eps=0.01");
  // geometry: one step, S around L, ragged tails, dimensions of one, odd and unequal dimensions, heads, chunk sizes
  for (const std::string geometry :
       {"S=1,DHQK=64,DHV=64,L=64", "S=2,DHQK=1,DHV=1,L=1", "S=33,DHQK=1,DHV=7,L=16", "S=63,DHQK=64,DHV=64,L=64",
        "S=64,DHQK=64,DHV=128,L=64", "S=65,DHQK=64,DHV=64,L=64", "B=2,NH=2,S=257,DHQK=40,DHV=24,L=32",
        "B=3,NH=3,S=128,DHQK=128,DHV=64,L=16", "S=100,DHQK=64,DHV=64,L=1", "S=384,DHQK=64,DHV=128,L=128",
        "S=768,DHQK=64,DHV=64,L=256", "S=500,DHQK=128,DHV=256,L=128"})
    add_regimes(specs, {"forget6"}, geometry);
  // thin problems, each for a place that the others do not reach: dimensions with a remainder beyond 64, more columns
  // of v than 256, many heads, chunks longer than S and than 256, and no power of two
  for (const std::string geometry :
       {"B=2,S=70,DHQK=80,DHV=96,L=48", "S=40,DHQK=192,DHV=80,L=16", "S=40,DHQK=96,DHV=192,L=32",
        "S=40,DHQK=16,DHV=328,L=32", "B=2,NH=40,S=20,DHQK=8,DHV=8,L=64"})
    add_regimes(specs, {"forget3"}, geometry, {"float32", "bfloat16"});
  add_lines(
      specs,
      {"regime=forget6,S=700,DHQK=16,DHV=16,L=320", "regime=forget6,B=2,S=240,DHQK=16,DHV=8,L=48",
       "regime=forget6,S=20,DHQK=16,DHV=16,L=32,last_state_cotangents=1", "regime=forget3,S=1100,DHQK=8,DHV=8,L=64",
       "regime=forget6,NH=4,S=1030,DHQK=8,DHV=8,L=64,eps=0.01,last_state_cotangents=1"},
      {"float32", "bfloat16"});
  // hundreds of chunks, and steps beyond 4096: roundings that add up from chunk to chunk
  add_lines(specs, {"regime=remember,NH=2,S=8192,DHQK=16,DHV=16,L=16,eps=0.01"}, {"bfloat16"});
  // packed and padded sequences, and ends below what kernels pad with, with states; gates that a clamp would change
  add_regimes(specs, {"reset", "padded", "tail_closed"},
              "B=2,NH=3,S=139,DHQK=32,DHV=16,L=32,initial_states=1,last_state_cotangents=1");
  add_regimes(specs, {"tail_closed"}, "NH=3,S=1,DHQK=32,DHV=16,L=32,initial_states=1,cotangents=0");
  // what m starts from, with cotangents of the last states and without an m; a step with eps = 0 from given states
  add_regimes(specs, {"standard", "input_closed"},
              "NH=2,S=100,DHQK=32,DHV=16,L=32,stabilizer_init=neg_inf,eps=0.01,last_state_cotangents=1");
  add_regimes(specs, {"forget6"}, "gate=sigmoid,stabilizer_init=neg_inf,S=100,DHQK=16,DHV=16,L=32",
              {"float32", "bfloat16"});
  add_regimes(specs, {"standard", "input_closed"},
              "NH=40,S=1,DHQK=16,DHV=96,L=16,eps=0,initial_states=1,last_state_cotangents=1");
  return specs;
}

Specs full() {
  Specs specs;
  for (const std::uint64_t seed : {0, 1, 2})
    for (ProblemSpec spec : standard()) {
      spec.seed = seed;
      specs.push_back(spec);
    }
  for (const std::string geometry : {"NH=2,S=2048,DHQK=64,DHV=128,L=64", "NH=2,S=2048,DHQK=128,DHV=128,L=256",
                                     "B=2,NH=4,S=1024,DHQK=128,DHV=256,L=128", "S=2047,DHQK=256,DHV=256,L=128",
                                     "B=4,NH=8,S=129,DHQK=64,DHV=64,L=64"})
    add_regimes(specs, {"standard", "forget6", "remember", "xlstm7b", "input_open"}, geometry + ",eps=0.01");
  // more heads than 16 bits count
  add_lines(specs, {"regime=standard,B=256,NH=257,S=2,DHQK=8,DHV=8,L=16"}, {"bfloat16"});
  return specs;
}

// Small enough for extended precision.
Specs golden() {
  Specs specs;
  for (const Regime& regime : regimes())
    add_lines(specs, {"regime=" + regime.name + ",NH=2,S=24,DHQK=8,DHV=6,L=8"}, {"float32"});
  add_lines(specs, {"regime=standard,NH=2,S=40,DHQK=8,DHV=16,L=16",
                    "regime=forget6,S=33,DHQK=8,DHV=8,L=16,eps=0.01,initial_states=1,last_state_cotangents=1",
                    "regime=standard,gate=sigmoid,S=33,DHQK=8,DHV=4,L=8,eps=0.01,last_state_cotangents=1",
                    "regime=forget6,gate=sigmoid,normalize=0,S=20,DHQK=4,DHV=8,L=8,initial_states=1"});
  add_lines(specs,
            {"regime=standard,S=1,DHQK=1,DHV=1,L=1", "regime=standard,S=7,DHQK=4,DHV=4,L=16,eps=0",
             "regime=crossover,S=24,DHQK=8,DHV=8,L=8,stabilizer_init=neg_inf,eps=1",
             "regime=input_closed,S=32,DHQK=8,DHV=8,L=16,stabilizer_init=neg_inf,eps=0.01",
             "regime=input_open,S=32,DHQK=8,DHV=8,L=16,eps=1",
             "regime=large_m,NH=2,S=24,DHQK=8,DHV=8,L=8,initial_states=1,eps=0.01",
             "regime=remember,S=24,DHQK=8,DHV=8,L=8,stabilizer_init=neg_inf,eps=0",
             "regime=ties,NH=3,S=24,DHQK=8,DHV=8,L=8,eps=1", "regime=extreme,S=24,DHQK=8,DHV=8,L=8,gate=sigmoid",
             "regime=standard,B=2,NH=2,S=17,DHQK=16,DHV=8,L=8,cotangents=0"},
            {"float64", "bfloat16"});
  return specs;
}

// Small, for recording what every variant makes of every dtype, gate and convention: states given and not, a ragged
// last chunk, both orders of DHQK and DHV, sizes that tensor cores take, one step for the variants that take no more.
Specs captures() {
  Specs specs;
  add_lines(specs,
            {"regime=forget6,S=48,DHQK=16,DHV=24,L=32,eps=0.01,initial_states=1,last_state_cotangents=1",
             "regime=standard,S=72,DHQK=24,DHV=16,L=32,stabilizer_init=neg_inf",
             "regime=standard,gate=sigmoid,S=40,DHQK=16,DHV=24,L=32,eps=0.01,initial_states=1,last_state_cotangents=1",
             "regime=forget6,gate=sigmoid,normalize=0,S=40,DHQK=24,DHV=16,L=32"});
  for (const std::string gate : {"gate=exp", "gate=sigmoid", "gate=sigmoid,normalize=0"})
    add_lines(specs, {"regime=forget3,NH=2,S=1,DHQK=16,DHV=24,L=16,eps=0.01,initial_states=1,cotangents=0," + gate});
  return specs;
}

template <class T>
bool admits(const std::vector<T>& wanted, const T& value) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

bool regime_admitted(const std::vector<std::string>& patterns, const std::string& regime) {
  return patterns.empty() || std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
           return fnmatch(pattern.c_str(), regime.c_str(), 0) == 0;
         });
}

void check_regimes(const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) {
    std::string known;
    bool found = false;
    for (const Regime& regime : regimes()) {
      found = found || regime_admitted({pattern}, regime.name);
      known += (known.empty() ? "" : ", ") + regime.name;
    }
    if (!found) throw std::invalid_argument("regime is \"" + pattern + "\"; expected a name or glob among " + known);
  }
}

Specs specs_of(std::string_view name) {
  if (name == "smoke") return smoke();
  if (name == "standard") return standard();
  if (name == "full") return full();
  if (name == "golden") return golden();
  if (name == "captures") return captures();
  throw std::invalid_argument(fmt::format("suite is \"{}\"; expected smoke, standard, full, golden or captures", name));
}

}  // namespace

Shape parse_shape(const std::string& text, const std::string& argument) {
  Shape shape;
  std::int64_t* const extents[] = {&shape.B, &shape.NH, &shape.S, &shape.DHQK, &shape.DHV};
  const char *position = text.data(), *const end = text.data() + text.size();
  for (std::int64_t* const extent : extents) {
    const auto [next, error] = std::from_chars(position, end, *extent);
    const bool last = extent == extents[4];
    if (error != std::errc{} || *extent < 1 || (last ? next != end : next == end || *next != ','))
      throw std::invalid_argument(argument + " is \"" + text.substr(0, text.find_first_of("\n\r")) +
                                  "\"; expected five positive integers B,NH,S,DHQK,DHV");
    position = next + 1;
  }
  return shape;
}

std::vector<ProblemSpec> select(const std::vector<ProblemSpec>& specs, const Selection& selection) {
  check_regimes(selection.regimes);
  std::vector<Shape> shapes;
  for (const std::string& text : selection.shapes) shapes.push_back(parse_shape(text));
  Specs selected;
  std::set<std::string> seen;
  for (ProblemSpec spec : specs) {
    Problem& problem = spec.problem;
    if (!admits(selection.dtypes, problem.dtype) || !admits(selection.eps, problem.eps) ||
        !admits(selection.gates, problem.gate) || !regime_admitted(selection.regimes, spec.regime))
      continue;
    if (selection.seed) spec.seed = *selection.seed;
    const std::size_t variations = std::max<std::size_t>(shapes.size(), 1);
    for (std::size_t index = 0; index < variations; ++index) {
      if (!shapes.empty()) problem.shape = shapes[index];
      if (seen.insert(to_line(spec)).second) selected.push_back(spec);
    }
  }
  return selected;
}

std::vector<ProblemSpec> suite(std::string_view name, const Selection& selection) {
  return select(specs_of(name), selection);
}

}  // namespace mlstm::verify
