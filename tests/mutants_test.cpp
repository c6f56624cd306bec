// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "properties/properties.hpp"
#include "studies/mutants/mutants.hpp"
#include "sweep/sweep.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains;

namespace {

/// What a run gave: its results, or what run_kernel complained about.
struct Outcome {
  TensorMap outputs, gradients;
  std::string complaint;
};

bool same_bits(const TensorMap& a, const TensorMap& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const auto& x, const auto& y) {
           return x.first == y.first && std::equal(x.second.begin(), x.second.end(), y.second.begin(),
                                                   [](double u, double v) { return u == v || (u != u && v != v); });
         });
}

bool differ(const Outcome& a, const Outcome& b) {
  return a.complaint != b.complaint || !same_bits(a.outputs, b.outputs) || !same_bits(a.gradients, b.gradients);
}

Outcome run(const Kernel& kernel, const Case& c, std::optional<Convention> convention, int repeats = 0) {
  RunOptions options;
  options.repeats = repeats;
  try {
    const KernelData data = run_kernel(kernel, c, convention, options);
    return {data.outputs, data.gradients, {}};
  } catch (const std::runtime_error& error) {
    return {{}, {}, error.what()};
  }
}

/// Small problems, so different that every bug shows in one of them.
const std::vector<Case>& exposing_cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> cases;
    for (const char* const line :
         {"regime=standard,B=2,NH=2,S=40,DHQK=16,DHV=16,L=16,eps=0.01,initial_states=1,last_state_cotangents=1,"
          "dtype=float32",
          "regime=forget3,NH=2,S=77,DHQK=24,DHV=40,L=32,eps=1,stabilizer_init=neg_inf,dtype=float32",
          "regime=wide,NH=2,S=70,DHQK=40,DHV=24,L=16,dtype=float64", "regime=ties,NH=3,S=40,DHQK=8,DHV=8,L=16,eps=1",
          "regime=forget3,NH=2,S=70,DHQK=16,DHV=40,L=32,dtype=bfloat16",
          "regime=forget3,gate=sigmoid,NH=2,S=40,DHQK=16,DHV=32,L=16,initial_states=1",
          "regime=forget3,gate=sigmoid,normalize=0,S=40,DHQK=16,DHV=32,L=16,initial_states=1",
          "regime=forget_underflow,S=40,DHQK=8,DHV=8,L=8,dtype=float32", "regime=forget6,S=600,DHQK=8,DHV=8,L=200",
          "regime=forget3,B=2,NH=2,S=1,DHQK=16,DHV=40,L=16,initial_states=1,eps=0.01,dtype=float32",
          "regime=forget3,B=2,NH=2,S=1,DHQK=16,DHV=40,L=16,initial_states=1,gate=sigmoid",
          "regime=input_closed,S=40,DHQK=8,DHV=8,L=16,stabilizer_init=neg_inf,eps=0.01",
          "regime=zero_q_open,S=24,DHQK=8,DHV=8,L=8,dtype=float16",
          "regime=forget3,NH=2,S=520,DHQK=128,DHV=8,L=64,dtype=float32"})
      cases.push_back(make_case(parse_spec(line)));
    return cases;
  }();
  return all;
}

std::vector<std::optional<Convention>> conventions_of(const Kernel& kernel) {
  std::vector<std::optional<Convention>> conventions;
  for (const Convention one : kernel.info().gradient_conventions) conventions.emplace_back(one);
  if (conventions.empty()) conventions.emplace_back();
  return conventions;
}

/// Gates below -1000, the forget gate's below the input gate's, as no regime has them.
Case with_gates_below_1000() {
  Case c = make_case(parse_spec("regime=standard,S=1,DHQK=8,DHV=8,L=1,initial_states=1,dtype=float32"));
  for (const auto& [name, value] : {std::pair{"i", -2000.0}, {"f", -3000.0}}) c.inputs[name].fill(value);
  return c;
}

/// The case that a mutant says it needs, or all of exposing_cases().
const std::vector<Case>& cases_of(const Mutant& mutant) {
  static std::map<std::string, std::vector<Case>> needed;
  if (mutant.name.find("_clamped_") != std::string::npos)
    return needed.try_emplace("clamped", 1, with_gates_below_1000()).first->second;
  if (mutant.needs.empty()) return exposing_cases();
  std::vector<Case>& cases = needed[mutant.needs];
  if (cases.empty()) cases.push_back(make_case(parse_spec(mutant.needs)));
  return cases;
}

/// True if one of the properties of the interface, which call a kernel in other ways, does not hold.
bool lacks_a_property(const Kernel& kernel) {
  for (const char* const property : {"null_arguments", "interleaving", "concurrency"})
    for (const ProblemSpec& spec : property_problems(property)) {
      if (spec.problem.dtype != DType::float32 || !property_refusal(property, kernel, spec).empty()) continue;
      try {
        for (const Item& item : check_property(property, kernel, spec))
          if (item.status != Status::PASS) return true;
      } catch (const std::runtime_error&) {
        return true;
      }
    }
  return false;
}

/// True if the mutant behaves in another way than its specimen on some of the cases.
bool shows(const Mutant& mutant) {
  static std::map<std::tuple<const Kernel*, const Case*, std::optional<Convention>>, Outcome> honest;
  const Kernel& specimen = specimen_of(mutant);
  for (const Case& c : cases_of(mutant)) {
    if (!mutant.kernel->unsupported(c.problem).empty()) continue;
    for (const auto& convention : conventions_of(specimen)) {
      auto& expected = honest[{&specimen, &c, convention}];
      if (expected.outputs.empty()) expected = run(specimen, c, convention);
      BOOST_TEST(expected.complaint == "");
      if (differ(expected, run(*mutant.kernel, c, convention, mutant.repeats > 1 ? mutant.repeats : 0))) return true;
    }
  }
  return false;
}

const Mutant& mutant_named(const std::string& name) {
  for (const Mutant& mutant : mutants())
    if (mutant.name == name) return mutant;
  throw std::invalid_argument("no mutant is called " + name);
}

std::string complaint_of(const std::string& name) {
  return run(*mutant_named(name).kernel, exposing_cases().front(), Convention::detached).complaint;
}

}  // namespace

BOOST_AUTO_TEST_CASE(there_are_mutants_of_every_formulation_and_family) {
  std::set<std::string> names, keys, families;
  std::map<std::string, int> by_specimen;
  for (const Mutant& mutant : mutants()) {
    BOOST_TEST(names.insert(mutant.name).second, mutant.name << " twice");
    BOOST_TEST(keys.insert(mutant.kernel->info().key()).second, mutant.kernel->info().key() << " twice");
    BOOST_TEST(!mutant.description.empty());
    BOOST_TEST(mutant.repeats >= 1);
    families.insert(mutant.family);
    ++by_specimen[specimen_of(mutant).info().key()];
  }
  BOOST_TEST(mutants().size() >= 100u);
  BOOST_TEST(by_specimen.size() == specimens().size());
  const std::set<std::string> expected{
      "gate",       "stabilizer",     "denominator",   "eps",        "scale",     "mask",
      "decay",      "state",          "initial_state", "last_state", "tail",      "gradient",
      "convention", "state_gradient", "gate_gradient", "range",      "stride",    "precision",
      "element",    "memory",         "race",          "geometry",   "interface", "packed"};
  BOOST_TEST(families == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(mutants_declare_what_their_specimen_declares_and_are_not_registered) {
  for (const Mutant& mutant : mutants()) {
    const VariantInfo &info = mutant.kernel->info(), &honest = specimen_of(mutant).info();
    BOOST_TEST(find_kernel(info.key()) == nullptr);
    BOOST_TEST((info.module == honest.module && info.dtypes == honest.dtypes && info.gates == honest.gates));
    BOOST_TEST((info.gradient_conventions == honest.gradient_conventions));
    BOOST_TEST((info.operand_dtype == honest.operand_dtype && info.state_dtype == honest.state_dtype));
    BOOST_TEST((info.straddling_gate_gradients == honest.straddling_gate_gradients));
    BOOST_TEST((info.full_precision_rows == honest.full_precision_rows));
  }
  for (const Kernel* specimen : specimens()) BOOST_TEST(find_kernel(specimen->info().key()) == nullptr);
}

BOOST_AUTO_TEST_CASE(specimens_pass_the_smoke_suite_in_every_dtype) {
  std::set<std::string> seen;
  for (const std::uint64_t seed : {0, 1, 2}) {
    Selection selection;
    selection.seed = seed;
    std::vector<Record> records = run_sweep(make_plan(specimens(), suite("smoke", selection), true).units, {});
    mistrust(records);
    for (const Record& record : records) {
      const Item& item = record.item;
      seen.insert(item.variant + " " + record.dtype);
      if (item.status != Status::PASS)
        BOOST_ERROR(item.variant << " " << item.case_name << " " << item.tensor << " " << item.note);
    }
  }
  std::size_t expected = 0;
  for (const Kernel* specimen : specimens()) expected += specimen->info().dtypes.size();
  BOOST_TEST(seen.size() == expected);
}

BOOST_AUTO_TEST_CASE(every_mutant_behaves_differently_from_its_specimen) {
  for (const Mutant& mutant : mutants())
    if (mutant.equivalent.empty())
      BOOST_TEST((shows(mutant) || (mutant.family == "interface" && lacks_a_property(*mutant.kernel))),
                 mutant.name << " gives what its specimen gives");
}

BOOST_AUTO_TEST_CASE(memory_bugs_are_complained_about_as_what_they_are) {
  BOOST_TEST(contains(complaint_of("parallel.dk_written_past_end"), "dk was written past its end"));
  BOOST_TEST(contains(complaint_of("chunkwise.saved_written_past_end"), "saved was written past its end"));
  BOOST_TEST(contains(complaint_of("recurrent.workspace_written_past_end"), "workspace of forward was written past"));
  BOOST_TEST(contains(complaint_of("chunkwise.df_written_before_start"), "df was written before its start"));
  BOOST_TEST(contains(complaint_of("parallel.q_input_damaged"), "q was changed, though it is an input"));
  BOOST_TEST(contains(complaint_of("chunkwise.dh_input_damaged"), "cotangent of h was changed"));
  BOOST_TEST(contains(complaint_of("recurrent.saved_input_damaged"), "saved was changed"));
  BOOST_TEST(contains(complaint_of("recurrent.h_first_row_unwritten"), "h[0,0,0,0] was not written"));
  BOOST_TEST(
      contains(complaint_of("chunkwise.accumulators_not_cleared"), "depends on memory that was not initialised"));
  BOOST_TEST(contains(complaint_of("chunkwise.reads_past_end"), "depends on memory that was not initialised"));
}

// A race lost in one call of 50 shows in 228 calls with a probability of 99 %: two that are always made, and repeats.
BOOST_AUTO_TEST_CASE(races_are_lost_once_in_50_calls_and_found_by_the_stated_repeats) {
  const Case c = make_case(parse_spec("regime=forget3,S=20,DHQK=4,DHV=4,L=8,dtype=float32"));
  std::size_t races = 0;
  for (const Mutant& mutant : mutants()) {
    if (mutant.family != "race") continue;
    ++races;
    const auto convention = conventions_of(*mutant.kernel).front();
    BOOST_TEST(contains(run(*mutant.kernel, c, convention, mutant.repeats).complaint, "differs from run to run"),
               mutant.name);
    int lost = 0;
    constexpr int kRuns = 500;
    const Outcome expected = run(specimen_of(mutant), c, convention);
    for (int n = 0; n < kRuns; ++n) lost += differ(expected, run(*mutant.kernel, c, convention)) ? 1 : 0;
    // each run calls it twice: 1000 calls, of which 20 lose, with a standard deviation of 4.4
    BOOST_TEST((lost >= 5 && lost <= 40), mutant.name << " lost " << lost);
  }
  BOOST_TEST(races >= 3u);
}
