// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>

#include "base/files.hpp"
#include "cases/case_file.hpp"
#include "cases/memory_needs.hpp"
#include "cases/source_digest.hpp"
#include "report/report.hpp"
#include "runner/kernel_needs.hpp"
#include "sweep/doctor.hpp"
#include "sweep/mistakes.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::verify {
namespace {

std::string repro_of(const std::filesystem::path& path, const JudgeOptions& options) {
  std::string line = "mlstm verify --captures " + shell_word(path.string());
  if (options.convention) line += " --convention " + std::string(to_string(*options.convention));
  if (options.operand_dtype) line += " --operand-dtype " + std::string(to_string(*options.operand_dtype));
  if (options.require_all) line += " --require-all";
  return line;
}

/// Judged tensors by key of error_bounds, in contract order: h -> h, exact/q -> dq.
std::vector<std::string> disagreeing_tensors(const Case& c, const ReferenceData& recomputed, int threads) {
  const DType exact = DType::float64;
  const std::int64_t window = c.problem.chunk_size > 0 ? c.problem.chunk_size : c.problem.shape.S;
  const TensorMap bounds = error_bounds(c, recomputed, {exact, exact, exact, exact, window}, threads);
  std::vector<std::string> tensors;
  const auto check = [&](const TensorMap& stored, const TensorMap& computed, const std::string& group) {
    for (const auto& [name, values] : stored) {
      const auto expected = computed.find(name);
      const auto bound = bounds.find(group + name);
      if (expected == computed.end() || bound == bounds.end()) continue;
      const bool agrees = values.shape() == expected->second.shape() &&
                          compare(values, expected->second, bound->second, exact).error_ratio <= 2;  // one bound each
      const std::string tensor = (group.empty() ? "" : "d") + name;
      if (!agrees && std::find(tensors.begin(), tensors.end(), tensor) == tensors.end()) tensors.push_back(tensor);
    }
  };
  check(c.reference->outputs, recomputed.outputs, "");
  check(c.reference->exact, recomputed.exact, "exact/");
  check(c.reference->detached, recomputed.detached, "detached/");
  return tensors;
}

}  // namespace

std::vector<Record> judge_capture(const std::filesystem::path& path, const CaptureOptions& options) {
  const Case c = read_case(path);
  std::vector<Item> items;
  Item common;
  common.case_name = c.name;
  common.tensor = "h";
  if (!c.kernel || (c.kernel->outputs.empty() && c.kernel->gradients.empty())) {
    if (!options.named_alone && !options.judge.require_all) return {};
    common.note = path.string() + " holds no " + (c.kernel ? "outputs or gradients in /kernel" : "/kernel");
    items.push_back(common);
  } else {
    common.variant = c.kernel->variant;
    const VerifierNeeds needs = verifier_needs(c.problem, !c.cotangents.empty(), options.threads,
                                               formulation_of(*c.kernel).value_or(Module::parallel));
    if (const std::string reason = why_too_large(needs, {}, {}); !reason.empty())
      throw FileError(path.string() + ": " + reason);
    reference::Options how;
    how.threads = options.threads;
    const ReferenceData reference = evaluate_reference(c, how);
    JudgeOptions judging = options.judge;
    judging.threads = options.threads;
    judging.wants_picture = [](const Item&) { return true; };
    items = judge(c, reference, judging);
    if (options.find_mistakes) {
      const auto failing =
          std::find_if(items.begin(), items.end(), [](const Item& i) { return !i.explanation.empty(); });
      if (failing != items.end())
        for (const std::string& line : find_mistakes(c, reference, items, options.threads))
          failing->explanation += "\n" + line;
    }
    if (options.symptoms != nullptr) {
      *options.symptoms = examine(c, reference, items, options.threads);
      options.symptoms->digest = sha256_of_file(path);
    }
    if (c.cotangents.empty())
      for (const auto& [name, gradient] : c.kernel->gradients) {
        items.push_back(common);
        items.back().tensor = "d" + name;
        items.back().note = "a gradient without cotangents cannot be judged";
      }
    if (const std::string reason = why_stale(*c.kernel); !reason.empty())
      for (Item& item : items) {
        item.note =
            reason + ", judged " + std::string(to_string(item.status)) + (item.note.empty() ? "" : "; " + item.note);
        item.status = Status::STALE;
      }
    if (c.reference)
      for (const std::string& tensor : disagreeing_tensors(c, reference, options.threads)) {
        auto item = std::find_if(items.begin(), items.end(), [&](const Item& i) { return i.tensor == tensor; });
        if (item == items.end()) item = items.insert(items.end(), common);
        item->tensor = tensor;
        item->status = Status::ERROR;
        item->note = "the stored /reference disagrees with the recomputed one";
      }
  }
  std::vector<Record> records;
  for (Item& item : items) {
    item.variant = common.variant;
    item.case_name = c.name;
    item.repro = repro_of(path, options.judge);
    records.push_back({item, std::string(to_string(c.problem.dtype)), 0});
  }
  return records;
}

}  // namespace mlstm::verify
