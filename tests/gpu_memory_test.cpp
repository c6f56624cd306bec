// SPDX-License-Identifier: Apache-2.0
// ctest-labels: gpu
// The runner's memory on a GPU, and whether it catches there what it catches on the CPU.
#include "gpu.hpp"

#ifdef MLSTM_HAVE_CUDA
#include <algorithm>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cases/problems.hpp"
#include "fake_kernels.hpp"
#include "runner/runner.hpp"
#include "text.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::verify;
using test::bytes_of, test::contains, test::FakeKernel, test::gpu, test::message_of, test::require;

using Bytes = std::vector<std::byte>;
constexpr std::byte kFill{0x5a};

using Misdeed = std::function<void(const Problem&, const ForwardArgs&, cudaStream_t)>;

/// Not an mLSTM: h = v, by a copy in the stream that it is given.
FakeKernel copies(const Misdeed& misdeed = {}) {
  VariantInfo info = test::fake_info(Module::recurrent, "native_cuda", {DType::float32});
  info.device = Device::cuda;
  const auto forward = [misdeed](const Problem& problem, const ForwardArgs& args) {
    const auto stream = static_cast<cudaStream_t>(args.stream);
    require(cudaMemcpyAsync(args.h, args.v, bytes_of("v", problem), cudaMemcpyDeviceToDevice, stream));
    if (misdeed) misdeed(problem, args, stream);
  };
  return FakeKernel(std::move(info), forward, {}, {.workspace = 100});
}

const ProblemSpec& spec() {
  static const ProblemSpec small = parse_spec("regime=standard,dtype=float32,NH=2,S=5,DHQK=8,DHV=8,L=2");
  return small;
}

std::string complaint_about(const Misdeed& misdeed, int repeats = 0) {
  return message_of<std::runtime_error>(
      [&] { run_kernel(copies(misdeed), make_case(spec()), std::nullopt, {.repeats = repeats}); });
}

char* at(const void* address, std::size_t offset) {
  return static_cast<char*>(const_cast<void*>(address)) + static_cast<std::ptrdiff_t>(offset);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_buffer_is_filled_and_holds_what_is_uploaded) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, (std::size_t{64} << 20) + 3}) {
    GuardedBuffer buffer(gpu(), "tensor", size, kFill);
    BOOST_TEST(reinterpret_cast<std::uintptr_t>(buffer.data()) % 256 == 0u);
    BOOST_TEST(buffer.holds(Bytes(size, kFill)));
    Bytes bytes(size);
    for (std::size_t n = 0; n < size; ++n) bytes[n] = static_cast<std::byte>(n * 2654435761u >> 24);
    buffer.upload(bytes);
    BOOST_TEST((buffer.download() == bytes));
    BOOST_TEST(buffer.holds(bytes));
    BOOST_CHECK_NO_THROW(buffer.check_zones());
    if (size == 0) continue;
    bytes.back() ^= std::byte{1};
    BOOST_TEST(!buffer.holds(bytes));
  }
}

BOOST_AUTO_TEST_CASE(a_damaged_red_zone_is_found) {
  for (const std::size_t offset : {std::size_t{0}, std::size_t{100}, GuardedBuffer::kZone - 1}) {
    GuardedBuffer buffer(gpu(), "tensor", 10, kFill);
    gpu().fill(at(buffer.data(), 10 + offset), std::byte{0}, 1);
    gpu().synchronize();
    BOOST_TEST(message_of<std::runtime_error>([&] { buffer.check_zones(); }) ==
               "tensor was written past its end: byte " + std::to_string(10 + offset) + " of 10");
  }
  GuardedBuffer buffer(gpu(), "tensor", 10, kFill);
  gpu().fill(at(buffer.data(), 0) - 2, std::byte{0}, 1);
  gpu().synchronize();
  BOOST_TEST(message_of<std::runtime_error>([&] { buffer.check_zones(); }) ==
             "tensor was written before its start: byte -2 of 10");
}

BOOST_AUTO_TEST_CASE(too_little_memory_is_the_devices_fault_and_leaves_no_error_behind) {
  BOOST_CHECK_THROW(gpu().allocate(std::size_t{1} << 50), DeviceError);
  BOOST_CHECK_NO_THROW(gpu().synchronize());
}

BOOST_AUTO_TEST_CASE(the_device_is_described) {
  const Attributes about = gpu().description();
  BOOST_TEST(std::get<std::string>(about.at("device")) == "cuda");
  for (const char* name :
       {"device_name", "compute_capability", "driver_version", "driver_cuda_version", "cuda_runtime_version"})
    BOOST_TEST(!std::get<std::string>(about.at(name)).empty(), name);
}

BOOST_AUTO_TEST_CASE(an_honest_kernel_gives_its_results_and_a_capture_says_where) {
  const Case c = make_case(spec());
  const KernelData data = run_kernel(copies(), c, std::nullopt, {.repeats = 2});
  BOOST_TEST((data.outputs.at("h") == c.inputs.at("v")));
  BOOST_TEST(data.attributes.contains("device_name"));
}

BOOST_AUTO_TEST_CASE(what_a_kernel_may_not_do_is_caught_on_the_device) {
  BOOST_TEST(complaint_about({}) == "none");
  BOOST_TEST(contains(complaint_about([](const Problem& p, const ForwardArgs& args, cudaStream_t stream) {
                        require(cudaMemsetAsync(at(args.h, bytes_of("h", p)), 0, 4, stream));
                      }),
                      "h was written past its end: byte 320 of 320"));
  BOOST_TEST(contains(complaint_about([](const Problem&, const ForwardArgs& args, cudaStream_t stream) {
                        require(cudaMemsetAsync(at(args.workspace, 100), 0, 1, stream));
                      }),
                      "workspace of forward was written past its end"));
  BOOST_TEST(contains(complaint_about([](const Problem&, const ForwardArgs& args, cudaStream_t stream) {
                        require(cudaMemsetAsync(at(args.k, 8), 0, 4, stream));
                      }),
                      "k was changed"));
  BOOST_TEST(contains(complaint_about([](const Problem&, const ForwardArgs& args, cudaStream_t stream) {
                        require(cudaMemcpyAsync(at(args.h, 4), args.workspace, 4, cudaMemcpyDeviceToDevice, stream));
                      }),
                      "h[0,0,0,1] was not written"));
  int calls = 0;
  BOOST_TEST(contains(complaint_about(
                          [&](const Problem&, const ForwardArgs& args, cudaStream_t stream) {
                            if (++calls == 3) require(cudaMemsetAsync(at(args.h, 40), 0, 4, stream));
                          },
                          3),
                      "h[0,0,1,2] differs from run to run"));
}

BOOST_AUTO_TEST_CASE(a_call_that_failed_and_was_not_checked_is_found) {
  BOOST_TEST(contains(complaint_about([](const Problem&, const ForwardArgs&, cudaStream_t) {
                        void* address = nullptr;
                        cudaMalloc(&address, std::size_t{1} << 50);
                      }),
                      "unchecked: "));
  BOOST_TEST(complaint_about({}) == "none");
}

BOOST_AUTO_TEST_CASE(runs_of_several_threads_take_turns) {
  std::vector<std::string> complaints(4);
  std::vector<std::thread> threads;
  for (std::string& mine : complaints)
    threads.emplace_back([&mine] {
      for (int n = 0; n < 5; ++n)
        if (const std::string found = complaint_about({}, 1); found != "none") mine = found;
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& mine : complaints) BOOST_TEST(mine == "");
}
#endif
