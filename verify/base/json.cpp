// SPDX-License-Identifier: Apache-2.0
#include "base/json.hpp"

#include <fmt/format.h>

#include <limits>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mlstm::verify {
namespace {

constexpr std::size_t kDeepest = 32;

std::string shortened(std::string text, std::size_t length) {
  if (text.size() > length) text = to_utf8(text.substr(0, length)) + "...";
  return text;
}

/// Builds a document from the parser's events. Members are appended as they come: the library's own builder looks
/// through the whole object for each, and takes the last of two equal keys for the first.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Json root;
  std::string fault;

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return fail("bytes, which text cannot hold"); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    if (!level.keys.insert(name).second)
      return fail(fmt::format("\"{}\" stands twice in one object", shortened(name, 40)));
    level.key = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string text = error.what();  // "[json.exception.parse_error.101] parse error at ..."
    const std::size_t end = text.find("] ");
    return fail(to_utf8(end == std::string::npos ? text : text.substr(end + 2)));
  }

 private:
  struct Level {
    Json value;
    std::string key;  ///< of the member whose value comes next
    std::unordered_set<std::string> keys;
  };
  std::vector<Level> levels_;

  bool fail(std::string why) {
    fault = shortened(std::move(why), 300);
    return false;
  }
  bool open(Json value) {
    if (levels_.size() == kDeepest) return fail(fmt::format("more than {} levels", kDeepest));
    levels_.push_back({std::move(value), {}, {}});
    return true;
  }
  bool close() {
    Json value = std::move(levels_.back().value);
    levels_.pop_back();
    return add(std::move(value));
  }
  bool add(Json value) {
    if (levels_.empty()) {
      root = std::move(value);
      return true;
    }
    Level& level = levels_.back();
    if (level.value.is_array())
      level.value.push_back(std::move(value));
    else
      level.value.get_ref<Json::object_t&>().Container::emplace_back(std::move(level.key), std::move(value));
    return true;
  }
};

}  // namespace

Json parse_json(std::string_view text, const std::string& source) {
  Builder builder;
  if (!Json::sax_parse(text, &builder)) throw FileError(source + ": not JSON (" + builder.fault + ")");
  return std::move(builder.root);
}

std::string serialize(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

void refuse_member(std::string_view key, const Json& value, std::string_view expected) {
  throw std::invalid_argument(fmt::format("\"{}\" is {}; expected {}", key, shortened(serialize(value), 40), expected));
}

const Json* find_member(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

const Json& member_of(const Json& object, std::string_view key) {
  const Json* value = find_member(object, key);
  if (value == nullptr) throw std::invalid_argument(fmt::format("has no \"{}\"", key));
  return *value;
}

const std::string& text_of(const Json& object, std::string_view key) {
  const Json& value = member_of(object, key);
  if (!value.is_string()) refuse_member(key, value, "text");
  return value.get_ref<const std::string&>();
}

const Json& array_of(const Json& object, std::string_view key) {
  const Json& value = member_of(object, key);
  if (!value.is_array()) refuse_member(key, value, "an array");
  return value;
}

const Json& object_of(const Json& object, std::string_view key) {
  const Json& value = member_of(object, key);
  if (!value.is_object()) refuse_member(key, value, "an object");
  return value;
}

std::int64_t integer_of(const Json& object, std::string_view key) {
  const Json& value = member_of(object, key);
  const std::optional<std::int64_t> integer = as_integer(value);
  if (!integer) refuse_member(key, value, "an integer");
  return *integer;
}

std::int64_t count_of(const Json& object, std::string_view key) {
  const Json& value = member_of(object, key);
  const std::optional<std::int64_t> integer = as_integer(value);
  if (!integer || *integer < 0) refuse_member(key, value, "an integer >= 0");
  return *integer;
}

std::vector<std::int64_t> integers_of(const Json& object, std::string_view key) {
  std::vector<std::int64_t> integers;
  for (const Json& value : array_of(object, key)) {
    const std::optional<std::int64_t> integer = as_integer(value);
    if (!integer) refuse_member(key, value, "integers");
    integers.push_back(*integer);
  }
  return integers;
}

std::vector<std::string> texts_of(const Json& object, std::string_view key) {
  std::vector<std::string> texts;
  for (const Json& value : array_of(object, key)) {
    if (!value.is_string()) refuse_member(key, value, "texts");
    texts.push_back(value.get<std::string>());
  }
  return texts;
}

std::optional<std::int64_t> as_integer(const Json& value) {
  if (!value.is_number_integer()) return {};
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return {};
  return value.get<std::int64_t>();
}

}  // namespace mlstm::verify
