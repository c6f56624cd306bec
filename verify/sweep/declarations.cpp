// SPDX-License-Identifier: Apache-2.0
#include "sweep/declarations.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "judge/locate.hpp"
#include "judge/tensor_view.hpp"

namespace mlstm::verify {
namespace {

constexpr double kNearlyAll = 0.9;  // of the elements that could have an error have to have one
constexpr double kLargestMean =
    0.5;  // of the error over the bound, over its root mean square: roundings have both signs
/// What truncation takes off, in units of the format's roundoff: 0.7 or so for each of up to five operands (BOUNDS.md,
/// section 11); and the largest correlation of errors and values: more is a factor that all elements share.
constexpr double kLeastTruncated = 0.4, kMostTruncated = 6, kMostShared = 0.9;
constexpr double kLeastRatio = 1.0 / 20;  // of the largest error over its bound: a bound that is wider says nothing
constexpr double kSmallestRatio =
    1.0 / 500;  // an error that is smaller than that under the wider bound is no sign of it
constexpr std::int64_t kFewestFailing = 8;
constexpr std::int64_t kSample = 32;  // elements of a tensor that says something

enum Part : unsigned { kOperand = 1, kProduct = 2, kGate = 4, kState = 8 };

/// Single parts first, then what torch-native and decoding kernels do: several at once.
constexpr std::array<unsigned, 8> kSets{kOperand,
                                        kProduct,
                                        kGate,
                                        kState,
                                        kOperand | kState,
                                        kGate | kState,
                                        kOperand | kGate,
                                        kOperand | kProduct | kGate | kState};

/// The declared precision with these parts in `format`; false if that makes nothing coarser.
bool coarsen(Precision& precision, unsigned parts, DType format) {
  const double now = precision.storage == DType::float64 ? 0x1p-53 : 0x1p-24;
  const auto is_finer = [&](const std::optional<DType>& declared) {
    return (declared ? unit_roundoff(*declared) : now) < unit_roundoff(format);
  };
  bool coarser = true;
  if ((parts & kOperand) != 0) coarser &= is_finer(precision.operand), precision.operand = format;
  if ((parts & kProduct) != 0) coarser &= is_finer(precision.product), precision.product = format;
  if ((parts & kGate) != 0) coarser &= is_finer(precision.gate), precision.gate = format;
  if ((parts & kState) != 0) coarser &= is_finer(precision.state), precision.state = format;
  return coarser;
}

std::string text_of(unsigned parts, DType format) {
  std::vector<std::string> names;
  for (const auto& [part, name] : {std::pair{kOperand, "operand_dtype"}, std::pair{kProduct, "product_dtype"},
                                   std::pair{kGate, "gate_dtype"}, std::pair{kState, "state_dtype"}})
    if ((parts & part) != 0) names.push_back(fmt::format("{} = {}", name, to_string(format)));
  return fmt::format("{}", fmt::join(names, ", "));
}

/// What the errors of one tensor look like under wider bounds.
struct Look {
  bool passes = true;
  bool looks_rounded = false;  ///< errors in nearly all elements, of either sign, in a tensor large enough to say so
  bool tells = false;          ///< and bounds that could have told a wrong answer
  std::int64_t wrong = 0, elements = 0;
};

/// `truncated`: the roundoff of a format whose operands tensor cores truncate; 0: they are rounded.
Look look_at(const JudgedTensor& judged, bool has_time_axis, double truncated) {
  Look look;
  const Array ratios = ratios_of(judged);
  double sum = 0, largest = 0, ee = 0, ex = 0, xx = 0;
  std::int64_t candidates = 0;
  for (std::size_t n = 0; n < ratios.size(); ++n) {
    const double ratio = ratios.data()[n], error = judged.values->data()[n] - judged.reference->data()[n];
    if (!(ratio <= 1)) look.passes = false;
    if (judged.reference->data()[n] == 0) continue;
    ++candidates;
    if (error != 0) ++look.wrong;
    largest = std::max(largest, ratio);
    sum += error * judged.reference->data()[n] < 0 ? -1 : 1;  // towards zero or away from it
    if (const double b = judged.bound->data()[n]; b > 0) {
      const double e = error / b, x = judged.reference->data()[n] / b;
      ee += e * e, ex += e * x, xx += x * x;
    }
  }
  look.elements = candidates;
  if (!look.passes || candidates < kSample) return look;
  const auto count = static_cast<double>(candidates);
  const std::vector<std::string> hidden = hidden_wrong_answers(*judged.reference, *judged.bound, has_time_axis);
  const bool looks_truncated = -ex >= kLeastTruncated * truncated * xx && -ex <= kMostTruncated * truncated * xx &&
                               ex * ex <= kMostShared * kMostShared * ee * xx;
  look.looks_rounded = static_cast<double>(look.wrong) >= kNearlyAll * count &&
                       (std::abs(sum) <= kLargestMean * count || (truncated > 0 && looks_truncated));
  look.tells = look.looks_rounded && largest >= kLeastRatio && hidden.empty();
  return look;
}

}  // namespace

std::optional<Declaration> find_declaration(const Case& c, const ReferenceData& reference,
                                            const std::vector<Item>& items, int threads) {
  const Precision declared = precision_of(c);
  // A few elements that fail say nothing of how all are computed.
  const TensorMap now = error_bounds(c, reference, declared, threads);
  if (std::none_of(items.begin(), items.end(), [&](const Item& item) {
        return item.error_ratio && item.status == Status::FAIL &&
               locate(judged_tensor(c, reference, now, item)).failing >= kFewestFailing;
      }))
    return {};
  for (const DType format : {DType::tfloat32, DType::float16, DType::bfloat16})
    for (const unsigned parts : kSets) {
      Precision precision = declared;
      if ((format == DType::tfloat32 && parts != kOperand) || !coarsen(precision, parts, format)) continue;
      const TensorMap bounds = error_bounds(c, reference, precision, threads);
      bool fits = true, tells = false;
      for (const Item& item : items) {
        if (!item.error_ratio) continue;
        const bool sequence = !item.tensor.ends_with("_last") && !item.tensor.ends_with("_initial");
        const Look look = look_at(judged_tensor(c, reference, bounds, item), sequence,
                                  format == DType::tfloat32 ? unit_roundoff(format) : 0);
        fits &= look.passes;
        // The rounding of a last gate is common to all of a state.
        if (item.status != Status::FAIL || !sequence || look.elements < kSample) continue;
        fits &= look.looks_rounded;
        tells |= look.tells;
      }
      if (!fits || !tells) continue;
      Declaration found{text_of(parts, format), {}, {}, {}, {}};
      if ((parts & kOperand) != 0) found.operand = format;
      if ((parts & kProduct) != 0) found.product = format;
      if ((parts & kGate) != 0) found.gate = format;
      if ((parts & kState) != 0) found.state = format;
      return found;
    }
  return {};
}

std::string tightest_declaration(const Case& c, const ReferenceData& reference, const std::vector<Item>& items,
                                 int threads) {
  const std::optional<Declaration> found = find_declaration(c, reference, items, threads);
  return found ? found->text : std::string();
}

}  // namespace mlstm::verify
