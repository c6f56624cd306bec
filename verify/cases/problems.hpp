// SPDX-License-Identifier: Apache-2.0
// Seeded problems: gate regimes, shapes, suites and the one-line description that reproduces a problem.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cases/case.hpp"

namespace mlstm::verify {

/// Everything that determines a case, bit for bit, on every machine.
struct ProblemSpec {
  std::string regime = "standard";  ///< one of regimes() or simple_regimes()
  Problem problem;
  std::uint64_t seed = 0;
  bool cotangents = true;              ///< random dh
  bool last_state_cotangents = false;  ///< random dc_last, dn_last, dm_last as well
  bool operator==(const ProblemSpec&) const = default;
};

struct Regime {
  std::string name;
  std::string description;  ///< one line: what it draws and which bugs it can see
};

/// The regimes of the suites, in a fixed order.
const std::vector<Regime>& regimes();

/// Regimes of few, plain values, simplest first. They see less than those of the suites and are in none; problems are
/// shrunk to them, and lines may name them.
const std::vector<Regime>& simple_regimes();

/// The first steps of the documents that a packed sequence of this length consists of, in order; the first is 0. They
/// start on a chunk's first step, on its second (so that one document has a single step), inside chunks and at the last
/// step, as far as S allows.
std::vector<std::int64_t> document_starts(const Problem&);

/// One line of "key=value" words in a fixed order, e.g.
/// "regime=forget6,seed=3,gate=exp,...,B=1,NH=2,S=128,DHQK=64,DHV=64,L=32". parse_spec(to_line(s)) == s, exactly (eps
/// too).
std::string to_line(const ProblemSpec&);

/// Inverse of to_line; keys may come in any order and missing ones take the defaults. Throws std::invalid_argument that
/// names the key, the value and what was expected.
ProblemSpec parse_spec(std::string_view line);

/// The same for what a person asks for: a line that has at least regime, dtype, S, DHQK and DHV, which have no sensible
/// default, or the name of a problem (inverse of case_name). Throws std::invalid_argument that names all missing keys.
ProblemSpec parse_case(const std::string& text);

/// Short unique name for reports and file names, made of the same values.
std::string case_name(const ProblemSpec&);

/// The case: inputs rounded to the problem's dtype (states and their cotangents to state_dtype_of it). Counter-based
/// random numbers (Philox 4x32-10) and no libm: the same bits with every compiler and optimisation level.
Case make_case(const ProblemSpec&);

/// Which part of a suite to run. Empty lists select everything.
struct Selection {
  std::vector<DType> dtypes;
  std::vector<double> eps;
  std::vector<Gate> gates;
  std::vector<std::string> regimes;   ///< names or globs
  std::vector<std::string> shapes;    ///< "B,NH,S,DHQK,DHV": replaces the suite's shapes
  std::optional<std::uint64_t> seed;  ///< replaces the suite's seeds
};

/// "B,NH,S,DHQK,DHV" as a shape. Throws std::invalid_argument that names `argument`.
Shape parse_shape(const std::string& text, const std::string& argument = "shape");

/// The problems of a list that are selected, with replacements made, each once. Throws std::invalid_argument for an
/// unknown regime.
std::vector<ProblemSpec> select(const std::vector<ProblemSpec>& specs, const Selection& selection);

/// "smoke", "standard", "full" (standard with three seeds, and longer sequences), "golden" (small enough for extended
/// precision) or "captures" (small, to be recorded: every dtype and gate). Throws std::invalid_argument for another
/// name or an unknown regime.
std::vector<ProblemSpec> suite(std::string_view name, const Selection& = {});

/// Multiplications of one forward and two backward passes, as extended precision does them.
double cost_of(const Problem& problem, bool gradients);

}  // namespace mlstm::verify
