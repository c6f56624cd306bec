// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cases/problems.hpp"
#include "fake_kernels.hpp"
#include "runner/runner.hpp"
#include "runner/worker_frames.hpp"
#include "text.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using mlstm::test::contains, mlstm::test::Damage, mlstm::test::DamagedKernel, mlstm::test::message_of;

namespace {

/// A variant that copies (see copying_kernel), and what it does besides.
DamagedKernel copies(const Damage& misdeeds = {}) { return DamagedKernel(misdeeds, test::copying_kernel()); }

Case small_case(const std::string& more = "") {
  return make_case(
      parse_spec("regime=standard,B=2,NH=1,S=3,DHQK=2,DHV=4,L=2,stabilizer_init=neg_inf,initial_states=1" + more));
}

/// What run_kernel says about a kernel that misbehaves on float32.
std::string complaint(const Damage& misdeeds) {
  return message_of<std::runtime_error>(
      [&] { run_kernel(copies(misdeeds), small_case(",dtype=float32"), Convention::detached); });
}

template <class Call>
std::string refusal(const Call& call) {
  return message_of<std::invalid_argument>(call);
}

float* floats(void* address) { return static_cast<float*>(address); }

}  // namespace

BOOST_AUTO_TEST_CASE(an_honest_kernel_gives_its_results_in_every_dtype) {
  for (const std::string dtype : {"float64", "float32", "bfloat16", "float16"}) {
    const Case c = small_case(",dtype=" + dtype);
    const KernelData data = run_kernel(copies(), c, Convention::detached);
    BOOST_TEST(data.variant == "chunkwise--native_eigen_ownbw");
    BOOST_TEST((data.convention == Convention::detached));
    BOOST_TEST((data.operand_dtype == DType::tfloat32));
    BOOST_TEST(!data.state_dtype.has_value());
    BOOST_TEST(std::get<std::string>(data.attributes.at("device")) == "cpu");
    BOOST_TEST((data.outputs.at("h") == c.inputs.at("v")), dtype);
    BOOST_TEST((data.outputs.at("c_last") == c.inputs.at("c_initial")), dtype);
    BOOST_TEST((data.outputs.at("m_last") == c.inputs.at("m_initial")), dtype);
    BOOST_TEST((data.gradients.at("v") == c.cotangents.at("h")), dtype);
    BOOST_TEST(data.outputs.size() == 4u);
    BOOST_TEST(data.gradients.size() == 8u);
  }
}

BOOST_AUTO_TEST_CASE(truncation_is_declared_in_what_a_run_gives) {
  VariantInfo info = copies().info();
  const Problem problem = small_case("").problem;
  BOOST_TEST(!declared_data(info, problem, {}).attributes.contains("rounding"));
  info.truncates = true;
  BOOST_TEST(std::get<std::string>(declared_data(info, problem, {}).attributes.at("rounding")) == "truncate");
}

BOOST_AUTO_TEST_CASE(without_a_convention_or_cotangents_there_is_no_backward_pass) {
  const auto throws = [](const Problem&, const BackwardArgs&) { throw std::runtime_error("backward was called"); };
  const auto keeps = [](const Problem&, const ForwardArgs& args) {
    if (args.saved != nullptr) throw std::runtime_error("saved was given");
  };
  const DamagedKernel kernel = copies({keeps, throws});
  BOOST_TEST(run_kernel(kernel, small_case(), std::nullopt).gradients.empty());
  const KernelData data = run_kernel(kernel, small_case(",cotangents=0"), Convention::detached);
  BOOST_TEST(data.gradients.empty());
  BOOST_TEST(!data.convention.has_value());
}

BOOST_AUTO_TEST_CASE(a_nan_result_is_returned_and_not_taken_for_poison) {
  const DamagedKernel kernel = copies({[](const Problem&, const ForwardArgs& args) {
                                         static_cast<double*>(args.h)[1] = std::numeric_limits<double>::quiet_NaN();
                                       },
                                       {}});
  BOOST_TEST(std::isnan(run_kernel(kernel, small_case(), std::nullopt).outputs.at("h").data()[1]));
}

BOOST_AUTO_TEST_CASE(one_element_past_the_end_of_a_buffer_is_caught) {
  BOOST_TEST(complaint({}) == "none");
  BOOST_TEST(complaint({[](const Problem& p, const ForwardArgs& args) { floats(args.h)[size_of("h", p.shape)] = 0; },
                        {}}) == "chunkwise--native_eigen_ownbw: h was written past its end: byte 96 of 96");
  BOOST_TEST(contains(complaint({{}, [](const Problem&, const BackwardArgs& args) { floats(args.df)[-1] = 0; }}),
                      "df was written before its start: byte -1 of"));
  BOOST_TEST(contains(
      complaint({[](const Problem&, const ForwardArgs& args) { static_cast<char*>(args.workspace)[8] = 0; }, {}}),
      "workspace of forward was written past its end"));
  BOOST_TEST(contains(complaint({{},
                                 [](const Problem& p, const BackwardArgs& args) {
                                   floats(args.dm_initial)[size_of("m_initial", p.shape)] = 0;
                                 }}),
                      "dm_initial was written past its end"));
}

BOOST_AUTO_TEST_CASE(a_damaged_input_is_caught) {
  BOOST_TEST(contains(
      complaint({[](const Problem&, const ForwardArgs& args) { floats(const_cast<void*>(args.k))[5] *= 2; }, {}}),
      "k was changed"));
  const auto in_backward = [](auto member) {
    return complaint({{}, [member](const Problem&, const BackwardArgs& args) {
                        ++*static_cast<unsigned char*>(const_cast<void*>(args.*member));
                      }});
  };
  BOOST_TEST(contains(in_backward(&BackwardArgs::h), "h was changed"));
  BOOST_TEST(contains(in_backward(&BackwardArgs::saved), "saved was changed"));
  BOOST_TEST(contains(in_backward(&BackwardArgs::dh), "cotangent of h was changed"));
  BOOST_TEST(contains(in_backward(&BackwardArgs::m_initial), "m_initial was changed"));
}

BOOST_AUTO_TEST_CASE(an_unwritten_output_element_is_caught) {
  float before = 0;
  // puts back what the buffer held before the copy: the poison, which the neighbouring red zone shows
  const auto leave = [&](void* buffer, std::int64_t index) {
    std::memcpy(&before, floats(buffer) - 1, sizeof before);
    floats(buffer)[index] = before;
  };
  BOOST_TEST(contains(complaint({[&](const Problem&, const ForwardArgs& args) { leave(args.h, 23); }, {}}),
                      "h[1,0,2,3] was not written"));
  BOOST_TEST(contains(complaint({{}, [&](const Problem&, const BackwardArgs& args) { leave(args.dq, 2); }}),
                      "dq[0,0,1,0] was not written"));
}

BOOST_AUTO_TEST_CASE(a_result_that_depends_on_uninitialised_memory_is_caught) {
  const auto depends = [](const Damage& misdeeds) {
    return contains(complaint(misdeeds), "depends on memory that was not initialised");
  };
  const auto red_zone = [](const Problem& p, const ForwardArgs& args) {
    floats(args.h)[0] += static_cast<const float*>(args.q)[size_of("q", p.shape)];
  };
  BOOST_TEST(depends({red_zone, {}}));
  // the NaN is dropped by the comparison, the finite pattern is not
  const auto dropped_nan = [](const Problem& p, const ForwardArgs& args) {
    const float beyond = static_cast<const float*>(args.q)[size_of("q", p.shape)];
    if (beyond > 0) floats(args.h)[0] += beyond;
  };
  BOOST_TEST(depends({dropped_nan, {}}));

  float found = 0;
  const DamagedKernel reads_workspace = copies(
      {.forward = [&](const Problem&, const ForwardArgs& args) { floats(args.h)[3] += found; },
       .before_forward = [&](Problem&, ForwardArgs& args) { std::memcpy(&found, args.workspace, sizeof found); }});
  try {
    run_kernel(reads_workspace, small_case(",dtype=float32"), std::nullopt);
    BOOST_ERROR("accepted");
  } catch (const std::runtime_error& error) {
    BOOST_TEST(contains(error.what(), "h[0,0,0,3] depends on memory that was not initialised"));
  }
}

BOOST_AUTO_TEST_CASE(a_result_that_differs_from_run_to_run_is_caught) {
  int calls = 0;
  const auto count = [&](const Problem&, const ForwardArgs& args) {
    floats(args.c_last)[1] = static_cast<float>(++calls);
  };
  BOOST_TEST(contains(complaint({count, {}}), "c_last[0,0,0,1] differs from run to run"));
}

BOOST_AUTO_TEST_CASE(repeats_find_a_result_that_rarely_differs) {
  int calls = 0;
  const auto once_wrong = [&](const Problem&, const ForwardArgs& args) { floats(args.h)[6] += ++calls == 4 ? 1 : 0; };
  const DamagedKernel kernel = copies({once_wrong, {}});
  const Case c = small_case(",dtype=float32");
  BOOST_CHECK_NO_THROW(run_kernel(kernel, c, Convention::detached));
  BOOST_TEST(calls == 2);
  calls = 0;
  BOOST_CHECK_EXCEPTION(
      run_kernel(kernel, c, Convention::detached, {.repeats = 5}), std::runtime_error,
      [](const std::runtime_error& error) { return contains(error.what(), "h[0,0,1,2] differs from run to run"); });
  BOOST_TEST(calls == 4);
}

BOOST_AUTO_TEST_CASE(what_is_null_is_not_given_and_not_returned) {
  const Case c = small_case(",dtype=float32,last_state_cotangents=1");
  const Case only_h = small_case(",dtype=float32");
  bool forward_was_right = false, backward_was_right = false;
  DamagedKernel kernel = copies({.forward =
                                     [&](const Problem&, const ForwardArgs& args) {
                                       forward_was_right = args.n_last == nullptr && args.c_last != nullptr &&
                                                           args.m_last != nullptr && args.h != nullptr;
                                     },
                                 .backward =
                                     [&](const Problem&, const BackwardArgs& args) {
                                       backward_was_right = args.dm_initial == nullptr && args.dc_initial != nullptr &&
                                                            args.dc_last == nullptr && args.dn_last != nullptr &&
                                                            args.dh != nullptr && args.m_initial != nullptr;
                                     }});
  kernel.change().last_state_cotangents = true;
  const KernelData data = run_kernel(kernel, c, Convention::detached, {.nulls = {"n_last", "dm_initial", "dc_last"}});
  BOOST_TEST(forward_was_right);
  BOOST_TEST(backward_was_right);
  BOOST_TEST(!data.outputs.contains("n_last"));
  BOOST_TEST(!data.gradients.contains("m_initial"));
  BOOST_TEST(data.outputs.size() == 3u);
  BOOST_TEST(data.gradients.size() == 7u);
}

namespace {

KernelData run_in(Company company, const Kernel& kernel) {
  const auto other = std::make_shared<const Case>(make_case(parse_spec(
      "regime=standard,B=2,NH=1,S=5,DHQK=2,DHV=4,L=2,stabilizer_init=neg_inf,initial_states=1,dtype=float32")));
  return run_kernel(kernel, small_case(",dtype=float32"), Convention::detached, {.company = company, .other = other});
}

/// A copying kernel that notes its calls: "f3" is forward of S = 3, "b3" its backward.
struct Noted {
  std::string calls;
  std::vector<const void*> keys;
  std::vector<std::thread::id> threads;
  DamagedKernel kernel =
      copies({.forward = [this](const Problem& p, const ForwardArgs& args) { note('f', p, args.k); },
              .backward = [this](const Problem& p, const BackwardArgs& args) { note('b', p, args.k); }});

  void note(char direction, const Problem& problem, const void* k) {
    calls += fmt::format("{}{} ", direction, problem.shape.S);
    keys.push_back(k);
    threads.push_back(std::this_thread::get_id());
  }
  KernelData run(Company company) { return run_in(company, kernel); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(company_is_kept_in_the_stated_order) {
  Noted interleaved;
  interleaved.run(Company::interleaved);
  BOOST_TEST(interleaved.calls == "f3 b3 f3 f5 b3 ");  // first alone
  Noted moved;
  moved.run(Company::moved);
  BOOST_TEST(moved.calls == "f3 b3 f3 f5 b5 b3 ");
  BOOST_TEST(moved.keys.back() != moved.keys[2]);
  BOOST_TEST((moved.threads.back() != moved.threads[2]));
  Noted streams;
  streams.run(Company::streams);
  BOOST_TEST(streams.calls.starts_with("f3 b3 f3 f5 f3 f5 f3 f5 "));
  BOOST_TEST(contains(streams.calls, " f3 f5 b3 b5 b3 b5 "));
}

BOOST_AUTO_TEST_CASE(in_company_the_answer_is_the_one_that_differs) {
  static std::atomic<std::int64_t> others;  // of the other problem so far
  const auto misdeed = [](const Problem& p, const ForwardArgs& args) {
    if (p.shape.S != 3) ++others;
    if (p.shape.S == 3 && others > 0) *floats(args.h) = 77;
  };
  for (const Company company : {Company::interleaved, Company::moved, Company::streams, Company::threads}) {
    others = 0;
    const double first = run_in(company, copies({.forward = misdeed})).outputs.at("h").flat(0);
    // interleaved and moved call forward of this one first
    const bool comes_first = company == Company::interleaved || company == Company::moved;
    BOOST_TEST((first == 77) == !comes_first);
  }
  BOOST_CHECK_THROW(run_kernel(copies(), small_case(), Convention::detached, {.company = Company::moved}),
                    std::logic_error);
}

BOOST_AUTO_TEST_CASE(unguarded_buffers_are_left_to_a_sanitizer) {
  int calls = 0;
  const auto past_the_end = [&](const Problem&, const ForwardArgs& args) {
    ++calls;
    static_cast<char*>(args.workspace)[8] = 0;  // within what the allocator rounds up to
  };
  const DamagedKernel kernel = copies({past_the_end, {}});
  const Case c = small_case(",dtype=float32");
  BOOST_CHECK_THROW(run_kernel(kernel, c, std::nullopt), std::runtime_error);
  calls = 0;
  const KernelData data = run_kernel(kernel, c, std::nullopt, {.repeats = 1, .guarded = false});
  BOOST_TEST((data.outputs.at("h") == c.inputs.at("v")));
  BOOST_TEST(calls == 2);
}

BOOST_AUTO_TEST_CASE(an_error_of_the_kernel_names_the_variant) {
  BOOST_TEST(complaint({[](const Problem&, const ForwardArgs&) { throw std::runtime_error("launch failed"); }, {}}) ==
             "chunkwise--native_eigen_ownbw: launch failed");
}

BOOST_AUTO_TEST_CASE(what_a_kernel_does_not_declare_is_refused) {
  DamagedKernel kernel = copies();
  const auto run = [&](const Case& c, std::optional<Convention> convention) {
    return refusal([&] { run_kernel(kernel, c, convention); });
  };
  BOOST_TEST(contains(run(small_case(), Convention::exact), "exact gradients are not supported"));
  BOOST_TEST(contains(run(small_case(",last_state_cotangents=1"), Convention::detached),
                      "cotangents of the last states are not supported"));
  BOOST_TEST(contains(run(small_case(",gate=sigmoid"), std::nullopt), "gate sigmoid is not supported"));
  Case damaged = small_case();
  damaged.inputs.erase("k");
  BOOST_TEST(contains(run(damaged, std::nullopt), "k"));
  BOOST_TEST(unavailable(kernel).empty());
  kernel.change().device = Device::cuda;
  if (const std::string reason = unavailable(kernel); !reason.empty())
    BOOST_TEST(contains(run(small_case(), std::nullopt), reason));
}

BOOST_AUTO_TEST_CASE(the_interface_rounds_to_the_kernel_dtype_and_returns_states_on_request) {
  const Case c = small_case();
  const auto& in = c.inputs;
  const auto call = [&](const InterfaceOptions& options) {
    return mlstm_interface(copies(), in.at("q"), in.at("k"), in.at("v"), in.at("i"), in.at("f"), in.at("c_initial"),
                           in.at("n_initial"), in.at("m_initial"), options);
  };
  const InterfaceOptions defaults;
  BOOST_TEST(defaults.eps == 1e-6);
  BOOST_TEST(defaults.chunk_size == 64);
  const InterfaceResult result = call(defaults);
  BOOST_TEST(!result.c_last.has_value());
  const Array& v = in.at("v");
  for (std::size_t index = 0; index < v.size(); ++index)
    BOOST_TEST(result.h.data()[index] == round_to(DType::float16, v.data()[index]));
  const InterfaceResult exact = call({true, 0, DType::float64, 1});
  BOOST_TEST((exact.h == v));
  BOOST_TEST((*exact.c_last == in.at("c_initial")));
  BOOST_TEST((*exact.n_last == in.at("n_initial")));
  BOOST_TEST((*exact.m_last == in.at("m_initial")));
}

BOOST_AUTO_TEST_CASE(the_interface_names_the_bad_argument_its_value_and_what_was_expected) {
  const Case c = small_case();
  const auto call = [&](const std::function<void(TensorMap&, InterfaceOptions&)>& spoil) {
    TensorMap in = c.inputs;
    InterfaceOptions options;
    spoil(in, options);
    return refusal([&] {
      mlstm_interface(copies(), in["q"], in["k"], in["v"], in["i"], in["f"], in["c_initial"], in["n_initial"],
                      in.contains("m_initial") ? std::optional(in["m_initial"]) : std::nullopt, options);
    });
  };
  BOOST_TEST(call([](TensorMap&, InterfaceOptions&) {}) == "none");
  BOOST_TEST(contains(call([](TensorMap& in, InterfaceOptions&) {
                        in["k"] = Array::from_shape({2, 1, 3, 3});
                      }),
                      "k has shape [2, 1, 3, 3]; expected [2, 1, 3, 2]"));
  BOOST_TEST(contains(call([](TensorMap& in, InterfaceOptions&) {
                        in["q"] = Array::from_shape({3, 3});
                      }),
                      "q has shape [3, 3]; expected four dimensions"));
  BOOST_TEST(contains(call([](TensorMap& in, InterfaceOptions&) { in["i"].data()[0] = 1e6; }),
                      "i holds 1000000; expected finite values within the range of float16"));
  BOOST_TEST(contains(
      call([](TensorMap& in, InterfaceOptions&) { in["f"].data()[0] = std::numeric_limits<double>::quiet_NaN(); }),
      "f holds nan"));
  BOOST_TEST(contains(call([](TensorMap& in, InterfaceOptions&) { in.erase("m_initial"); }),
                      "m_initial is missing; expected all initial states or none"));
  BOOST_TEST(contains(call([](TensorMap&, InterfaceOptions& options) { options.eps = -1; }), "eps is -1"));
  BOOST_TEST(contains(call([](TensorMap&, InterfaceOptions& options) { options.chunk_size = 0; }), "chunk_size is 0"));
}

BOOST_AUTO_TEST_CASE(what_a_check_found_is_the_same_in_another_process) {
  for (std::size_t n = 0; n < kRunChecks.size(); ++n) {
    const CheckFailure failure(static_cast<RunCheck>(n), "dq", "v: dq[0] is odd");
    const std::string fields = encode(failure);
    const CheckFailure received = decode_failure(fields);
    BOOST_TEST((received.check() == failure.check()));
    BOOST_TEST(received.buffer() == "dq");
    BOOST_TEST(std::string(received.what()) == failure.what());
    BOOST_CHECK_THROW(decode_failure(fields.substr(1)), FrameError);
    BOOST_CHECK_THROW(decode_failure(fields + "x"), FrameError);
  }
  const std::string text = "no check";
  std::string fields = encode(CheckFailure(RunCheck::red_zone, "h", text));
  fields[sizeof(std::size_t) + text.size()] = static_cast<char>(kRunChecks.size());  // where the check's number is
  BOOST_CHECK_THROW(decode_failure(fields), FrameError);
}
