// SPDX-License-Identifier: Apache-2.0
// ctest-labels: property
// What a kernel gets to see in each suite: one that looks at its arguments is run on all of its problems, and the table
// of verify/SUITES.md has to say what it saw.
#include <algorithm>
#include <bit>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cases/problems.hpp"
#include "fake_kernels.hpp"
#include "properties/properties.hpp"
#include "runner/runner.hpp"

using namespace mlstm;
using namespace mlstm::verify;

namespace {

/// One call, as the kernel sees it.
struct Call {
  const Problem& problem;
  std::vector<std::vector<float>> i, f;  ///< by head; of problems in float32
  bool last_state_cotangents = false;
  std::int64_t S() const { return problem.shape.S; }
  std::int64_t L() const { return problem.chunk_size; }
  bool exp() const { return problem.gate == Gate::exp; }
};

using Values = std::vector<float>;

bool any_head(const Call& call, const std::function<bool(const Values& i, const Values& f)>& holds) {
  for (std::size_t head = 0; head < call.i.size(); ++head)
    if (holds(call.i[head], call.f[head])) return true;
  return false;
}

bool is_reset(float f) { return f <= -30; }

/// Where implementations have gone wrong, in the order of the table.
const std::vector<std::pair<std::string, std::function<bool(const Call&)>>> kPlaces{
    {"S = 1", [](const Call& c) { return c.S() == 1; }},
    {"S > 1024", [](const Call& c) { return c.S() > 1024; }},
    {"S > 4096", [](const Call& c) { return c.S() > 4096; }},
    {"a ragged last chunk", [](const Call& c) { return c.S() > c.L() && c.S() % c.L() != 0; }},
    {"a ragged last chunk, B > 1",
     [](const Call& c) { return c.S() > c.L() && c.S() % c.L() != 0 && c.problem.shape.B > 1; }},
    {"more than 16 chunks", [](const Call& c) { return c.S() > 16 * c.L(); }},
    {"more than 128 chunks", [](const Call& c) { return c.S() > 128 * c.L(); }},
    {"L > S > 1", [](const Call& c) { return c.S() > 1 && c.L() > c.S(); }},
    {"L > 256 in use", [](const Call& c) { return c.L() > 256 && c.S() > 256; }},
    {"L no power of two",
     [](const Call& c) { return c.S() > c.L() && !std::has_single_bit(static_cast<std::uint64_t>(c.L())); }},
    {"DHQK = DHV", [](const Call& c) { return c.problem.shape.DHQK == c.problem.shape.DHV; }},
    {"DHQK < DHV", [](const Call& c) { return c.problem.shape.DHQK < c.problem.shape.DHV; }},
    {"DHQK > DHV", [](const Call& c) { return c.problem.shape.DHQK > c.problem.shape.DHV; }},
    {"DHQK > 64, with a remainder",
     [](const Call& c) { return c.problem.shape.DHQK > 64 && c.problem.shape.DHQK % 64 != 0; }},
    {"DHV > 64, with a remainder",
     [](const Call& c) { return c.problem.shape.DHV > 64 && c.problem.shape.DHV % 64 != 0; }},
    {"DHV > 256", [](const Call& c) { return c.problem.shape.DHV > 256; }},
    {"odd extents", [](const Call& c) { return c.problem.shape.DHV % 2 == 1; }},
    {"more than 32 heads", [](const Call& c) { return c.problem.shape.NH > 32; }},
    {"B NH > 65,535", [](const Call& c) { return c.problem.shape.heads() > 65535; }},
    {"element offsets > 2^22", [](const Call& c) { return size_of("c_last", c.problem.shape) > 1 << 22; }},
    {"eps = 0", [](const Call& c) { return c.problem.eps == 0; }},
    {"eps = 1", [](const Call& c) { return c.problem.eps == 1; }},
    {"one step from given states, eps = 0",
     [](const Call& c) { return c.S() == 1 && c.problem.eps == 0 && c.problem.has_initial_state; }},
    {"m_0 = -inf", [](const Call& c) { return c.exp() && c.problem.stabilizer_init == StabilizerInit::neg_inf; }},
    {"m_0 = -inf, cotangents of last states, S > 64",
     [](const Call& c) {
       return c.exp() && c.problem.stabilizer_init == StabilizerInit::neg_inf && c.last_state_cotangents && c.S() > 64;
     }},
    {"sigmoid gate, normalised", [](const Call& c) { return !c.exp() && c.problem.normalize; }},
    {"sigmoid gate, not normalised", [](const Call& c) { return !c.exp() && !c.problem.normalize; }},
    {"sigmoid gate with m_0 = -inf asked for",
     [](const Call& c) { return !c.exp() && c.problem.stabilizer_init == StabilizerInit::neg_inf; }},
    {"initial states and cotangents of last states",
     [](const Call& c) { return c.problem.has_initial_state && c.last_state_cotangents; }},
    {"forget gates of -1000 or less",
     [](const Call& c) {
       return any_head(c,
                       [](const Values&, const Values& f) { return *std::min_element(f.begin(), f.end()) <= -1000; });
     }},
    {"resets on and off chunk boundaries",
     [](const Call& c) {
       return any_head(c, [&](const Values&, const Values& f) {
         bool on = false, off = false, kept = false;
         for (std::int64_t t = 1; t < c.S(); ++t) {
           const bool reset = is_reset(f[static_cast<std::size_t>(t)]);
           kept = kept || !reset;
           (t % c.L() == 0 ? on : off) |= reset;
         }
         return on && off && kept;
       });
     }},
    {"a document of one step between others",
     [](const Call& c) {
       return any_head(c, [](const Values&, const Values& f) {
         for (std::size_t t = 2; t + 1 < f.size(); ++t)
           if (!is_reset(f[t - 2]) && is_reset(f[t - 1]) && is_reset(f[t]) && !is_reset(f[t + 1])) return true;
         return false;
       });
     }},
    {"padding at the end (f = 25, i = -25)",
     [](const Call& c) {
       return any_head(c, [](const Values& i, const Values& f) { return i.back() == -25 && f.back() == 25; });
     }},
    {"a ragged last chunk in which all i < -25",
     [](const Call& c) {
       return c.S() > c.L() && c.S() % c.L() != 0 && any_head(c, [&](const Values& i, const Values&) {
                return std::all_of(i.end() - c.S() % c.L(), i.end(), [](float x) { return x < -25; });
              });
     }},
    {"input gates below -150",
     [](const Call& c) {
       return any_head(c, [](const Values& i, const Values&) { return *std::min_element(i.begin(), i.end()) < -150; });
     }},
};

/// Takes every problem, computes nothing, and remembers what it saw.
class Onlooker {
 public:
  Onlooker()
      : kernel_(
            info(), [this](const Problem& p, const ForwardArgs& args) { forward(p, args); },
            [this](const Problem& p, const BackwardArgs& args) { backward(p, args); }) {}
  const Kernel& kernel() const { return kernel_; }
  std::set<std::string> seen() const { return seen_; }

 private:
  static VariantInfo info() {
    VariantInfo info = test::fake_info(Module::chunkwise, "onlooker",
                                       {DType::float64, DType::float32, DType::bfloat16, DType::float16});
    info.gates = {Gate::exp, Gate::sigmoid};
    info.stabilizer_init = {StabilizerInit::zero, StabilizerInit::neg_inf};
    info.gradient_conventions = {Convention::exact};
    info.initial_states = info.last_states = info.last_state_cotangents = true;
    return info;
  }
  static std::vector<std::vector<float>> by_head(const Problem& p, const void* gates) {
    std::vector<std::vector<float>> heads;
    const auto* const from = static_cast<const float*>(gates);
    for (std::int64_t head = 0; p.dtype == DType::float32 && head < p.shape.heads(); ++head)
      heads.emplace_back(from + head * p.shape.S, from + (head + 1) * p.shape.S);
    return heads;
  }
  void look(const Call& call) {
    for (const auto& [name, is_there] : kPlaces)
      if (is_there(call)) seen_.insert(name);
  }
  static void clear(void* to, const char* tensor, const Problem& p) {
    if (to != nullptr) std::memset(to, 0, test::bytes_of(tensor, p));
  }
  void forward(const Problem& p, const ForwardArgs& args) {
    look({p, by_head(p, args.i), by_head(p, args.f)});
    clear(args.h, "h", p);
    clear(args.c_last, "c_last", p);
    clear(args.n_last, "n_last", p);
    clear(args.m_last, "m_last", p);
  }
  void backward(const Problem& p, const BackwardArgs& args) {
    look({p, by_head(p, args.i), by_head(p, args.f), args.dc_last != nullptr});
    for (const auto& [gradient, tensor] : {std::pair{args.dq, "q"},
                                           {args.dk, "k"},
                                           {args.dv, "v"},
                                           {args.di, "i"},
                                           {args.df, "f"},
                                           {args.dc_initial, "c_initial"},
                                           {args.dn_initial, "n_initial"},
                                           {args.dm_initial, "m_initial"}})
      clear(gradient, tensor, p);
  }

  test::FakeKernel kernel_;
  std::set<std::string> seen_;
};

/// What is seen in a suite, with the properties that it includes.
std::set<std::string> places_of(const std::string& name, bool with_properties) {
  Onlooker onlooker;
  std::set<std::string> done;
  for (ProblemSpec spec : suite(name)) {
    // Other seeds and dtypes lead to the same places. Gates are read in float32.
    spec.seed = 0;
    spec.problem.dtype = DType::float32;
    if (!done.insert(to_line(spec)).second) continue;
    const Case c = make_case(spec);
    run_kernel(onlooker.kernel(), c, c.cotangents.empty() ? std::nullopt : std::optional(Convention::exact),
               {.repeats = 0, .guarded = false});
  }
  for (const PropertyInfo& info : properties()) {
    if (!with_properties) break;
    for (const ProblemSpec& spec : property_problems(info.name))
      if (spec.problem.dtype == DType::float32 && property_refusal(info.name, onlooker.kernel(), spec).empty())
        check_property(info.name, onlooker.kernel(), spec, {.guarded = false});
  }
  return onlooker.seen();
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_table_says_what_a_kernel_sees_in_each_suite) {
  const std::set<std::string> smoke = places_of("smoke", false), standard = places_of("standard", true),
                              full = places_of("full", true);
  std::string table = "| place | smoke | standard | full |\n|---|---|---|---|\n";
  for (const auto& [name, unused] : kPlaces) {
    BOOST_TEST(full.contains(name), name << " is in no suite");
    BOOST_TEST((standard.contains(name) || !smoke.contains(name)), name << " is in smoke and not in standard");
    BOOST_TEST((full.contains(name) || !standard.contains(name)), name << " is in standard and not in full");
    const auto mark = [&name = name](const std::set<std::string>& seen) {
      return seen.contains(name) ? " yes |" : " |";
    };
    table += "| " + name + " |" + mark(smoke) + mark(standard) + mark(full) + "\n";
  }
  std::ifstream file(std::string(MLSTM_SOURCE_DIR) + "/verify/SUITES.md");
  std::stringstream page;
  page << file.rdbuf();
  BOOST_TEST((page.str().find(table) != std::string::npos), "verify/SUITES.md has to hold\n" << table);
}
