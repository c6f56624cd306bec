// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// The properties of the interface are broken by kernels that are right as long as they are called in just one way.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstddef>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "broken_properties.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using namespace mlstm::test;

BOOST_AUTO_TEST_CASE(null_arguments_catches_results_that_depend_on_what_else_is_asked_for) {
  for (const DType dtype : {DType::float64, DType::float32}) {
    BOOST_TEST(caught("null_arguments",
                      {.before_forward =
                           [](Problem&, ForwardArgs& args) {
                             if (args.n_last == nullptr) args.c_last = nullptr;  // written together, or not at all
                           }},
                      dtype));
    BOOST_TEST(caught("null_arguments",
                      {.before_forward =
                           [](Problem&, ForwardArgs& args) {
                             if (args.c_last == nullptr && args.m_last != nullptr) args.m_last = nullptr;
                           }},
                      dtype));
    BOOST_TEST(caught("null_arguments",
                      {.forward =
                           [](const Problem& p, const ForwardArgs& args) {
                             if (args.saved == nullptr)  // the inference path is another one
                               for_each(args.h, "h", p, [](double x, std::int64_t) { return x * 1.001; });
                           }},
                      dtype));
    for (const char* input : {"c_initial", "n_initial", "m_initial"})
      BOOST_TEST(caught("null_arguments",
                        {.backward =
                             [=](const Problem& p, const BackwardArgs& args) {
                               if (p.has_initial_state && member_of(args, input) == nullptr)
                                 for_each(args.df, "f", p, [](double x, std::int64_t) { return x * 1.001; });
                             }},
                        dtype),
                 input);
  }
}

BOOST_AUTO_TEST_CASE(null_arguments_catches_cotangents_that_are_taken_together) {
  const auto tensors = [](const Damage& bug) {
    return failing(items_of("null_arguments", DamagedKernel(bug), DType::float64));
  };
  BOOST_TEST(!tensors({.before_backward = [](Problem&, BackwardArgs& args) {
                if (args.dc_last == nullptr) args.dn_last = nullptr;
              }}).empty());
  BOOST_TEST(!tensors({.before_backward = [](Problem&, BackwardArgs& args) {
                if (args.dn_last == nullptr) args.dm_last = nullptr;
              }}).empty());
  BOOST_TEST(!tensors({.before_backward = [](Problem&, BackwardArgs& args) {
                if (args.dh == nullptr) args.dc_last = args.dn_last = args.dm_last = nullptr;
              }}).empty());
  // null is taken for ones
  static const std::vector<double> ones(1 << 14, 1.0);
  BOOST_TEST(!tensors({.before_backward = [](Problem&, BackwardArgs& args) {
                if (args.dm_last == nullptr) args.dm_last = ones.data();
              }}).empty());
}

BOOST_AUTO_TEST_CASE(null_arguments_says_what_was_null_and_allows_other_bits) {
  const DamagedKernel wrong({.forward = [](const Problem& p, const ForwardArgs& args) {
    if (args.m_last == nullptr) for_each(args.n_last, "n_last", p, [](double x, std::int64_t) { return x + 1; });
  }});
  const std::vector<Item> items = items_of("null_arguments", wrong, DType::float32);
  BOOST_TEST((failing(items) == std::vector<std::string>{"n_last"}));
  for (const Item& item : items)
    if (item.status != Status::PASS) BOOST_TEST(item.note.starts_with("m_last is null: got "), item.note);
  // an honest kernel may sum in another order where it is asked for less
  const DamagedKernel other_bits({.forward = [](const Problem& p, const ForwardArgs& args) {
    if (args.m_last == nullptr)
      for_each(args.h, "h", p, [](double x, std::int64_t) { return std::nextafter(x, 1e300); });
  }});
  bool said = false;
  for (const Item& item : items_of("null_arguments", other_bits, DType::float64)) {
    BOOST_TEST((item.status == Status::PASS), item.note);
    said = said || item.note.find("not the same bits everywhere") != std::string::npos;
  }
  BOOST_TEST(said);
}

namespace {

std::size_t saved_bytes(const Problem& problem) {
  return find_kernel("chunkwise--native_eigen_ownbw")->saved_size(problem);
}

/// A kernel that keeps what forward saved in memory of its own.
template <class Memory>
Damage saves_in(Memory& memory) {
  return {.forward =
              [&memory](const Problem& p, const ForwardArgs& args) {
                if (args.saved == nullptr) return;
                const auto* saved = static_cast<const std::byte*>(args.saved);
                memory().assign(saved, saved + saved_bytes(p));
              },
          .before_backward =
              [&memory](Problem& p, BackwardArgs& args) {
                memory().resize(saved_bytes(p));
                args.saved = memory().data();
              }};
}

std::vector<std::byte>& of_library() {
  static std::vector<std::byte> memory;
  return memory;
}

std::vector<std::byte>& of_thread() {
  thread_local std::vector<std::byte> memory;
  return memory;
}

}  // namespace

BOOST_AUTO_TEST_CASE(interleaving_catches_what_is_saved_in_the_library_or_in_the_thread) {
  BOOST_TEST(caught("interleaving", saves_in(of_library)));
  BOOST_TEST(caught("interleaving", saves_in(of_library), DType::float32));
  BOOST_TEST(!caught("determinism", saves_in(of_library)));
  BOOST_TEST(caught("interleaving", saves_in(of_thread)));
}

BOOST_AUTO_TEST_CASE(interleaving_catches_pointers_that_are_kept) {
  static const void* kept = nullptr;
  const Damage bug{.before_forward = [](Problem&, ForwardArgs& args) { kept = args.k; },
                   .before_backward = [](Problem&, BackwardArgs& args) { args.k = kept; }};
  const std::vector<Item> items = items_of("interleaving", DamagedKernel(bug), DType::float64);
  BOOST_TEST(failures(items) > 0u);
}

BOOST_AUTO_TEST_CASE(interleaving_catches_a_size_that_is_kept) {
  static std::int64_t steps = 0;  // of the last forward: backward goes over so many
  const Damage bug{.forward = [](const Problem& p, const ForwardArgs&) { steps = p.shape.S; },
                   .backward =
                       [](const Problem& p, const BackwardArgs& args) {
                         for_each(args.di, "i", p,
                                  [&](double x, std::int64_t n) { return n % p.shape.S < steps ? x : 0; });
                       }};
  BOOST_TEST((failing(items_of("interleaving", DamagedKernel(bug), DType::float64)) == std::vector<std::string>{"di"}));
  BOOST_TEST(!caught("determinism", bug));
}

BOOST_AUTO_TEST_CASE(concurrency_catches_scratch_memory_of_the_library) {
  static std::mutex mutex;  // the memory is shared, not raced for
  static std::vector<std::byte> scratch;
  const auto through = [](void* tensor, std::string_view name, const Problem& p) {
    const std::size_t bytes = bytes_of(name, p);
    auto* const data = static_cast<std::byte*>(tensor);
    {
      const std::lock_guard lock(mutex);
      scratch.assign(data, data + bytes);
    }
    for (int n = 0; n < 20; ++n) std::this_thread::yield();
    const std::lock_guard lock(mutex);
    std::copy_n(scratch.begin(), std::min(bytes, scratch.size()), data);
  };
  const Damage forward{.forward = [&](const Problem& p, const ForwardArgs& args) { through(args.h, "h", p); }};
  const Damage backward{.backward = [&](const Problem& p, const BackwardArgs& args) { through(args.dk, "k", p); }};
  // h, and the exact gradients that read it
  BOOST_TEST(failing(items_of("concurrency", DamagedKernel(forward), DType::float64)).front() == "h");
  BOOST_TEST(
      (failing(items_of("concurrency", DamagedKernel(backward), DType::float32)) == std::vector<std::string>{"dk"}));
  for (const char* property : {"determinism", "interleaving", "null_arguments"})
    BOOST_TEST(!caught(property, forward), property);
}
