// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// Every property holds for the variants of this suite, and is broken by a kernel that is wrong in just that way.
#include "properties/properties.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "broken_properties.hpp"
#include "mlstm/parallel_for.hpp"
#include "report/report.hpp"
#include "sweep/sweep.hpp"
#include "sweep/sweep_properties.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using namespace mlstm::test;

namespace {

/// What damaged kernels can take: not the large problems of many_heads, in which they are slow.
bool is_for_fakes(const PropertyInfo& info) { return info.name != "many_heads"; }

}  // namespace

BOOST_AUTO_TEST_CASE(the_variants_have_every_property_and_no_check_is_blind) {
  std::vector<const Kernel*> kernels;
  for (const Kernel* kernel : registered_kernels())
    if (kernel->info().device == Device::cpu) kernels.push_back(kernel);
  Plan plan;
  add_properties(plan, kernels, {.names = select_properties({})});
  const Verdicts verdicts = finish(run_sweep(plan.units, {}), GroupBy::variant);
  BOOST_TEST(exit_status(verdicts.items) == 0, list_failures(verdicts.items));
  std::map<std::string, std::size_t> passed;
  for (const Item& item : verdicts.items) {
    BOOST_TEST(is_property(item));
    if (item.status == Status::PASS) ++passed[item.property];
  }
  for (const PropertyInfo& info : properties()) BOOST_TEST(passed[std::string(info.name)] > 20u, info.name);
}

BOOST_AUTO_TEST_CASE(an_honest_wrapper_is_not_caught) {
  for (const PropertyInfo& info : properties())
    for (const DType dtype : {DType::float64, DType::float32})
      if (is_for_fakes(info)) BOOST_TEST(!caught(std::string(info.name), {}, dtype), info.name);
}

BOOST_AUTO_TEST_CASE(split_state_catches_a_state_that_is_dropped_or_returned_wrong) {
  for (const DType dtype : {DType::float64, DType::float32}) {
    BOOST_TEST(caught("split_state",
                      {.before_forward =
                           [](Problem& p, ForwardArgs& args) {
                             if (p.has_initial_state) args.c_initial = zeros();
                           }},
                      dtype));
    BOOST_TEST(caught("split_state",
                      {.before_forward =
                           [](Problem& p, ForwardArgs& args) {
                             if (p.has_initial_state) args.n_initial = zeros();
                           }},
                      dtype));
    // c_last still belongs to the stabiliser of the step before
    BOOST_TEST(caught("split_state",
                      {.forward =
                           [](const Problem& p, const ForwardArgs& args) {
                             for_each(args.c_last, "c_last", p, [](double x, std::int64_t) { return x * 1.001; });
                           }},
                      dtype));
  }
}

BOOST_AUTO_TEST_CASE(split_state_catches_a_backward_pass_that_forgets_what_came_later) {
  const auto tensors = [](const Damage& bug) {
    return failing(items_of("split_state", DamagedKernel(bug), DType::float64));
  };
  BOOST_TEST(!tensors({.before_backward = [](Problem&, BackwardArgs& args) { args.dc_last = nullptr; }}).empty());
  BOOST_TEST(!tensors({.before_backward = [](Problem&, BackwardArgs& args) { args.dn_last = nullptr; }}).empty());
  BOOST_TEST(!tensors({.before_backward = [](Problem&, BackwardArgs& args) { args.dm_last = nullptr; }}).empty());
  BOOST_TEST((tensors(gradient_off_by("n_initial", 1.01)) == std::vector<std::string>{"dn_initial"}));
}

BOOST_AUTO_TEST_CASE(split_state_says_where_and_against_what) {
  const DamagedKernel kernel({.before_forward = [](Problem& p, ForwardArgs& args) {
    if (p.has_initial_state) args.c_initial = zeros();
  }});
  const ProblemSpec spec = parse_spec("regime=forget3,S=12,DHQK=4,DHV=4,L=4,cotangents=0");
  for (const Item& item : check_property("split_state", kernel, spec)) {
    BOOST_TEST(item.case_name == "property:split_state/" + case_name(spec));
    if (item.tensor != "h" && item.tensor != "c_last") {
      BOOST_TEST((item.status == Status::PASS), item.tensor << item.note);
      continue;
    }
    BOOST_TEST((item.status == Status::FAIL));
    BOOST_TEST(item.note.starts_with("part "), item.note);
    BOOST_TEST(item.note.find("of a run cut at ") != std::string::npos, item.note);
  }
}

BOOST_AUTO_TEST_CASE(a_decoding_step_is_chained_and_judged_by_the_reference) {
  const std::string step = "recurrent--step_fused_eigen";
  const DamagedKernel honest({}, step);
  BOOST_TEST(failures(items_of("split_state", honest, DType::float32)) == 0u);
  const DamagedKernel forgetful({.before_forward =
                                     [](Problem& p, ForwardArgs& args) {
                                       if (!p.has_initial_state) return;
                                       args.n_initial = changed_copy(args.n_initial, "n_initial", p,
                                                                     [](double x, std::int64_t) { return x * 0.999; });
                                     }},
                                step);
  BOOST_TEST(failures(items_of("split_state", forgetful, DType::float32)) > 0u);
}

BOOST_AUTO_TEST_CASE(causality_catches_a_look_ahead_far_below_any_tolerance) {
  const Damage forward{.forward = [](const Problem& p, const ForwardArgs& args) {
    for_each(args.h, "h", p, [&](double h, std::int64_t n) {
      const bool last = n / p.shape.DHV % p.shape.S == p.shape.S - 1;
      return last ? h : h + 1e-14 * at(args.v, "v", p, n + p.shape.DHV);
    });
  }};
  BOOST_TEST(caught("causality", forward));
  BOOST_TEST(!caught("dot_product", forward));
  const Damage backward{.backward = [](const Problem& p, const BackwardArgs& args) {
    for_each(args.dv, "v", p, [&](double dv, std::int64_t n) {
      const bool first = n / p.shape.DHV % p.shape.S == 0;
      return first || args.dh == nullptr ? dv : dv + 1e-30 * at(args.dh, "h", p, n - p.shape.DHV);
    });
  }};
  BOOST_TEST(
      (failing(items_of("causality", DamagedKernel(backward), DType::float64)) == std::vector<std::string>{"dv"}));
}

BOOST_AUTO_TEST_CASE(permutation_catches_one_head_that_is_different) {
  const Damage one_head{.forward = [](const Problem& p, const ForwardArgs& args) {
    for_each(args.h, "h", p, [&](double h, std::int64_t n) {
      return n / (p.shape.S * p.shape.DHV) == 1 ? std::nextafter(h, 1e300) : h;
    });
  }};
  BOOST_TEST(caught("permutation", one_head));
  const Damage one_gradient{.backward = [](const Problem& p, const BackwardArgs& args) {
    for_each(args.df, "f", p, [&](double df, std::int64_t n) { return n == 0 ? std::nextafter(df, 1e300) : df; });
  }};
  BOOST_TEST((failing(items_of("permutation", DamagedKernel(one_gradient), DType::float64)) ==
              std::vector<std::string>{"df"}));
}

BOOST_AUTO_TEST_CASE(neighbours_catches_a_head_that_reads_another) {
  const Damage next_head{.forward = [](const Problem& p, const ForwardArgs& args) {
    const std::int64_t size = p.shape.S * p.shape.DHV, all = size * p.shape.heads();
    for_each(args.h, "h", p,
             [&](double h, std::int64_t n) { return h + 1e-14 * at(args.v, "v", p, (n + size) % all); });
  }};
  BOOST_TEST(caught("neighbours", next_head));
  BOOST_TEST(!caught("permutation", next_head));  // every head reads the next one, in any order
}

BOOST_AUTO_TEST_CASE(chunk_size_catches_a_result_that_depends_on_it) {
  for (const DType dtype : {DType::float64, DType::float32}) {
    BOOST_TEST(caught("chunk_size",
                      {.forward =
                           [](const Problem& p, const ForwardArgs& args) {
                             const double factor = 1 + 1e-5 * static_cast<double>(p.chunk_size);
                             for_each(args.h, "h", p, [&](double x, std::int64_t) { return x * factor; });
                           }},
                      dtype));
    // what the second chunk passes on to the first is lost
    BOOST_TEST(caught("chunk_size",
                      {.backward =
                           [](const Problem& p, const BackwardArgs& args) {
                             for_each(args.di, "i", p, [&](double x, std::int64_t n) {
                               return n % p.shape.S == p.chunk_size - 1 ? 0 : x;
                             });
                           }},
                      dtype));
  }
}

BOOST_AUTO_TEST_CASE(linear_v_catches_what_is_not_linear) {
  const auto with_v = [](double (*change)(double)) {
    return Damage{.before_forward = [change](Problem& p, ForwardArgs& args) {
      args.v = changed_copy(args.v, "v", p, [&](double x, std::int64_t) { return change(x); });
    }};
  };
  for (const DType dtype : {DType::float64, DType::float32}) {
    BOOST_TEST(caught("linear_v", with_v([](double x) { return std::clamp(x, -2.0, 2.0); }), dtype));
    BOOST_TEST(caught("linear_v", with_v([](double x) { return std::abs(x); }), dtype));
    BOOST_TEST(caught("linear_v", with_v([](double x) { return x + 1e-5; }), dtype));
  }
  // Odd and homogeneous, so that multiplication by -2 shows nothing: the largest v of all is added everywhere.
  BOOST_TEST(caught("linear_v", {.forward = [](const Problem& p, const ForwardArgs& args) {
                      double largest = 0;
                      for (std::int64_t n = 0; n < size_of("v", p.shape); ++n)
                        if (const double v = at(args.v, "v", p, n); std::abs(v) > std::abs(largest)) largest = v;
                      for_each(args.h, "h", p, [&](double h, std::int64_t) { return h + 0.001 * largest; });
                    }}));
  // the gradients of q, k and the gates are linear in v, too
  BOOST_TEST((failing(items_of("linear_v",
                               DamagedKernel({.backward =
                                                  [](const Problem& p, const BackwardArgs& args) {
                                                    for_each(args.dk, "k", p,
                                                             [](double x, std::int64_t) { return x + 1e-9; });
                                                  }}),
                               DType::float64)) == std::vector<std::string>{"dk"}));
}

BOOST_AUTO_TEST_CASE(stabilizer_shift_catches_an_initial_stabiliser_that_is_ignored) {
  for (const DType dtype : {DType::float64, DType::float32}) {
    BOOST_TEST(caught("stabilizer_shift",
                      {.before_forward = [](Problem&, ForwardArgs& args) { args.m_initial = zeros(); }}, dtype));
    BOOST_TEST(caught("stabilizer_shift",
                      {.before_forward =
                           [](Problem& p, ForwardArgs& args) {
                             args.m_initial = changed_copy(args.m_initial, "m_initial", p,
                                                           [](double m, std::int64_t) { return 0.999 * m; });
                           }},
                      dtype));
  }
  // eps times the floor instead of eps alone: the property needs eps = 0, and a kernel that has its own eps is caught
  BOOST_TEST(caught("stabilizer_shift", {.before_forward = [](Problem& p, ForwardArgs&) { p.eps = 1e-3; }}));
}

BOOST_AUTO_TEST_CASE(dot_product_catches_one_percent_in_every_gradient_in_float64) {
  for (const char* input : {"q", "k", "v", "i", "f", "c_initial", "n_initial", "m_initial"})
    for (const double factor : {1.01, 0.99, 1.00005}) {
      const DamagedKernel kernel(gradient_off_by(input, factor));
      const std::vector<std::string> tensors = failing(items_of("dot_product", kernel, DType::float64));
      BOOST_TEST((tensors == std::vector<std::string>{gradient_of(input)}), input << " times " << factor);
    }
  for (const char* input : {"v", "c_initial"}) {
    const DamagedKernel kernel(gradient_off_by(input, 1.01));
    const auto items = items_of("dot_product", kernel, DType::float64, Convention::detached);
    BOOST_TEST((failing(items) == std::vector<std::string>{gradient_of(input)}), input);
  }
}

BOOST_AUTO_TEST_CASE(dot_product_catches_a_few_percent_in_float32) {
  for (const char* input : {"q", "k", "v", "i", "f", "c_initial", "n_initial"})
    BOOST_TEST(caught("dot_product", gradient_off_by(input, 1.03), DType::float32), input);
  BOOST_TEST(caught("dot_product", gradient_off_by("m_initial", 1.1), DType::float32));
}

BOOST_AUTO_TEST_CASE(dot_product_tells_a_detached_gradient_from_the_derivative) {
  const Damage bug{.before_backward = [](Problem&, BackwardArgs& args) { args.convention = Convention::detached; }};
  for (const DType dtype : {DType::float64, DType::float32}) {
    const std::vector<std::string> tensors =
        failing(items_of("dot_product", DamagedKernel(bug), dtype, Convention::exact));
    for (const char* tensor : {"dq", "dk", "di", "df"})
      BOOST_TEST((std::find(tensors.begin(), tensors.end(), tensor) != tensors.end()), tensor);
    BOOST_TEST((std::find(tensors.begin(), tensors.end(), "dv") == tensors.end()));
  }
}

BOOST_AUTO_TEST_CASE(dot_product_needs_no_true_forward_pass) {
  // h doubled, and its gradient with it: consistent, though not an mLSTM
  const DamagedKernel kernel({.forward =
                                  [](const Problem& p, const ForwardArgs& args) {
                                    for_each(args.h, "h", p, [](double x, std::int64_t) { return 2 * x; });
                                  },
                              .before_backward =
                                  [](Problem& p, BackwardArgs& args) {
                                    args.dh =
                                        changed_copy(args.dh, "h", p, [](double x, std::int64_t) { return 2 * x; });
                                    args.convention = Convention::detached;  // does not read h
                                  }});
  BOOST_TEST(failures(items_of("dot_product", kernel, DType::float64, Convention::detached)) == 0u);
}

BOOST_AUTO_TEST_CASE(determinism_catches_chance_and_memory) {
  int calls = 0;
  BOOST_TEST(caught("determinism", {.forward = [&](const Problem& p, const ForwardArgs& args) {
                      if (++calls % 5 == 0)
                        for_each(args.h, "h", p, [](double h, std::int64_t) { return std::nextafter(h, 1e300); });
                    }}));
  // the same bits in a row, but another problem leaves a trace
  std::vector<double> seen;
  BOOST_TEST(caught("determinism", {.forward = [&](const Problem& p, const ForwardArgs& args) {
                      const double q = at(args.q, "q", p, 0);
                      if (std::find(seen.begin(), seen.end(), q) == seen.end()) seen.push_back(q);
                      for_each(args.h, "h", p, [&](double h, std::int64_t) {
                        return h * (1 + 1e-14 * static_cast<double>(seen.size()));
                      });
                    }}));
}

BOOST_AUTO_TEST_CASE(packed_catches_what_crosses_a_reset) {
  // A reset that leaves a millionth of the state: logσ(f) no less than log(1e-6).
  test::BentRecurrence leaking(Module::recurrent);
  leaking.bend_gates = [](test::Step& step) { step.log_forget = std::max(step.log_forget, std::log(1e-6)); };
  for (const DType dtype : {DType::float64, DType::float32}) {
    const std::vector<std::string> tensors = failing(items_of("packed", leaking, dtype));
    BOOST_TEST((std::find(tensors.begin(), tensors.end(), "h") != tensors.end()));
  }
  BOOST_TEST(failures(items_of("packed", test::BentRecurrence(Module::recurrent), DType::float64)) == 0u);
  // the gradient of the last step of every document gets a share of the next document's
  const Damage crossing{.backward = [](const Problem& p, const BackwardArgs& args) {
    for_each(args.dv, "v", p, [&](double dv, std::int64_t n) {
      const bool last = n / p.shape.DHV % p.shape.S == p.shape.S - 1;
      return last || args.dh == nullptr ? dv : dv + 1e-3 * at(args.dh, "h", p, n + p.shape.DHV);
    });
  }};
  for (const DType dtype : {DType::float64, DType::float32})
    BOOST_TEST((failing(items_of("packed", DamagedKernel(crossing), dtype)) == std::vector<std::string>{"dv"}));
}

BOOST_AUTO_TEST_CASE(packed_documents_start_where_packing_goes_wrong) {
  Problem problem;
  problem.shape.S = 256;
  problem.chunk_size = 64;
  const std::vector<std::int64_t> starts = document_starts(problem);
  // at the first step, inside a chunk, on a chunk's first step and the one after it (a document of one step), at the
  // end
  BOOST_TEST((starts == std::vector<std::int64_t>{0, 33, 64, 65, 149, 192, 255}));
  problem.shape.S = 1;
  BOOST_TEST((document_starts(problem) == std::vector<std::int64_t>{0}));
}

BOOST_AUTO_TEST_CASE(many_heads_catches_an_index_of_16_bits_and_an_offset_that_wraps) {
  const ProblemSpec spec = parse_spec("regime=standard,dtype=float32,B=256,NH=257,S=1,DHQK=4,DHV=4,L=16,cotangents=0");
  const auto failing_in = [&](const Damage& bug) {
    return failing(check_property("many_heads", DamagedKernel(bug), spec));
  };
  BOOST_TEST(failing_in({}).empty());
  const auto copied = [](std::int64_t from_head, std::int64_t to_head) {
    return Damage{.forward = [=](const Problem& p, const ForwardArgs& args) {
      const std::int64_t size = p.shape.S * p.shape.DHV;
      for_each(args.h, "h", p, [&](double h, std::int64_t n) {
        return n / size == to_head ? at(args.h, "h", p, from_head * size + n % size) : h;
      });
    }};
  };
  BOOST_TEST((failing_in(copied(1, 65537)) == std::vector<std::string>{"h"}));  // head 65,537 as head 1
  BOOST_TEST((failing_in(copied(0, 257)) == std::vector<std::string>{"h"}));    // of the batch before
  const Damage not_a_number{.forward = [](const Problem& p, const ForwardArgs& args) {
    for_each(args.h, "h", p, [](double h, std::int64_t n) { return n == 200'000 ? std::nan("") : h; });
  }};
  BOOST_TEST((failing_in(not_a_number) == std::vector<std::string>{"h"}));
  const ProblemSpec few = parse_spec("regime=standard,dtype=float32,NH=3,S=1,DHQK=4,DHV=4,L=16");
  BOOST_TEST(property_refusal("many_heads", DamagedKernel({}), few) == "the problem has 3 heads; expected 14 or more");
}

BOOST_AUTO_TEST_CASE(nan_never_passes) {
  const Damage bug{.forward = [](const Problem& p, const ForwardArgs& args) {
    for_each(args.h, "h", p,
             [](double h, std::int64_t n) { return n == 5 ? std::numeric_limits<double>::quiet_NaN() : h; });
  }};
  for (const PropertyInfo& info : properties())
    if (is_for_fakes(info) && info.name != "determinism")  // the same NaN every time is deterministic
      BOOST_TEST(caught(std::string(info.name), bug), info.name);
  const Damage state{.forward = [](const Problem& p, const ForwardArgs& args) {
    for_each(args.c_last, "c_last", p, [](double, std::int64_t) { return std::numeric_limits<double>::infinity(); });
  }};
  const std::vector<Item> items = items_of("split_state", DamagedKernel(state), DType::float64);
  BOOST_TEST(items.front().note == "c_last that is handed over is not finite");
}

BOOST_AUTO_TEST_CASE(what_a_variant_does_not_declare_is_skipped_once_with_the_reason) {
  DamagedKernel kernel({});
  kernel.change().module = Module::recurrent;
  kernel.change().initial_states = kernel.change().last_states = kernel.change().last_state_cotangents = false;
  kernel.change().gradient_conventions.clear();
  kernel.change().gates = {Gate::sigmoid};
  Plan plan;
  add_properties(plan, {&kernel}, {.names = select_properties({})});
  std::map<std::string, std::string> skipped;
  for (const Record& record : run_sweep(plan.units, {})) {
    if (record.item.status != Status::SKIPPED) continue;
    BOOST_TEST(skipped.emplace(record.item.case_name, record.item.note).second, record.item.case_name);
  }
  const std::map<std::string, std::string> expected{{"property:split_state", "it does not take and return states"},
                                                    {"property:chunk_size", "it has no chunks"},
                                                    {"property:stabilizer_shift", "it takes no initial states"},
                                                    {"property:dot_product", "it has no backward pass"},
                                                    {"property:null_arguments", "none of its arguments may be null"}};
  for (const auto& [name, note] : skipped) BOOST_TEST(expected.contains(name), name << ": " << note);
  BOOST_TEST((skipped == expected));
  BOOST_CHECK_THROW(check_property("chunk_size", kernel, property_problems("chunk_size").front()),
                    std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(a_broken_property_fails_the_sweep_and_names_its_reproduction) {
  const DamagedKernel kernel(gradient_off_by("q", 1.01));
  Plan plan;
  Selection problems;
  problems.dtypes = {DType::float64};
  add_properties(plan, {&kernel}, {.names = {"dot_product"}, .problems = problems});
  const Verdicts verdicts = finish(run_sweep(plan.units, {}), GroupBy::variant);
  BOOST_TEST(exit_status(verdicts.items) == 1);
  for (const Item& item : verdicts.items) {
    if (item.status == Status::PASS) continue;
    BOOST_TEST(item.tensor == "dq");
    BOOST_TEST(item.convention == "exact");
    BOOST_TEST(
        item.repro.starts_with("mlstm verify --variant chunkwise--native_eigen_ownbw --property dot_product --case "));
    BOOST_TEST(item.note.find("sees errors from ") != std::string::npos);
  }
  const std::string text = to_text(verdicts.items, GroupBy::variant);
  BOOST_TEST(text.find("chunkwise--native_eigen_ownbw: dot_product ") != std::string::npos);
  BOOST_TEST(text.find("!\n") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_check_that_could_not_have_seen_a_thing_is_mistrusted) {
  // with eps this small, dm_initial is below the rounding errors of bfloat16
  Plan plan;
  add_properties(
      plan, {find_kernel("chunkwise--native_eigen_ownbw")},
      {.names = {"chunk_size"},
       .cases = {parse_spec("regime=forget6,dtype=bfloat16,NH=2,S=75,DHQK=16,DHV=8,L=16,eps=0.01,initial_states=1")},
       .convention = Convention::exact});
  std::map<std::string, Status> statuses;
  for (const Item& item : finish(run_sweep(plan.units, {}), GroupBy::variant).items)
    statuses[item.tensor] = item.status;
  BOOST_TEST((statuses.at("h") == Status::PASS));
  BOOST_TEST((statuses.at("dm_initial") == Status::MISTRUSTED));
}

BOOST_AUTO_TEST_CASE(names_are_selected_by_globs) {
  BOOST_TEST(select_properties({}).size() == properties().size());
  BOOST_TEST((select_properties({"c*", "dot_product"}) ==
              std::vector<std::string>{"causality", "chunk_size", "dot_product", "concurrency"}));
  BOOST_CHECK_EXCEPTION(
      select_properties({"caus"}, "--property"), std::invalid_argument, [](const std::invalid_argument& error) {
        return std::string(error.what())
            .starts_with("--property is \"caus\"; expected a name or glob among split_state, causality");
      });
  BOOST_CHECK_THROW(property_problems("symmetry"), std::invalid_argument);
}
