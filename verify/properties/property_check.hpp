// SPDX-License-Identifier: Apache-2.0
// What property checks share: running the variant, bounds for its results, and the worst deviation of each tensor.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "judge/bias.hpp"
#include "judge/bounds.hpp"
#include "properties/properties.hpp"

namespace mlstm::verify {

/// A tensor of a kernel's answer: an output, or the gradient of an input under one convention.
struct ResultName {
  std::string tensor;                    ///< "h", "c_last", ...; of a gradient the input: "q", ...
  std::optional<Convention> convention;  ///< absent: an output
  auto operator<=>(const ResultName&) const = default;
};

/// A case, what a kernel made of it, the truth, and how far the two may be apart.
struct Solved {
  Case c;  ///< with /kernel
  ReferenceData reference;
  TensorMap bounds;  ///< error_bounds

  const Array& value(const ResultName& name) const;
  const Array& truth(const ResultName& name) const;
  const Array& bound(const ResultName& name) const;
};

/// Index of a comparison that is none of an element.
inline constexpr std::size_t kNoIndex = std::numeric_limits<std::size_t>::max();

/// The worst of one tensor over everything that a check compares.
struct Finding {
  double ratio = 0, max_abs_error = 0;
  std::size_t worst = 0;   ///< flat index
  std::string note;        ///< where it was found, and the numbers
  bool telling = false;    ///< a zero would have been noticed
  bool only_zeros = true;  ///< all that was expected
  bool compared = false;
  std::optional<Bias> bias;  ///< the largest, over what is allowed, of whole answers
  std::string bias_note;     ///< where that is, if it is too large
  Nondeterminism differing;  ///< where the same bits are required, and others accepted
};

class PropertyCheck;

/// How far results of one case may be apart where the same bits are required: not at all or, if non-determinism is
/// accepted, by twice the bound of each element.
class Leeway {
 public:
  Leeway(const PropertyCheck& check, Case c, std::optional<Convention> convention)
      : check_(check), c_(std::move(c)), convention_(convention) {}
  double of(const ResultName& name, std::size_t index);

 private:
  const PropertyCheck& check_;
  Case c_;
  std::optional<Convention> convention_;
  std::optional<Solved> solved_;  ///< when it is needed
};

/// One check in progress.
class PropertyCheck {
 public:
  PropertyCheck(const Kernel& kernel, const ProblemSpec& spec, const PropertyOptions& options);

  const Kernel& kernel() const { return kernel_; }
  const ProblemSpec& spec() const { return spec_; }
  int threads() const { return options_.threads; }
  bool accepts_nondeterminism() const { return options_.accept_nondeterminism; }
  const Problem& problem() const { return spec_.problem; }
  /// Conventions to check gradients under; none if the problem has no cotangents or the variant no backward pass.
  const std::vector<Convention>& conventions() const { return conventions_; }
  /// The same, and an absent one if there are none: what to run so that everything is seen at least once.
  std::vector<std::optional<Convention>> passes() const;

  /// The variant's answer.
  KernelData run(const Case& c, std::optional<Convention> convention, int repeats = 0) const;
  /// The same with arguments that are null, or in company.
  KernelData run(const Case& c, std::optional<Convention> convention, RunOptions how) const;
  /// The reference of a case, with gradients if it has cotangents.
  ReferenceData reference(const Case& c) const;
  /// The variant's answer, with its reference and bounds.
  Solved solve(Case c, std::optional<Convention> convention) const;

  /// Outputs that the answer holds, then its gradients.
  std::vector<ResultName> results_of(const KernelData& data) const;

  /// `got` has to be within `allowed` of `expected`; allowed = 0 means equal numbers (+0 = -0). The element is `index`
  /// of the tensor. `where` says which comparison it is, in words.
  void compare(const ResultName& name, std::size_t index, double got, double expected, double allowed,
               std::string_view where);
  /// Every element of two tensors, with one tolerance each or (null) the same numbers.
  void compare(const ResultName& name, const Array& got, const Array& expected, const Array* allowed,
               std::string_view where);
  /// `got` has to be the number `expected`, or within the leeway if non-determinism is accepted.
  void compare_bits(const ResultName& name, std::size_t index, double got, double expected, Leeway& leeway,
                    std::string_view where);
  /// Every element of two tensors.
  void compare_bits(const ResultName& name, const Array& got, const Array& expected, Leeway& leeway,
                    std::string_view where);
  /// All that both answers hold. They are to `c` under `convention`, and have to be the same numbers; an honest kernel
  /// may go another way where it is asked for less, though, and then each has to be within its bound of the truth: so
  /// the two are compared within twice that bound, and the note says that the bits differ.
  void compare_answers(const KernelData& got, const KernelData& expected, const Case& c,
                       std::optional<Convention> convention, std::string_view where);
  /// The bias of an answer against its reference, as `judge` looks for it. It has no meaning between two runs, which
  /// may have it in common.
  void judge_bias(const Solved& solved, std::string_view where);
  /// Adds to the note of a tensor, once.
  void remark(const ResultName& name, const std::string& text);
  /// A wrong answer could not be seen in this tensor, for a reason that the variant declares: it is SKIPPED, unless it
  /// fails or another comparison was telling.
  void cannot_see(const ResultName& name, const std::string& reason);
  /// What is compared comes from this case and not from the problem as it is: a gradient that is zero in it is zero by
  /// definition.
  void compares(const Case& c) { base_ = c; }

  /// Verdicts, in contract order.
  std::vector<Item> items(std::string_view property) const;

 private:
  bool zero_by_definition(const ResultName& name) const;

  const Kernel& kernel_;
  const ProblemSpec& spec_;
  const PropertyOptions& options_;
  std::vector<Convention> conventions_;
  std::map<ResultName, Finding> findings_;
  std::map<ResultName, std::string> remarks_, blind_;
  std::optional<Case> base_;
  mutable std::optional<ReferenceData> truth_;  ///< of base_, else of the problem; evaluated when needed
};

/// The case of `spec` with another seed: other numbers of the same kind.
Case other_numbers(const ProblemSpec& spec);

/// Elements per head and per time step of a tensor of this problem.
std::size_t elements_per_head(std::string_view tensor, const Problem& problem);
std::size_t elements_per_step(std::string_view tensor, const Problem& problem);

/// True for q, k, v, i, f and h.
bool has_time_axis(std::string_view tensor);

/// A property with its problems and its check.
struct Property {
  PropertyInfo info;
  std::vector<std::string_view> problems;  ///< as parse_spec takes them, without dtype
  std::vector<DType> dtypes;
  std::string (*refusal)(const Kernel&, const ProblemSpec&);  ///< beside what `unsupported` says
  void (*check)(PropertyCheck&);
};

const std::vector<Property>& all_properties();

// The checks; formulas and reasons are in the files that define them.
std::string split_state_refusal(const Kernel&, const ProblemSpec&);
void check_split_state(PropertyCheck&);
std::string packed_refusal(const Kernel&, const ProblemSpec&);
void check_packed(PropertyCheck&);
std::string many_heads_refusal(const Kernel&, const ProblemSpec&);
void check_many_heads(PropertyCheck&);
std::string stabilizer_shift_refusal(const Kernel&, const ProblemSpec&);
void check_stabilizer_shift(PropertyCheck&);
std::string causality_refusal(const Kernel&, const ProblemSpec&);
void check_causality(PropertyCheck&);
std::string several_heads_refusal(const Kernel&, const ProblemSpec&);
void check_permutation(PropertyCheck&);
void check_neighbours(PropertyCheck&);
std::string determinism_refusal(const Kernel&, const ProblemSpec&);
void check_determinism(PropertyCheck&);
std::string chunk_size_refusal(const Kernel&, const ProblemSpec&);
void check_chunk_size(PropertyCheck&);
std::string linearity_refusal(const Kernel&, const ProblemSpec&);
void check_linearity(PropertyCheck&);
std::string dot_product_refusal(const Kernel&, const ProblemSpec&);
void check_dot_product(PropertyCheck&);
std::string null_arguments_refusal(const Kernel&, const ProblemSpec&);
void check_null_arguments(PropertyCheck&);
void check_interleaving(PropertyCheck&);
void check_concurrency(PropertyCheck&);

/// "it does not support the problem: <reason>" if the variant refuses it, else empty.
std::string unsupported_reason(const Kernel&, const ProblemSpec&);

}  // namespace mlstm::verify
