// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <tuple>

#include "cases/problems.hpp"
#include "judge/judge.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Comparison compare_one(double value, double reference, double bound, DType storage = DType::float64) {
  return compare(Array{value}, Array{reference}, Array{bound}, storage);
}

ProblemSpec small_spec() {
  return parse_spec("regime=standard,seed=3,dtype=bfloat16,B=1,NH=2,S=40,DHQK=16,DHV=24,L=16,last_state_cotangents=1");
}

struct Solved {
  Case c;
  ReferenceData reference;
};

/// A case whose /kernel holds the reference itself, rounded to bfloat16: the most honest kernel there can be.
Solved solved(Convention convention) {
  Solved s{make_case(small_spec()), {}};
  s.reference = evaluate_reference(s.c);
  KernelData kernel;
  kernel.variant = "chunkwise--native_torch";
  kernel.convention = convention;
  const auto rounded = [](const Array& values, DType dtype) {
    Array out = values;
    for (double& x : out) x = round_to(dtype, x);
    return out;
  };
  for (const auto& [name, values] : s.reference.outputs)
    kernel.outputs[name] = rounded(values, storage_dtype(name, s.c.problem));
  for (const auto& [name, values] : convention == Convention::exact ? s.reference.exact : s.reference.detached)
    kernel.gradients[name] = rounded(values, storage_dtype(name, s.c.problem));
  s.c.kernel = std::move(kernel);
  return s;
}

const Item& find(const std::vector<Item>& items, const std::string& tensor) {
  for (const Item& item : items)
    if (item.tensor == tensor) return item;
  throw std::logic_error("no item for " + tensor);
}

bool mentions(const Item& item, const std::string& text) { return item.note.find(text) != std::string::npos; }

}  // namespace

BOOST_AUTO_TEST_CASE(error_ratio_is_the_error_over_its_bound) {
  const Comparison c = compare(Array{1.0, 2.5, 3.0}, Array{1.0, 2.0, 3.25}, Array{1.0, 2.0, 0.5}, DType::float64);
  BOOST_TEST(c.error_ratio == 0.5);
  BOOST_TEST(c.worst == 2u);
  BOOST_TEST(c.max_abs_error == 0.5);
  BOOST_TEST(c.rel_frobenius == std::sqrt(0.25 + 0.0625) / std::sqrt(1 + 4 + 3.25 * 3.25),
             boost::test_tools::tolerance(1e-15));
}

BOOST_AUTO_TEST_CASE(nan_and_infinity_never_pass_where_the_reference_is_finite) {
  for (const double wrong : {kNaN, kInf, -kInf}) {
    BOOST_TEST(compare_one(wrong, 1.0, 1e300).error_ratio == kInf);
    BOOST_TEST(compare_one(wrong, 0.0, 1e300).error_ratio == kInf);
  }
  BOOST_TEST(compare_one(kNaN, kInf, 1.0).error_ratio == kInf);
  BOOST_TEST(compare_one(-kInf, kInf, 1.0).error_ratio == kInf);
  BOOST_TEST(compare_one(1e308, kInf, 1.0).error_ratio == kInf);
  BOOST_TEST(compare_one(kInf, kInf, 1.0).error_ratio == 0);
}

BOOST_AUTO_TEST_CASE(infinity_is_right_beyond_the_largest_number_of_the_dtype) {
  BOOST_TEST(compare_one(kInf, 7e4, 1.0, DType::float16).error_ratio == 0);
  BOOST_TEST(compare_one(kInf, 6.5e4, 1.0, DType::float16).error_ratio == kInf);
  BOOST_TEST(compare_one(-kInf, 7e4, 1.0, DType::float16).error_ratio == kInf);
}

BOOST_AUTO_TEST_CASE(a_bound_that_is_not_finite_is_no_licence) {
  for (const double bound : {kInf, kNaN}) {
    const Comparison c = compare_one(1.0, 2.0, bound);
    BOOST_TEST(!c.bound_usable);
    BOOST_TEST(c.error_ratio == kInf);
  }
}

BOOST_AUTO_TEST_CASE(shapes_that_differ_are_refused) {
  BOOST_CHECK_THROW(compare(Array{1.0}, Array{1.0, 2.0}, Array{1.0, 2.0}, DType::float64), std::invalid_argument);
  BOOST_CHECK_THROW(compare(Array{1.0, 2.0}, Array{1.0, 2.0}, Array{1.0}, DType::float64), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(hidden_wrong_answers_are_those_within_the_bound) {
  const Array reference{{{1.0, -1.0, 2.0, 0.5}}};
  const std::vector<std::string> none, all{"zero", "constant", "negated", "doubled", "shifted"};
  BOOST_TEST(hidden_wrong_answers(reference, 0.01 * xt::ones_like(reference), true) == none,
             boost::test_tools::per_element());
  BOOST_TEST(hidden_wrong_answers(reference, 10.0 * xt::ones_like(reference), true) == all,
             boost::test_tools::per_element());
  // Zeros that are right hide nothing.
  BOOST_TEST(hidden_wrong_answers(xt::zeros_like(reference), xt::ones_like(reference), true).empty());
}

BOOST_AUTO_TEST_CASE(a_rounded_reference_passes_in_every_tensor) {
  for (const Convention convention : {Convention::exact, Convention::detached}) {
    const Solved s = solved(convention);
    const std::vector<Item> items = judge(s.c, s.reference);
    BOOST_TEST(items.size() == 4u + 5u);
    for (const Item& item : items) {
      BOOST_TEST_CONTEXT(item.tensor << " " << item.note) BOOST_TEST((item.status == Status::PASS));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_gradient_of_the_other_convention_fails_and_is_named) {
  Solved s = solved(Convention::exact);
  s.c.kernel->convention = Convention::detached;
  const std::vector<Item> items = judge(s.c, s.reference);
  for (const char* tensor : {"dq", "dk", "di"}) {
    BOOST_TEST((find(items, tensor).status == Status::FAIL));
    BOOST_TEST(mentions(find(items, tensor), "this is the exact gradient"));
  }
  BOOST_TEST((find(items, "dv").status == Status::PASS));
  BOOST_TEST((find(items, "h").status == Status::PASS));
}

BOOST_AUTO_TEST_CASE(an_unknown_convention_is_found_out) {
  for (const Convention truth : {Convention::exact, Convention::detached}) {
    Solved s = solved(truth);
    s.c.kernel->convention.reset();
    for (const Item& item : judge(s.c, s.reference)) {
      BOOST_TEST((item.status == Status::PASS));
      if (item.tensor[0] == 'd') BOOST_TEST(item.convention == to_string(truth));
    }
  }
}

BOOST_AUTO_TEST_CASE(where_both_conventions_fit_the_verdict_says_both) {
  Solved s = solved(Convention::exact);
  s.c.kernel->convention.reset();
  s.c.kernel->gradients = {{"v", s.c.kernel->gradients.at("v")}};
  BOOST_TEST(find(judge(s.c, s.reference), "dv").convention == "both");
}

BOOST_AUTO_TEST_CASE(the_convention_option_overrules_the_declaration) {
  const Solved s = solved(Convention::exact);
  JudgeOptions options;
  options.convention = Convention::detached;
  BOOST_TEST((find(judge(s.c, s.reference, options), "dq").status == Status::FAIL));
}

BOOST_AUTO_TEST_CASE(one_nan_fails_its_tensor_alone) {
  Solved s = solved(Convention::exact);
  s.c.kernel->outputs.at("h")(0, 1, 7, 3) = kNaN;
  const std::vector<Item> items = judge(s.c, s.reference);
  BOOST_TEST((find(items, "h").status == Status::FAIL));
  const std::vector<std::int64_t> where{0, 1, 7, 3};
  BOOST_TEST(find(items, "h").worst_index == where, boost::test_tools::per_element());
  for (const Item& item : items)
    if (item.tensor != "h") BOOST_TEST((item.status == Status::PASS));
}

BOOST_AUTO_TEST_CASE(what_is_absent_fails_only_if_everything_is_required) {
  Solved s = solved(Convention::exact);
  s.c.kernel->gradients.erase("k");
  s.c.kernel->outputs.erase("n_last");
  BOOST_TEST(judge(s.c, s.reference).size() == 7u);
  JudgeOptions options;
  options.require_all = true;
  const std::vector<Item> items = judge(s.c, s.reference, options);
  BOOST_TEST((find(items, "dk").status == Status::FAIL));
  BOOST_TEST((find(items, "n_last").status == Status::FAIL));
}

BOOST_AUTO_TEST_CASE(a_tensor_that_is_zero_by_definition_must_be_zero) {
  Solved s{make_case(small_spec()), {}};
  s.c.inputs.at("q").fill(0);
  s.reference = evaluate_reference(s.c);
  KernelData kernel;
  kernel.outputs["h"] = s.reference.outputs.at("h");
  s.c.kernel = kernel;
  const Item zero = find(judge(s.c, s.reference), "h");
  BOOST_TEST((zero.status == Status::PASS));
  BOOST_TEST(mentions(zero, "zero by definition"));
  BOOST_TEST((zero.trivial && zero.zero_by_definition));
  s.c.kernel->outputs["h"](0, 0, 1, 1) = 1e-20;
  BOOST_TEST((find(judge(s.c, s.reference), "h").status == Status::FAIL));
}

BOOST_AUTO_TEST_CASE(status_names_round_trip) {
  for (const Status status :
       {Status::PASS, Status::FAIL, Status::MISTRUSTED, Status::SKIPPED, Status::ERROR, Status::TIMEOUT, Status::STALE})
    BOOST_TEST((parse_status(to_string(status)) == status));
  BOOST_CHECK_THROW(parse_status("pass"), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(without_a_formulation_the_window_is_the_widest_and_the_note_says_so) {
  Solved s = solved(Convention::exact);
  const auto window = [&](const char* variant, std::optional<Module> formulation) {
    s.c.kernel->variant = variant;
    s.c.kernel->formulation = formulation;
    return precision_of(s.c).window;
  };
  const std::int64_t S = s.c.problem.shape.S, L = s.c.problem.chunk_size;
  BOOST_TEST(window("", {}) == S);
  BOOST_TEST(window("mine", {}) == S);
  BOOST_TEST(window("mine", Module::chunkwise) == L);
  BOOST_TEST(window("mine", Module::recurrent) == 0);
  BOOST_TEST(window("mine", Module::parallel) == S);
  BOOST_TEST(window("chunkwise--mine", {}) == L);
  BOOST_TEST(window("recurrent--mine", {}) == 0);
  const std::string note = "formulation not stated: bounds of the widest window of gate sums";
  for (const auto& [variant, formulation, expected] : {std::tuple{"mine", std::optional<Module>(), true},
                                                       {"mine", std::optional(Module::chunkwise), false},
                                                       {"chunkwise--mine", std::optional<Module>(), false}}) {
    window(variant, formulation);
    const std::vector<Item> items = judge(s.c, s.reference);
    BOOST_TEST(items.size() > 5u);
    for (const Item& item : items) BOOST_TEST(mentions(item, note) == expected, variant << " " << item.tensor);
  }
  window("chunkwise--mine", Module::parallel);
  BOOST_CHECK_THROW(validate(s.c), std::invalid_argument);
}
