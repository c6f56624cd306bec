// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// The reference against solutions of an independent program (data/oracle).
#include <boost/test/unit_test.hpp>
#include <filesystem>

#include "cases/case_file.hpp"
#include "reference_tools.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::test;

std::vector<verify::Case> oracle_cases() {
  std::vector<verify::Case> cases;
  for (const auto& path : verify::find_case_files({std::filesystem::path(MLSTM_SOURCE_DIR) / "data/oracle"})) {
    cases.push_back(verify::read_case(path));
  }
  return cases;
}

/// Largest relative Frobenius difference to the solutions over all files; reports each tensor that exceeds 1e-12.
double worst_difference(const reference::Options& options, bool extended = false) {
  double worst = 0;
  for (const verify::Case& c : oracle_cases()) {
    const verify::ReferenceData result = verify::evaluate_reference(c, options, extended);
    for (const Difference& d : differences(result, *c.reference)) {
      BOOST_TEST_CONTEXT(c.name << " " << d.tensor << " " << describe(options)) { BOOST_TEST(d.relative <= 1e-12); }
      worst = std::max(worst, d.relative);
    }
  }
  BOOST_TEST_MESSAGE(describe(options) << (extended ? " extended" : "") << ": " << worst);
  return worst;
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_oracle_file_is_there_with_both_gradients) {
  const auto cases = oracle_cases();
  BOOST_TEST(cases.size() == 7u);
  for (const verify::Case& c : cases) {
    BOOST_REQUIRE(c.reference.has_value());
    BOOST_TEST(c.reference->exact.size() == c.inputs.size());
    BOOST_TEST(c.reference->detached.size() == c.inputs.size());
    BOOST_TEST(c.reference->outputs.contains("h"));
  }
}

BOOST_AUTO_TEST_CASE(every_formulation_and_backward_agrees_with_the_oracle_to_1e_12) {
  for (const reference::Options& options : all_options({1, 7, 16, 64, 200}))
    BOOST_TEST(worst_difference(options) <= 1e-12);
}

BOOST_AUTO_TEST_CASE(extended_precision_agrees_with_the_oracle_to_1e_12) {
  reference::Options options;
  options.chunk_size = 16;
  BOOST_TEST(worst_difference(options, true) <= 1e-12);
}
