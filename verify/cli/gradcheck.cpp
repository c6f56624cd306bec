// SPDX-License-Identifier: Apache-2.0
// mlstm gradcheck: the analytic gradient against automatic differentiation and finite differences, per formulation.
#include <fmt/format.h>

#include <cmath>

#include "cli/cli.hpp"
#include "studies/gradcheck/gradcheck.hpp"

namespace mlstm::cli {
namespace {

using verify::GradcheckResult;

/// Differences take two passes in extended precision per input element.
constexpr std::int64_t kMostElements = 2000;

/// Both gates, eps, states and their cotangents, a ragged last chunk; quick.
constexpr std::string_view kDefaultCases[] = {
    "regime=standard,S=7,DHQK=3,DHV=4,L=3",
    "regime=forget6,S=7,DHQK=4,DHV=3,L=2,eps=1",
    "regime=standard,S=6,DHQK=3,DHV=2,L=4,eps=0.01,stabilizer_init=neg_inf",
    "regime=forget3,S=5,DHQK=2,DHV=3,L=2,eps=0.01,initial_states=1,last_state_cotangents=1",
    "regime=crossover,gate=sigmoid,S=8,DHQK=3,DHV=3,L=3,eps=0.01,last_state_cotangents=1",
    "regime=forget3,gate=sigmoid,normalize=0,S=5,DHQK=3,DHV=2,L=2,initial_states=1,last_state_cotangents=1",
};

struct Options {
  ProblemOptions problems;
  ThreadsOption threads;
  std::string formulation, tolerance = "1e-12";
};

std::int64_t input_elements(const Problem& problem) {
  std::int64_t elements = 0;
  for (const std::string& name : input_names(problem)) elements += size_of(name, problem.shape);
  return elements;
}

std::vector<verify::ProblemSpec> select(const ProblemOptions& options) {
  std::vector<verify::ProblemSpec> specs;
  if (options.empty()) {
    for (const std::string_view line : kDefaultCases) specs.push_back(verify::parse_spec(line));
    return specs;
  }
  for (const verify::ProblemSpec& spec : options.specs()) {
    const std::int64_t elements = input_elements(spec.problem);
    if (elements > kMostElements)
      fmt::print(stderr, "not checked, {} input elements (at most {}): {}\n", elements, kMostElements, case_name(spec));
    else if (!spec.cotangents && !spec.last_state_cotangents)
      fmt::print(stderr, "not checked, no cotangents: {}\n", case_name(spec));
    else
      specs.push_back(spec);
  }
  return specs;
}

/// The tensors of one convention, one line per comparison.
std::string to_text(const std::vector<GradcheckResult>& results, Convention convention) {
  std::string header, autograd, differences;
  for (const GradcheckResult& result : results) {
    if (result.convention != convention) continue;
    header += fmt::format("{:>11} ", result.tensor);
    const auto cell = [&](double difference) {
      return fmt::format("{:>11}{}", fmt::format("{:.1e}", difference), difference <= result.tolerance ? ' ' : '!');
    };
    autograd += cell(result.ownbw_vs_autograd);
    differences += cell(result.ownbw_vs_differences);
  }
  return fmt::format("    {:<24}{}\n    {:<24}{}\n    {:<24}{}\n", to_string(convention), header, "ownbw - autograd",
                     autograd, "ownbw - differences", differences);
}

int gradcheck(const Options& options) {
  std::vector<Module> formulations{Module::recurrent, Module::parallel, Module::chunkwise};
  if (!options.formulation.empty()) formulations = {parse_module(options.formulation, "--formulation")};
  const double tolerance = parse_eps(options.tolerance, "--tolerance");
  reference::Options how;
  how.threads = options.threads.value();
  const std::vector<verify::ProblemSpec> specs = select(options.problems);

  std::int64_t checked = 0, failed = 0;
  fmt::print("Relative Frobenius differences of gradients (at most {:g}; ! is more)\n\n", tolerance);
  for (const verify::ProblemSpec& spec : specs) {
    const verify::Case c = verify::make_case(spec);
    for (const Module formulation : formulations) {
      how.formulation = formulation;
      const std::vector<GradcheckResult> results = verify::gradcheck(c, how, tolerance);
      fmt::print("{}  {}\n", verify::case_name(spec), to_string(formulation));
      for (const Convention convention : {Convention::exact, Convention::detached})
        fmt::print("{}", to_text(results, convention));
      bool failed_here = false;
      for (const GradcheckResult& result : results) {
        ++checked;
        failed += !result.passed;
        failed_here |= !result.passed;
      }
      if (failed_here)
        fmt::print("    FAIL  mlstm gradcheck --formulation {} --case \"{}\" --tolerance {}\n", to_string(formulation),
                   verify::to_line(spec), options.tolerance);
      fmt::print("\n");
      std::fflush(stdout);
    }
  }
  fmt::print("{} gradients checked: {} PASS, {} FAIL\n", checked, checked - failed, failed);
  return failed > 0 ? kFailed : checked == 0 ? kNothingJudged : kOk;
}

}  // namespace

void add_gradcheck(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command =
      app.add_subcommand("gradcheck",
                         "Checks the reference's analytic gradient against automatic differentiation and "
                         "central differences in 50 digits; without a selection, on a few small problems");
  options->problems.add_to(*command);
  command->add_option("--formulation", options->formulation, "recurrent, parallel or chunkwise; default: all three");
  command->add_option("--tolerance", options->tolerance, "largest relative Frobenius difference; default 1e-12");
  options->threads.add_to(*command);
  command->callback([options, &status] { status = gradcheck(*options); });
}

}  // namespace mlstm::cli
