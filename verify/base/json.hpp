// SPDX-License-Identifier: Apache-2.0
// JSON, in and out. What is read is not trusted: whatever it holds, the functions here throw std::invalid_argument or
// FileError, which is what their callers expect.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"

namespace mlstm::verify {

/// Objects keep the order of their keys.
using Json = nlohmann::ordered_json;

/// Parses one document. Throws FileError that names `source` and what is wrong: no JSON or no UTF-8, a key twice in one
/// object, a number that float64 cannot hold, or more than 32 levels (which recursion over it could not bear).
Json parse_json(std::string_view text, const std::string& source);

/// One line without spaces. A number has as many digits as it takes to read the same float64. Bytes that are no UTF-8
/// become U+FFFD.
std::string serialize(const Json& value);

inline Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

/// Throws std::invalid_argument: "key" is value; expected what.
[[noreturn]] void refuse_member(std::string_view key, const Json& value, std::string_view expected);

/// The member, or null if `object` has none, or is no object.
const Json* find_member(const Json& object, std::string_view key);

/// The members of these kinds; each throws std::invalid_argument that names the key if there is none, or another one.
const Json& member_of(const Json& object, std::string_view key);
const std::string& text_of(const Json& object, std::string_view key);
const Json& array_of(const Json& object, std::string_view key);
const Json& object_of(const Json& object, std::string_view key);
std::int64_t integer_of(const Json& object, std::string_view key);
std::int64_t count_of(const Json& object, std::string_view key);  ///< an integer >= 0
std::vector<std::int64_t> integers_of(const Json& object, std::string_view key);
std::vector<std::string> texts_of(const Json& object, std::string_view key);

/// The value if it is an integer that std::int64_t holds.
std::optional<std::int64_t> as_integer(const Json& value);

}  // namespace mlstm::verify
