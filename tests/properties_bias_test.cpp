// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Properties that compare with the reference look for biases, too.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <string>
#include <vector>

#include "broken_properties.hpp"
#include "report/report.hpp"
#include "studies/mutants/mutants.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::items_of;

namespace {

const std::vector<std::string> kJudged{"split_state", "packed"};

}  // namespace

BOOST_AUTO_TEST_CASE(honest_kernels_have_none) {
  std::size_t told = 0;
  double largest = 0;
  for (const auto& kernels : {specimens(), other_specimens()})
    for (const Kernel* const kernel : kernels)
      for (const std::string& property : kJudged)
        for (const DType dtype : kernel->info().dtypes) {
          const auto specs = property_problems(property);
          if (std::none_of(specs.begin(), specs.end(), [&](const ProblemSpec& spec) {
                return spec.problem.dtype == dtype && property_refusal(property, *kernel, spec).empty();
              }))
            continue;
          for (const Item& item : items_of(property, *kernel, dtype)) {
            told += item.bias_ratio.has_value();
            largest = std::max(largest, item.bias_ratio.value_or(0));
            BOOST_TEST((item.status == Status::PASS), kernel->info().key() << " " << describe(item));
          }
        }
  BOOST_TEST_MESSAGE("largest bias_ratio " << largest << " of " << told);
  BOOST_TEST(told > 500u);
}

BOOST_AUTO_TEST_CASE(a_bias_under_every_bound_fails) {
  for (const std::string& property : kJudged) {
    std::size_t found = 0;
    for (const Mutant& mutant : mutants()) {
      if (mutant.family != "bias" || !mutant.name.starts_with("chunkwise.")) continue;
      for (const Item& item : items_of(property, *mutant.kernel, DType::bfloat16)) {
        const bool by_bias = item.status == Status::FAIL && item.error_ratio <= 1;
        found += by_bias;
        if (!by_bias) continue;
        BOOST_TEST(item.bias_ratio.value() > 1);
        BOOST_TEST((item.note.find(" on average") != std::string::npos), item.note);
      }
    }
    BOOST_TEST(found > 0u, property);
  }
}
