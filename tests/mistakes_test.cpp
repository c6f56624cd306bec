// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Known mistakes are named where they were made, and nowhere else.
#include "sweep/mistakes.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <set>
#include <xtensor/xview.hpp>

#include "cases/case_file.hpp"
#include "cases/problems.hpp"
#include "fake_kernels.hpp"
#include "studies/mutants/bugs.hpp"
#include "studies/mutation/explanations.hpp"
#include "sweep/explain.hpp"
#include "sweep/sweep.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::BentRecurrence, mlstm::test::contains, mlstm::test::Damage, mlstm::test::DamagedKernel,
    mlstm::test::Step, mlstm::test::Stored, mlstm::test::writable;

namespace {

const std::string kProblem = "regime=forget3,dtype=float32,B=1,NH=2,S=70,DHQK=16,DHV=32,L=16,eps=0.01";

/// What is said of `values` as an answer to `c`; its kernel says which variant they are from.
std::string said_of(Case c, const KernelData& values, std::optional<Convention> convention = {}) {
  c.kernel = values;
  const ReferenceData reference = evaluate_reference(c);
  JudgeOptions options;
  options.convention = convention;
  std::string text;
  for (const std::string& line : find_mistakes(c, reference, judge(c, reference, options), 1)) text += line + "\n";
  BOOST_TEST_MESSAGE(text);
  return text;
}

std::string said_of(const Kernel& kernel, const std::string& line, std::optional<Convention> convention = {}) {
  const Case c = make_case(parse_spec(line));
  return said_of(c, run_kernel(kernel, c, convention), convention);
}

const Kernel& right_kernel() { return *find_kernel("chunkwise--native_eigen_ownbw"); }

/// What the right kernel gives for a changed problem.
template <class Change>
KernelData with(const Case& c, std::optional<Convention> convention, const Change& change) {
  Case changed = c;
  change(changed);
  return run_kernel(right_kernel(), changed, convention);
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

DType round_inputs_to = DType::bfloat16;
void round_inputs(const Problem& problem, const ForwardArgs& args) {
  for (const auto& [data, name] : {std::pair{args.q, "q"}, {args.k, "k"}, {args.v, "v"}})
    writable(data, name, problem).edit([](double value, auto...) { return round_to(round_inputs_to, value); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(wrong_gates_and_states_are_named) {
  const Case c = make_case(parse_spec(kProblem));
  BOOST_TEST(contains(said_of(c, with(c, {}, [](Case& d) { std::swap(d.inputs.at("i"), d.inputs.at("f")); })),
                      "as if: i and f are swapped: that would give h, c_last, n_last, m_last"));
  BentRecurrence one;
  one.bend_gates = [](Step& step) {
    if (step.t == 0) std::fill(step.n.begin(), step.n.end(), 1.0);
  };
  BOOST_TEST(contains(said_of(one, kProblem), "as if: n begins with 1, not with 0"));
  // a call that goes on with the last states of the one before
  const KernelData before = run_kernel(right_kernel(), c, {});
  KernelData after = with(c, {}, [&](Case& d) {
    d.problem.has_initial_state = true;
    for (const char* name : {"c", "n", "m"})
      d.inputs[std::string(name) + "_initial"] = before.outputs.at(std::string(name) + "_last");
  });
  BOOST_TEST(contains(said_of(c, after), "as if: the states of the call before are kept"));
  // the last of 70 steps are padded to 80; h is right
  KernelData padded = before;
  const KernelData longer = with(c, {}, [](Case& d) {
    d.problem.shape.S = 80;
    for (const char* name : {"q", "k", "v", "i", "f"}) {
      const auto extents = shape_of(name, d.problem.shape);
      Array zeros = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()));
      xt::view(zeros, xt::all(), xt::all(), xt::range(0, 70)) = d.inputs.at(name);
      d.inputs[name] = zeros;
    }
    d.cotangents.clear();
  });
  for (const char* name : {"c_last", "n_last", "m_last"}) padded.outputs[name] = longer.outputs.at(name);
  BOOST_TEST(contains(said_of(c, padded), "as if: the last chunk is padded with zeros, which alter the last states"));
}

BOOST_AUTO_TEST_CASE(wrong_addresses_and_limits_are_named) {
  const Case c = make_case(parse_spec("regime=forget3,dtype=float32,B=1,NH=12,S=70,DHQK=16,DHV=32,L=16,eps=0.01"));
  const auto wrapped = [&](std::initializer_list<const char*> tensors, std::size_t axis, std::ptrdiff_t size) {
    return with(c, {}, [&](Case& d) {
      for (const char* name : tensors) {
        Array& array = d.inputs.at(name);
        const Array before = array;
        for (auto at = size; at < static_cast<std::ptrdiff_t>(before.shape(axis)); ++at)
          if (axis == 1)
            xt::view(array, xt::all(), at) = xt::view(before, xt::all(), at % size);
          else
            xt::view(array, xt::all(), xt::all(), at) = xt::view(before, xt::all(), xt::all(), at % size);
      }
    });
  };
  BOOST_TEST(
      contains(said_of(c, wrapped({"i", "f"}, 1, 8)), "as if: heads from 8 on read the gates of heads from 0 on"));
  BOOST_TEST(contains(said_of(c, wrapped({"k"}, 2, 64)), "as if: steps from 64 on read k of steps from 0 on"));
  // no index of too few bits begins again at 40
  BOOST_TEST(!contains(said_of(c, wrapped({"k"}, 2, 40)), "of steps from 0 on"));
  // heads that forget everything once, and then remember keys of nearly closed input gates
  Case closed = c;
  for (const std::size_t head : {2u, 5u, 7u})
    for (std::size_t t = 0; t < 70; ++t) {
      closed.inputs.at("i")(0, head, t) = -160.0 - static_cast<double>(t % 5);
      closed.inputs.at("f")(0, head, t) = t == 0 ? -400.0 : 20.0;
    }
  const KernelData clamped = with(closed, {}, [](Case& d) {
    for (double& value : d.inputs.at("i")) value = std::max(value, -150.0);
  });
  BOOST_TEST(contains(said_of(closed, clamped), "as if: input gates below -150 are taken for it"));
  BOOST_TEST(said_of(closed, with(closed, {}, [](Case&) {})).empty());
}

BOOST_AUTO_TEST_CASE(what_alters_the_last_states_is_told_by_m) {
  Case c = make_case(parse_spec("regime=forget3,dtype=float32,B=1,NH=4,S=70,DHQK=16,DHV=32,L=16,eps=0.01"));
  for (double& value : c.inputs.at("i")) value = round_to(DType::float32, value - 80);
  for (double& value : c.inputs.at("f")) value = round_to(DType::float32, value - 8);
  const KernelData right = run_kernel(right_kernel(), c, {});
  const auto padded_by = [&](double input, double forget) {
    KernelData values = right;
    const KernelData longer = with(c, {}, [&](Case& d) {
      d.problem.shape.S = 80;
      for (const char* name : {"q", "k", "v", "i", "f"}) {
        const auto extents = shape_of(name, d.problem.shape);
        Array array = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()));
        if (name[0] == 'i') array.fill(input);
        if (name[0] == 'f') array.fill(forget);
        xt::view(array, xt::all(), xt::all(), xt::range(0, 70)) = d.inputs.at(name);
        d.inputs[name] = array;
      }
      d.cotangents.clear();
    });
    for (const char* name : {"c_last", "n_last", "m_last"}) values.outputs[name] = longer.outputs.at(name);
    return values;
  };
  const std::string zeros = "as if: the last chunk is padded with zeros";
  BOOST_TEST(contains(said_of(c, padded_by(0, 0)), zeros));
  const std::string other = said_of(c, padded_by(-25, 40));
  BOOST_TEST(contains(other, "as if: the last chunk is padded with input gates of -25, which alter the last states"));
  BOOST_TEST(!contains(other, zeros));
}

BOOST_AUTO_TEST_CASE(a_wrong_denominator_is_told_from_a_wrong_numerator) {
  const std::string name = "as if: the numerator of h is right, its denominator is not";
  // a recurrence whose memory is long, so that rows of h are not those of v
  const std::string line = "regime=remember,dtype=float32,B=1,NH=2,S=70,DHQK=16,DHV=32,L=16,eps=0.01";
  const auto bent = [&](std::function<double(const Step&, double)> bend_h) {
    BentRecurrence kernel;
    kernel.bend_h = std::move(bend_h);
    return said_of(kernel, line);
  };
  BOOST_TEST(contains(bent([](const Step& step, double h) { return h * (1 + 0.01 * static_cast<double>(step.t % 7)); }),
                      name));
  BOOST_TEST(!contains(bent([](const Step&, double h) { return 1.01 * h; }), name));
  BOOST_TEST(!contains(bent([](const Step& step, double h) { return step.t > 30 ? 1.01 * h : h; }), name));
  BOOST_TEST(!contains(bent([](const Step& step, double h) { return step.t % 3 == 0 ? 0 : h; }), name));
  BOOST_TEST(
      !contains(bent([](const Step& step, double h) { return h + 0.01 * static_cast<double>(step.t % 7); }), name));
  BOOST_TEST(!contains(bent([](const Step&, double h) { return h; }), name));
  // C is wrong too
  BentRecurrence wrong_state;
  wrong_state.bend_state = [](Step& step) {
    for (double& value : step.C) value *= 1 + 0.01 * static_cast<double>(step.t % 7);
  };
  BOOST_TEST(!contains(said_of(wrong_state, line), name));
}

BOOST_AUTO_TEST_CASE(wrong_parts_of_gradients_are_named) {
  const Case c = make_case(parse_spec(kProblem));
  const KernelData exact = run_kernel(right_kernel(), c, Convention::exact),
                   detached = run_kernel(right_kernel(), c, Convention::detached);
  KernelData wrong = exact;
  wrong.gradients["q"] = detached.gradients.at("q") + 4.0 * (exact.gradients.at("q") - detached.gradients.at("q"));
  BOOST_TEST(contains(said_of(c, wrong, Convention::exact),
                      "as if: the denominator's part of dq is not scaled by 1/sqrt(DHQK): that would give dq"));
  // dq from 16 of 32 columns
  const KernelData part = with(c, Convention::detached, [](Case& d) {
    xt::view(d.cotangents.at("h"), xt::all(), xt::all(), xt::all(), xt::range(16, 32)) = 0.0;
  });
  wrong = detached;
  wrong.gradients["q"] = part.gradients.at("q");
  BOOST_TEST(contains(said_of(c, wrong, Convention::detached), "as if: dq takes the first 16 of 32 columns of v"));
  // df of steps before the ragged last chunk without what comes from it
  wrong = exact;
  const Array& f = c.inputs.at("f");
  Array& df = wrong.gradients["f"];
  for (std::size_t head = 0; head < 2; ++head) {
    const double carry = exact.gradients.at("f")(0, head, 64) / sigmoid(-f(0, head, 64));
    for (std::size_t t = 0; t < 64; ++t) df(0, head, t) -= carry * sigmoid(-f(0, head, t));
  }
  BOOST_TEST(
      contains(said_of(c, wrong, Convention::exact), "as if: the carry of df from the ragged last chunk is lost"));
  // dv, or dk and dv, of chunks that hear nothing of later ones
  wrong = exact;
  for (std::int64_t first = 0; first < 70; first += 16) {
    const std::int64_t end = std::min<std::int64_t>(first + 16, 70);
    const KernelData chunk = with(c, Convention::exact, [&](Case& d) {
      d.problem.shape.S = end;
      for (auto* tensors : {&d.inputs, &d.cotangents})
        for (auto& [name, array] : *tensors)
          array = Array(xt::view(Array(array), xt::all(), xt::all(), xt::range(0, end)));
    });
    for (const char* name : {"k", "v"})
      xt::view(wrong.gradients.at(name), xt::all(), xt::all(), xt::range(first, end)) =
          xt::view(chunk.gradients.at(name), xt::all(), xt::all(), xt::range(first, end));
  }
  const std::string in_dv = "as if: dC and dn are dropped between chunks, in dv alone: that would give dv";
  BOOST_TEST(!contains(said_of(c, wrong, Convention::exact), "alone"));
  wrong.gradients["k"] = exact.gradients.at("k");
  BOOST_TEST(contains(said_of(c, wrong, Convention::exact), in_dv));
}

BOOST_AUTO_TEST_CASE(coarse_operands_are_told_from_other_noise) {
  for (const DType operand : {DType::tfloat32, DType::bfloat16}) {
    round_inputs_to = operand;
    const DamagedKernel rounds({.before_forward = [](Problem& problem, ForwardArgs& args) {
      static thread_local std::vector<std::vector<float>> copies;
      copies.clear();
      for (const auto& [data, name] : {std::pair{&args.q, "q"}, {&args.k, "k"}, {&args.v, "v"}}) {
        const auto* from = static_cast<const float*>(*data);
        copies.emplace_back(from, from + size_of(name, problem.shape));
        *data = copies.back().data();
      }
      round_inputs(problem, args);
    }});
    BOOST_TEST(contains(said_of(rounds, kProblem), "as if: matrix products read " + std::string(to_string(operand))),
               to_string(operand));
  }
  // errors of the same size that have nothing to do with the operands
  const DamagedKernel noise(
      {[](const Problem& problem, const ForwardArgs& args) {
         writable(args.h, "h", problem).edit([](double value, std::int64_t, std::int64_t t, std::int64_t b) {
           return value * (1 + ((t * 7 + b * 5) % 11 - 5) * 0x1p-13);
         });
       },
       {}});
  BOOST_TEST(!contains(said_of(noise, kProblem), "as if"));
  // m clamped to 50: what is wrong by a factor of 10^16 is tiny, and below what float16 can hold
  const Case clamped = read_case(MLSTM_SOURCE_DIR "/tests/cases/clamped_m.h5");
  const ReferenceData reference = evaluate_reference(clamped);
  const auto items = judge(clamped, reference);
  BOOST_TEST(std::any_of(items.begin(), items.end(), [](const Item& item) { return item.status == Status::FAIL; }));
  for (const std::string& line : find_mistakes(clamped, reference, items, 1))
    BOOST_TEST(!contains(line, "matrix products"), line);
}

BOOST_AUTO_TEST_CASE(one_element_explains_nothing) {
  const Case c = make_case(parse_spec(kProblem));
  KernelData values = run_kernel(right_kernel(), c, {});
  Case other = c;
  other.problem.eps = 0;
  values.outputs["h"](0, 1, 40, 3) = run_kernel(right_kernel(), other, {}).outputs.at("h")(0, 1, 40, 3);
  BOOST_TEST(said_of(c, values).empty());
}

BOOST_AUTO_TEST_CASE(honest_roundings_that_are_not_declared_are_no_mistakes) {
  std::size_t failing = 0;
  for (const Kernel* kernel : other_specimens())
    for (const std::string regime : {"forget3,dtype=float32", "remember,dtype=float32", "forget3,dtype=bfloat16"}) {
      Case c = make_case(parse_spec("regime=" + regime + ",NH=2,S=100,DHQK=16,DHV=32,L=32,eps=0.01"));
      if (!kernel->unsupported(c.problem).empty()) continue;
      c.kernel = run_kernel(*kernel, c, Convention::exact);
      c.kernel->gate_dtype = c.kernel->product_dtype = c.kernel->state_dtype = {};
      const ReferenceData reference = evaluate_reference(c);
      const std::vector<Item> items = judge(c, reference);
      for (const Item& item : items) {
        failing += item.status == Status::FAIL ? 1 : 0;
        BOOST_TEST(!contains(item.explanation, "looks like"),
                   kernel->info().key() << " " << regime << " " << item.tensor << ": " << item.explanation);
      }
      for (const std::string& line : find_mistakes(c, reference, items, 1))
        BOOST_TEST((!contains(line, "as if: ") || contains(line, "as if: matrix products read ")),
                   kernel->info().key() << " " << regime << ": " << line);
    }
  BOOST_TEST(failing > 20u);
}

BOOST_AUTO_TEST_CASE(what_no_stage_shows_is_said) {
  SweepOptions sweep;
  sweep.threads = 1;
  const ProblemSpec spec = parse_spec(kProblem);
  const std::string by_itself = look_into(right_kernel(), spec, Convention::exact, sweep);
  BOOST_TEST(by_itself.starts_with("run again by itself, it passes"), by_itself);
  const DamagedKernel no_dm({{}, [](const Problem& problem, const BackwardArgs& args) {
                               if (args.dm_initial != nullptr)
                                 writable(args.dm_initial, "m_initial", problem).set(0, 0, 0, 9);
                             }});
  const std::string unprobed = look_into(no_dm, parse_spec(kProblem + ",initial_states=1"), Convention::exact, sweep);
  BOOST_TEST(contains(unprobed, "no stage that was probed is outside its bounds"), unprobed);
}

BOOST_AUTO_TEST_CASE(what_is_right_contradicts_a_mistake) {
  // dk as if the state were dropped between chunks; h shows that it is not
  const Case c = make_case(parse_spec(kProblem));
  KernelData values = run_kernel(right_kernel(), c, Convention::exact);
  for (std::int64_t first = 0; first < 70; first += 16) {
    const std::int64_t end = std::min<std::int64_t>(first + 16, 70);
    const KernelData part = with(c, Convention::exact, [&](Case& d) {
      d.problem.shape.S = end - first;
      for (auto* tensors : {&d.inputs, &d.cotangents})
        for (auto& [name, array] : *tensors)
          array = Array(xt::view(Array(array), xt::all(), xt::all(), xt::range(first, end)));
    });
    xt::view(values.gradients.at("k"), xt::all(), xt::all(), xt::range(first, end)) = part.gradients.at("k");
  }
  const std::string text = said_of(c, values, Convention::exact);
  BOOST_TEST(!contains(text, "as if: the state is dropped between chunks: "), text);
}

BOOST_AUTO_TEST_CASE(what_is_said_of_planted_bugs_is_true) {
  std::set<std::string> bugs;
  ExplanationOptions options;
  options.threads = 2;
  for (const Mutant& mutant : mutants()) {
    bugs.insert(mutant.name.substr(mutant.name.find('.') + 1));
    for (const char* name :
         {"chunkwise.eps_missing", "recurrent.forget_gate_exp", "recurrent.dm_last_ignored",
          "chunkwise.dm_path_missing", "chunkwise.state_bfloat16", "parallel.c_initial_ignored", "recurrent.state_late",
          "recurrent.c_kept_at_reset", "chunkwise.mask_includes_next", "chunkwise.decay_inclusive",
          "chunkwise.dm_initial_without_walk", "parallel.operands_truncated"})
      if (mutant.name == name) options.mutants.push_back(&mutant);
  }
  BOOST_TEST(options.mutants.size() == 12u);
  // Every bug has something that is true of it, if only the stage; but those that properties alone find.
  std::size_t known = 0;
  for (const std::string& bug : bugs) known += true_claims(bug).empty() ? 0 : 1;
  BOOST_TEST(known > 250u);
  BOOST_TEST(true_claims("no_such_bug").empty());

  const auto explanations = explain_mutants(suite("smoke"), options);
  BOOST_TEST(explanations.size() == 12u);
  for (const Explanation& one : explanations) {
    BOOST_TEST((one.verdict == Explained::right), one.mutant->name);
    BOOST_TEST(one.is_named == !one.mutant->name.ends_with("state_bfloat16"), one.mutant->name);
  }
  BOOST_TEST(exit_status(explanations) == 0);
  BOOST_TEST(exit_status(std::vector<Explanation>{}) == 3);
  std::vector<Explanation> bad = explanations;
  bad.front().verdict = Explained::wrong;
  BOOST_TEST(exit_status(bad) == 1);
  const std::string table = to_markdown(explanations);
  BOOST_TEST(contains(table, "12 bugs: 12 explained rightly (100.0 %; 11 of them by name"), table);
  BOOST_TEST(contains(table, "| eps | chunkwise.eps_missing | eps left out | "), table);
}
