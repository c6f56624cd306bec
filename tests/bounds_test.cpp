// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// The bound separates honest kernels from wrong ones, in every regime.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <set>

#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "mlstm/kernel.hpp"
#include "runner/runner.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

ProblemSpec spec_of(const std::string& regime, DType dtype, std::uint64_t seed = 1) {
  ProblemSpec spec = parse_spec("B=1,NH=2,S=96,DHQK=32,DHV=48,L=16");
  spec.regime = regime;
  spec.problem.dtype = dtype;
  spec.seed = seed;
  return spec;
}

std::vector<Item> judge_kernel(const Kernel& kernel, Case c, const ReferenceData& reference, Convention convention) {
  c.kernel = run_kernel(kernel, c, convention);
  return judge(c, reference);
}

double bound_sum(const TensorMap& bounds, const std::string& tensor) {
  double sum = 0;
  for (const double b : bounds.at(tensor)) sum += b;
  return sum;
}

}  // namespace

BOOST_AUTO_TEST_CASE(bound_of_one_step_follows_the_formula) {
  // S = 1, dims 1, i = f = 0: m = max(logσ(0), 0) = 0, D = 1, l = q k, d = max(|q k|, 1), h = q k v / d.
  Case c;
  c.problem.dtype = DType::bfloat16;
  c.problem.eps = 0;
  for (const auto& [name, value] : std::map<std::string, double>{{"q", 2}, {"k", 4}, {"v", 3}, {"i", 0}, {"f", 0}}) {
    const auto shape = shape_of(name, c.problem.shape);
    c.inputs.emplace(name, Array(Array::shape_type(shape.begin(), shape.end()), value));
  }
  const ReferenceData reference = evaluate_reference(c);
  BOOST_TEST(reference.outputs.at("h")(0, 0, 0, 0) == 3.0);
  const Precision p{DType::bfloat16, DType::bfloat16, DType::float32, DType::float32, 1};
  const double u = 0x1p-8, ua = 0x1p-24;
  const double delta = ua * (8 + 3 * std::log(2.0) + 1), w = u + delta;
  // the state is read twice in a narrow format: C and n, and what they are multiplied by
  const double dl = w * std::sqrt(64.0 + 64.0 + 2 * 64.0) + u * 8, dmin = 8 - 3 * dl, rho = dl / dmin;
  const double h = w * std::sqrt(64.0 * 9 + 2 * 64.0 * 9) / dmin + 3 * (rho + delta + u + u);
  BOOST_TEST(error_bounds(c, reference, p).at("h")(0, 0, 0, 0) == 3 * h, boost::test_tools::tolerance(1e-6));
}

BOOST_AUTO_TEST_CASE(narrower_formats_have_wider_bounds) {
  const Case c = make_case(spec_of("standard", DType::bfloat16));
  const ReferenceData reference = evaluate_reference(c);
  const auto bounds = [&](DType d) { return error_bounds(c, reference, {d, d, state_dtype_of(d), d, 16}); };
  const TensorMap b16 = bounds(DType::bfloat16), f16 = bounds(DType::float16), f32 = bounds(DType::float32),
                  f64 = bounds(DType::float64);
  for (const char* tensor : {"h", "exact/v", "detached/q", "detached/k", "detached/i", "detached/f_straddling"}) {
    BOOST_TEST_CONTEXT(tensor) {
      BOOST_TEST(bound_sum(b16, tensor) > 4 * bound_sum(f16, tensor));
      BOOST_TEST(bound_sum(f16, tensor) > 50 * bound_sum(f32, tensor));
      BOOST_TEST(bound_sum(f32, tensor) > 1e7 * bound_sum(f64, tensor));
    }
  }
}

BOOST_AUTO_TEST_CASE(bounds_do_not_depend_on_the_thread_count) {
  const Case c = make_case(spec_of("forget6", DType::bfloat16));
  const ReferenceData reference = evaluate_reference(c);
  const TensorMap one = error_bounds(c, reference, precision_of(c), 1),
                  two = error_bounds(c, reference, precision_of(c), 2);
  for (const auto& [name, bound] : one) BOOST_TEST((bound == two.at(name)), name);
}

BOOST_AUTO_TEST_CASE(bounds_are_positive_and_finite_in_every_regime) {
  for (const Regime& regime : regimes())
    for (const char* more :
         {"", ",initial_states=1,last_state_cotangents=1", ",gate=sigmoid", ",gate=sigmoid,normalize=0"}) {
      ProblemSpec spec = parse_spec("regime=" + regime.name + ",dtype=float32,B=1,NH=1,S=37,DHQK=5,DHV=7,L=8" + more);
      const Case c = make_case(spec);
      for (const auto& [name, bound] : error_bounds(c, evaluate_reference(c), precision_of(c))) {
        if (name.ends_with("open_rows")) continue;
        BOOST_TEST(std::all_of(bound.begin(), bound.end(), [](double b) { return b > 0 && std::isfinite(b); }),
                   regime.name << more << " " << name);
      }
    }
}

BOOST_AUTO_TEST_CASE(honest_kernels_pass_and_plain_wrong_answers_fail) {
  // Wrong answers that a bound cannot tell apart are counted: they may be hidden only where an honest kernel may be
  // that far off, which benign regimes never are.
  const std::set<std::string> benign{"standard", "forget0", "forget3", "forget6", "xlstm7b", "integers"};
  std::map<std::string, int> hidden;
  int judged = 0;
  const Kernel* kernel = find_kernel("chunkwise--native_eigen_ownbw");
  BOOST_REQUIRE(kernel != nullptr);
  for (const Regime& regime : regimes())
    for (const DType dtype : {DType::bfloat16, DType::float32}) {
      const Case c = make_case(spec_of(regime.name, dtype));
      const ReferenceData reference = evaluate_reference(c);
      for (const Convention convention : {Convention::exact, Convention::detached})
        for (const Item& item : judge_kernel(*kernel, c, reference, convention)) {
          BOOST_TEST((item.status == Status::PASS),
                     c.name << " " << item.tensor << " " << item.error_ratio.value_or(-1));
          ++judged;
          for (const std::string& what : item.hides) {
            ++hidden[regime.name + " " + std::string(to_string(dtype)) + " " + item.tensor];
            BOOST_TEST(!benign.contains(regime.name), regime.name << " hides a " << what << " " << item.tensor);
          }
        }
    }
  for (const auto& [where, count] : hidden) BOOST_TEST_MESSAGE(where << ": " << count << " wrong answers hidden");
  BOOST_TEST(judged >= 800);
}

BOOST_AUTO_TEST_CASE(dropping_the_state_between_chunks_is_caught) {
  // The same inputs with a forget gate that closes at the chunk boundary are what a kernel without its state computes.
  for (const DType dtype : {DType::bfloat16, DType::float16, DType::float32})
    for (const char* regime : {"forget0", "forget3", "forget6", "xlstm7b"}) {
      Case c = make_case(spec_of(regime, dtype));
      const ReferenceData reference = evaluate_reference(c);
      Case cut = c;
      for (std::size_t head = 0; head < 2; ++head)
        for (std::size_t t = 16; t < 96; t += 16) cut.inputs.at("f")(0, head, t) = -1e4;
      const ReferenceData wrong = evaluate_reference(cut);
      KernelData kernel;
      kernel.variant = "chunkwise--native_cuda";
      kernel.convention = Convention::exact;
      kernel.outputs = wrong.outputs;
      kernel.gradients = wrong.exact;
      c.kernel = kernel;
      for (const Item& item : judge(c, reference))
        if (item.tensor == "h" || item.tensor == "dq" || item.tensor == "dk" || item.tensor == "dv")
          BOOST_TEST((item.status == Status::FAIL), regime << " " << to_string(dtype) << " " << item.tensor);
    }
}

BOOST_AUTO_TEST_CASE(a_missing_absolute_value_and_a_missing_eps_are_caught) {
  for (const DType dtype : {DType::bfloat16, DType::float32}) {
    Case c = make_case(spec_of("forget3", dtype));
    c.problem.eps = 1;
    const ReferenceData reference = evaluate_reference(c);
    Case other = c;
    other.problem.eps = 0;
    KernelData kernel;
    kernel.outputs["h"] = evaluate_reference(other).outputs.at("h");
    c.kernel = kernel;
    BOOST_TEST((judge(c, reference).front().status == Status::FAIL));
    // h with the sign of the denominator: negate the rows where n.q is negative, which -q shows.
    for (double& x : other.inputs.at("q")) x = -x;
    kernel.outputs["h"] = evaluate_reference(other).outputs.at("h");
    c.kernel = kernel;
    BOOST_TEST((judge(c, reference).front().status == Status::FAIL));
  }
}

BOOST_AUTO_TEST_CASE(float32_that_computes_in_tf32_is_caught_and_passes_once_declared) {
  Case c = make_case(spec_of("standard", DType::float32));
  Case rounded = c;
  for (const char* name : {"q", "k", "v"})
    for (double& x : rounded.inputs.at(name)) x = round_to(DType::tfloat32, x);
  const ReferenceData reference = evaluate_reference(c);
  KernelData kernel;
  kernel.outputs["h"] = evaluate_reference(rounded).outputs.at("h");
  c.kernel = kernel;
  BOOST_TEST((judge(c, reference).front().status == Status::FAIL));
  JudgeOptions declared;
  declared.operand_dtype = DType::tfloat32;
  BOOST_TEST((judge(c, reference, declared).front().status == Status::PASS));
}
