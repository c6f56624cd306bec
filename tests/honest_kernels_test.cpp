// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Kernels with habits of others', all of them right, where bounds once had no room for them.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "properties/properties.hpp"
#include "runner/runner.hpp"
#include "studies/mutants/mutants.hpp"
#include "studies/mutation/honest.hpp"
#include "sweep/declarations.hpp"
#include "sweep/doctor.hpp"
#include "sweep/sweep.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

const Kernel& specimen(const std::string& key) {
  for (const auto& kernels : {specimens(), other_specimens()})
    for (const Kernel* kernel : kernels)
      if (kernel->info().key() == key) return *kernel;
  if (const Kernel* registered = find_kernel(key)) return *registered;
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

namespace {

/// Documents that begin at the steps 20, 21 and 40: the forget gate closes there.
Case with_resets(Case c) {
  Array& f = c.inputs.at("f");
  for (std::size_t batch = 0; batch < f.shape(0); ++batch)
    for (std::size_t head = 0; head < f.shape(1); ++head)
      for (const std::size_t t : {20u, 21u, 40u}) f(batch, head, t) = -9984;  // exact in bfloat16
  c.name += " with resets";
  return c;
}

}  // namespace

// No gradient crosses a reset, so df is 0 there; a sum over differences leaves the rounding of its partial sums.
BOOST_AUTO_TEST_CASE(the_stabilisers_part_of_df_may_be_summed_over_differences) {
  for (const char* dtype : {"float64", "float32", "bfloat16"})
    for (const char* eps : {"1", "0.01"}) {
      Case c =
          with_resets(problem(std::string("regime=spikes,NH=2,S=64,DHQK=16,DHV=16,L=16,last_state_cotangents=1,eps=") +
                              eps + ",dtype=" + dtype));
      require_passes(specimen("chunkwise--differences_specimen_ownbw"), c);
      c.cotangents.at("m_last") *= 16384;
      require_passes(specimen("chunkwise--differences_specimen_ownbw"), c);
    }
}

BOOST_AUTO_TEST_CASE(a_state_may_be_kept_in_bfloat16_if_that_is_declared) {
  for (const char* dtype : {"float32", "bfloat16"})
    for (const char* rest : {"regime=repeated,NH=2,S=187,DHQK=24,DHV=24,L=16,last_state_cotangents=1",
                             "regime=positive,NH=2,S=125,DHQK=48,DHV=48,L=32,eps=0.01",
                             "regime=forget6,gate=sigmoid,normalize=0,S=107,DHQK=24,DHV=64,L=9,initial_states=1,"
                             "last_state_cotangents=1"})
      for (const char* key : {"recurrent--narrow_states_specimen_ownbw", "chunkwise--narrow_states_specimen_ownbw"}) {
        Case c = problem(std::string(rest) + ",dtype=" + dtype);
        require_passes(specimen(key), c);
        if (c.problem.dtype != DType::float32) continue;
        // where operands are not as coarse, it has to be declared
        c.kernel = run_kernel(specimen(key), c, Convention::detached);
        c.kernel->state_dtype.reset();
        const std::vector<Item> items = judge(c, evaluate_reference(c));
        BOOST_TEST(std::any_of(items.begin(), items.end(), [](const Item& i) { return i.status == Status::FAIL; }),
                   key << " " << c.name);
      }
}

// What is forgotten has no part in the error of the gates' sums, however large its own sum was.
BOOST_AUTO_TEST_CASE(behind_a_reset_an_error_of_a_percent_is_no_rounding_error) {
  for (const char* gate : {"exp", "sigmoid"})
    for (const char* key : {"recurrent--any", "parallel--any", "chunkwise--any"}) {
      Case c = with_resets(problem(std::string("regime=forget3,S=64,DHQK=16,DHV=16,L=64,dtype=float32,gate=") + gate));
      const ReferenceData reference = evaluate_reference(c);
      c.kernel.emplace();
      c.kernel->variant = key;
      c.kernel->outputs["h"] = reference.outputs.at("h");
      BOOST_TEST((judge(c, reference).front().status == Status::PASS));
      Array& h = c.kernel->outputs.at("h");
      for (std::size_t e = 0; e < 16; ++e) h(0, 0, 50, e) *= 1.01;
      BOOST_TEST((judge(c, reference).front().status == Status::FAIL), key << " " << gate);
    }
  for (const Kernel* kernel : specimens())
    if (kernel->info().S.max > 1)
      for (const char* gate : {"exp", "sigmoid"})
        for (const char* dtype : {"float64", "float32", "bfloat16"})
          require_passes(*kernel, with_resets(problem(std::string("regime=forget3,NH=2,S=64,DHQK=16,DHV=16,L=32,eps="
                                                                  "0.01,initial_states=1,dtype=") +
                                                      dtype + ",gate=" + gate)));
}

namespace {

/// A kernel that declares something else of itself.
class Redeclared final : public Kernel {
 public:
  Redeclared(const Kernel& kernel, VariantInfo info) : kernel_(kernel), info_(std::move(info)) {}
  const VariantInfo& info() const override { return info_; }
  std::string unsupported(const Problem& problem) const override { return kernel_.unsupported(problem); }
  std::size_t saved_size(const Problem& problem) const override { return kernel_.saved_size(problem); }
  std::size_t workspace_size(const Problem& problem, bool backward) const override {
    return kernel_.workspace_size(problem, backward);
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override { kernel_.forward(problem, args); }
  void backward(const Problem& problem, const BackwardArgs& args) const override { kernel_.backward(problem, args); }

 private:
  const Kernel& kernel_;
  VariantInfo info_;
};

std::vector<Record> checked(std::string_view property, const Kernel& kernel, DType dtype) {
  std::vector<Record> records;
  for (ProblemSpec spec : property_problems(property)) {
    if (spec.problem.dtype != dtype || !property_refusal(property, kernel, spec).empty()) continue;
    for (Item& item : check_property(property, kernel, spec))
      records.push_back({std::move(item), std::string(to_string(dtype)), 0});
  }
  mistrust(records);
  return records;
}

}  // namespace

// Differences of outputs with an error of 2^-10 do not see a derivative that changes them less: nobody is to blame.
BOOST_AUTO_TEST_CASE(what_differences_in_tfloat32_cannot_see_is_skipped) {
  VariantInfo info = specimens()[2]->info();
  info.operand_dtype = DType::tfloat32;
  const Redeclared kernel(*specimens()[2], info);
  std::size_t skipped = 0, passed = 0;
  for (const Record& record : checked("dot_product", kernel, DType::float32)) {
    const Item& item = record.item;
    BOOST_TEST((item.status == Status::PASS || item.status == Status::SKIPPED),
               item.case_name << " " << item.tensor << " " << item.note);
    ++(item.status == Status::SKIPPED ? skipped : passed);
  }
  BOOST_TEST(skipped > 0u);
  BOOST_TEST(passed > 0u);
}

BOOST_AUTO_TEST_CASE(sums_may_be_cut_at_places_that_depend_on_the_head) {
  std::size_t differing = 0, equal = 0;
  for (const Record& record : checked("permutation", specimen("chunkwise--stream_k_specimen_ownbw"), DType::float64)) {
    BOOST_TEST((record.item.status == Status::PASS), record.item.tensor << " " << record.item.note);
    ++(record.item.note.find("not the same bits") != std::string::npos ? differing : equal);
  }
  BOOST_TEST(differing > 0u);
  BOOST_TEST(equal > 0u);  // m_last, at least
}

BOOST_AUTO_TEST_CASE(gates_and_products_in_bfloat16_pass_if_they_are_declared) {
  for (const char* dtype : {"float32", "bfloat16"})
    for (const char* gate : {"exp", "sigmoid", "sigmoid,normalize=0"})
      for (const char* key : {"recurrent--narrow_gates_specimen_ownbw", "parallel--narrow_gates_specimen_ownbw",
                              "chunkwise--narrow_gates_specimen_ownbw", "recurrent--rounded_products_specimen_ownbw",
                              "recurrent--all_bfloat16_specimen_ownbw"}) {
        Case c = problem(std::string("regime=standard,NH=2,S=80,DHQK=16,DHV=24,L=16,eps=0.01,initial_states=1,"
                                     "last_state_cotangents=1,gate=") +
                         gate + ",dtype=" + dtype);
        require_passes(specimen(key), c);
        // where states are not as coarse, it has to be declared
        if (c.problem.dtype != DType::float32 || specimen(key).info().state_dtype) continue;
        c.kernel = run_kernel(specimen(key), c, Convention::detached);
        c.kernel->gate_dtype.reset();
        c.kernel->product_dtype.reset();
        const std::vector<Item> items = judge(c, evaluate_reference(c));
        BOOST_TEST(std::any_of(items.begin(), items.end(), [](const Item& i) { return i.status == Status::FAIL; }),
                   key << " " << c.name);
      }
}

// The window of gate sums is that of the declared formulation, whatever the kernel is called.
BOOST_AUTO_TEST_CASE(bounds_follow_the_declared_formulation) {
  Case c = problem("regime=forget0,S=64,DHQK=8,DHV=8,L=16,dtype=float32");
  const ReferenceData reference = evaluate_reference(c);
  const auto bounds = [&](const char* variant, Module formulation) {
    c.kernel.emplace();
    c.kernel->variant = variant;
    c.kernel->formulation = formulation;
    return error_bounds(c, reference, precision_of(c)).at("h");
  };
  for (const Module formulation : {Module::recurrent, Module::parallel, Module::chunkwise})
    BOOST_TEST(
        (bounds("mine", formulation) == bounds((std::string(to_string(formulation)) + "--mine").c_str(), formulation)));
  BOOST_TEST((bounds("mine", Module::recurrent) != bounds("mine", Module::parallel)));
  BOOST_TEST((bounds("mine", Module::chunkwise) != bounds("mine", Module::parallel)));
}

// A run that fails says what would have to be declared, and nothing if its errors are no roundings.
BOOST_AUTO_TEST_CASE(the_tightest_declaration_is_named) {
  const Case c = problem("regime=standard,NH=2,S=80,DHQK=16,DHV=24,L=16,eps=0.01,dtype=float32");
  const ReferenceData reference = evaluate_reference(c);
  const auto declaration_of = [&](const KernelData& data) {
    Case judged = c;
    judged.kernel = data;
    judged.kernel->gate_dtype = judged.kernel->product_dtype = judged.kernel->state_dtype = {};
    return tightest_declaration(judged, reference, judge(judged, reference), 1);
  };
  const auto run = [&](const char* key) { return run_kernel(specimen(key), c, Convention::detached); };
  BOOST_TEST(declaration_of(run("recurrent--rounded_products_specimen_ownbw")) != "");
  KernelData wrong = run("recurrent--rounded_reads_specimen_ownbw");  // right, but for one percent of h
  for (double& h : wrong.outputs.at("h")) h *= 1.01;
  BOOST_TEST(declaration_of(wrong) == "");
}

namespace {

/// What a capture of this kernel would say, if it declared nothing and its problem were described as `described`.
Symptoms symptoms_of(const Kernel& kernel, const std::string& computed, const std::string& described) {
  const Case truth = problem(computed);
  Case c = problem(described);
  c.kernel = run_kernel(kernel, truth, Convention::detached);
  c.kernel->convention.reset();
  const ReferenceData reference = evaluate_reference(c);
  return examine(c, reference, judge(c, reference), 1);
}

}  // namespace

// All files of a variant together: a question that one file leaves open another one decides.
BOOST_AUTO_TEST_CASE(all_files_of_a_variant_are_looked_at_together) {
  const Kernel& kernel = *specimens()[3];
  const std::string common = ",NH=2,S=40,DHQK=16,DHV=24,L=16,dtype=float32,regime=";
  const std::string telling = "eps=0.5" + common + "input_closed",
                    given = "eps=0.5,initial_states=1" + common + "forget3";
  const std::string line = diagnose({symptoms_of(kernel, telling, telling), symptoms_of(kernel, given, given)});
  BOOST_TEST(
      line.find("2 files: gradients detached (sure: told by 2 of 2); stabilizer_init zero (likely: told by 1 of 2)") !=
          std::string::npos,
      line);
  BOOST_TEST(line.find("scale DHQK^-1/2 (sure") != std::string::npos, line);
  BOOST_TEST(line.find("eps added to the maximum (sure") != std::string::npos, line);
  BOOST_TEST(line.find("precision as declared (sure") != std::string::npos, line);

  // said to start at 0, though it starts at -infinity: the file tells, but no convention is inferred from gradients
  // that are wrong in both
  const std::string other = telling + ",stabilizer_init=neg_inf";
  const std::string wrong = diagnose({symptoms_of(kernel, other, telling)});
  BOOST_TEST(wrong.find("gradients open") != std::string::npos, wrong);
  BOOST_TEST(wrong.find("stabilizer_init neg_inf (likely: told by 1 of 1)") != std::string::npos, wrong);
  BOOST_TEST(diagnose({symptoms_of(kernel, other, telling), symptoms_of(kernel, telling, telling)})
                 .find("stabilizer_init contradictory: neg_inf in 1, zero in 1") != std::string::npos);
  // each as it is said to be
  BOOST_TEST(diagnose({symptoms_of(kernel, other, other), symptoms_of(kernel, telling, telling)})
                 .find("stabilizer_init as each file states (sure: told by 2 of 2)") != std::string::npos);
  // a copy of a file is no second witness
  Symptoms once = symptoms_of(kernel, telling, telling);
  once.digest = "abc";
  BOOST_TEST(diagnose({once, once}).find("1 file: gradients detached (likely: told by 1 of 1)") != std::string::npos);
}

namespace {

/// What one capture says if h has been divided by another denominator of |l|, its floor and eps. `small`:
/// denominators of 1e-5 or so.
std::string line_with_denominator(const std::string& described, bool small,
                                  double (*denominator)(double, double, double)) {
  Case c = problem(described);
  if (small) {  // so that 1e-6 is not nothing
    for (double& q : c.inputs.at("q")) q *= 0x1p-17;
    for (double& i : c.inputs.at("i")) i = round_to(DType::float32, i + 15);
  }
  c.kernel = run_kernel(*specimens()[3], c, Convention::detached);
  const auto rows = static_cast<std::size_t>(c.problem.shape.heads() * c.problem.shape.S);
  std::vector<double> m(rows), l(rows), d(rows);
  Array& h = c.kernel->outputs.at("h");
  Array right = h;
  reference::Request request;
  request.outputs.h = right.data();
  request.intermediates = {m.data(), l.data(), d.data()};
  reference::evaluate(c.problem, inputs_of(c.inputs), request, {});
  for (std::size_t n = 0; n < h.size(); ++n) {
    const std::size_t row = n / (h.size() / rows);
    h.data()[n] = round_to(DType::float32,
                           h.data()[n] * d[row] / denominator(std::abs(l[row]), std::exp(-m[row]), c.problem.eps));
  }
  const ReferenceData reference = evaluate_reference(c);
  return diagnose({examine(c, reference, judge(c, reference), 1)});
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_place_of_eps_is_told) {
  const std::string problem = "eps=0.5,NH=2,S=40,DHQK=16,DHV=24,L=16,dtype=float32,regime=forget3";
  const auto is_told = [&](const std::string& place, bool small, double (*denominator)(double, double, double)) {
    const std::string line = line_with_denominator(problem, small, denominator);
    BOOST_TEST(line.find("eps " + place + " (likely: told by 1 of 1)") != std::string::npos, line);
  };
  is_told("added to the maximum", false, [](double l, double floor, double eps) { return std::max(l, floor) + eps; });
  is_told("inside the maximum", false, [](double l, double floor, double eps) { return std::max({l, floor, eps}); });
  is_told("left out", true, [](double l, double floor, double) { return std::max(l, floor); });
  is_told("always 1e-6", true, [](double l, double floor, double) { return std::max(l, floor) + 1e-6; });
}

// A kernel that says float32 and multiplies in TF32: how it rounds is found first, and all else under that.
BOOST_AUTO_TEST_CASE(what_is_coarser_than_declared_is_asked_under_what_it_is) {
  Case c = verify::read_case(MLSTM_SOURCE_DIR "/data/captures/published/limit_headdim_fp32.h5");
  const ReferenceData reference = evaluate_reference(c);
  const std::string line = diagnose({examine(c, reference, judge(c, reference), 2)});
  BOOST_TEST(line.find("gradients detached (likely") != std::string::npos, line);
  BOOST_TEST(line.find("precision operand_dtype = tfloat32 (likely") != std::string::npos, line);
  // a common factor is no truncation
  c.kernel->outputs = reference.outputs;
  c.kernel->gradients.clear();
  for (double& h : c.kernel->outputs.at("h")) h = round_to(DType::float32, h * (1 - 0x1p-10));
  BOOST_TEST(tightest_declaration(c, reference, judge(c, reference), 2) == "");
}

// Each of these problems failed a kernel that is right, in one of its dtypes: random_problem of the seed, the kernel
// and the dtype.
BOOST_AUTO_TEST_CASE(errors_that_terms_share_are_in_the_bounds) {
  struct Alarm {
    std::uint64_t seed;
    const char* kernel;
    DType dtype;
    const char* why;
  };
  for (const Alarm& alarm :
       {Alarm{30044, "parallel--scaled_cotangent_specimen_ownbw", DType::float16, "dc_last rounded for all columns"},
        Alarm{30044, "chunkwise--differences_specimen_ownbw", DType::float16, "states rounded for all rows of a chunk"},
        Alarm{301, "recurrent--narrow_states_specimen_ownbw", DType::float32, "a stored n, and exponents of 900"},
        Alarm{130, "parallel--native_eigen_ownbw", DType::float32, "sums that start at an input gate of -15"},
        Alarm{1132, "chunkwise--native_eigen_ownbw", DType::bfloat16, "bias: one key, input gate of nearly 1/4"},
        Alarm{2318, "recurrent--narrow_states_specimen_ownbw", DType::float32, "<C, dC> of stored states"},
        Alarm{3702, "parallel--narrow_gates_specimen_ownbw", DType::float32, "gates since the initial state"},
        Alarm{3215, "chunkwise--differences_specimen_ownbw", DType::float32, "differences are rounded, too"},
        Alarm{3306, "chunkwise--limit_chunk_specimen_ownbw", DType::float16, "gamma beyond float16"},
        Alarm{120, "recurrent--rounded_products_specimen_ownbw", DType::bfloat16, "terms come through two products"},
        Alarm{30207, "chunkwise--short_chunks_specimen_ownbw", DType::bfloat16, "states that hardly change"},
        Alarm{30207, "chunkwise--narrow_states_specimen_ownbw", DType::float32, "bias: equal keys read one rounded dC"},
        Alarm{30011, "chunkwise--narrow_states_specimen_ownbw", DType::float32, "bias: positive keys, likewise"},
        Alarm{30059, "chunkwise--narrow_states_specimen_ownbw", DType::float32, "<dc_last, c_last> of stored states"},
        Alarm{30231, "chunkwise--narrow_gates_specimen_ownbw", DType::bfloat16,
              "sums that start at i lose small terms"},
        Alarm{7049, "chunkwise--narrow_gates_specimen_ownbw", DType::float32, "and so from chunk to chunk"},
        Alarm{30041, "recurrent--rounded_products_specimen_ownbw", DType::bfloat16,
              "an open row reaches all columns"}}) {
    BOOST_TEST_CONTEXT(alarm.why) {
      ProblemSpec spec = random_problem(alarm.seed);
      spec.problem.dtype = alarm.dtype;
      Case c = make_case(spec);
      c.name = case_name(spec);
      require_passes(specimen(alarm.kernel), c);
    }
  }
}

// The errors of a gate in bfloat16 are not multiplied with those of a column in units of float32.
BOOST_AUTO_TEST_CASE(bounds_of_narrow_gates_still_tell) {
  Case c = problem("regime=forget0,seed=3,dtype=float32,eps=0.01,B=1,NH=2,S=48,DHQK=16,DHV=16,L=16,initial_states=1");
  const Kernel& kernel = specimen("chunkwise--narrow_gates_specimen_ownbw");
  Yardsticks known;
  int telling = 0;
  for (const Item& item : verdicts(kernel, c, known)) {
    BOOST_TEST((item.status == Status::PASS));
    if (item.tensor == "h" || item.tensor == "dv") telling += !item.trivial;
  }
  BOOST_TEST(telling == 4);  // in both conventions
}
