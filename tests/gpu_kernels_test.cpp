// SPDX-License-Identifier: Apache-2.0
// ctest-labels: gpu
// The CUDA variants through the kernel interface: what they refuse, what they leave out, in place, side by side, and
// beyond 2^31 elements. Whether their numbers are right is the business of `mlstm verify`.
#include "gpu.hpp"

#ifdef MLSTM_HAVE_CUDA
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cases/problems.hpp"
#include "mlstm/kernel.hpp"
#include "text.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::verify;
using test::contains, test::gpu, test::message_of, test::require;

using Bytes = std::vector<std::byte>;
using Results = std::map<std::string, Bytes>;

std::vector<const Kernel*> gpu_kernels() {
  std::vector<const Kernel*> kernels;
  for (const Kernel* kernel : registered_kernels())
    if (kernel->info().device == Device::cuda) kernels.push_back(kernel);
  return kernels;
}

bool has_backward(const Kernel& kernel) { return !kernel.info().gradient_conventions.empty(); }
bool has_tensor_cores(const Kernel& kernel) { return kernel.info().DHQK.multiple_of == 8; }

std::size_t bytes_of(std::string_view tensor, const Problem& problem) {
  return static_cast<std::size_t>(size_of(tensor, problem.shape)) * size_of(storage_dtype(tensor, problem));
}

class Buffer {
 public:
  Buffer(std::size_t bytes, std::byte fill) : bytes_(bytes), address_(gpu().allocate(std::max<std::size_t>(bytes, 1))) {
    gpu().fill(address_, fill, bytes);
  }
  ~Buffer() { gpu().release(address_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return address_; }
  std::size_t size() const { return bytes_; }
  /// Bytes from `offset` on.
  Bytes download(std::size_t offset, std::size_t bytes) const {
    Bytes host(bytes);
    gpu().download(host.data(), static_cast<std::byte*>(address_) + offset, bytes);
    return host;
  }
  Bytes download() const { return download(0, bytes_); }
  void upload(std::size_t offset, const Bytes& host) {
    gpu().upload(static_cast<std::byte*>(address_) + offset, host.data(), host.size());
  }

 private:
  std::size_t bytes_;
  void* address_;
};

/// The buffers of one forward and one backward call. Outputs start as NaN, inputs as zeros.
class Call {
 public:
  Call(const Kernel& kernel, const Problem& problem, bool backward, Convention convention = Convention::exact)
      : kernel_(kernel), problem_(problem) {
    for (const std::string& name : input_names(problem)) add(name, bytes_of(name, problem), std::byte{0});
    for (const std::string& name : output_names(problem)) add(name, bytes_of(name, problem), std::byte{0xff});
    for (const char* name : {"q", "k", "v", "i", "f", "c_initial", "n_initial", "m_initial"}) {
      set_input(forward_, name, pointer(name));
      set_input(backward_, name, pointer(name));
    }
    forward_.h = pointer("h");
    forward_.c_last = pointer("c_last");
    forward_.n_last = pointer("n_last");
    forward_.m_last = pointer("m_last");
    forward_.workspace = scratch("workspace of forward", kernel.workspace_size(problem, false));
    forward_.stream = gpu().stream();
    if (!backward) return;
    backward_.convention = convention;
    for (const std::string& name : output_names(problem))
      add("cotangent " + name, bytes_of(name, problem), std::byte{0});
    for (const std::string& name : input_names(problem)) add("d" + name, bytes_of(name, problem), std::byte{0xff});
    backward_.h = forward_.h;
    backward_.saved = forward_.saved = scratch("saved", kernel.saved_size(problem));
    backward_.dh = pointer("cotangent h");
    backward_.dc_last = pointer("cotangent c_last");
    backward_.dn_last = pointer("cotangent n_last");
    backward_.dm_last = pointer("cotangent m_last");
    backward_.dq = pointer("dq");
    backward_.dk = pointer("dk");
    backward_.dv = pointer("dv");
    backward_.di = pointer("di");
    backward_.df = pointer("df");
    backward_.dc_initial = pointer("dc_initial");
    backward_.dn_initial = pointer("dn_initial");
    backward_.dm_initial = pointer("dm_initial");
    backward_.workspace = scratch("workspace of backward", kernel.workspace_size(problem, true));
    backward_.stream = gpu().stream();
  }

  /// Inputs and cotangents of `c`, whose heads become those from `first_head` on.
  void upload(const Case& c, std::int64_t first_head = 0) {
    const auto put = [&](const std::string& buffer, const std::string& tensor, const Array& values) {
      if (!buffers_.contains(buffer)) return;
      const std::size_t head = buffers_.at(buffer)->size() / static_cast<std::size_t>(problem_.shape.heads());
      buffers_.at(buffer)->upload(head * static_cast<std::size_t>(first_head),
                                  pack(values, storage_dtype(tensor, problem_)));
    };
    for (const auto& [name, values] : c.inputs) put(name, name, values);
    for (const auto& [name, values] : c.cotangents) put("cotangent " + name, name, values);
  }

  void forward() { kernel_.forward(problem_, forward_); }
  void backward() { kernel_.backward(problem_, backward_); }

  /// All outputs, and gradients if there are any; of the last head alone, if wanted.
  Results results(bool last_head = false) const {
    gpu().synchronize();
    Results found;
    for (const std::string& name : output_names(problem_)) found[name] = contents(name, last_head);
    for (const std::string& name : input_names(problem_))
      if (buffers_.contains("d" + name)) found["d" + name] = contents("d" + name, last_head);
    return found;
  }

  Bytes contents(const std::string& name, bool last_head = false) const {
    const Buffer& buffer = *buffers_.at(name);
    const std::size_t heads = last_head ? static_cast<std::size_t>(problem_.shape.heads()) : 1;
    const std::size_t size = buffer.size() / heads;
    return buffer.download(size * (heads - 1), size);
  }

  ForwardArgs& forward_args() { return forward_; }
  BackwardArgs& backward_args() { return backward_; }
  void* pointer(const std::string& name) const {
    const auto found = buffers_.find(name);
    return found == buffers_.end() ? nullptr : found->second->data();
  }

  template <class Args>
  static void set_input(Args& args, const std::string& name, const void* pointer) {
    const std::map<std::string, const void * Args::*> members{{"q", &Args::q},
                                                              {"k", &Args::k},
                                                              {"v", &Args::v},
                                                              {"i", &Args::i},
                                                              {"f", &Args::f},
                                                              {"c_initial", &Args::c_initial},
                                                              {"n_initial", &Args::n_initial},
                                                              {"m_initial", &Args::m_initial}};
    args.*members.at(name) = pointer;
  }

 private:
  void add(const std::string& name, std::size_t bytes, std::byte fill) {
    buffers_[name] = std::make_unique<Buffer>(bytes, fill);
  }
  void* scratch(const std::string& name, std::size_t bytes) {
    if (bytes == 0) return nullptr;
    add(name, bytes, std::byte{0xff});
    return pointer(name);
  }

  const Kernel& kernel_;
  Problem problem_;
  std::map<std::string, std::unique_ptr<Buffer>> buffers_;
  ForwardArgs forward_;
  BackwardArgs backward_;
};

/// A problem that the variant takes, with states and their cotangents. `changes` has the words of a line of parse_spec.
ProblemSpec spec_for(const Kernel& kernel, const std::map<std::string, std::string>& changes = {}) {
  const bool step = kernel.info().S.max == 1;
  std::map<std::string, std::string> words{{"regime", "forget3"},
                                           {"dtype", "float32"},
                                           {"B", "2"},
                                           {"NH", "2"},
                                           {"S", "100"},
                                           {"DHQK", "32"},
                                           {"DHV", "48"},
                                           {"L", "32"},
                                           {"eps", "0.01"},
                                           {"initial_states", "1"},
                                           {"last_state_cotangents", "1"}};
  for (const auto& [key, value] : changes) words[key] = value;
  if (step) words["S"] = "1";
  std::string line;
  for (const auto& [key, value] : words) line += (line.empty() ? "" : ",") + key + "=" + value;
  const ProblemSpec spec = parse_spec(line);
  BOOST_REQUIRE_MESSAGE(kernel.unsupported(spec.problem).empty(), kernel.info().key()
                                                                      << ": " << kernel.unsupported(spec.problem));
  return spec;
}

/// Results of one call on `c`; `change` may alter the arguments.
Results run(const Kernel& kernel, const Case& c, Convention convention = Convention::exact,
            const std::function<void(Call&)>& change = {}) {
  Call call(kernel, c.problem, has_backward(kernel), convention);
  call.upload(c);
  if (change) change(call);
  call.forward();
  if (has_backward(kernel)) call.backward();
  return call.results();
}

void require_same(const Results& a, const Results& b, const std::string& who) {
  for (const auto& [name, bytes] : a)
    if (b.contains(name)) BOOST_TEST((bytes == b.at(name)), who << ": " << name << " differs");
}

}  // namespace

BOOST_AUTO_TEST_CASE(there_are_variants_to_test) { BOOST_TEST(!gpu_kernels().empty()); }

BOOST_AUTO_TEST_CASE(what_a_variant_cannot_run_is_refused_with_the_reason) {
  const auto refused = [](const Kernel& kernel, Problem problem, const std::string& reason) {
    BOOST_TEST(contains(kernel.unsupported(problem), reason), kernel.info().key()
                                                                  << ": " << kernel.unsupported(problem));
    const std::string said = message_of<std::invalid_argument>([&] { kernel.forward(problem, ForwardArgs{}); });
    BOOST_TEST(contains(said, reason), kernel.info().key() << ": " << said);
    if (!has_backward(kernel)) return;
    const std::string said_backward =
        message_of<std::invalid_argument>([&] { kernel.backward(problem, BackwardArgs{}); });
    BOOST_TEST(contains(said_backward, reason), kernel.info().key() << ": " << said_backward);
  };
  for (const Kernel* kernel : gpu_kernels()) {
    const VariantInfo& info = kernel->info();
    const Problem good = spec_for(*kernel).problem;
    Problem bad = good;
    if (has_tensor_cores(*kernel)) {
      bad.shape.DHQK = 12;
      refused(*kernel, bad, "DHQK 12 is not supported");
      bad = good;
      bad.shape.DHV = 520;
      refused(*kernel, bad, "DHV 520 is not supported");
    }
    bad = good;
    if (info.module == Module::chunkwise && info.L.max < 1 << 20) {
      bad.chunk_size = info.L.max + 1;
      refused(*kernel, bad, "chunk_size " + std::to_string(bad.chunk_size) + " is not supported");
    }
    bad = good;
    if (info.S.max < 1 << 20) {
      bad.shape.S = info.S.max + 1;
      refused(*kernel, bad, "S " + std::to_string(bad.shape.S) + " is not supported");
    }
  }
}

BOOST_AUTO_TEST_CASE(a_null_input_is_refused_by_its_name) {
  for (const Kernel* kernel : gpu_kernels()) {
    const Case c = make_case(spec_for(*kernel));
    for (const std::string name : {"q", "k", "v", "i", "f", "c_initial", "n_initial", "m_initial"}) {
      const std::string named = name.size() == 1 ? name + " is null" : "initial state is null";
      Call call(*kernel, c.problem, has_backward(*kernel));
      Call::set_input(call.forward_args(), name, nullptr);
      Call::set_input(call.backward_args(), name, nullptr);
      BOOST_TEST(contains(message_of<std::invalid_argument>([&] { call.forward(); }), named), kernel->info().key()
                                                                                                  << " " << name);
      if (has_backward(*kernel))
        BOOST_TEST(contains(message_of<std::invalid_argument>([&] { call.backward(); }), named), kernel->info().key()
                                                                                                     << " " << name);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_forward_only_variant_says_so) {
  for (const Kernel* kernel : gpu_kernels())
    if (!has_backward(*kernel))
      BOOST_CHECK_THROW(kernel->backward(spec_for(*kernel).problem, BackwardArgs{}), std::logic_error);
}

BOOST_AUTO_TEST_CASE(three_runs_give_the_same_bits) {
  for (const Kernel* kernel : gpu_kernels())
    for (const DType dtype : kernel->info().dtypes)
      for (const Convention convention : {Convention::exact, Convention::detached}) {
        const Case c = make_case(spec_for(*kernel, {{"NH", "4"},
                                                    {"S", "300"},
                                                    {"DHQK", "64"},
                                                    {"DHV", "128"},
                                                    {"L", "64"},
                                                    {"dtype", std::string(to_string(dtype))}}));
        const Results first = run(*kernel, c, convention);
        for (int n = 0; n < 2; ++n)
          require_same(first, run(*kernel, c, convention),
                       kernel->info().key() + " " + std::string(to_string(dtype)) + " from run to run");
      }
}

BOOST_AUTO_TEST_CASE(results_that_are_not_wanted_do_not_change_the_others) {
  for (const Kernel* kernel : gpu_kernels()) {
    const Case c = make_case(spec_for(*kernel));
    const Results all = run(*kernel, c);
    Results some = run(*kernel, c, Convention::exact, [](Call& call) {
      call.forward_args().c_last = call.forward_args().n_last = call.forward_args().m_last = nullptr;
      call.backward_args().dc_initial = call.backward_args().dn_initial = call.backward_args().dm_initial = nullptr;
    });
    for (const char* name : {"c_last", "n_last", "m_last", "dc_initial", "dn_initial", "dm_initial"}) {
      if (!some.contains(name)) continue;
      const Bytes& untouched = some.at(name);
      BOOST_TEST(std::all_of(untouched.begin(), untouched.end(), [](std::byte b) { return b == std::byte{0xff}; }),
                 kernel->info().key() << " wrote " << name);
      some.erase(name);
    }
    require_same(some, all, kernel->info().key() + " without states");
    const Results forward_alone = run(*kernel, c, Convention::exact, [&](Call& call) {
      call.forward_args().saved = nullptr;
      call.forward();
      gpu().synchronize();
      BOOST_TEST((call.contents("h") == all.at("h")), kernel->info().key() << " without saved data");
      call.forward_args().saved = call.pointer("saved");
    });
    require_same(forward_alone, all, kernel->info().key() + " after a forward pass without saved data");
  }
}

BOOST_AUTO_TEST_CASE(cotangents_that_are_not_given_are_zero) {
  for (const Kernel* kernel : gpu_kernels()) {
    if (!has_backward(*kernel)) continue;
    for (const Convention convention : {Convention::exact, Convention::detached}) {
      const Case c = make_case(spec_for(*kernel));
      for (const std::string name : {"h", "c_last", "n_last", "m_last"}) {
        Case zero = c;
        zero.cotangents.at(name).fill(0);
        const Results expected = run(*kernel, zero, convention);
        const Results found = run(*kernel, c, convention, [&](Call& call) {
          BackwardArgs& args = call.backward_args();
          (name == "h"        ? args.dh
           : name == "c_last" ? args.dc_last
           : name == "n_last" ? args.dn_last
                              : args.dm_last) = nullptr;
        });
        for (const auto& [tensor, bytes] : expected) {
          if (!tensor.starts_with('d')) continue;
          const std::string input = tensor.substr(1);
          const auto values = [&](const Bytes& b) {
            return unpack(b, storage_dtype(input, c.problem), shape_of(input, c.problem.shape));
          };
          // as numbers: a zero may have the other sign
          BOOST_TEST((values(bytes) == values(found.at(tensor))),
                     kernel->info().key() << ": " << tensor << " without the cotangent of " << name);
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(finite_inputs_never_give_NaN) {
  // Rows with q = 0 where exp(-m) underflows, or 1/d overflows: only dq may be infinite there.
  for (const Kernel* kernel : gpu_kernels())
    for (const DType dtype : kernel->info().dtypes)
      for (const double i_mean : {dtype == DType::float64 ? 720.0 : 100.0, dtype == DType::float16 ? 15.0 : 80.0})
        for (const double f_mean : {-1e4, 3.0, 1e4})
          for (const std::string init : {"zero", "neg_inf"}) {
            if (init == "neg_inf" && kernel->info().S.max == 1) continue;  // a step without a state before it
            const std::string states = init == "zero" ? "1" : "0";
            Case c = make_case(spec_for(*kernel, {{"B", "1"},
                                                  {"eps", "0"},
                                                  {"dtype", std::string(to_string(dtype))},
                                                  {"stabilizer_init", init},
                                                  {"initial_states", states},
                                                  {"last_state_cotangents", states}}));
            const auto shift = [&](const std::string& gate, double mean) {
              Array& values = c.inputs.at(gate);
              for (double& x : values) x = round_to(dtype, mean + std::fmod(x, 1.0));
            };
            shift("i", i_mean);
            shift("f", f_mean);
            Array& q = c.inputs.at("q");
            for (std::size_t n = 0; n < q.size(); ++n)
              if (n / static_cast<std::size_t>(c.problem.shape.DHQK) % 3 != 0) q.data()[n] = 0;
            const ReferenceData reference = evaluate_reference(c);
            for (const Convention convention : {Convention::exact, Convention::detached})
              for (const auto& [name, bytes] : run(*kernel, c, convention)) {
                const std::string tensor = name.starts_with('d') ? name.substr(1) : name;
                const DType stored = storage_dtype(tensor, c.problem);
                const Array found = unpack(bytes, stored, shape_of(tensor, c.problem.shape));
                const Array& expected = name == tensor                    ? reference.outputs.at(name)
                                        : convention == Convention::exact ? reference.exact.at(tensor)
                                                                          : reference.detached.at(tensor);
                std::size_t nan = 0, infinite = 0;
                for (std::size_t n = 0; n < found.size(); ++n) {
                  nan += std::isnan(found.data()[n]);
                  // finite, and below a tenth of the largest number
                  infinite += std::isinf(found.data()[n]) && std::isfinite(round_to(stored, 10 * expected.data()[n]));
                }
                BOOST_TEST(nan + infinite == 0u, kernel->info().key()
                                                     << " " << to_string(dtype) << " i=" << i_mean << " f=" << f_mean
                                                     << " " << init << " " << to_string(convention) << ": " << name
                                                     << " has " << nan << " NaN, " << infinite << " false infinities");
              }
          }
}

BOOST_AUTO_TEST_CASE(calls_without_states_need_no_more_than_they_ask_for) {
  // run_kernel has red zones around buffers of just the sizes asked for; here sizes and null pointers alone
  for (const Kernel* kernel : gpu_kernels()) {
    ProblemSpec spec = spec_for(*kernel);
    const std::size_t with_states = kernel->workspace_size(spec.problem, false);
    spec.problem.has_initial_state = false;
    spec.last_state_cotangents = false;
    BOOST_TEST(kernel->workspace_size(spec.problem, false) <= with_states, kernel->info().key());
    if (has_backward(*kernel)) BOOST_TEST(kernel->saved_size(spec.problem) > 0u, kernel->info().key());
    const Case c = make_case(spec);
    const Results found = run(*kernel, c, Convention::exact, [](Call& call) {
      call.forward_args().c_last = call.forward_args().n_last = call.forward_args().m_last = nullptr;
      call.backward_args().dc_last = call.backward_args().dn_last = call.backward_args().dm_last = nullptr;
    });
    const Array h = unpack(found.at("h"), spec.problem.dtype, shape_of("h", spec.problem.shape));
    BOOST_TEST(std::all_of(h.begin(), h.end(), [](double x) { return std::isfinite(x); }), kernel->info().key());
  }
}

BOOST_AUTO_TEST_CASE(a_step_in_place_gives_the_same_bits) {
  for (const Kernel* kernel : gpu_kernels()) {
    if (kernel->info().S.max != 1) continue;
    for (const DType dtype : kernel->info().dtypes)
      for (const std::string gate : {"exp", "sigmoid"}) {
        const Case c = make_case(spec_for(
            *kernel,
            {{"NH", "3"}, {"DHQK", "72"}, {"DHV", "200"}, {"gate", gate}, {"dtype", std::string(to_string(dtype))}}));
        const Results apart = run(*kernel, c);
        Call call(*kernel, c.problem, false);
        call.upload(c);
        call.forward_args().c_last = call.pointer("c_initial");
        call.forward_args().n_last = call.pointer("n_initial");
        call.forward_args().m_last = call.pointer("m_initial");
        call.forward();
        gpu().synchronize();
        const std::string who = kernel->info().key() + " " + std::string(to_string(dtype)) + " " + gate;
        BOOST_TEST((call.contents("h") == apart.at("h")), who);
        for (const std::string state : {"c", "n", "m"})
          if (call.pointer(state + "_initial") != nullptr)
            BOOST_TEST((call.contents(state + "_initial") == apart.at(state + "_last")), who << " " << state);
      }
  }
}

BOOST_AUTO_TEST_CASE(calls_in_two_streams_do_not_disturb_each_other) {
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (const Kernel* kernel : gpu_kernels()) {
    const std::string dtype = kernel->info().key().find("cublas") != std::string::npos ? "float32" : "bfloat16";
    std::vector<Case> cases;
    std::vector<std::unique_ptr<Call>> calls;
    for (const std::string seed : {"1", "2"}) {
      cases.push_back(make_case(spec_for(*kernel, {{"DHQK", "64"}, {"DHV", "64"}, {"dtype", dtype}, {"seed", seed}})));
      calls.push_back(std::make_unique<Call>(*kernel, cases.back().problem, has_backward(*kernel)));
      calls.back()->upload(cases.back());
    }
    gpu().synchronize();
    for (int n = 0; n < 5; ++n)
      for (std::size_t which = 0; which < 2; ++which) {
        Call& call = *calls[which];
        call.forward_args().stream = call.backward_args().stream = streams[which];
        call.forward();
        if (has_backward(*kernel)) call.backward();
      }
    for (std::size_t which = 0; which < 2; ++which)
      require_same(calls[which]->results(), run(*kernel, cases[which]), kernel->info().key() + " in two streams");
  }
  for (cudaStream_t& stream : streams) require(cudaStreamDestroy(stream));
}

namespace {

/// Elements that 32-bit offsets cannot reach.
constexpr std::int64_t kBeyond = (std::int64_t{1} << 31) + 1;

/// Sizes of which some tensor of `heads` equal heads holds kBeyond elements: v, h and the states of chunks; the state
/// of a step. Small enough per head for the variant's matrices.
ProblemSpec large_spec(const Kernel& kernel, std::int64_t& heads) {
  const VariantInfo& info = kernel.info();
  const bool step = info.S.max == 1, materialised = contains(info.key(), "parallel--native");
  const std::string sizes = step           ? "S=1,DHQK=512,DHV=512"
                            : materialised ? "S=128,DHQK=16,DHV=512"
                                           : "S=1024,DHQK=64,DHV=512";
  ProblemSpec spec = parse_spec("regime=forget3,dtype=bfloat16,eps=0.01,L=64," + sizes +
                                (step ? ",initial_states=1,cotangents=0" : ""));
  const Shape& shape = spec.problem.shape;
  heads = kBeyond / ((step ? shape.DHQK : shape.S) * shape.DHV) + 1;
  return spec;
}

/// The same bits; with cuBLAS, which may choose another kernel for another number of heads, the same up to rounding.
void require_same_head(const Kernel& kernel, const std::string& name, const Bytes& large, const Bytes& alone,
                       const Problem& problem) {
  if (large == alone) return;
  const std::string who = kernel.info().key() + ": " + name + " of the last head";
  BOOST_TEST(contains(kernel.info().key(), "cublas"), who << " differs from the head alone");
  const std::string tensor = name.starts_with('d') ? name.substr(1) : name;
  const auto values = [&](const Bytes& bytes) {
    return unpack(bytes, storage_dtype(tensor, problem), shape_of(tensor, problem.shape));
  };
  const Array a = values(large), b = values(alone);
  double difference = 0, scale = 0;
  for (std::size_t n = 0; n < a.size(); ++n) {
    difference = std::max(difference, std::abs(a.data()[n] - b.data()[n]));
    scale = std::max(scale, std::abs(b.data()[n]));
  }
  BOOST_TEST(difference <= 0x1p-6 * scale, who << " differs by " << difference << " of " << scale);
}

/// Bytes on the device that a Call takes.
double bytes_needed(const Kernel& kernel, const Problem& problem, bool backward) {
  double bytes = static_cast<double>(kernel.workspace_size(problem, false));
  const auto tensors = [&](const std::vector<std::string>& names) {
    for (const std::string& name : names) bytes += static_cast<double>(bytes_of(name, problem)) * (backward ? 2 : 1);
  };
  tensors(input_names(problem));
  tensors(output_names(problem));
  if (backward) bytes += static_cast<double>(kernel.saved_size(problem) + kernel.workspace_size(problem, true));
  return bytes;
}

}  // namespace

BOOST_AUTO_TEST_CASE(offsets_beyond_two_to_the_31st_reach_the_last_head) {
  for (const Kernel* kernel : gpu_kernels()) {
    std::int64_t heads = 0;
    const ProblemSpec spec = large_spec(*kernel, heads);
    const Case head = make_case(spec);
    Problem problem = spec.problem;
    problem.shape.NH = heads;
    if (const std::string reason = kernel->unsupported(problem); !reason.empty()) {
      BOOST_ERROR(kernel->info().key() << " refuses the problem: " << reason);
      continue;
    }
    std::size_t available = 0, total = 0;
    require(cudaMemGetInfo(&available, &total));
    for (const bool backward : {true, false}) {
      if (backward && !has_backward(*kernel)) continue;
      const double needed = bytes_needed(*kernel, problem, backward);
      const std::string what = kernel->info().key() + (backward ? " forward and backward" : " forward");
      if (needed > 0.95 * static_cast<double>(available)) {
        std::printf("SKIPPED: %s with %lld heads needs %.1f GiB, the device has %.1f GiB free\n", what.c_str(),
                    static_cast<long long>(heads), needed / 0x1p30, static_cast<double>(available) / 0x1p30);
        continue;
      }
      BOOST_TEST_MESSAGE(what << ": " << heads << " heads, " << needed / 0x1p30 << " GiB");
      const auto ran = [&](Call& call, std::int64_t first_head) {
        call.upload(head, first_head);
        call.forward();
        if (backward) call.backward();
        return call.results(true);
      };
      Call alone(*kernel, spec.problem, backward);
      const Results expected = ran(alone, 0);
      Call large(*kernel, problem, backward);
      const Results found = ran(large, heads - 1);
      for (const auto& [name, bytes] : expected) require_same_head(*kernel, name, found.at(name), bytes, spec.problem);
      break;  // the forward pass alone would say no more
    }
  }
}
#endif
