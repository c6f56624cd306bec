// SPDX-License-Identifier: Apache-2.0
// Judging what a kernel produced against the float64 reference, element by element, within error bounds.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cases/case.hpp"
#include "cases/problems.hpp"
#include "judge/bounds.hpp"
#include "judge/detail.hpp"

namespace mlstm::verify {

enum class Status { PASS, FAIL, MISTRUSTED, SKIPPED, ERROR, TIMEOUT, STALE };
std::string_view to_string(Status);
Status parse_status(std::string_view text);

/// Problems that a variant did not take, of those that were selected.
struct Declined {
  std::int64_t problems = 0, of = 0;
};

/// How far a tensor differs from run to run, where that is accepted.
struct Nondeterminism {
  std::int64_t elements = 0;      ///< that differ
  double max_abs_difference = 0;  ///< infinite where one of the values is not finite
  double ratio = 0;               ///< the largest difference over twice the bound; at most 1 is accepted
};

/// The verdict on one tensor of one case.
struct Item {
  std::string variant, case_name, tensor;  ///< tensor: h, c_last, ..., dq, ..., dm_initial
  std::string convention;                  ///< "exact", "detached", "both", or empty for outputs
  Status status = Status::ERROR;
  std::optional<double> error_ratio, max_abs_error, rel_frobenius;  ///< absent: not computed; may be infinite
  /// The bias over what is allowed, largest over the tensor, its heads and blocks of steps, at most 1 passes; and the
  /// bias of the whole tensor (0.01: 1 % too large). Absent: none could have been seen.
  std::optional<double> bias_ratio, bias;
  std::vector<std::int64_t> worst_index;
  std::string repro, note;
  std::string regime;                  ///< of a generated problem; empty if unknown, as in captures of others
  std::optional<ProblemSpec> problem;  ///< that was run; absent for captures and for what was not run
  std::string property;                ///< that was checked; empty: judged against the reference
  std::string run;                     ///< that the item belongs to (name_of(Run)); empty: none, or several
  std::string check;                   ///< that stopped the run, which gave no numbers; one of kRunChecks, "memory",
                                       ///< "timeout", "exception"; empty: the numbers were judged
  bool trivial = false;                ///< a tensor of zeros would pass
  bool zero_by_definition = false;     ///< all expected values are zero, so zeros are right; then trivial is set too
  bool not_finite = false;             ///< error_ratio was not, where it is absent: report.json has no number for it
  /// That the variant did not take: the item is SKIPPED if its declaration rules them out, else an ERROR.
  std::optional<Declined> declined;
  /// Absent: the same bits in all runs, or that is required.
  std::optional<Nondeterminism> nondeterminism;
  /// Whether the status is the one that is recorded for the item (--expect): a failure then alarms nobody, and a PASS
  /// that is not does. Absent: nothing was compared.
  std::optional<bool> as_expected;
  /// Wrong answers that the bound could not tell from the right one in this tensor: of "zero", "constant", "negated",
  /// "doubled" and "shifted" (by one time step) those that differ from the reference and would still pass.
  std::vector<std::string> hides;
  /// What its kernel, if it meant harm, could have reached to change the verdict (WorkerPool::exposed), or "verifier"
  /// if it ran in the same process. Empty: nothing.
  std::vector<std::string> exposed;
  std::shared_ptr<Detail> detail;  ///< null where nothing was compared; not part of report.json
  /// Where and how a tensor that failed is wrong (locate.hpp); lines without a line feed at the end.
  std::string explanation;
};

class ErrorSharing;

/// What judging one problem at one precision takes beside the reference.
struct Yardstick {
  std::shared_ptr<const ErrorSharing> sharing;
  DType operand = DType::float32;                         ///< by which constants go
  bool narrow_gates = false;                              ///< a gate_dtype coarser than float32 is declared
  TensorMap bounds;                                       ///< error_bounds
  std::map<std::string, std::vector<std::string>> hides;  ///< hidden_wrong_answers, by key of `bounds`
};

/// The yardsticks of one problem. judge() adds those that it lacks.
using Yardsticks = std::map<Precision, Yardstick>;

struct JudgeOptions {
  std::optional<Convention> convention;  ///< judge gradients under this one; absent: as declared, else the better fit
  std::optional<DType> operand_dtype;    ///< overrides the declaration
  bool require_all = false;              ///< an absent output or gradient is a FAIL
  int threads = 0;                       ///< for the bounds; 0: one per core
  /// Whether failures get an explanation (Item::explanation).
  bool explain = true;
  /// Whether the item, of which variant, tensor, convention and error_ratio are set, gets a picture of its errors (for
  /// an undeclared convention it is the one that fits better). Absent: no item does.
  std::function<bool(const Item&)> wants_picture;
  /// Keeps what is computed for the next kernel that is judged on the same problem. For one thread at a time.
  Yardsticks* known = nullptr;
};

/// Largest error of `values` against `reference` over `bound`, element by element.
struct Comparison {
  double error_ratio = 0, max_abs_error = 0,
         rel_frobenius = 0;  ///< infinite for NaN or Inf where the reference is finite
  std::size_t worst = 0;     ///< flat index of the largest error_ratio
  bool bound_usable = true;  ///< false if some bound is not finite: then nothing can be said
};

/// Compares tensors of equal shape. An element that is infinite in `reference`, or becomes so when it is rounded to
/// `storage`, has to be the same infinity in `values`. NaN is never right.
Comparison compare(const Array& values, const Array& reference, const Array& bound, DType storage);

/// Error over bound of every element, as compare judges it: infinite for NaN, for Inf where the reference is finite,
/// and where the bound is not finite.
Array error_ratios(const Array& values, const Array& reference, const Array& bound, DType storage);

/// What a note says of a trivial tensor.
std::string_view trivial_text(bool zero_by_definition);

/// The key of error_bounds that `tensor` (h, ..., dq, ...) of this kernel is held to under `convention`: "h",
/// "exact/q", "detached/f_straddling", ...
std::string bound_name(const KernelData& kernel, const std::string& tensor, std::string_view convention);

/// What a note says of it.
std::string nondeterminism_text(const Nondeterminism& seen, std::size_t of_elements);

/// The wrong answers of Item::hides for one tensor. Axis 2 is time if `has_time_axis`.
std::vector<std::string> hidden_wrong_answers(const Array& reference, const Array& bound, bool has_time_axis);

/// True if the kernel says that it sums df from unrounded terms over straddling pairs (attribute `gate_gradient`). It
/// is then held to the tighter of the two bounds, "f_straddling".
bool declares_straddling(const KernelData& kernel);

/// Judges everything in `c.kernel` against `reference` (which has gradients if the case has cotangents): outputs, last
/// states and gradients. Never throws for wrong numbers; one item per tensor, in contract order.
/// Two runs may differ by twice the bound, if that was accepted at all (KernelData::spread): more is a FAIL.
/// Notes say in words what Item::trivial and zero_by_definition say; which of the two bounds df meets; that the
/// formulation is not stated; and under which other convention a failing gradient would pass.
std::vector<Item> judge(const Case& c, const ReferenceData& reference, const JudgeOptions& options = {});

}  // namespace mlstm::verify
