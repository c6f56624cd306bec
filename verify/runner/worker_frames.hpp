// SPDX-License-Identifier: Apache-2.0
// What verifier and worker say to each other, in frames over a socket: a header, then `meta_size` bytes of fields (in
// the format of cases/codec.hpp), then `data_size` bytes of tensors. The verifier takes what comes from a worker for
// anything at all: a kernel may have written it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "cases/case.hpp"
#include "cases/codec.hpp"
#include "runner/plugin.hpp"
#include "runner/runner.hpp"

namespace mlstm::verify {

enum class FrameKind : std::uint32_t {
  // requests
  describe = 1,  ///< library -> declarations
  unavailable,   ///< library, key -> reason
  unsupported,   ///< library, key, problem -> reason
  run,           ///< library, key, case, ... -> device, tensors
  // replies
  done = 101,
  refused,    ///< std::invalid_argument: text
  failed,     ///< std::runtime_error, of a run: text
  error,      ///< any other exception: text
  no_memory,  ///< std::bad_alloc: text that says who ran out
  found,      ///< CheckFailure, of a run: text, check, buffer
};

struct FrameHeader {
  static constexpr std::uint64_t kMagic = 0x316b72776d74736dULL;
  std::uint64_t magic = kMagic;
  std::uint64_t token = 0;  ///< drawn by the verifier for each request; the reply repeats it
  FrameKind kind{};
  std::uint32_t meta_size = 0;
  std::uint64_t data_size = 0;
};
static_assert(sizeof(FrameHeader) == 32 && std::is_trivially_copyable_v<FrameHeader>);

/// No reply has more fields than this, whatever its header says.
constexpr std::uint32_t kLargestMeta = 8u << 20;

/// Fields that do not hold what they should.
using FrameError = CodecError;

/// Texts, the longest of which are cut.
std::string encode_text(std::string_view text);
std::string decode_text(std::string_view fields);

/// Where the tensors of a frame lie, or shall go, one after the other.
using Source = std::vector<std::span<const std::byte>>;
using Target = std::vector<std::span<std::byte>>;
std::uint64_t size_of(const Source&);
std::uint64_t size_of(const Target&);

/// A case as a request describes it. Its tensors are those of input_names, and the cotangents that are listed.
struct CaseOutline {
  Problem problem;
  std::vector<std::string> cotangents;
};
CaseOutline outline_of(const Case& c);

/// A request to run a kernel. Tensors of the other case, if there is one, follow those of the case.
struct RunRequest {
  std::string library, key;  ///< library: of a plugin; empty: a registered variant
  CaseOutline outline;
  std::optional<Convention> convention;
  RunOptions options;                ///< without RunOptions::other
  std::optional<CaseOutline> other;  ///< of RunOptions::other
};

std::string encode(const RunRequest&);
RunRequest decode_run(std::string_view fields);

/// The tensors of a case as a frame carries them: float64, inputs, then cotangents.
Source tensors_of(const Case& c);
/// A case with room for them.
Case make_room(const CaseOutline& outline);
Target room_in(Case& c);

/// Declarations of a plugin's variants. `decode_variants` validates: whatever it is given, what it returns makes sense.
struct Described {
  VariantInfo info;
  bool has_supports = false;
};
std::string encode(const std::vector<Described>& variants);
std::vector<Described> decode_variants(std::string_view fields);

/// What a run returns beside its tensors: what it ran on. Only attributes that describe a device are taken.
std::string encode_device(const Attributes& attributes);
Attributes decode_device(std::string_view fields);

/// What a run was found to do wrong beside its numbers.
std::string encode(const CheckFailure& failure);
CheckFailure decode_failure(std::string_view fields);

/// A result with room for exactly the tensors that such a run of this variant returns.
KernelData make_room(const VariantInfo& info, const Problem& problem, std::optional<Convention> convention,
                     const RunOptions& how);
Target room_in(KernelData& data);
Source tensors_of(const KernelData& data);

}  // namespace mlstm::verify
