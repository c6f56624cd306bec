// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// When memory runs out, at whatever allocation: an exception, no damage, and the next problem is judged as ever. Eigen
// 3.4 leaves a pointer to freed memory behind where a matrix that is in use gets another size and there is none.
#include "failing_memory.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <exception>
#include <fstream>
#include <functional>
#include <new>
#include <set>

#include "base/memory.hpp"
#include "base/text.hpp"
#include "cases/problems.hpp"
#include "judge/judge.hpp"
#include "mlstm/parallel_for.hpp"
#include "runner/kernel_needs.hpp"
#include "runner/runner.hpp"
#include "small_case.hpp"
#include "sweep/sweep.hpp"

using namespace mlstm;
using namespace mlstm::verify;
using test::FailingAllocation;

namespace {

/// Whether memory is counted, and all of it is the test's own.
#ifdef MLSTM_ADDRESS_SANITIZER
constexpr bool kCounted = false;
#else
constexpr bool kCounted = true;
#endif

/// Ragged last chunk, two heads; the second problem has other sizes, so that kept buffers change theirs.
const std::vector<std::string> kProblems{
    "regime=standard,dtype=float32,NH=2,S=11,DHQK=4,DHV=3,L=4,initial_states=1,last_state_cotangents=1",
    "regime=standard,dtype=float32,NH=2,S=5,DHQK=7,DHV=2,L=3,gate=sigmoid"};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::string& line : kProblems) all.push_back(make_case(parse_spec(line)));
  return all;
}

/// For n = 0, 1, ... runs `work` with the n-th allocation failing, until nothing fails any more. Each time work ends as
/// usual or with a std::bad_alloc; and `is_right` holds afterwards. Returns how many of them threw.
int for_every_allocation(const std::function<void()>& work, const std::function<bool()>& is_right) {
  constexpr int kMost = 100000;
  int thrown = 0;
  for (int n = 0; n < kMost; ++n) {
    bool happened = false;
    try {
      const FailingAllocation failing(n);
      work();
      happened = FailingAllocation::happened();
      if (!happened) return thrown;
    } catch (const std::bad_alloc&) {
      ++thrown;
    }
    if (!is_right()) {
      BOOST_TEST_MESSAGE("allocation " << n);
      BOOST_REQUIRE_MESSAGE(false, "what followed a failing allocation is wrong");
    }
  }
  BOOST_FAIL("there is no end to the allocations");
  return thrown;
}

bool same(const ReferenceData& a, const ReferenceData& b) {
  return test::same(a.outputs, b.outputs) && test::same(a.exact, b.exact) && test::same(a.detached, b.detached);
}

/// How to evaluate the reference, apart from chunk sizes.
struct How {
  Module formulation;
  reference::Backward backward = reference::Backward::ownbw;
  int threads = 1;
  reference::Options options(const Case& c) const {
    reference::Options options;
    options.formulation = formulation;
    options.backward = backward;
    options.threads = threads;
    options.chunk_size = c.problem.chunk_size;
    return options;
  }
};

void reference_survives(const How& how) {
  const std::vector<Case> all = cases();
  std::vector<ReferenceData> right;
  for (const Case& c : all) right.push_back(evaluate_reference(c, how.options(c)));
  const auto evaluate = [&](std::size_t n) { return evaluate_reference(all[n], how.options(all[n])); };
  const int thrown = for_every_allocation(
      [&] {
        evaluate(0);
        evaluate(1);
      },
      [&] { return same(evaluate(1), right[1]) && same(evaluate(0), right[0]); });
  BOOST_TEST(thrown > 50);
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_reference_is_right_after_any_allocation_failed) {
  for (const Module formulation : {Module::chunkwise, Module::recurrent, Module::parallel})
    reference_survives({.formulation = formulation});
}

BOOST_AUTO_TEST_CASE(so_is_automatic_differentiation) {
  reference_survives({.formulation = Module::chunkwise, .backward = reference::Backward::autograd});
}

BOOST_AUTO_TEST_CASE(so_is_the_reference_on_several_threads) {
  reference_survives({.formulation = Module::chunkwise, .threads = 2});
}

// AddressSanitizer takes address space of its own for every thread.
BOOST_AUTO_TEST_CASE(work_is_done_by_the_threads_that_there_is_memory_for, *boost::unit_test::enable_if<kCounted>()) {
  const pid_t child = fork();
  BOOST_REQUIRE(child >= 0);
  if (child == 0) {  // with no room for the stack of another thread
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t most = static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{1} << 20);
    const rlimit limit{most, most};
    setrlimit(RLIMIT_AS, &limit);
    std::atomic<int> sum{0};
    try {
      parallel_for(10, 10, [&](std::int64_t n) { sum += static_cast<int>(n); });
    } catch (...) {
      _exit(1);
    }
    _exit(sum == 45 ? 0 : 2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(bounds_are_right_after_any_allocation_failed) {
  const std::vector<Case> all = cases();
  std::vector<ReferenceData> references;
  std::vector<TensorMap> right;
  for (const Case& c : all) {
    references.push_back(evaluate_reference(c, {}));
    right.push_back(error_bounds(c, references.back(), precision_of(c), 1));
  }
  const auto bounds = [&](std::size_t n) { return error_bounds(all[n], references[n], precision_of(all[n]), 1); };
  const int thrown = for_every_allocation(
      [&] {
        bounds(0);
        bounds(1);
      },
      [&] { return test::same(bounds(1), right[1]) && test::same(bounds(0), right[0]); });
  BOOST_TEST(thrown > 50);
}

BOOST_AUTO_TEST_CASE(a_verdict_is_right_after_any_allocation_failed) {
  const Case given = cases().front();
  const ReferenceData reference = evaluate_reference(given, {});
  for (const char* key :
       {"recurrent--sequence_eigen_ownbw", "chunkwise--native_eigen_ownbw", "parallel--native_eigen_ownbw"}) {
    const Kernel& kernel = *find_kernel(key);
    const auto judged = [&] {
      Case c = given;
      c.kernel = run_kernel(kernel, c, Convention::exact);
      JudgeOptions options;
      options.threads = 1;
      double sum = 0;  // of all ratios: one number that any damage changes
      for (const Item& item : judge(c, reference, options))
        sum += item.status == Status::PASS ? item.error_ratio.value_or(0) : 1e9;
      return sum;
    };
    const double right = judged();
    BOOST_TEST(right < 1e9);
    BOOST_TEST_CONTEXT(key) {
      BOOST_TEST(for_every_allocation(judged, [&] { return judged() == right; }) > 50);
    }
  }
}

BOOST_AUTO_TEST_CASE(messages_say_who_ran_out) {
  const Case c = cases().front();
  const auto complaint = [&](const std::function<void()>& work, std::int64_t allocation) -> std::string {
    try {
      const FailingAllocation failing(allocation);
      work();
    } catch (const OutOfMemory& error) {
      return error.what();
    }
    return {};
  };
  const ReferenceData reference = evaluate_reference(c, {});
  const Precision precision = precision_of(c);
  const ProblemSpec spec = parse_spec(kProblems.front());
  // the first allocations may be those of names and arguments: look for the earliest that is one of the work
  const auto first_complaint = [&](const std::function<void()>& work) {
    std::string text;
    for (std::int64_t n = 0; n < 100 && text.empty(); ++n) text = complaint(work, n);
    return text;
  };
  BOOST_TEST(first_complaint([&] { make_case(spec); }) == "the verifier ran out of memory while it made the inputs");
  BOOST_TEST(first_complaint([&] { evaluate_reference(c, {}); }) ==
             "the verifier ran out of memory while it computed the reference");
  BOOST_TEST(first_complaint([&] { error_bounds(c, reference, precision, 1); }) ==
             "the verifier ran out of memory while it computed the error bounds");
  BOOST_TEST(reason_of(std::bad_alloc()) == "the verifier ran out of memory");
  BOOST_TEST(reason_of(std::runtime_error("another")) == "another");
  std::set<std::string> said;
  const Kernel& kernel = *find_kernel("recurrent--sequence_eigen_ownbw");
  for (std::int64_t n = 0; n < 2000; ++n) said.insert(complaint([&] { run_kernel(kernel, c, Convention::exact); }, n));
  for (const char* expected :
       {"the kernel ran out of memory while it ran forward", "the kernel ran out of memory while it ran backward",
        "the process that runs the kernel ran out of memory while it got a buffer of 0 MiB for saved"})
    BOOST_TEST(said.contains(expected), expected);
}

namespace {

/// The most that `work` has beside what there was before. Sanitizers have a malloc of their own, which is not counted.
std::int64_t peak_of(const std::function<void()>& work) {
  const std::int64_t before = test::bytes_now;
  test::bytes_most = before;
  work();
  return test::bytes_most - before;
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_a_problem_needs_is_known_beforehand, *boost::unit_test::enable_if<kCounted>()) {
  for (const char* line : {"regime=standard,dtype=float32,S=6000,DHQK=32,DHV=48,L=64",
                           "regime=standard,dtype=bfloat16,NH=4,S=1500,DHQK=64,DHV=32,L=64",
                           "regime=standard,dtype=float32,S=9000,DHQK=48,DHV=64,L=64,cotangents=0"})
    BOOST_TEST_CONTEXT(line) {
      const ProblemSpec spec = parse_spec(line);
      for (const char* key : {"recurrent--sequence_eigen_ownbw", "chunkwise--native_eigen_ownbw"}) {
        const Kernel& kernel = *find_kernel(key);
        const std::optional<Convention> convention = spec.cotangents ? std::optional(Convention::exact) : std::nullopt;
        const auto needs =
            static_cast<double>(verifier_needs(spec.problem, spec.cotangents, 1, kernel.info().module).total());
        KernelData results;
        double of_kernel = 0;
        const std::int64_t whole = peak_of([&] {
          Case c = make_case(spec);
          reference::Options options;
          options.threads = 1;  // or the peak would depend on how heads meet
          const ReferenceData reference = evaluate_reference(c, options);
          const std::int64_t so_far = test::bytes_most;
          of_kernel = static_cast<double>(peak_of([&] { results = run_kernel(kernel, c, convention); }));
          test::bytes_most = so_far;
          c.kernel = std::move(results);
          JudgeOptions judging;
          judging.threads = 1;
          judge(c, reference, judging);
        });
        const double measured = static_cast<double>(whole);
        BOOST_TEST_MESSAGE(key << ": " << needs / measured << " of what the verifier takes");
        BOOST_TEST(needs < 1.25 * measured);
        BOOST_TEST(needs > 0.75 * measured);
        const std::optional<KernelNeeds> others = kernel_needs(kernel, spec.problem, spec.cotangents);
        BOOST_REQUIRE(others.has_value());
        // The inputs as they arrive are there already; what the kernel allocates itself is not counted.
        double elements = static_cast<double>(spec.cotangents ? size_of("h", spec.problem.shape) : 0);
        for (const std::string& name : input_names(spec.problem))
          elements += static_cast<double>(size_of(name, spec.problem.shape));
        const double counted = static_cast<double>(others->total()) - 8 * elements;
        BOOST_TEST_MESSAGE(key << ": " << counted / of_kernel << " of what running it takes");
        BOOST_TEST(counted < 1.1 * of_kernel);
        BOOST_TEST(counted > 0.4 * of_kernel);
      }
    }
}

BOOST_AUTO_TEST_CASE(what_cannot_fit_is_an_error_before_it_starts) {
  const ProblemSpec spec = parse_spec("regime=standard,dtype=float32,S=1000000000000,DHQK=64,DHV=64,L=64");
  const Plan plan = make_plan({find_kernel("recurrent--sequence_eigen_ownbw")}, {spec}, false);
  SweepOptions how;
  std::vector<std::string> notices;
  how.on_notice = [&](const std::string& line) { notices.push_back(line); };
  how.worker_memory = 0;
  const std::vector<Record> records = run_sweep(plan.units, how);
  BOOST_REQUIRE(!records.empty());
  for (const Record& record : records) {
    BOOST_TEST((record.item.status == Status::ERROR));
    for (const char* part : {"not run: needs about ", "in the verifier (inputs ", "saved for backward ", " leaves "})
      BOOST_TEST(record.item.note.find(part) != std::string::npos, record.item.note);
  }
  BOOST_TEST(notices.empty());  // the items say it

  // what is large and fits is told before it starts
  how.large = 0;
  bool judged = false;
  how.on_unit_done = [&](const Unit&, const std::vector<Record>&) { judged = true; };
  how.on_notice = [&](const std::string& line) {
    BOOST_TEST(!judged);
    notices.push_back(line);
  };
  const ProblemSpec small = parse_spec("regime=standard,dtype=float32,S=40,DHQK=4,DHV=4,L=8");
  run_sweep(make_plan({find_kernel("recurrent--sequence_eigen_ownbw")}, {small}, false).units, how);
  BOOST_REQUIRE(notices.size() == 1u);
  BOOST_TEST(notices.front().starts_with(case_name(small) + " needs about "), notices.front());
  BOOST_TEST(notices.front().find(" where the kernel runs (inputs ") != std::string::npos, notices.front());

  // --memory-limit holds the process that runs the kernel
  const ProblemSpec smaller = parse_spec("regime=standard,dtype=float32,S=60000,DHQK=64,DHV=64,L=64");
  how.worker_memory = std::uint64_t{1} << 28;
  const std::vector<Record> limited =
      run_sweep(make_plan({find_kernel("chunkwise--native_eigen_ownbw")}, {smaller}, false).units, how);
  BOOST_REQUIRE(!limited.empty());
  for (const Record& record : limited)
    BOOST_TEST(
        record.item.note.find("; --memory-limit gives the process that runs the kernel 256 MiB") != std::string::npos,
        record.item.note);
}

BOOST_AUTO_TEST_CASE(a_variant_that_does_not_say_what_it_saves_is_run_all_the_same) {
  struct Silent final : Kernel {
    const VariantInfo& info() const override { return find_kernel("recurrent--sequence_eigen_ownbw")->info(); }
    std::size_t saved_size(const Problem&) const override { throw std::bad_exception(); }
    void forward(const Problem&, const ForwardArgs&) const override {}
  };
  BOOST_TEST(!kernel_needs(Silent(), parse_spec(kProblems.front()).problem, true).has_value());
  BOOST_TEST(kernel_needs(Silent(), parse_spec(kProblems.front()).problem, false).has_value());
}

BOOST_AUTO_TEST_CASE(a_reference_that_cannot_fit_is_refused) {
  Case c;  // nothing of it is read
  c.problem = parse_spec("regime=standard,S=1000000000000,DHQK=64,DHV=64,L=64").problem;
  try {
    evaluate_reference(c);
    BOOST_ERROR("not refused");
  } catch (const OutOfMemory& error) {
    const std::string text = error.what();
    BOOST_TEST(text.starts_with("the reference needs about "), text);
    BOOST_TEST(text.find(" leaves ") != std::string::npos, text);
  }
}

BOOST_AUTO_TEST_CASE(available_memory_is_the_least_of_machine_and_control_groups) {
  const test::TemporaryDirectory directory;
  const auto write = [&](const std::string& file, const std::string& text) {
    const auto path = directory.path() / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  };
  const auto room = [&] { return available_memory(directory.path()); };
  write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\nSwapFree:  96 kB\n");
  write("proc/self/status", "VmSize: 0 kB\nVmData: 0 kB\n");
  const std::uint64_t machine = 4096 << 10;
  BOOST_TEST(room().bytes == machine);
  BOOST_TEST(room().limited_by == "the machine");
  // version 2: the group above is the tighter one
  write("proc/self/cgroup", "0::/above/mine\n");
  write("sys/fs/cgroup/above/mine/memory.max", "max\n");
  write("sys/fs/cgroup/above/mine/memory.current", "5\n");
  BOOST_TEST(room().bytes == machine);
  write("sys/fs/cgroup/above/memory.max", "3000000\n");
  write("sys/fs/cgroup/above/memory.current", "1000000\n");
  write("sys/fs/cgroup/above/memory.stat", "anon 7\ninactive_file 400000\n");
  BOOST_TEST(room().bytes == 2400000u);
  BOOST_TEST(room().limited_by == "the control group");
  // version 1, in a container that shows its own group at the mount
  write("proc/self/cgroup", "4:memory:/of/the/host\n0::/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "300000\n");
  write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100000\n");
  BOOST_TEST(room().bytes == 800000u);
  BOOST_TEST(bytes_text(std::uint64_t{3} << 29) == "1.5 GiB");
  BOOST_TEST(bytes_text(std::uint64_t{300} << 20) == "300 MiB");
}
