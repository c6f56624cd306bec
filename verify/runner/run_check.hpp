// SPDX-License-Identifier: Apache-2.0
// What a run is checked for beside its numbers.
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mlstm::verify {

enum class RunCheck { red_zone, input_damage, not_written, poison, repeat };

/// Names as reports and the mutation matrix have them, in the order of the values.
inline constexpr std::array<std::string_view, 5> kRunChecks{"red zone", "input damage", "not written", "poison",
                                                            "repeat"};

inline std::string_view to_string(RunCheck check) { return kRunChecks.at(static_cast<std::size_t>(check)); }

/// A run that did not meet one of them: a write outside a buffer, a damaged input, a result that was not written, that
/// depends on memory that was not initialised, or that differs from run to run.
class CheckFailure : public std::runtime_error {
 public:
  /// `buffer` is the name of what was found damaged or different: "h", "dq", "workspace of forward", ...
  CheckFailure(RunCheck check, std::string_view buffer, const std::string& what)
      : std::runtime_error(what), check_(check), buffer_(buffer) {}
  RunCheck check() const { return check_; }
  const std::string& buffer() const { return buffer_; }

 private:
  RunCheck check_;
  std::string buffer_;
};

}  // namespace mlstm::verify
