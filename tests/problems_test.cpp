// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit property
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <xtensor/xview.hpp>

#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains;

namespace {

const std::vector<std::string> kSuites{"smoke", "standard", "full", "golden", "captures"};

ProblemSpec spec_of(const std::string& line) { return parse_spec(line); }

std::string hash_of(const Case& c) {
  std::string bytes;
  const auto append = [&](const TensorMap& tensors) {
    for (const auto& [name, array] : tensors) {
      bytes += name;
      bytes.append(reinterpret_cast<const char*>(array.data()), array.size() * sizeof(double));
    }
  };
  append(c.inputs);
  append(c.cotangents);
  return sha256_of(bytes);
}

std::string message_of(const std::string& line) {
  try {
    parse_spec(line);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Size of l_t e^{m_t} (whose floor is 1) per row of the first head.
std::vector<double> normalisers(const Case& c) {
  const auto& s = c.problem.shape;
  const Array &q = c.inputs.at("q"), &k = c.inputs.at("k"), &i = c.inputs.at("i"), &f = c.inputs.at("f");
  std::vector<double> n(static_cast<std::size_t>(s.DHQK)), sizes;
  for (std::int64_t t = 0; t < s.S; ++t) {
    double l = 0;
    for (std::int64_t a = 0; a < s.DHQK; ++a) {
      double& entry = n[static_cast<std::size_t>(a)];
      entry = sigmoid(f(0, 0, t)) * entry + std::exp(i(0, 0, t)) * k(0, 0, t, a);
      l += entry * q(0, 0, t, a) / std::sqrt(static_cast<double>(s.DHQK));
    }
    sizes.push_back(std::abs(l));
  }
  return sizes;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_spec_survives_its_line) {
  ProblemSpec spec;
  spec.regime = "forget6";
  spec.problem = {{2, 3, 77, 5, 9}, Gate::sigmoid,           false, 0.1 + 0.2,
                  DType::bfloat16,  StabilizerInit::neg_inf, 16,    true};
  spec.seed = std::numeric_limits<std::uint64_t>::max();
  spec.last_state_cotangents = true;
  BOOST_TEST((parse_spec(to_line(spec)) == spec));
  for (const double eps : {0.0, 1e-6, 5e-324, 1.7976931348623157e308, 1.0 / 3}) {
    spec.problem.eps = eps;
    BOOST_TEST(parse_spec(to_line(spec)).problem.eps == eps, to_line(spec));
  }
  BOOST_TEST((parse_spec("S=7,regime=ties") == parse_spec(" regime=ties, S=7")));
}

BOOST_AUTO_TEST_CASE(every_problem_of_every_suite_is_found_by_its_line_and_by_its_name) {
  for (const std::string& name : kSuites)
    for (const ProblemSpec& spec : suite(name)) {
      if (!(parse_case(to_line(spec)) == spec)) BOOST_ERROR(to_line(spec));
      if (!(parse_case(case_name(spec)) == spec)) BOOST_ERROR(case_name(spec));
      if (!(parse_case("property:chunk_size/" + case_name(spec)) == spec))
        BOOST_ERROR("property of " + case_name(spec));
    }
  ProblemSpec odd =
      spec_of("regime=forget_underflow,gate=sigmoid,normalize=0,eps=5e-324,S=3,cotangents=0,initial_states=1");
  odd.seed = std::numeric_limits<std::uint64_t>::max();
  BOOST_TEST((parse_case(case_name(odd)) == odd));
}

BOOST_AUTO_TEST_CASE(what_a_problem_lacks_is_named_all_at_once) {
  const auto complaint = [](const std::string& text) -> std::string {
    try {
      parse_case(text);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  BOOST_TEST(complaint("regime=forget3") ==
             "the problem lacks dtype, S, DHQK, DHV; expected regime, dtype, S, DHQK and DHV at least");
  BOOST_TEST(contains(complaint("seed=1,B=2,NH=2,L=8,eps=0"), "lacks regime, dtype, S, DHQK, DHV;"));
  BOOST_TEST(contains(complaint("regime=ties,dtype=float32,S=3,DHQK=2"), "lacks DHV;"));
  BOOST_TEST(complaint(" dtype=float32, S=3,regime=ties ,DHV=2,DHQK=2") == "accepted");
  BOOST_TEST(
      contains(complaint("regime=ties,dtype=tf32,S=3"), "dtype is \"tf32\"; expected float64, float32, float16 or"));
  const std::string name = case_name(spec_of("regime=ties,S=3"));
  for (const std::string& wrong : {std::string("ties"), name + "0x", "no_" + name, name.substr(0, name.size() - 1)})
    BOOST_TEST(complaint(wrong) != "accepted", wrong);
}

BOOST_AUTO_TEST_CASE(a_bad_line_is_refused_with_key_value_and_expectation) {
  BOOST_TEST(contains(message_of("regime=nonsense"), "regime is \"nonsense\"; expected one of standard"));
  BOOST_TEST(contains(message_of("S=12x"), "S is \"12x\"; expected an integer"));
  BOOST_TEST(contains(message_of("S=0"), "S is 0"));
  BOOST_TEST(contains(message_of("eps=-1"), "eps"));
  BOOST_TEST(contains(message_of("eps=nan"), "eps"));
  BOOST_TEST(contains(message_of("seed=-1"), "seed is \"-1\""));
  BOOST_TEST(contains(message_of("cotangents=yes"), "cotangents is \"yes\"; expected 0 or 1"));
  BOOST_TEST(contains(message_of("colour=red"), "key is \"colour\""));
  BOOST_TEST(contains(message_of("S=1,S=2"), "key is \"S\"; expected each key once"));
  BOOST_TEST(contains(message_of("standard"), "word is \"standard\""));
  BOOST_TEST(contains(message_of(""), "word is \"\""));
  BOOST_TEST(contains(message_of("cotangents=0,last_state_cotangents=1"), "last_state_cotangents"));
  BOOST_TEST(contains(message_of("normalize=0"), "normalize"));
}

BOOST_AUTO_TEST_CASE(cases_hold_recorded_bits) {
  const std::pair<const char*, const char*> recorded[] = {
      {"regime=standard,B=2,NH=2,S=9,DHQK=4,DHV=6", "ed6a595959297a530962261cf01e318594a85c7fb5e56fa29725247a870d8137"},
      {"regime=xlstm7b,NH=3,S=50,DHQK=4,DHV=4,dtype=bfloat16,seed=1",
       "7040f211931feec6d5b72db8a468992a8f6cf2f661df81aa7b98d38ba4180655"},
      {"regime=crossover,S=40,DHQK=8,DHV=2,dtype=bfloat16,initial_states=1,last_state_cotangents=1",
       "2d4df2881be2734f3a83180742dd6cd79e477cd017bf9ab2fbf6797283500904"},
      {"regime=denominator_zero,S=40,DHQK=8,DHV=2,dtype=float32,gate=sigmoid,initial_states=1",
       "3fe642fa5122c7b5c75109b9be85e08d40ec9c31b4f87d5b6b82a09949d3e050"},
      {"regime=input_open,S=40,DHQK=8,DHV=4,dtype=float16",
       "78aa8410ff7319d9f7e67ee7580b2c68873c46707de2a6fa0c723a61ffbafc24"},
      {"regime=heavy_tails,S=40,DHQK=3,DHV=2,seed=18446744073709551615",
       "e4e0dd8c43687c5848d8ff1ce8bb978ed82a4792c80d61d813607bd317fb83bd"}};
  for (const auto& [line, hash] : recorded) BOOST_TEST_CONTEXT(line) {
      BOOST_TEST(hash_of(make_case(spec_of(line))) == hash);
    }
}

BOOST_AUTO_TEST_CASE(every_regime_holds_recorded_bits) {
  std::string hashes;
  for (const Regime& regime : regimes())
    hashes += hash_of(make_case(spec_of("regime=" + regime.name + ",NH=3,S=30,DHQK=4,DHV=3,initial_states=1")));
  BOOST_TEST(sha256_of(hashes) == "1e41b18a488f8a409238810204255346a812a77c468f4fa4f8ee902a05b1c590");
}

BOOST_AUTO_TEST_CASE(float16_problems_have_answers_within_the_range_of_float16) {
  for (const Regime& regime : regimes()) {
    const Case c = make_case(spec_of("regime=" + regime.name + ",NH=2,S=128,DHQK=32,DHV=64,L=32,eps=0,dtype=float16"));
    const ReferenceData reference = evaluate_reference(c);
    for (const TensorMap* tensors : {&reference.outputs, &reference.exact, &reference.detached})
      for (const auto& [name, array] : *tensors)
        if (storage_dtype(name, c.problem) == DType::float16)
          for (const double value : array)
            if (!(std::abs(value) < 65504 / 4)) BOOST_ERROR(c.name << ": " << name << " holds " << value);
  }
}

BOOST_AUTO_TEST_CASE(a_case_says_how_to_make_it_again) {
  const Case c = make_case(spec_of("regime=spikes,S=20,DHQK=4,DHV=4,seed=5"));
  const Case again = make_case(parse_spec(std::get<std::string>(c.attributes.at("spec"))));
  BOOST_TEST(hash_of(c) == hash_of(again));
  BOOST_TEST(c.name == again.name);
}

BOOST_AUTO_TEST_CASE(every_regime_gives_a_valid_case_in_every_dtype) {
  for (const Regime& regime : regimes())
    for (const std::string dtype : {"float64", "float32", "bfloat16", "float16"})
      for (const std::string rest : {"initial_states=1,last_state_cotangents=1,NH=3,S=40,DHQK=8,DHV=6",
                                     "gate=sigmoid,normalize=0,initial_states=1,S=3,DHQK=1,DHV=1"}) {
        const Case c = make_case(spec_of("regime=" + regime.name + ",dtype=" + dtype + "," + rest));
        BOOST_CHECK_NO_THROW(validate(c));
        BOOST_TEST(c.inputs.size() == (c.problem.has_m() ? 8u : 7u), c.name);
      }
}

BOOST_AUTO_TEST_CASE(random_numbers_depend_on_seed_regime_and_place_but_not_on_the_extents) {
  const Case small = make_case(spec_of("regime=forget3,NH=1,S=5,DHQK=3,DHV=2"));
  const Case large = make_case(spec_of("regime=forget3,NH=2,S=9,DHQK=4,DHV=2"));
  for (int t = 0; t < 5; ++t)
    for (int a = 0; a < 3; ++a) BOOST_TEST(small.inputs.at("q")(0, 0, t, a) == large.inputs.at("q")(0, 0, t, a));
  std::set<double> values;
  for (const auto& [name, array] : large.inputs) values.insert(array.begin(), array.end());
  BOOST_TEST(values.size() == 2u * 9 * (4 + 4 + 2 + 1 + 1));
  BOOST_TEST(hash_of(small) != hash_of(make_case(spec_of("regime=forget3,NH=1,S=5,DHQK=3,DHV=2,seed=1"))));
  BOOST_TEST(small.inputs.at("k")(0, 0, 0, 0) !=
             make_case(spec_of("regime=forget6,S=5,DHQK=3,DHV=2")).inputs.at("k")(0, 0, 0, 0));
}

BOOST_AUTO_TEST_CASE(normal_numbers_have_the_moments_and_tails_of_a_normal_distribution) {
  const Case c = make_case(spec_of("regime=forget0,S=2000,DHQK=100,DHV=1"));
  const Array& q = c.inputs.at("q");
  double sum[5] = {}, beyond_two = 0, beyond_four = 0;
  for (const double x : q) {
    double power = 1;
    for (double& total : sum) total += power, power *= x;
    beyond_two += std::abs(x) > 2;
    beyond_four += std::abs(x) > 4;
  }
  const double n = static_cast<double>(q.size());  // 200,000: five standard errors below
  BOOST_TEST(std::abs(sum[1] / n) < 5 / std::sqrt(n));
  BOOST_TEST(std::abs(sum[2] / n - 1) < 5 * std::sqrt(2 / n) + 1e-3);
  BOOST_TEST(std::abs(sum[3] / n) < 5 * std::sqrt(15 / n));
  BOOST_TEST(std::abs(sum[4] / n - 3) < 5 * std::sqrt(96 / n) + 1e-2);
  BOOST_TEST(std::abs(beyond_two / n - 0.0455) < 0.0025);
  BOOST_TEST(beyond_four >= 2);
  BOOST_TEST(beyond_four <= 35);
}

BOOST_AUTO_TEST_CASE(gates_are_where_their_regime_says) {
  const auto gate = [](const std::string& regime, const char* name) {
    return make_case(spec_of("regime=" + regime + ",NH=2,S=100,DHQK=2,DHV=2")).inputs.at(name);
  };
  const auto mean = [](const Array& array) { return xt::mean(array)(); };
  BOOST_TEST(std::abs(mean(gate("forget0", "f"))) < 0.4);
  BOOST_TEST(std::abs(mean(gate("forget6", "f")) - 6) < 0.4);
  BOOST_TEST(xt::amax(gate("forget_underflow", "f"))() <= -89);
  BOOST_TEST(xt::amin(gate("remember", "f"))() == 40);
  BOOST_TEST(xt::amax(gate("input_closed", "i"))() < -4);
  BOOST_TEST(xt::amin(gate("input_open", "i"))() > 4);
  BOOST_TEST(xt::amax(gate("spikes", "i"))() > 25);
  const Array xlstm_i = gate("xlstm7b", "i"), xlstm_f = gate("xlstm7b", "f");
  BOOST_TEST(xt::amin(xlstm_i)() > -15);
  BOOST_TEST(xt::amin(xlstm_i)() < -11);
  BOOST_TEST(mean(xt::view(xlstm_f, 0, 1)) > mean(xt::view(xlstm_f, 0, 0)) + 2);
}

BOOST_AUTO_TEST_CASE(crossover_puts_denominators_on_both_sides_of_the_floor_and_close_to_it) {
  const auto sizes = normalisers(make_case(spec_of("regime=crossover,S=256,DHQK=16,DHV=1,dtype=float32")));
  const auto count = [&](double low, double high) {
    return std::count_if(sizes.begin(), sizes.end(), [&](double l) { return l > low && l < high; });
  };
  BOOST_TEST(count(0.2, 1) > 80);
  BOOST_TEST(count(1, 2) > 80);
  BOOST_TEST(count(0.97, 1.03) > 60);
}

BOOST_AUTO_TEST_CASE(denominator_zero_shrinks_the_normaliser_but_leaves_it_above_the_floor) {
  const std::string rest = ",S=256,DHQK=16,DHV=1,dtype=float32";
  auto plain = normalisers(make_case(spec_of("regime=input_open" + rest)));
  auto shrunk = normalisers(make_case(spec_of("regime=denominator_zero" + rest)));
  std::sort(plain.begin(), plain.end());
  std::sort(shrunk.begin(), shrunk.end());
  BOOST_TEST(shrunk[128] * 10 < plain[128]);
  BOOST_TEST(shrunk[128] > 10);
}

BOOST_AUTO_TEST_CASE(names_are_unique_and_fit_a_file_name) {
  for (const std::string& name : kSuites) {
    std::set<std::string> names, lines;
    for (const ProblemSpec& spec : suite(name)) {
      BOOST_TEST((parse_spec(to_line(spec)) == spec));
      BOOST_TEST(names.insert(case_name(spec)).second, case_name(spec));
      BOOST_TEST(case_name(spec).size() < 200u);
      BOOST_TEST(case_name(spec).find_first_not_of(
                     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+") == std::string::npos);
      BOOST_TEST(lines.insert(to_line(spec)).second);
    }
  }
}

BOOST_AUTO_TEST_CASE(suites_hold_what_known_mistakes_need_to_be_seen) {
  for (const std::string name : {"smoke", "standard", "full"}) {
    const auto specs = suite(name);
    const auto some = [&](const char* what, auto property) {
      BOOST_TEST(std::any_of(specs.begin(), specs.end(), property), name << " lacks " << what);
    };
    for (const Regime& regime : regimes())
      some(regime.name.c_str(), [&](const ProblemSpec& spec) { return spec.regime == regime.name; });
    for (const DType dtype : {DType::float64, DType::float32, DType::bfloat16, DType::float16}) {
      const auto of = [dtype](auto property) {
        return [=](const ProblemSpec& spec) { return spec.problem.dtype == dtype && property(spec.problem); };
      };
      some("eps 1e-2", of([](const Problem& p) { return p.eps == 1e-2; }));
      some("short chunks", of([](const Problem& p) { return p.chunk_size == 16 && p.shape.S > 64; }));
      some("a ragged tail",
           of([](const Problem& p) { return p.shape.S > p.chunk_size && p.shape.S % p.chunk_size != 0; }));
      some("DHQK = DHV", of([](const Problem& p) { return p.shape.DHQK == p.shape.DHV && p.shape.DHV > 1; }));
      some("DHQK < DHV", of([](const Problem& p) { return p.shape.DHQK < p.shape.DHV; }));
      some("several heads", of([](const Problem& p) { return p.shape.NH > 1; }));
    }
    some("eps 0", [](const ProblemSpec& spec) { return spec.problem.eps == 0; });
    some("eps 1", [](const ProblemSpec& spec) { return spec.problem.eps == 1; });
    some("one step", [](const ProblemSpec& spec) { return spec.problem.shape.S == 1; });
    some("L > S", [](const ProblemSpec& spec) { return spec.problem.chunk_size > spec.problem.shape.S; });
    some("several batches", [](const ProblemSpec& spec) { return spec.problem.shape.B > 1; });
    some("DHQK > DHV", [](const ProblemSpec& spec) { return spec.problem.shape.DHQK > spec.problem.shape.DHV; });
    some("neg_inf", [](const ProblemSpec& spec) { return spec.problem.stabilizer_init == StabilizerInit::neg_inf; });
    some("initial states", [](const ProblemSpec& spec) { return spec.problem.has_initial_state; });
    some("last state cotangents", [](const ProblemSpec& spec) { return spec.last_state_cotangents; });
    for (const bool normalize : {true, false})
      some("sigmoid gate", [=](const ProblemSpec& spec) {
        return spec.problem.gate == Gate::sigmoid && spec.problem.normalize == normalize;
      });
    if (name != "smoke")
      some("long chunks, several of them",
           [](const ProblemSpec& spec) { return spec.problem.chunk_size == 256 && spec.problem.shape.S > 512; });
  }
  BOOST_TEST(suite("smoke").size() < suite("standard").size());
  BOOST_TEST(suite("standard").size() < suite("full").size());
  for (const ProblemSpec& spec : suite("golden")) BOOST_TEST(spec.problem.shape.S <= 40);
}

BOOST_AUTO_TEST_CASE(a_selection_restricts_or_replaces) {
  Selection selection;
  selection.dtypes = {DType::bfloat16};
  selection.gates = {Gate::exp};
  selection.regimes = {"forget*"};
  selection.eps = {1e-6};
  const auto chosen = suite("standard", selection);
  BOOST_TEST(!chosen.empty());
  for (const ProblemSpec& spec : chosen) {
    BOOST_TEST((spec.problem.dtype == DType::bfloat16 && spec.problem.gate == Gate::exp && spec.problem.eps == 1e-6));
    BOOST_TEST(spec.regime.starts_with("forget"));
  }
  selection.seed = 42;
  selection.shapes = {"1,2,30,4,5", "2,1,3,4,5"};
  const auto replaced = suite("standard", selection);
  BOOST_TEST(!replaced.empty());
  for (const ProblemSpec& spec : replaced) {
    BOOST_TEST(spec.seed == 42u);
    BOOST_TEST((spec.problem.shape == Shape{1, 2, 30, 4, 5} || spec.problem.shape == Shape{2, 1, 3, 4, 5}));
  }
}

BOOST_AUTO_TEST_CASE(a_bad_selection_is_refused) {
  const auto message = [](const std::string& name, const Selection& selection) -> std::string {
    try {
      suite(name, selection);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  BOOST_TEST(contains(message("tiny", {}), "suite is \"tiny\"; expected smoke"));
  Selection regime, shape;
  regime.regimes = {"forgot*"};
  BOOST_TEST(contains(message("smoke", regime), "regime is \"forgot*\""));
  for (const std::string text : {"1,2,3,4", "1,2,3,4,0", "1,2,3,4,5,6", "1,2,3,4,x", "1 2 3 4 5", ""}) {
    shape.shapes = {text};
    BOOST_TEST(contains(message("smoke", shape), "shape is \"" + text + "\""));
  }
}

BOOST_AUTO_TEST_CASE(simple_regimes_hold_recorded_bits_and_are_in_no_suite) {
  std::string hashes;
  std::set<std::string> names;
  for (const Regime& regime : simple_regimes()) {
    names.insert(regime.name);
    for (const std::string gate : {"exp", "sigmoid"})
      hashes += hash_of(make_case(spec_of("regime=" + regime.name + ",gate=" + gate +
                                          ",NH=2,S=9,DHQK=4,DHV=3,initial_states=1,last_state_cotangents=1")));
  }
  BOOST_TEST(sha256_of(hashes) == "a33c848d33caab6c6388f9c21975f5070e94a23952654575a4834fdbb7ce822b");
  for (const std::string& name : kSuites)
    for (const ProblemSpec& spec : suite(name)) BOOST_TEST(!names.contains(spec.regime));
  for (const Regime& regime : regimes()) BOOST_TEST(!names.contains(regime.name));
}

BOOST_AUTO_TEST_CASE(simple_regimes_are_what_they_say) {
  const Case ones = make_case(spec_of("regime=ones,S=3,DHQK=2,DHV=2,initial_states=1,last_state_cotangents=1"));
  for (const auto* tensors : {&ones.inputs, &ones.cotangents})
    for (const auto& [name, array] : *tensors)
      for (const double value : array)
        BOOST_TEST(value == (name == "i" || name == "m_initial" ? 0 : name == "f" ? 40 : 1), name);
  const Case impulse = make_case(spec_of("regime=impulse,S=4,DHQK=2,DHV=3"));
  const ReferenceData reference = evaluate_reference(impulse);
  for (std::size_t t = 0; t < 4; ++t) {
    BOOST_TEST(impulse.inputs.at("k")(0, 0, t, 1) == (t == 0));
    BOOST_TEST(impulse.inputs.at("v")(0, 0, t, 2) == (t == 0));
    BOOST_TEST(impulse.cotangents.at("h")(0, 0, t, 0) == (t == 3));
  }
  BOOST_TEST(reference.outputs.at("c_last")(0, 0, 1, 2) == 1);
  const Case halving = make_case(spec_of("regime=halving,S=3,DHQK=1,DHV=1"));
  BOOST_TEST(evaluate_reference(halving).outputs.at("n_last")(0, 0, 0) == 1.75);
  const Case counting = make_case(spec_of("regime=counting,NH=2,S=5,DHQK=3,DHV=7"));
  BOOST_TEST(counting.inputs.at("v")(0, 0, 0, 0) != counting.inputs.at("v")(0, 0, 0, 1));
  BOOST_TEST(counting.inputs.at("v")(0, 0, 0, 0) != counting.inputs.at("v")(0, 0, 1, 0));
  BOOST_TEST(counting.inputs.at("v")(0, 0, 0, 0) != counting.inputs.at("v")(0, 1, 0, 0));
}
