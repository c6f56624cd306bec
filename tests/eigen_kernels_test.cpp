// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// The CPU variants against the float64 reference, in every dtype.
#include <Eigen/Core>
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "mlstm/kernel.hpp"
#include "mlstm/reference/reference.hpp"

namespace {

using namespace mlstm;
using Values = std::vector<double>;
using Tensors = std::map<std::string, Values>;

const std::vector<std::string> kSequenceVariants{"recurrent--sequence_eigen_ownbw", "parallel--native_eigen_ownbw",
                                                 "chunkwise--native_eigen_ownbw"};
const std::string kStep = "recurrent--step_fused_eigen";

struct Data {
  Problem problem;
  Tensors inputs, cotangents;
};

/// What a problem's numbers look like: mean and spread of each gate; q and k about `key_mean`.
struct Regime {
  double i_mean = 0, i_spread = 1, f_mean = 3, f_spread = 1, key_mean = 0;
};

Data draw(const Problem& problem, const Regime& regime, bool state_cotangents) {
  std::mt19937_64 engine(7);
  const auto uniform = [&] { return std::ldexp(static_cast<double>(engine() >> 11), -52) - 1; };  // [-1, 1)
  const auto fill = [&](const std::string& name, double mean, double spread) {
    Values values(static_cast<std::size_t>(size_of(name, problem.shape)));
    for (double& x : values) x = round_to(storage_dtype(name, problem), mean + spread * uniform());
    return values;
  };
  Data data{problem, {}, {}};
  for (const std::string& name : input_names(problem)) {
    if (name == "i")
      data.inputs[name] = fill(name, regime.i_mean, regime.i_spread);
    else if (name == "f")
      data.inputs[name] = fill(name, regime.f_mean, regime.f_spread);
    else
      data.inputs[name] = fill(name, name == "q" || name == "k" ? regime.key_mean : 0, 1);
  }
  for (const std::string& name : output_names(problem))
    if (name == "h" || state_cotangents) data.cotangents[name] = fill(name, 0, 1);
  return data;
}

/// Outputs and, under "d" + input, gradients.
Tensors expected(const Data& data, Convention convention) {
  Tensors out;
  const auto in = [](const Tensors& tensors, const std::string& name) {
    return tensors.contains(name) ? tensors.at(name).data() : nullptr;
  };
  const auto want = [&](const char* prefix, const std::string& name, bool exists) -> double* {
    if (!exists) return nullptr;
    Values& values = out[prefix + name];
    values.resize(static_cast<std::size_t>(size_of(name, data.problem.shape)));
    return values.data();
  };
  const Tensors& x = data.inputs;
  const Tensors& dy = data.cotangents;
  const bool has_m = data.problem.has_m(), states = data.problem.has_initial_state;
  reference::Request request;
  Outputs<double>& outputs = request.outputs;
  outputs.h = want("", "h", true), outputs.c_last = want("", "c_last", true);
  outputs.n_last = want("", "n_last", true), outputs.m_last = want("", "m_last", has_m);
  request.cotangents = {in(dy, "h"), in(dy, "c_last"), in(dy, "n_last"), in(dy, "m_last")};
  Gradients<double>& gradients = convention == Convention::exact ? request.exact : request.detached;
  gradients.q = want("d", "q", true), gradients.k = want("d", "k", true), gradients.v = want("d", "v", true);
  gradients.i = want("d", "i", true), gradients.f = want("d", "f", true);
  gradients.c_initial = want("d", "c_initial", states), gradients.n_initial = want("d", "n_initial", states);
  gradients.m_initial = want("d", "m_initial", states && has_m);
  reference::evaluate(data.problem,
                      {in(x, "q"), in(x, "k"), in(x, "v"), in(x, "i"), in(x, "f"), in(x, "c_initial"),
                       in(x, "n_initial"), in(x, "m_initial")},
                      request);
  return out;
}

using Bytes = std::vector<unsigned char>;

template <class T>
Bytes encode_as(const Values& values) {
  Bytes bytes(values.size() * sizeof(T));
  for (std::size_t index = 0; index < values.size(); ++index) {
    const T x = static_cast<T>(values[index]);
    std::memcpy(bytes.data() + index * sizeof(T), &x, sizeof(T));
  }
  return bytes;
}

template <class T>
Values decode_as(const Bytes& bytes) {
  Values values(bytes.size() / sizeof(T));
  for (std::size_t index = 0; index < values.size(); ++index) {
    T x;
    std::memcpy(&x, bytes.data() + index * sizeof(T), sizeof(T));
    values[index] = static_cast<double>(x);
  }
  return values;
}

Bytes encode(DType dtype, const Values& values) {
  switch (dtype) {
    case DType::float64:
      return encode_as<double>(values);
    case DType::float16:
      return encode_as<Eigen::half>(values);
    case DType::bfloat16:
      return encode_as<Eigen::bfloat16>(values);
    default:
      return encode_as<float>(values);
  }
}

Values decode(DType dtype, const Bytes& bytes) {
  switch (dtype) {
    case DType::float64:
      return decode_as<double>(bytes);
    case DType::float16:
      return decode_as<Eigen::half>(bytes);
    case DType::bfloat16:
      return decode_as<Eigen::bfloat16>(bytes);
    default:
      return decode_as<float>(bytes);
  }
}

/// Runs a variant; tensors named in `unwanted` (gradients as "dq") are passed as null pointers.
Tensors run(const std::string& key, const Data& data, std::optional<Convention> convention,
            const std::set<std::string>& unwanted = {}) {
  const Kernel* kernel = find_kernel(key);
  BOOST_REQUIRE_MESSAGE(kernel != nullptr, key << " is not registered");
  const Problem& problem = data.problem;
  std::map<std::string, Bytes> in, out;
  for (const auto& [name, values] : data.inputs) in[name] = encode(storage_dtype(name, problem), values);
  for (const auto& [name, values] : data.cotangents) in["d" + name] = encode(storage_dtype(name, problem), values);
  const auto given = [&](const std::string& name) -> const void* {
    return in.contains(name) ? in[name].data() : nullptr;
  };
  const auto wanted = [&](const std::string& name, const std::string& like) -> void* {
    const bool exists = (like.find("_initial") == std::string::npos || problem.has_initial_state) &&
                        (!like.starts_with("m_") || problem.has_m());
    if (!exists || unwanted.contains(name)) return nullptr;
    out[name].assign(static_cast<std::size_t>(size_of(like, problem.shape)) * size_of(storage_dtype(like, problem)),
                     0xff);
    return out[name].data();
  };
  Bytes saved(kernel->saved_size(problem), 0xff),
      workspace(kernel->workspace_size(problem, convention.has_value()), 0xff);

  ForwardArgs forward;
  forward.q = given("q"), forward.k = given("k"), forward.v = given("v"), forward.i = given("i"),
  forward.f = given("f");
  forward.c_initial = given("c_initial"), forward.n_initial = given("n_initial"),
  forward.m_initial = given("m_initial");
  forward.h = wanted("h", "h"), forward.c_last = wanted("c_last", "c_last");
  forward.n_last = wanted("n_last", "n_last"), forward.m_last = wanted("m_last", "m_last");
  forward.saved = convention ? saved.data() : nullptr;
  forward.workspace = workspace.data();
  kernel->forward(problem, forward);
  if (convention) {
    BackwardArgs backward;
    backward.convention = *convention;
    backward.q = forward.q, backward.k = forward.k, backward.v = forward.v;
    backward.i = forward.i, backward.f = forward.f, backward.h = forward.h;
    backward.c_initial = forward.c_initial, backward.n_initial = forward.n_initial;
    backward.m_initial = forward.m_initial;
    backward.saved = saved.data(), backward.workspace = workspace.data();
    backward.dh = given("dh"), backward.dc_last = given("dc_last");
    backward.dn_last = given("dn_last"), backward.dm_last = given("dm_last");
    backward.dq = wanted("dq", "q"), backward.dk = wanted("dk", "k"), backward.dv = wanted("dv", "v");
    backward.di = wanted("di", "i"), backward.df = wanted("df", "f");
    backward.dc_initial = wanted("dc_initial", "c_initial"), backward.dn_initial = wanted("dn_initial", "n_initial");
    backward.dm_initial = wanted("dm_initial", "m_initial");
    kernel->backward(problem, backward);
  }
  Tensors result;
  for (const auto& [name, bytes] : out) {
    const bool is_gradient = name[0] == 'd';
    result[name] = decode(storage_dtype(is_gradient ? name.substr(1) : name, problem), bytes);
  }
  return result;
}

double relative_frobenius(const Values& got, const Values& want) {
  BOOST_REQUIRE_EQUAL(got.size(), want.size());
  double error = 0, scale = 0;
  for (std::size_t index = 0; index < got.size(); ++index) {
    error += std::pow(got[index] - want[index], 2);
    scale += std::pow(want[index], 2);
  }
  return scale > 0 ? std::sqrt(error / scale) : std::sqrt(error);
}

std::string describe(const std::string& key, const Problem& p, Convention convention) {
  return key + " " + std::string(to_string(p.dtype)) + " " + std::string(to_string(p.gate)) +
         (p.normalize ? "" : " unnormalized") + " " + std::string(to_string(p.stabilizer_init)) +
         (p.has_initial_state ? " states" : "") + " S=" + std::to_string(p.shape.S) +
         " L=" + std::to_string(p.chunk_size) + " eps=" + std::to_string(p.eps) + " " +
         std::string(to_string(convention));
}

/// Checks every tensor of every convention; the limit may depend on the tensor.
template <class Limit>
void check_against_reference(const std::string& key, const Data& data, const Limit& limit) {
  for (const Convention convention : {Convention::exact, Convention::detached}) {
    const Tensors got = run(key, data, convention), want = expected(data, convention);
    BOOST_CHECK_EQUAL(got.size(), want.size());
    for (const auto& [name, values] : want) {
      const double error = relative_frobenius(got.at(name), values);
      BOOST_CHECK_MESSAGE(error <= limit(name), describe(key, data.problem, convention)
                                                    << ": " << name << " is off by " << error << ", limit "
                                                    << limit(name));
    }
  }
}

/// Gates, normalisation, stabiliser start and states in all combinations that exist.
std::vector<Problem> combinations(const Shape& shape, DType dtype, double eps) {
  std::vector<Problem> problems;
  for (const Gate gate : {Gate::exp, Gate::sigmoid})
    for (const bool normalize : {true, false})
      for (const StabilizerInit init : {StabilizerInit::zero, StabilizerInit::neg_inf})
        for (const bool states : {false, true}) {
          if (!normalize && gate == Gate::exp) continue;
          if (init == StabilizerInit::neg_inf && (gate == Gate::sigmoid || states)) continue;
          Problem problem;
          problem.shape = shape;
          problem.gate = gate;
          problem.normalize = normalize;
          problem.stabilizer_init = init;
          problem.has_initial_state = states;
          problem.eps = eps;
          problem.dtype = dtype;
          problem.chunk_size = 16;
          problems.push_back(problem);
        }
  return problems;
}

bool is_16_bit_key(const std::string& name) { return name.find('_') == std::string::npos; }

}  // namespace

BOOST_AUTO_TEST_CASE(float64_agrees_with_the_reference_to_rounding) {
  for (const Shape& shape : {Shape{2, 2, 37, 6, 9}, Shape{1, 1, 1, 4, 3}, Shape{1, 2, 5, 1, 1}})
    for (const double eps : {1e-6, 0.5})
      for (Problem problem : combinations(shape, DType::float64, eps))
        for (const std::string& key : kSequenceVariants)
          for (const std::int64_t L : {1, 16, 64}) {
            if (L != 16 && !key.starts_with("chunkwise")) continue;
            problem.chunk_size = L;
            check_against_reference(key, draw(problem, {}, true), [](const std::string&) { return 1e-12; });
          }
}

BOOST_AUTO_TEST_CASE(float32_agrees_with_the_reference_to_float32_rounding) {
  for (const Problem& problem : combinations({1, 2, 70, 16, 24}, DType::float32, 1e-6))
    for (const std::string& key : kSequenceVariants) {
      const Data data = draw(problem, {.key_mean = 0.5}, true);
      check_against_reference(key, data, [](const std::string&) { return 1e-5; });
      const Tensors got = run(key, data, {});
      BOOST_CHECK_MESSAGE(relative_frobenius(got.at("h"), expected(data, Convention::exact).at("h")) > 1e-9,
                          key << ": float32 is too good to be float32");
    }
}

BOOST_AUTO_TEST_CASE(sixteen_bit_results_are_a_few_roundings_from_the_reference) {
  for (const DType dtype : {DType::bfloat16, DType::float16})
    for (const Problem& problem : combinations({1, 2, 70, 16, 24}, dtype, 1e-6))
      for (const std::string& key : kSequenceVariants)
        check_against_reference(key, draw(problem, {.key_mean = 0.5}, true),
                                [&](const std::string&) { return 6 * unit_roundoff(dtype); });
}

BOOST_AUTO_TEST_CASE(forget_gate_gradients_of_long_memories_do_not_cancel) {
  for (const std::string& key : kSequenceVariants) {
    Problem problem;
    problem.shape = {1, 1, 512, 16, 16};
    problem.dtype = DType::bfloat16;
    problem.chunk_size = 64;
    check_against_reference(key, draw(problem, {.f_mean = 6, .key_mean = 0.5}, false),
                            [](const std::string& name) { return name == "df" ? 0.02 : 0.03; });
  }
}

BOOST_AUTO_TEST_CASE(matrix_products_read_rounded_operands_and_n_and_m_stay_float32) {
  Problem problem;
  problem.shape = {1, 2, 64, 16, 16};
  problem.dtype = DType::bfloat16;
  problem.chunk_size = 16;
  const Data data = draw(problem, {}, false);
  const Tensors want = expected(data, Convention::exact);
  for (const std::string& key : kSequenceVariants) {
    const Tensors got = run(key, data, {});
    const double c_error = relative_frobenius(got.at("c_last"), want.at("c_last"));
    if (key.starts_with("recurrent"))
      BOOST_CHECK_MESSAGE(c_error < 1e-5, key << " has no matrix product, but c_last is off by " << c_error);
    else
      BOOST_CHECK_MESSAGE(c_error > 1e-4, key << " accumulated c_last from unrounded operands: " << c_error);
    BOOST_CHECK_LT(relative_frobenius(got.at("n_last"), want.at("n_last")), 1e-5);
    BOOST_CHECK_LT(relative_frobenius(got.at("m_last"), want.at("m_last")), 1e-6);
  }
}

BOOST_AUTO_TEST_CASE(two_weights_that_round_to_the_same_number_cancel) {
  Problem problem;
  problem.shape = {1, 1, 2, 4, 1};
  problem.gate = Gate::sigmoid;
  problem.normalize = false;
  problem.dtype = DType::bfloat16;
  problem.chunk_size = 2;
  const double step = std::ldexp(1.0, -9);  // half a rounding step of bfloat16 below 1
  // Row 2 of P is (1/2)(1 + step, 1), its v is (1, -1); gates of 30 are 1 in float32.
  const Data data{problem,
                  {{"q", {0, 0, 0, 0, 1, step, 0, 0}},
                   {"k", {1, 1, 0, 0, 1, 0, 0, 0}},
                   {"v", {1, -1}},
                   {"i", {30, 30}},
                   {"f", {30, 30}}},
                  {}};
  for (const std::string& key : kSequenceVariants)
    BOOST_CHECK_EQUAL(run(key, data, {}).at("h")[1], key.starts_with("recurrent") ? step / 2 : 0.0);
}

BOOST_AUTO_TEST_CASE(extreme_gates_give_the_right_numbers_in_float32) {
  struct Extreme {
    const char* name;
    Regime regime;
    double eps;
  };
  for (const Extreme& extreme : {Extreme{"exp(-m) overflows float32", {.i_mean = -95, .f_mean = 6}, 1.0},
                                 Extreme{"exp(-m) underflows float32", {.i_mean = 200}, 1e-6},
                                 Extreme{"log(sigmoid(f)) without the stable form is -inf", {.f_mean = -500}, 1e-6},
                                 Extreme{"forget gates wide open", {.f_mean = 1e4}, 1e-6},
                                 Extreme{"gates all equal", {.i_spread = 0, .f_mean = 200, .f_spread = 0}, 0.1}})
    for (const StabilizerInit init : {StabilizerInit::zero, StabilizerInit::neg_inf})
      for (const std::string& key : kSequenceVariants) {
        BOOST_TEST_CONTEXT(extreme.name) {
          Problem problem;
          problem.shape = {1, 1, 40, 8, 8};
          problem.dtype = DType::float32;
          problem.eps = extreme.eps;
          problem.stabilizer_init = init;
          problem.chunk_size = 16;
          Data data = draw(problem, extreme.regime, false);
          // Subnormal results are judged on the scale of the smallest normal number.
          for (const Convention convention : {Convention::exact, Convention::detached}) {
            const Tensors got = run(key, data, convention), want = expected(data, convention);
            for (const auto& [name, values] : want) {
              double error = 0, scale = std::numeric_limits<float>::min() * 1e3;
              for (std::size_t n = 0; n < values.size(); ++n) {
                BOOST_REQUIRE_MESSAGE(std::isfinite(got.at(name)[n]), describe(key, problem, convention)
                                                                          << ": " << name);
                error = std::max(error, std::abs(got.at(name)[n] - values[n]));
                scale = std::max(scale, std::abs(values[n]));
              }
              BOOST_CHECK_MESSAGE(error <= 1e-3 * scale, describe(key, problem, convention)
                                                             << ": " << name << " " << error << " of " << scale);
            }
          }
        }
      }
}

BOOST_AUTO_TEST_CASE(strong_old_inputs_survive_forget_gates_whose_sigmoid_underflows) {
  for (const std::string& key : kSequenceVariants) {
    Problem problem;
    problem.shape = {1, 1, 6, 4, 3};
    problem.dtype = DType::float32;
    problem.chunk_size = 4;
    Data data = draw(problem, {.f_mean = -120, .f_spread = 0, .key_mean = 0.5}, false);
    for (std::size_t t = 0; t < 6; ++t) data.inputs.at("i")[t] += 720 - 120 * static_cast<double>(t);
    check_against_reference(key, data, [](const std::string&) { return 1e-3; });
  }
}

BOOST_AUTO_TEST_CASE(zero_queries_give_zero_outputs_where_the_floor_underflows) {
  for (const std::string& key : kSequenceVariants) {
    Problem problem;
    problem.shape = {1, 1, 5, 2, 3};
    problem.dtype = DType::float32;
    problem.eps = 0;
    problem.chunk_size = 2;
    Data data = draw(problem, {.i_mean = 200}, false);
    std::fill(data.inputs.at("q").begin(), data.inputs.at("q").end(), 0.0);
    const Tensors got = run(key, data, {});
    for (const double x : got.at("h")) BOOST_CHECK_EQUAL(x, 0.0);
  }
}

BOOST_AUTO_TEST_CASE(finite_inputs_never_give_NaN) {
  // Rows with q = 0 where exp(-m) underflows, or 1/d overflows: only dq may be infinite there.
  struct Setting {
    DType dtype;
    double i_mean;
  };
  for (const auto& [dtype, i_mean] :
       {Setting{DType::float64, 720}, Setting{DType::float32, 100}, Setting{DType::float32, 80},
        Setting{DType::bfloat16, 100}, Setting{DType::float16, 100}, Setting{DType::float16, 15}})
    for (const double f_mean : {-1e4, 3.0, 1e4})
      for (Problem problem : combinations({1, 2, 21, 6, 5}, dtype, 0)) {
        if (problem.gate != Gate::exp) continue;
        problem.chunk_size = 8;
        Data data = draw(problem, {.i_mean = i_mean, .f_mean = f_mean}, problem.has_initial_state);
        const auto DHQK = static_cast<std::size_t>(problem.shape.DHQK);
        Values& q = data.inputs.at("q");
        for (std::size_t n = 0; n < q.size(); ++n)
          if (n / DHQK % 3 != 0) q[n] = 0;
        for (const Convention convention : {Convention::exact, Convention::detached}) {
          const Tensors want = expected(data, convention);
          for (const std::string& key : kSequenceVariants)
            for (const auto& [name, values] : run(key, data, convention)) {
              const DType stored = storage_dtype(is_16_bit_key(name) ? "q" : "c_initial", problem);
              std::size_t nan = 0, infinite = 0;
              for (std::size_t n = 0; n < values.size(); ++n) {
                nan += std::isnan(values[n]);
                // finite, and below a tenth of the largest number
                infinite += std::isinf(values[n]) && std::isfinite(round_to(stored, 10 * want.at(name)[n]));
              }
              BOOST_CHECK_MESSAGE(nan + infinite == 0, describe(key, problem, convention)
                                                           << " i=" << i_mean << " f=" << f_mean << ": " << name
                                                           << " has " << nan << " NaN and " << infinite
                                                           << " infinities that should be finite");
            }
        }
      }
}

BOOST_AUTO_TEST_CASE(a_decoding_step_is_one_step_of_the_sequence_and_has_no_backward) {
  for (const DType dtype : {DType::float64, DType::float32, DType::bfloat16, DType::float16})
    for (const Problem& problem : combinations({2, 3, 1, 8, 12}, dtype, 1e-6)) {
      const Data data = draw(problem, {}, false);
      const Tensors got = run(kStep, data, {}), want = expected(data, Convention::exact);
      for (const auto& [name, values] : got)
        BOOST_CHECK_LE(relative_frobenius(values, want.at(name)),
                       8 * unit_roundoff(is_16_bit_key(name) ? dtype : state_dtype_of(dtype)));
    }
  BOOST_CHECK_THROW(find_kernel(kStep)->backward({}, {}), std::logic_error);
}

BOOST_AUTO_TEST_CASE(what_is_not_wanted_changes_nothing_else) {
  for (const std::string& key : kSequenceVariants)
    for (const Problem& problem : combinations({2, 2, 21, 5, 4}, DType::bfloat16, 1e-6)) {
      const Data data = draw(problem, {}, true);
      const Tensors all = run(key, data, Convention::exact);
      for (const std::set<std::string>& unwanted :
           {std::set<std::string>{"c_last", "n_last", "m_last", "dq", "dv", "df", "dn_initial"},
            std::set<std::string>{"dk", "di", "dc_initial", "dm_initial"}})
        for (const auto& [name, values] : run(key, data, Convention::exact, unwanted))
          BOOST_CHECK_MESSAGE(values == all.at(name), key << ": " << name);
    }
}

BOOST_AUTO_TEST_CASE(absent_cotangents_are_zero) {
  for (const std::string& key : kSequenceVariants)
    for (const Problem& problem : combinations({1, 2, 21, 5, 4}, DType::float64, 1e-6))
      for (const std::string& kept : output_names(problem)) {
        Data data = draw(problem, {}, true), zeros = data;
        std::erase_if(data.cotangents, [&](const auto& entry) { return entry.first != kept; });
        for (auto& [name, values] : zeros.cotangents)
          if (name != kept) std::fill(values.begin(), values.end(), 0.0);
        for (const Convention convention : {Convention::exact, Convention::detached})
          BOOST_CHECK_MESSAGE(run(key, data, convention) == run(key, zeros, convention), key << " " << kept);
      }
}

BOOST_AUTO_TEST_CASE(declarations_are_complete_and_limits_are_enforced_with_a_reason) {
  std::vector<std::string> keys = kSequenceVariants;
  keys.push_back(kStep);
  for (const std::string& key : keys) {
    const Kernel* kernel = find_kernel(key);
    BOOST_REQUIRE_MESSAGE(kernel != nullptr, key << " is not registered");
    const VariantInfo& info = kernel->info();
    BOOST_CHECK_EQUAL(info.key(), key);
    BOOST_CHECK(info.device == Device::cpu);
    BOOST_CHECK_EQUAL(info.dtypes.size(), 4);
    BOOST_CHECK_EQUAL(info.gradient_conventions.empty(), key == kStep);
    BOOST_CHECK(!info.description.empty() && info.description.find('\n') == std::string::npos);

    Problem problem;
    problem.shape = {1, 1, 1, 2, 2};
    problem.chunk_size = 4;
    BOOST_CHECK_EQUAL(kernel->unsupported(problem), "");
    const auto refused = [&](const Problem& bad, const std::string& reason) {
      BOOST_CHECK_MESSAGE(kernel->unsupported(bad).find(reason) != std::string::npos,
                          key << " says \"" << kernel->unsupported(bad) << "\", not " << reason);
      BOOST_CHECK_THROW(kernel->forward(bad, {}), std::invalid_argument);
      if (key != kStep) BOOST_CHECK_THROW(kernel->backward(bad, {}), std::invalid_argument);
    };
    Problem bad = problem;
    bad.dtype = DType::tfloat32;
    refused(bad, "tfloat32");
    bad = problem;
    bad.chunk_size = 0;
    if (info.module == Module::chunkwise) refused(bad, "chunk_size 0");
    bad = problem;
    bad.shape.S = info.S.max;
    if (info.S.max < 100000) {
      ++bad.shape.S;
      refused(bad, "S " + std::to_string(bad.shape.S));
    }
    BOOST_CHECK_THROW(kernel->forward(problem, {}), std::invalid_argument);  // supported, but q is null
  }
}
