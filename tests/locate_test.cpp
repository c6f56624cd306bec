// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <boost/test/unit_test.hpp>

#include "cases/problems.hpp"
#include "fake_kernels.hpp"
#include "judge/locate.hpp"
#include "sweep/mistakes.hpp"
#include "sweep/stages.hpp"
#include "sweep/sweep.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::BentRecurrence, mlstm::test::contains, mlstm::test::Damage, mlstm::test::DamagedKernel,
    mlstm::test::Step, mlstm::test::Stored, mlstm::test::writable;

namespace {

constexpr std::int64_t kChunk = 16;
const std::string kProblem = "regime=forget3,dtype=float32,B=2,NH=2,S=70,DHQK=16,DHV=32,L=16,eps=0.01";
const std::string kOneHead = "regime=forget6,dtype=float32,S=64,DHQK=16,DHV=16,L=16,eps=0.01,initial_states=1";

/// What is said of `tensor` of `kernel` on `line`.
std::string explanation(const Kernel& kernel, const std::string& line, const std::string& tensor,
                        std::optional<Convention> convention = Convention::exact) {
  SweepOptions options;
  options.threads = 1;
  for (const Record& record : run_sweep(make_plan({&kernel}, {parse_spec(line)}, false, convention).units, options))
    if (record.item.tensor == tensor) {
      BOOST_TEST((record.item.status == Status::FAIL), tensor << " passes");
      return record.item.explanation;
    }
  return "no such tensor";
}

/// h damaged where `place` holds.
std::string where_h(std::function<bool(std::int64_t head, std::int64_t t, std::int64_t column)> place) {
  const DamagedKernel kernel(
      {[place](const Problem& problem, const ForwardArgs& args) {
         writable(args.h, "h", problem).edit([&](double value, std::int64_t head, std::int64_t t, std::int64_t column) {
           return place(head, t, column) ? 3 * value + 5 : value;
         });
       },
       {}});
  const std::string text = explanation(kernel, kProblem, "h");
  BOOST_TEST_MESSAGE(text);
  return text;
}

std::string looks_like(const std::string& tensor, std::function<void(const Stored&)> damage) {
  const DamagedKernel kernel({[&](const Problem& problem, const ForwardArgs& args) {
                                if (tensor == "h") damage(writable(args.h, "h", problem));
                                if (tensor == "c_last" && args.c_last != nullptr)
                                  damage(writable(args.c_last, "c_last", problem));
                              },
                              [&](const Problem& problem, const BackwardArgs& args) {
                                if (tensor == "dq") damage(writable(args.dq, "q", problem));
                                if (tensor == "df") damage(writable(args.df, "f", problem));
                              }});
  const std::string text = explanation(kernel, kProblem, tensor);
  BOOST_TEST_MESSAGE(text);
  return text;
}

Stages stages_of(const Kernel& kernel, const std::string& line, std::optional<Convention> convention = {},
                 std::int64_t most_runs = 200) {
  const Stages stages = find_stages(kernel, make_case(parse_spec(line)), convention, run_kernel, most_runs);
  BOOST_TEST_MESSAGE(stages.text << stages.why_not << " (" << stages.runs << " runs)");
  return stages;
}

std::int64_t place(const std::vector<Stage>& stages, const std::string& name) {
  for (const Stage& stage : stages)
    if (stage.name == name) return stage.at.value_or(-1);
  return -2;
}

std::vector<std::string> mistakes(const Kernel& kernel, const std::string& line, std::optional<Convention> convention) {
  Case c = make_case(parse_spec(line));
  c.kernel = run_kernel(kernel, c, convention);
  const ReferenceData reference = evaluate_reference(c);
  JudgeOptions options;
  options.convention = convention;
  const auto lines = find_mistakes(c, reference, judge(c, reference, options), 1);
  for (const std::string& found : lines) BOOST_TEST_MESSAGE(found);
  return lines;
}

}  // namespace

BOOST_AUTO_TEST_CASE(heads_are_named) {
  BOOST_TEST(contains(where_h([](auto, auto, auto) { return true; }), "in every head, every step, every column"));
  BOOST_TEST(contains(where_h([](auto head, auto, auto) { return head == 2; }), "in head [1, 0] alone, every step"));
  BOOST_TEST(contains(where_h([](auto head, auto, auto) { return head >= 2; }), "in batch entry 1, every step"));
  BOOST_TEST(contains(where_h([](auto head, auto, auto) { return head % 2 == 1; }), "in head 1 of every batch entry"));
  BOOST_TEST(contains(where_h([](auto head, auto, auto) { return head != 1; }), "in 3 of 4 heads, first in [0, 0]"));
}

BOOST_AUTO_TEST_CASE(steps_and_chunks_are_named) {
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t >= 32; }),
                      "t = 32 ... 69, all steps from the start of chunk 2 on"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t < 48; }), "all steps up to the end of chunk 2"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t >= 64; }), "all in the ragged last chunk"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t == 69; }),
                      "only the last step, t = 69 (the last step of chunk 4)"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t == 17; }), "only t = 17 (step 1 of chunk 1)"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t % kChunk == 0; }), "the first step of every chunk"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t % kChunk == 0 && t > 0; }),
                      "the first step of chunks 1 to 4, first t = 16"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t % kChunk == 15; }), "the last step of every chunk"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t % kChunk >= 8; }), "steps 8 ... 15"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t % 3 == 2; }), "every 3rd step from t = 2 on"));
  // a few steps that happen to be an even number apart are no rule
  BOOST_TEST(!contains(where_h([](auto, auto t, auto) { return t == 3 || t == 9 || t == 21; }), "every 6th"));
  BOOST_TEST(!contains(where_h([](auto, auto t, auto) { return t == 3 || t == 5 || t == 7; }), "every 2nd step"));
  BOOST_TEST(
      !contains(where_h([](auto, auto t, auto) { return t == 3 || t == 5 || t == 9 || t == 21; }), "every 2nd step"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t >= 21 && t < 40; }),
                      "from step 5 of chunk 1 to step 7 of chunk 2"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t % kChunk >= 12 - t / kChunk; }),
                      "gathering at the end of chunks 0 to 3: within the last 4, 5, 6, 7 steps"));
  BOOST_TEST(contains(where_h([](auto, auto t, auto) { return t >= 32; }),
                      "by chunk of 16 steps: 0 %, 0 %, 100 %, 100 %, 100 %"));
}

BOOST_AUTO_TEST_CASE(columns_tiles_and_single_elements_are_named) {
  BOOST_TEST(contains(where_h([](auto, auto, auto column) { return column == 5; }), "column 5 alone"));
  BOOST_TEST(contains(where_h([](auto, auto, auto column) { return column % 8 == 3; }), "every 8th column from 3 on"));
  BOOST_TEST(
      contains(where_h([](auto, auto, auto column) { return column >= 16; }), "columns 16 ... 31 (aligned to 16)"));
  BOOST_TEST(
      contains(where_h([](auto, auto t, auto column) { return t >= 16 && t < 32 && column >= 8 && column < 16; }),
               "all of chunk 1, columns 8 ... 15 (aligned to 8), a tile of 16 x 8"));
  const std::string one = where_h([](auto head, auto t, auto column) { return head == 3 && t == 40 && column == 9; });
  BOOST_TEST(
      contains(one, "where: 1 of 8960 elements, in head [1, 1] alone, only t = 40 (step 8 of chunk 2), column 9"));
  BOOST_TEST(contains(where_h([](auto head, auto t, auto column) { return (7 * t + 3 * column + head) % 31 == 0; }),
                      "scattered"));
}

BOOST_AUTO_TEST_CASE(what_the_values_are_is_named) {
  const auto scaled = [](double factor) {
    return [factor](const Stored& s) { s.edit([&](double value, auto...) { return factor * value; }); };
  };
  BOOST_TEST(contains(looks_like("df", scaled(2)), "looks like: the expected values doubled"));
  BOOST_TEST(contains(looks_like("dq", scaled(-1)), "looks like: the expected values negated"));
  BOOST_TEST(
      contains(looks_like("dq", scaled(4)), "the expected values multiplied by sqrt(DHQK): the scale s is missing"));
  BOOST_TEST(contains(looks_like("dq", scaled(0.25)), "the scale is applied twice"));
  BOOST_TEST(contains(looks_like("h", scaled(1.37)), "the expected values times 1.37"));
  BOOST_TEST(contains(looks_like("h", scaled(1.0002)), "the expected values times 1 +0.0002"));
  BOOST_TEST(contains(looks_like("h", scaled(0)), "looks like: zero"));
  // a few elements look like many things
  for (const double factor : {2.0, -1.0, 0.5})
    BOOST_TEST(!contains(looks_like("h",
                                    [factor](const Stored& s) {
                                      for (const std::int64_t t : {5, 9}) s.set(1, t, 7, factor * s.get(1, t, 7));
                                    }),
                         "looks like"));
  BOOST_TEST(contains(looks_like("h", scaled(std::nan(""))), "looks like: NaN"));
  BOOST_TEST(
      contains(looks_like("df", [](const Stored& s) { s.edit([](double value, auto...) { return value + 0.5; }); }),
               "the expected values plus 0.5"));
  BOOST_TEST(contains(looks_like("dq",
                                 [](const Stored& s) {
                                   for (std::int64_t head = 0; head < s.heads; ++head)
                                     for (std::int64_t t = s.rows - 1; t >= 0; --t)
                                       for (std::int64_t column = 0; column < s.columns; ++column)
                                         s.set(head, t, column, t > 0 ? s.get(head, t - 1, column) : 0);
                                 }),
                      "the expected values of one step before"));
  BOOST_TEST(
      contains(looks_like("h",
                          [](const Stored& s) {
                            for (std::int64_t t = 0; t < s.rows; ++t)
                              for (std::int64_t column = 0; column < s.columns; ++column)
                                s.set(1, t, column, s.get(0, t, column));
                          }),
               "in head [0, 1] alone, every step, every column\nby chunk of 16 steps: 25 %, 25 %, 25 %, 25 %, 25 "
               "%\nlooks like: the expected values of the head before"));
  BOOST_TEST(contains(looks_like("h",
                                 [](const Stored& s) {
                                   for (std::int64_t head = 0; head < s.heads; ++head)
                                     for (std::int64_t t = 0; t < s.rows; ++t)
                                       for (std::int64_t column = 16; column < s.columns; ++column)
                                         s.set(head, t, column, s.get(head, t, column - 16));
                                 }),
                      "the expected values of 16 columns before"));
  BOOST_TEST(contains(looks_like("h",
                                 [](const Stored& s) {
                                   for (std::int64_t t = 0; t < s.rows; ++t)
                                     for (std::int64_t column = 0; column + 1 < s.columns; ++column)
                                       s.set(2, t, column, s.get(2, t, column + 1));
                                 }),
                      "the expected values of the column after"));
}

BOOST_AUTO_TEST_CASE(a_transposed_state_is_recognised) {
  const DamagedKernel kernel({[](const Problem& problem, const ForwardArgs& args) {
                                const Stored c = writable(args.c_last, "c_last", problem);
                                for (std::int64_t a = 0; a < c.rows; ++a)
                                  for (std::int64_t b = 0; b < a; ++b) {
                                    const double kept = c.get(0, a, b);
                                    c.set(0, a, b, c.get(0, b, a));
                                    c.set(0, b, a, kept);
                                  }
                              },
                              {}});
  const std::string text = explanation(kernel, kOneHead, "c_last");
  BOOST_TEST(contains(text, "rows and columns exchanged"), text);
}

BOOST_AUTO_TEST_CASE(m_that_is_off_from_one_step_on_is_found_before_what_follows_from_it) {
  BentRecurrence kernel(Module::chunkwise);
  kernel.bend_state = [](Step& step) {
    if (step.t == 17 && step.head == 1) step.m += 0.5;
  };
  const Stages stages = stages_of(kernel, "regime=forget3,dtype=float32,NH=2,S=70,DHQK=8,DHV=8,L=16,eps=0.01");
  BOOST_TEST(place(stages.forward, "m") == 17);
  BOOST_TEST(place(stages.forward, "n") == 18);
  BOOST_TEST(place(stages.forward, "C") == 18);
  BOOST_TEST(place(stages.forward, "h") >= 17);  // m itself counts there only where the floor is the denominator
  BOOST_TEST(
      contains(stages.text, "forward pass: m is wrong first, at t = 17 (chunk 1, step 1 of it), in head [0, 1]"));
}

BOOST_AUTO_TEST_CASE(a_state_that_is_dropped_between_chunks_is_found_at_the_first_step_after) {
  BentRecurrence kernel(Module::chunkwise);
  kernel.bend_gates = [](Step& step) {
    if (step.t % kChunk == 0 && step.t >= 32) {
      std::fill(step.C.begin(), step.C.end(), 0.0);
      std::fill(step.n.begin(), step.n.end(), 0.0);
    }
  };
  const Stages stages = stages_of(kernel, kOneHead);
  BOOST_TEST(place(stages.forward, "n") == 32);
  BOOST_TEST(place(stages.forward, "C") == 32);
  BOOST_TEST(place(stages.forward, "m") == -1);
  BOOST_TEST(contains(stages.text, "n is wrong first, at t = 32 (chunk 2, step 0 of it); then C at t = 32"));
  BOOST_TEST(contains(stages.text, "right at every probed length: m"));
  BOOST_TEST(contains(stages.text, "gates: there C and n are"));
  BOOST_TEST(contains(stages.text, ": the state before is lost"), stages.text);
}

BOOST_AUTO_TEST_CASE(a_wrong_gate_is_told_from_a_wrong_state) {
  BentRecurrence kernel;
  kernel.bend_gates = [](Step& step) {
    if (step.t >= 20 && step.problem.gate == Gate::sigmoid) step.log_forget *= 2;
  };
  const Stages stages = stages_of(kernel, "regime=forget0,gate=sigmoid,dtype=float32,S=64,DHQK=8,DHV=8,eps=0.01");
  BOOST_TEST(place(stages.forward, "n") == 20);
  BOOST_TEST(contains(stages.text, "the factor of the forget gate is wrong"), stages.text);
}

BOOST_AUTO_TEST_CASE(n_alone_C_alone_and_h_alone_are_told_apart) {
  const std::string line = "regime=forget6,dtype=float32,S=40,DHQK=8,DHV=8,eps=0.01";
  BentRecurrence n, C, h;
  n.bend_state = [](Step& step) {
    if (step.t == 9) step.n[3] += 1;
  };
  C.bend_state = [](Step& step) {
    if (step.t == 33) step.C[5] += 1;
  };
  h.bend_h = [](const Step& step, double value) { return step.t == 12 ? value + 1 : value; };
  const Stages of_n = stages_of(n, line), of_C = stages_of(C, line), of_h = stages_of(h, line);
  BOOST_TEST((place(of_n.forward, "n") == 9 && place(of_n.forward, "C") == -1));
  BOOST_TEST((place(of_C.forward, "C") == 33 && place(of_C.forward, "n") == -1));
  // a key or value that is not the right one is no wrong gate
  BOOST_TEST((!contains(of_n.text, "gates: ") && !contains(of_C.text, "gates: ")));
  BOOST_TEST((place(of_h.forward, "h") == 12 && place(of_h.forward, "C") == -1 && place(of_h.forward, "n") == -1));
  BOOST_TEST(contains(of_h.text, "h is wrong first, at t = 12; right at every probed length: m, n, C"));
}

BOOST_AUTO_TEST_CASE(a_mistake_that_depends_on_the_number_of_steps_is_said_to) {
  BentRecurrence kernel;
  kernel.bend_h = [](const Step& step, double value) { return step.problem.shape.S > 50 ? value + 1 : value; };
  const Stages stages = stages_of(kernel, "regime=forget3,dtype=float32,S=64,DHQK=8,DHV=8");
  BOOST_TEST(contains(stages.text, "the mistake depends on the number of steps: 51 steps alone are wrong, 50 are not"),
             stages.text);
}

BOOST_AUTO_TEST_CASE(a_forward_pass_that_stops_is_probed_for_the_shortest_that_does) {
  BentRecurrence kernel;
  kernel.bend_gates = [](Step& step) {
    if (step.t == 22) throw std::runtime_error("misaligned address");
  };
  const Stages stages = stages_of(kernel, "regime=forget3,dtype=float32,S=64,DHQK=8,DHV=8");
  BOOST_TEST(contains(stages.text, "stops on the first 23 of 64 steps, not on fewer"), stages.text);
}

BOOST_AUTO_TEST_CASE(a_variant_that_returns_no_states_is_probed_less_and_says_so) {
  BentRecurrence kernel;
  kernel.change().last_states = false;
  kernel.change().initial_states = false;
  kernel.bend_h = [](const Step& step, double value) { return step.t >= 12 ? value + 1 : value; };
  const Stages stages = stages_of(kernel, "regime=forget3,dtype=float32,S=40,DHQK=8,DHV=8");
  BOOST_TEST(place(stages.forward, "h") == 12);
  BOOST_TEST(contains(stages.why_not, "returns no states"), stages.why_not);
}

BOOST_AUTO_TEST_CASE(no_more_runs_than_allowed) {
  BentRecurrence kernel;
  kernel.bend_state = [](Step& step) {
    if (step.t == 9) step.n[3] += 1;
  };
  const Stages stages = stages_of(kernel, "regime=forget6,dtype=float32,S=400,DHQK=8,DHV=8", {}, 5);
  BOOST_TEST(stages.runs == 5);
  BOOST_TEST(contains(stages.why_not, "5 runs were allowed"));
  BOOST_TEST(stages_of(BentRecurrence(), "regime=forget6,dtype=float32,S=40,DHQK=8,DHV=8").text.empty());
}

namespace {

/// The right variant, run backward chunk by chunk, with dC and dn set to zero above `boundary`. One head.
class DropsCotangent : public DamagedKernel {
 public:
  explicit DropsCotangent(std::int64_t chunk) : DamagedKernel({}), chunk_(chunk) {}

  void backward(const Problem& p, const BackwardArgs& args) const override {
    DamagedKernel::backward(p, args);
    if (chunk_ * p.chunk_size >= p.shape.S) return;
    // Only what comes from the later steps is missing: the gradients of the first `chunk_` chunks run alone.
    Problem part = p;
    part.shape.S = chunk_ * p.chunk_size;
    std::vector<char> saved(saved_size(part) + 1), h(static_cast<std::size_t>(part.shape.S * p.shape.DHV) * 8);
    ForwardArgs fw{.q = args.q,
                   .k = args.k,
                   .v = args.v,
                   .i = args.i,
                   .f = args.f,
                   .c_initial = args.c_initial,
                   .n_initial = args.n_initial,
                   .m_initial = args.m_initial,
                   .h = h.data()};
    fw.saved = saved.data();
    forward(part, fw);
    BackwardArgs bw = args;
    bw.h = h.data();
    bw.saved = saved.data();
    bw.dc_last = bw.dn_last = bw.dm_last = nullptr;
    DamagedKernel::backward(part, bw);
  }

 private:
  std::int64_t chunk_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_dropped_dC_is_found_at_its_chunk) {
  const DropsCotangent kernel(2);
  const Stages stages = stages_of(kernel, kOneHead, Convention::exact);
  BOOST_TEST(contains(stages.text, "backward pass, from the last step down:"), stages.text);
  BOOST_TEST((place(stages.backward, "dk") == 31 && place(stages.backward, "dv") == 31));
  const std::string text = explanation(kernel, kOneHead, "dk");
  BOOST_TEST(contains(text, "where: "), text);
  BOOST_TEST(contains(text, "of chunk 1"), text);
}

BOOST_AUTO_TEST_CASE(gradients_that_are_wrong_by_themselves_are_told_from_a_wrong_dC) {
  const auto damage = [](const char* tensor, auto pick, double factor) {
    return DamagedKernel(
        {{}, [=](const Problem& problem, const BackwardArgs& args) {
           writable(pick(args), tensor, problem).edit([&](double value, std::int64_t, std::int64_t t, auto...) {
             return t <= 40 ? factor * value : value;
           });
         }});
  };
  const Stages df = stages_of(damage(
                                  "f", [](const BackwardArgs& a) { return a.df; }, 2),
                              kOneHead, Convention::exact);
  BOOST_TEST(contains(df.text, "df is wrong first, at t = 40"), df.text);
  BOOST_TEST(contains(df.text, "right: dv, dk, dq, di; dC and dn are right where probed"), df.text);
  const Stages dv = stages_of(damage(
                                  "v", [](const BackwardArgs& a) { return a.dv; }, -1),
                              kOneHead, Convention::exact);
  BOOST_TEST(contains(dv.text, "dv is wrong first, at t = 40 (chunk 2, step 8 of it)"), dv.text);
}

BOOST_AUTO_TEST_CASE(known_mistakes_are_recognised) {
  BentRecurrence dropped(Module::chunkwise), ignored, unscaled;
  dropped.bend_gates = [](Step& step) {
    if (step.t % kChunk != 0 || step.t == 0) return;
    std::fill(step.C.begin(), step.C.end(), 0.0);
    std::fill(step.n.begin(), step.n.end(), 0.0);
    step.m = 0;
  };
  ignored.bend_gates = [](Step& step) {
    if (step.t > 0) return;
    std::fill(step.C.begin(), step.C.end(), 0.0);
    std::fill(step.n.begin(), step.n.end(), 0.0);
    step.m = 0;
  };
  const auto first = [](const std::vector<std::string>& lines) {
    return lines.empty() ? std::string() : lines.front();
  };
  BOOST_TEST(first(mistakes(dropped, kOneHead, {})) ==
             "as if: the state is dropped between chunks: that would give h, c_last, n_last, m_last");
  BOOST_TEST(contains(first(mistakes(ignored, kOneHead, {})), "the initial states are ignored"));
  BOOST_TEST(mistakes(DamagedKernel({}), kOneHead, Convention::exact).empty());
}

BOOST_AUTO_TEST_CASE(a_problem_that_is_too_large_for_mistakes_to_be_tried_is_said_to_be) {
  Case c = make_case(parse_spec("S=2,L=2"));
  c.kernel.emplace();
  c.problem.shape.S = std::int64_t{1} << 40;
  Item item;
  item.status = Status::FAIL;
  item.error_ratio = 2;
  const auto lines = find_mistakes(c, {}, {item});
  BOOST_REQUIRE(lines.size() == 1u);
  BOOST_TEST(contains(lines.front(), "known mistakes were not tried"));
}

BOOST_AUTO_TEST_CASE(a_right_tensor_has_no_location) {
  const Case c = [] {
    Case made = make_case(parse_spec(kProblem));
    made.kernel = run_kernel(*find_kernel("chunkwise--native_eigen_ownbw"), made, Convention::exact);
    return made;
  }();
  const ReferenceData reference = evaluate_reference(c);
  const TensorMap bounds = error_bounds(c, reference, precision_of(c));
  for (const Item& item : judge(c, reference)) {
    const JudgedTensor judged = judged_tensor(c, reference, bounds, item);
    BOOST_TEST(locate(judged).failing == 0);
    BOOST_TEST(explain_tensor(judged).empty());
    BOOST_TEST(item.explanation.empty());
    const Array ratios =
        error_ratios(*judged.values, *judged.reference, *judged.bound,
                     storage_dtype(item.convention.empty() ? item.tensor : item.tensor.substr(1), c.problem));
    BOOST_TEST(*std::max_element(ratios.begin(), ratios.end()) == *item.error_ratio);
  }
}
