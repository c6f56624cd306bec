// SPDX-License-Identifier: Apache-2.0
// What is timed, and how much work it is.
#include <algorithm>

#include "runner/runner.hpp"
#include "studies/bench/bench.hpp"

namespace mlstm::verify {
namespace {

template <class T>
bool has(const std::vector<T>& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

/// Steps of a block whose products are quadratic in its length.
double block_length(const BenchTask& task) {
  const Problem& problem = task.problem;
  switch (task.kernel->info().module) {
    case Module::recurrent:
      return 0;
    case Module::parallel:
      return static_cast<double>(problem.shape.S);
    case Module::chunkwise:
      break;
  }
  return static_cast<double>(std::min(problem.chunk_size, problem.shape.S));
}

/// Work of a pass from its coefficients: T (L (d_block d + e_block e) + state d e) FLOPs, T (d_moved d + e_moved e)
/// numbers.
Work work_of(const BenchTask& task, double d_block, double e_block, double state, double d_moved, double e_moved) {
  const Problem& problem = task.problem;
  const Shape& s = problem.shape;
  const auto d = static_cast<double>(s.DHQK), e = static_cast<double>(s.DHV);
  const double steps = static_cast<double>(s.heads()) * static_cast<double>(s.S);
  const bool has_states = task.kernel->info().module != Module::parallel;
  Work work;
  work.flops = steps * (block_length(task) * (d_block * d + e_block * e) + (has_states ? state * d * e : 0));
  work.bytes = steps * static_cast<double>(size_of(problem.dtype)) * (d_moved * d + e_moved * e);
  if (problem.has_initial_state)
    work.bytes += 2 * static_cast<double>(s.heads()) * (d * e + d + 1) *
                  static_cast<double>(size_of(state_dtype_of(problem.dtype)));
  return work;
}

/// What the variant is asked to differentiate by; `reason` says why it cannot.
std::optional<Convention> convention_for(const VariantInfo& info, const BenchSelection& selection,
                                         std::string& reason) {
  const auto& declared = info.gradient_conventions;
  if (selection.forward_only || declared.empty()) return {};
  if (!selection.convention) return has(declared, Convention::exact) ? Convention::exact : declared.front();
  if (!has(declared, *selection.convention))
    reason = std::string(to_string(*selection.convention)) + " gradients are not supported";
  return selection.convention;
}

/// Problems for one variant, whether it supports them or not.
std::vector<Problem> problems_for(const VariantInfo& info, const BenchSelection& selection) {
  const auto or_default = [](const auto& values, auto defaults) { return values.empty() ? defaults : values; };
  const auto dtypes = or_default(selection.dtypes, std::vector{DType::bfloat16});
  const auto gates = or_default(selection.gates, std::vector{Gate::exp});
  const auto shapes = or_default(selection.shapes, default_bench_shapes(info));
  const auto chunk_sizes = info.module == Module::chunkwise
                               ? or_default(selection.chunk_sizes, std::vector<std::int64_t>{64, 128})
                               : std::vector<std::int64_t>{0};
  std::vector<Problem> problems;
  for (const Shape& shape : shapes)
    for (const DType dtype : dtypes)
      for (const Gate gate : gates)
        for (const std::int64_t L : chunk_sizes) {
          Problem problem{.shape = shape, .gate = gate, .dtype = dtype, .chunk_size = L};
          problem.has_initial_state = selection.initial_states || is_step(info);
          if (!info.stabilizer_init.empty() && !has(info.stabilizer_init, problem.stabilizer_init))
            problem.stabilizer_init = info.stabilizer_init.front();
          validate(problem);
          problems.push_back(problem);
        }
  return problems;
}

}  // namespace

bool is_step(const VariantInfo& info) { return info.S.max == 1; }

std::vector<Shape> default_bench_shapes(const VariantInfo& info) {
  if (info.device == Device::cpu)
    return is_step(info) ? std::vector<Shape>{{8, 8, 1, 256, 512}} : std::vector<Shape>{{1, 4, 512, 64, 128}};
  if (is_step(info)) return {{128, 8, 1, 256, 512}, {128, 16, 1, 128, 256}};
  // limit_headdim takes DHQK = DHV alone, as the published one does
  if (info.module == Module::parallel) return {{32, 16, 2048, 128, 128}, {8, 16, 8192, 128, 128}};
  return {{8, 16, 8192, 128, 256}};
}

BenchPlan plan_bench(const std::vector<const Kernel*>& kernels, const BenchSelection& selection) {
  BenchPlan plan;
  for (const Kernel* kernel : kernels) {
    const VariantInfo& info = kernel->info();
    if (!unavailable(*kernel).empty()) {
      plan.unavailable.push_back(kernel);
      continue;
    }
    std::string reason;
    const std::optional<Convention> convention = convention_for(info, selection, reason);
    bool any = false;
    if (reason.empty())
      for (const Problem& problem : problems_for(info, selection)) {
        const std::string refusal = kernel->unsupported(problem);
        if (refusal.empty()) plan.tasks.push_back({kernel, problem, convention});
        any = any || refusal.empty();
        if (reason.empty()) reason = refusal;
      }
    if (!any) plan.unselected.push_back(info.key() + ": " + reason);
  }
  return plan;
}

Work forward_work(const BenchTask& task) { return work_of(task, 1, 1, 4, 2, 2); }
Work backward_work(const BenchTask& task) { return work_of(task, 3, 2, 10, 4, 3); }

}  // namespace mlstm::verify
