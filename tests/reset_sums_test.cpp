// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Gate sums of float32 that are carried across a reset are named, and nothing else is.
#include "judge/reset_sums.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <string>
#include <vector>

#include "broken_properties.hpp"
#include "studies/mutants/mutants.hpp"
#include "sweep/mistakes.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::failing, mlstm::test::items_of;

namespace {

const std::string kReset = "regime=reset,dtype=float32,NH=2,S=96,DHQK=16,DHV=16,L=32,eps=0.01";

std::vector<const Mutant*> packed_bugs() {
  std::vector<const Mutant*> bugs;
  for (const Mutant& mutant : mutants())
    if (mutant.family == "packed") bugs.push_back(&mutant);
  return bugs;
}

bool is_of_sums(const Mutant& mutant) { return contains(mutant.name, "gates_summed_over_resets"); }

/// What is said of a run in the regime `reset`.
std::string said_of(const Kernel& kernel, const std::string& line = kReset) {
  Case c = make_case(parse_spec(line));
  const Convention convention = kernel.info().gradient_conventions.front();
  c.kernel = run_kernel(kernel, c, convention);
  const ReferenceData reference = evaluate_reference(c);
  JudgeOptions judging;
  judging.convention = convention;
  std::string text;
  for (const std::string& said : find_mistakes(c, reference, judge(c, reference, judging), 1)) text += said + "\n";
  return text;
}

std::vector<std::string> notes_of(const Kernel& kernel) {
  std::vector<std::string> notes;
  for (const Item& item : items_of("packed", kernel, DType::float32))
    if (item.status == Status::FAIL) notes.push_back(item.note);
  return notes;
}

/// The kernel with the forget gates that its float32 sums, added as a scan does, amount to.
class Scanning : public Kernel {
 public:
  const VariantInfo& info() const override { return right().info(); }
  std::size_t saved_size(const Problem& problem) const override { return right().saved_size(problem); }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return right().workspace_size(problem, backward);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    std::vector<float> f(static_cast<std::size_t>(size_of("f", problem.shape)));
    const auto S = static_cast<std::size_t>(problem.shape.S);
    const auto L = std::min(S, static_cast<std::size_t>(problem.chunk_size));
    for (std::size_t first = 0; first < f.size(); first += S)
      for (std::size_t begin = first; begin < first + S; begin += L) {
        const std::size_t count = std::min(L, first + S - begin);
        std::vector<float> sums(count);
        for (std::size_t t = 0; t < count; ++t) sums[t] = log_gate(static_cast<const float*>(args.f)[begin + t]);
        // Hillis and Steele: as many adders as there are steps
        for (std::size_t by = 1; by < count; by *= 2) {
          const std::vector<float> before = sums;
          for (std::size_t t = by; t < count; ++t) sums[t] = before[t] + before[t - by];
        }
        for (std::size_t t = 0; t < count; ++t) f[begin + t] = gate(t == 0 ? sums[0] : sums[t] - sums[t - 1]);
      }
    ForwardArgs changed = args;
    changed.f = f.data();
    right().forward(problem, changed);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override { right().backward(problem, args); }

 private:
  static const Kernel& right() { return *find_kernel("chunkwise--native_eigen_ownbw"); }
  static float log_gate(float x) { return std::min(x, 0.0F) - std::log1p(std::exp(-std::abs(x))); }
  static float gate(float y) { return y > -1e-7F ? 16.0F : y < -20 ? y : y - std::log(-std::expm1(y)); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(the_property_names_them_and_no_other_bug) {
  for (const Mutant* const mutant : packed_bugs()) {
    const std::vector<std::string> notes = notes_of(*mutant->kernel);
    const bool named = std::any_of(notes.begin(), notes.end(), [](const auto& note) {
      return contains(note, "as if: gate sums of float32 are carried across a reset");
    });
    BOOST_TEST(named == is_of_sums(*mutant), mutant->name);
    if (is_of_sums(*mutant)) BOOST_TEST(!notes.empty());
  }
}

BOOST_AUTO_TEST_CASE(explanations_name_them_and_no_other_bug) {
  for (const Mutant* const mutant : packed_bugs()) {
    const std::string text = said_of(*mutant->kernel);
    BOOST_TEST(contains(text, "as if: gate sums of float32 are carried across a reset: that would give h") ==
                   is_of_sums(*mutant),
               mutant->name << ": " << text);
  }
}

BOOST_AUTO_TEST_CASE(sums_of_a_parallel_scan_are_named_too) {
  const std::string text = said_of(Scanning());
  BOOST_TEST(contains(text, "as if: gate sums of float32 are carried across a reset"), text);
}

BOOST_AUTO_TEST_CASE(without_a_reset_or_with_other_gates_there_is_nothing_to_name) {
  const auto ways = [](const std::string& line, std::optional<DType> gate_dtype = {}) {
    Case c = make_case(parse_spec(line));
    KernelData& kernel = c.kernel.emplace();
    kernel.variant = "chunkwise--x";
    kernel.gate_dtype = gate_dtype;
    return reset_sums_of(c).size();
  };
  BOOST_TEST(ways(kReset) == 4u);  // of two windows, in two orders
  BOOST_TEST(ways("regime=forget3,dtype=float32,S=96,DHQK=4,DHV=4,L=32") == 0u);
  BOOST_TEST(ways("regime=reset,dtype=float64,S=96,DHQK=4,DHV=4,L=32") == 0u);
  BOOST_TEST(ways(kReset, DType::bfloat16) == 0u);
}
