// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Coherent errors are found though every element is within its bound, and honest ones are not taken for them.
#include <algorithm>
#include <bit>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "report/report.hpp"
#include "runner/runner.hpp"
#include "studies/mutants/mutants.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

constexpr const char* kProblem =
    "regime=standard,NH=4,S=96,DHQK=32,DHV=48,L=16,dtype=bfloat16,initial_states=1,last_state_cotangents=1";

/// A problem, and a kernel that gives the reference's values, rounded as they are stored.
struct Rounded {
  Case c;
  ReferenceData reference;

  explicit Rounded(const std::string& line) : c(make_case(parse_spec(line))), reference(evaluate_reference(c)) {
    c.kernel.emplace();
    c.kernel->variant = "chunkwise--rounded";
    c.kernel->convention = Convention::exact;
    c.kernel->attributes["saved_dtype"] = std::string("float32");
    c.kernel->attributes["gate_gradient"] = std::string("straddling");
    const auto store = [&](const TensorMap& from, TensorMap& to) {
      for (const auto& [name, array] : from) {
        to[name] = array;
        for (double& x : to[name]) x = round_to(storage_dtype(name, c.problem), x);
      }
    };
    store(reference.outputs, c.kernel->outputs);
    store(reference.exact, c.kernel->gradients);
  }

  Array& values(const std::string& tensor) {
    return c.kernel->outputs.contains(tensor) ? c.kernel->outputs.at(tensor) : c.kernel->gradients.at(tensor.substr(1));
  }

  Item judge(const std::string& tensor) const {
    for (Item& item : verify::judge(c, reference))
      if (item.tensor == tensor) return item;
    throw std::logic_error(tensor + " was not judged");
  }

  /// As if the elements [begin, end) of the tensor were `factor` times what they are, before they are stored.
  Item judge_times(double factor, const std::string& tensor, std::size_t begin = 0, std::size_t end = ~0ul) {
    Array& array = values(tensor);
    const Array kept = array;
    const std::string name = c.kernel->outputs.contains(tensor) ? tensor : tensor.substr(1);
    const Array& expected = c.kernel->outputs.contains(tensor) ? reference.outputs.at(name) : reference.exact.at(name);
    for (std::size_t n = begin; n < std::min(end, array.size()); ++n)
      array.data()[n] = round_to(storage_dtype(name, c.problem), factor * expected.data()[n]);
    Item item = judge(tensor);
    array = kept;
    return item;
  }
};

double truncated(double x) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(x)) & 0xffff0000u);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_bias_is_found_where_every_element_is_within_its_bound) {
  Rounded kernel(kProblem);
  const std::vector<std::pair<std::string, double>> factors{
      {"h", 1.0156}, {"c_last", 1.01}, {"n_last", 1.004}, {"dq", 1.01}, {"dk", 1.01},
      {"dv", 1.01},  {"di", 1.014},    {"df", 1.06},      {"h", 0.99},  {"dc_initial", 0.99}};
  for (const auto& [tensor, factor] : factors) BOOST_TEST_CONTEXT(tensor) {
      const Item right = kernel.judge(tensor), wrong = kernel.judge_times(factor, tensor);
      BOOST_TEST((right.status == Status::PASS));
      BOOST_TEST(right.bias_ratio.value() < 0.5);
      BOOST_TEST((wrong.status == Status::FAIL));
      BOOST_TEST(wrong.error_ratio.value() <= 1);
      BOOST_TEST(wrong.bias_ratio.value() > 1);
      BOOST_TEST(std::abs(wrong.bias.value() - (factor - 1)) < 0.003);
      BOOST_TEST(wrong.note.find(tensor + " is ") != std::string::npos, wrong.note);
    }
  const Item h = kernel.judge_times(1.0156, "h");
  BOOST_TEST(h.note.find("% too large on average") != std::string::npos, h.note);
  const Item small = kernel.judge_times(0.985, "h");
  BOOST_TEST(small.note.find("% too small on average") != std::string::npos, small.note);
  BOOST_TEST(to_table({h}, GroupBy::variant, 200).find("b did not pass: bias") != std::string::npos);
  BOOST_TEST(to_json({h}).find("\"bias_ratio\":") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_bias_in_one_place_is_not_diluted_and_is_named) {
  Rounded kernel(kProblem);
  const std::size_t head = 96 * 48;
  const Item in_head = kernel.judge_times(1.0156, "h", 2 * head, 3 * head);
  BOOST_TEST((in_head.status == Status::FAIL));
  BOOST_TEST(in_head.error_ratio.value() <= 1);
  BOOST_TEST(in_head.note.find("in head [0, 2]") != std::string::npos, in_head.note);
  const Item in_range = kernel.judge_times(1.0156, "h", head + 32 * 48, head + 48 * 48);
  BOOST_TEST((in_range.status == Status::FAIL));
  BOOST_TEST(in_range.note.find("in head [0, 1], t = 32 ... 47") != std::string::npos, in_range.note);
}

BOOST_AUTO_TEST_CASE(truncation_is_found_unless_it_is_declared) {
  Rounded kernel("regime=standard,NH=4,S=256,DHQK=32,DHV=48,L=16,dtype=bfloat16");
  for (const char* const tensor : {"h", "dq", "dv"}) {
    Array& values = kernel.values(tensor);
    const Array& expected = std::string(tensor) == "h" ? kernel.reference.outputs.at("h")
                                                       : kernel.reference.exact.at(std::string(tensor).substr(1));
    std::transform(expected.begin(), expected.end(), values.begin(), truncated);
    BOOST_TEST((kernel.judge(tensor).status == Status::FAIL), tensor << " " << kernel.judge(tensor).bias_ratio.value());
    BOOST_TEST(kernel.judge(tensor).bias.value() < -0.001);
    kernel.c.kernel->attributes["rounding"] = std::string("nearest");
    BOOST_TEST((kernel.judge(tensor).status == Status::FAIL), tensor);
    kernel.c.kernel->attributes["rounding"] = std::string("truncate");
    BOOST_TEST((kernel.judge(tensor).status == Status::PASS), tensor);
    kernel.c.kernel->attributes.erase("rounding");
  }
  kernel.c.kernel->attributes["rounding"] = std::string("down");
  BOOST_CHECK_EXCEPTION(validate(kernel.c), std::invalid_argument, [](const std::invalid_argument& error) {
    return std::string(error.what()) ==
           "attribute rounding of /kernel is \"down\"; expected \"nearest\" or \"truncate\"";
  });
}

BOOST_AUTO_TEST_CASE(a_kernel_that_truncates_passes_if_it_says_so) {
  const auto all = mutants();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [](const Mutant& mutant) { return mutant.name == "chunkwise.operands_truncated"; });
  BOOST_REQUIRE((found != all.end()));
  int undeclared = 0, declared = 0;
  for (const char* const regime : {"standard", "forget6", "positive", "repeated", "xlstm7b", "crossover"})
    for (const Convention convention : {Convention::exact, Convention::detached}) {
      Case c = make_case(parse_spec(std::string("NH=2,S=96,DHQK=32,DHV=48,L=16,dtype=bfloat16,regime=") + regime));
      const ReferenceData reference = evaluate_reference(c);
      c.kernel = run_kernel(*found->kernel, c, convention);
      for (const Item& item : judge(c, reference)) undeclared += item.status == Status::FAIL;
      c.kernel->attributes["rounding"] = std::string("truncate");
      for (const Item& item : judge(c, reference)) {
        BOOST_TEST((item.status == Status::PASS), regime << " " << item.tensor << " " << describe(item));
        ++declared;
      }
    }
  BOOST_TEST(undeclared >= 6);
  BOOST_TEST(declared > 60);
}

BOOST_AUTO_TEST_CASE(numbers_of_few_values_are_few_roundings) {
  // P is 40^-1/2 times an integer: a hundred thousand elements, a few dozen roundings.
  const Case problem = make_case(parse_spec(
      "regime=integers,seed=224,gate=sigmoid,normalize=0,dtype=bfloat16,B=2,NH=2,S=298,DHQK=40,DHV=48,cotangents=0"));
  const ReferenceData reference = evaluate_reference(problem);
  for (const Kernel* const kernel : specimens()) {
    if (kernel->info().module != Module::parallel) continue;
    Case c = problem;
    c.kernel = run_kernel(*kernel, c, {});
    const auto items = judge(c, reference);
    BOOST_TEST((items.at(0).status == Status::PASS), describe(items.at(0)));
    BOOST_TEST(items.at(0).bias_ratio.value() < 0.5);
  }
}

BOOST_AUTO_TEST_CASE(errors_that_are_shared_are_no_bias) {
  // All rows alike: what is wrong in one is as wrong in all of them, and a thousand rows say no more than one.
  const auto biased = [](const std::string& line, bool alike) {
    Rounded kernel(line);
    if (alike) {
      for (const char* const name : {"q", "k", "v", "i", "f"}) {
        Array& x = kernel.c.inputs.at(name);
        const std::size_t columns = x.size() / (4 * 96);
        for (std::size_t row = 1; row < 4 * 96; ++row) std::copy_n(x.data(), columns, x.data() + row * columns);
      }
      const Case c = kernel.c;
      kernel.reference = evaluate_reference(c);
      for (const auto& [name, array] : kernel.reference.outputs) kernel.c.kernel->outputs[name] = array;
    }
    kernel.c.kernel->gradients.clear();
    kernel.c.cotangents.clear();
    return kernel.judge_times(1 + 1.4 * 0x1p-8, "h").bias_ratio.value();
  };
  const std::string line = "regime=forget3,NH=4,S=96,DHQK=32,DHV=48,L=16,dtype=bfloat16";
  BOOST_TEST(biased(line, false) > 1);
  BOOST_TEST(biased(line, true) < 1);
}

BOOST_AUTO_TEST_CASE(no_bias_is_computed_where_none_could_be_seen) {
  Rounded kernel(kProblem);
  BOOST_TEST(!kernel.judge("m_last").bias_ratio);  // whose sign and zero mean nothing
  kernel.values("h")(0, 1, 5, 3) = std::numeric_limits<double>::infinity();
  BOOST_TEST(!kernel.judge("h").bias_ratio);
  Rounded zeros("regime=forget3,NH=2,S=40,DHQK=8,DHV=8,L=8,dtype=bfloat16");
  for (double& x : zeros.c.inputs.at("v")) x = 0;
  zeros.reference = evaluate_reference(zeros.c);
  zeros.values("h") = zeros.reference.outputs.at("h");
  BOOST_TEST(!zeros.judge("h").bias_ratio);
  BOOST_TEST(to_json({zeros.judge("h")}).find("bias") == std::string::npos);
}
