// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <boost/json.hpp>
#include <cmath>
#include <cstdlib>

#include "mlstm/verify/case_file.hpp"
#include "mlstm/verify/report.hpp"
#include "mlstm/verify/sweep.hpp"

namespace mlstm::verify {
namespace json = boost::json;
namespace {

constexpr std::string_view kJournalName = "journal.jsonl";

struct Header {
  std::string plan, shard;
  std::int64_t units = 0, shard_units = 0;
  bool operator==(const Header&) const = default;
};

struct Contents {
  Header header;
  std::map<std::int64_t, std::vector<Record>> done;
  std::string text;  ///< the complete lines
};

/// Numbers as text: every bit survives, infinities too.
json::value exact_number(const std::optional<double>& value) {
  return value ? json::value(fmt::format("{}", *value)) : json::value(nullptr);
}

std::optional<double> exact_number_of(const json::value& value) {
  if (value.is_null()) return {};
  return std::strtod(value.as_string().c_str(), nullptr);
}

std::string string_of(const json::object& object, const char* key) {
  return std::string(std::string_view(object.at(key).as_string()));
}

json::object to_object(const Record& record) {
  const Item& item = record.item;
  return {{"variant", to_utf8(item.variant)},
          {"case", to_utf8(item.case_name)},
          {"tensor", item.tensor},
          {"convention", item.convention},
          {"status", to_string(item.status)},
          {"error_ratio", exact_number(item.error_ratio)},
          {"max_abs_error", exact_number(item.max_abs_error)},
          {"rel_frobenius", exact_number(item.rel_frobenius)},
          {"worst_index", json::array(item.worst_index.begin(), item.worst_index.end())},
          {"repro", to_utf8(item.repro)},
          {"note", to_utf8(item.note)},
          {"explanation", to_utf8(item.explanation)},
          {"hides", json::array(item.hides.begin(), item.hides.end())},
          {"dtype", record.dtype},
          {"regime", record.regime}};
}

Record record_of(const json::object& object, std::int64_t unit) {
  Record record;
  Item& item = record.item;
  item.variant = string_of(object, "variant");
  item.case_name = string_of(object, "case");
  item.tensor = string_of(object, "tensor");
  item.convention = string_of(object, "convention");
  item.status = parse_status(string_of(object, "status"));
  item.error_ratio = exact_number_of(object.at("error_ratio"));
  item.max_abs_error = exact_number_of(object.at("max_abs_error"));
  item.rel_frobenius = exact_number_of(object.at("rel_frobenius"));
  for (const json::value& coordinate : object.at("worst_index").as_array())
    item.worst_index.push_back(coordinate.as_int64());
  item.repro = string_of(object, "repro");
  item.note = string_of(object, "note");
  item.explanation = string_of(object, "explanation");
  for (const json::value& wrong : object.at("hides").as_array())
    item.hides.emplace_back(std::string_view(wrong.as_string()));
  record.dtype = string_of(object, "dtype");
  record.regime = string_of(object, "regime");
  record.unit = unit;
  return record;
}

std::string to_line(const Header& header) {
  return json::serialize(json::object{{"journal", 1},
                                      {"source", program_source()},
                                      {"plan", header.plan},
                                      {"units", header.units},
                                      {"shard", header.shard},
                                      {"shard_units", header.shard_units}}) +
         "\n";
}

Contents read_journal(const std::filesystem::path& path) {
  Contents contents;
  const std::string text = read_text_file(path);
  std::int64_t number = 0;
  // A line without its end is what a killed program left behind.
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++number;
    try {
      const json::value line = json::parse(std::string_view(text).substr(begin, end - begin));
      const json::object& object = line.as_object();
      if (number == 1) {
        if (object.at("journal").as_int64() != 1) throw std::runtime_error("expected journal 1");
        contents.header = {string_of(object, "plan"), string_of(object, "shard"), object.at("units").as_int64(),
                           object.at("shard_units").as_int64()};
      } else {
        const std::int64_t unit = object.at("unit").as_int64();
        auto& records = contents.done[unit];
        records.clear();
        for (const json::value& record : object.at("records").as_array())
          records.push_back(record_of(record.as_object(), unit));
      }
    } catch (const std::exception& error) {
      throw FileError(fmt::format("{}: line {} is damaged ({})", path.string(), number, error.what()));
    }
    contents.text = text.substr(0, end + 1);
  }
  return contents;
}

}  // namespace

Journal::Journal(const std::filesystem::path& directory, const Plan& plan, const std::vector<Unit>& units,
                 const std::string& shard, bool resume)
    : path_(directory / kJournalName) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw FileError(directory.string() + ": cannot create the directory (" + error.message() + ")");
  const Header header{plan.id, shard, static_cast<std::int64_t>(plan.units.size()),
                      static_cast<std::int64_t>(units.size())};
  std::string text = to_line(header);
  if (resume && std::filesystem::exists(path_)) {
    Contents contents = read_journal(path_);
    if (!contents.text.empty()) {
      if (contents.header != header)
        throw FileError(path_.string() +
                        ": belongs to another selection, shard or version; expected the same as now "
                        "(or leave out --resume to start anew)");
      text = std::move(contents.text);
      done_ = std::move(contents.done);
    }
  }
  // A report that was there describes an earlier sweep, no longer this directory.
  if (done_.empty())
    for (const char* name : {"report.json", "junit.xml", "summary.txt"})
      std::filesystem::remove(directory / name, error);
  write_text_file(path_, text);
  stream_.open(path_, std::ios::binary | std::ios::app);
  if (!stream_) throw FileError(path_.string() + ": cannot be written");
}

void Journal::append(const Unit& unit, const std::vector<Record>& records) {
  json::array array;
  for (const Record& record : records) array.push_back(to_object(record));
  stream_ << json::serialize(json::object{{"unit", unit.index}, {"records", std::move(array)}}) + "\n" << std::flush;
  if (!stream_) throw FileError(path_.string() + ": cannot be written");
  done_[unit.index] = records;
}

Verdicts merge_reports(const std::vector<std::filesystem::path>& directories) {
  struct Shards {
    std::int64_t units = 0, offset = 0;
    std::map<std::int64_t, std::filesystem::path> origin;  ///< of each unit
  };
  std::map<std::string, Shards> plans;
  std::int64_t next_offset = 0;
  std::vector<Record> records;
  std::vector<Item> final_items;
  for (const std::filesystem::path& directory : directories) {
    const std::filesystem::path path = directory / kJournalName;
    if (!std::filesystem::exists(path)) {
      const std::vector<Item> items = read_report(directory);
      final_items.insert(final_items.end(), items.begin(), items.end());
      continue;
    }
    const Contents contents = read_journal(path);
    const Header& header = contents.header;
    if (static_cast<std::int64_t>(contents.done.size()) != header.shard_units)
      throw FileError(fmt::format("{}: holds {} of {} problems; expected a finished sweep (go on with --resume)",
                                  path.string(), contents.done.size(), header.shard_units));
    const auto [plan, is_new] = plans.emplace(header.plan, Shards{header.units, next_offset, {}});
    if (is_new) next_offset += header.units;
    for (const auto& [unit, unit_records] : contents.done) {
      const auto [origin, unseen] = plan->second.origin.emplace(unit, path);
      if (!unseen)
        throw FileError(path.string() + ": repeats problems of " + origin->second.string() +
                        "; expected disjoint shards");
      for (Record record : unit_records) {
        record.unit += plan->second.offset;
        records.push_back(std::move(record));
      }
    }
  }
  for (const auto& [id, plan] : plans)
    if (static_cast<std::int64_t>(plan.origin.size()) != plan.units)
      throw FileError(fmt::format("{}: with its sister shards holds {} of {} problems; expected all shards",
                                  plan.origin.empty() ? "a shard" : plan.origin.begin()->second.string(),
                                  plan.origin.size(), plan.units));
  Verdicts verdicts = finish(std::move(records), GroupBy::variant);
  verdicts.items.insert(verdicts.items.end(), final_items.begin(), final_items.end());
  return verdicts;
}

}  // namespace mlstm::verify
