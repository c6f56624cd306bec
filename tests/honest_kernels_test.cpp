// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Kernels with habits of others', all of them right, where bounds once had no room for them.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <string>
#include <vector>

#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "runner/runner.hpp"
#include "studies/mutants/mutants.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

const Kernel& specimen(const std::string& key) {
  for (const Kernel* kernel : other_specimens())
    if (kernel->info().key() == key) return *kernel;
  throw std::invalid_argument("no specimen is called " + key);
}

/// The verdicts on everything that the kernel computes for `c`, in all its conventions.
std::vector<Item> verdicts(const Kernel& kernel, Case c, Yardsticks& known) {
  const ReferenceData reference = evaluate_reference(c);
  JudgeOptions options;
  options.known = &known;
  std::vector<Item> items;
  for (const Convention convention : kernel.info().gradient_conventions) {
    c.kernel = run_kernel(kernel, c, convention);
    for (Item& item : judge(c, reference, options)) items.push_back(std::move(item));
  }
  return items;
}

void require_passes(const Kernel& kernel, const Case& c) {
  Yardsticks known;
  for (const Item& item : verdicts(kernel, c, known))
    BOOST_TEST((item.status == Status::PASS), kernel.info().key()
                                                  << " " << c.name << ": " << item.tensor << " " << item.convention
                                                  << " " << *item.error_ratio << " " << item.note);
}

Case problem(const std::string& line) {
  const ProblemSpec spec = parse_spec(line);
  Case c = make_case(spec);
  c.name = case_name(spec);
  return c;
}

/// The same with gates higher by so much.
Case with_gates(Case c, double i, double f) {
  for (const auto& [name, offset] : {std::pair{"i", i}, std::pair{"f", f}})
    for (double& value : c.inputs.at(name)) value = round_to(c.problem.dtype, value + offset);
  c.name += " i + " + std::to_string(i) + ", f + " + std::to_string(f);
  return c;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_rounded_scaled_cotangent_is_an_error_of_all_terms_of_a_row) {
  for (const char* line :
       {"regime=repeated,seed=0,eps=0.001,dtype=bfloat16,NH=2,S=192,DHQK=24,DHV=32,L=26",
        "regime=repeated,seed=55,dtype=float16,stabilizer_init=neg_inf,B=2,NH=2,S=187,DHQK=24,DHV=24,L=16,"
        "last_state_cotangents=1"})
    for (const char* key : {"parallel--scaled_cotangent_specimen_ownbw", "chunkwise--scaled_cotangent_specimen_ownbw"})
      require_passes(specimen(key), problem(line));
}

BOOST_AUTO_TEST_CASE(a_state_may_be_read_in_the_dtype_of_operands_at_any_step) {
  for (const char* line : {"regime=repeated,seed=55,dtype=bfloat16,stabilizer_init=neg_inf,B=2,NH=2,S=187,DHQK=24,"
                           "DHV=24,L=16,last_state_cotangents=1",
                           "regime=repeated,NH=3,S=256,DHQK=64,DHV=64,L=64,dtype=bfloat16"})
    for (const char* key : {"recurrent--rounded_reads_specimen_ownbw", "chunkwise--short_chunks_specimen_ownbw"})
      require_passes(specimen(key), problem(line));
}

// σ(-i) or a decay below the smallest normal number becomes 0, and what it multiplies may be large.
BOOST_AUTO_TEST_CASE(subnormal_numbers_may_be_flushed_to_zero) {
  for (const char* gate : {"exp", "sigmoid", "sigmoid,normalize=0"})
    for (const char* dtype : {"float32", "bfloat16", "float64"})
      for (const auto& [i, f] : {std::pair{88.0, 0.0}, std::pair{-88.0, 0.0}, std::pair{0.0, -86.0},
                                 std::pair{-60.0, -30.0}, std::pair{-150.0, -30.0}, std::pair{706.0, 88.0},
                                 std::pair{-1000.0, -1000.0}, std::pair{88.0, 88.0}, std::pair{44.0, -44.0}}) {
        const Case c = with_gates(problem(std::string("regime=forget3,S=48,DHQK=16,DHV=8,L=16,initial_states=1,"
                                                      "last_state_cotangents=1,gate=") +
                                          gate + ",dtype=" + dtype),
                                  i, f);
        for (const char* key :
             {"recurrent--flush_specimen_ownbw", "parallel--flush_specimen_ownbw", "chunkwise--flush_specimen_ownbw"})
          require_passes(specimen(key), c);
      }
}
