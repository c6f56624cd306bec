// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <array>
#include <charconv>
#include <iterator>

#include "base/append_file.hpp"
#include "base/files.hpp"
#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "report/detail_json.hpp"
#include "report/item_json.hpp"
#include "report/report.hpp"
#include "sweep/sweep_journal.hpp"

namespace mlstm::verify {
namespace {

/// Of journals; the first had no keys of put_facts.
constexpr std::int64_t kVersion = 2;

constexpr const char* kJournalName = "journal.jsonl";
constexpr std::array kReportNames{"report.json", "details.json", "report.html", "junit.xml", "summary.txt"};

/// Numbers as text: every bit survives, infinities too.
Json exact_number(const std::optional<double>& value) {
  return value ? Json(fmt::format("{}", *value)) : Json(nullptr);
}

std::optional<double> exact_number_of(const Json& object, const char* key) {
  if (member_of(object, key).is_null()) return {};
  const std::string_view text = text_of(object, key);
  double number = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (wrong != std::errc{} || end != text.data() + text.size())
    throw std::runtime_error("expected numbers as text, or null");
  return number;
}

Json to_object(const Record& record) {
  const Item& item = record.item;
  Json object{{"variant", to_utf8(item.variant)},
              {"case", to_utf8(item.case_name)},
              {"tensor", item.tensor},
              {"convention", item.convention},
              {"status", to_string(item.status)},
              {"error_ratio", exact_number(item.error_ratio)},
              {"max_abs_error", exact_number(item.max_abs_error)},
              {"rel_frobenius", exact_number(item.rel_frobenius)},
              {"worst_index", item.worst_index},
              {"repro", to_utf8(item.repro)},
              {"note", to_utf8(item.note)},
              {"explanation", to_utf8(item.explanation)},
              {"dtype", record.dtype},
              {"detail", item.detail ? Json(to_object(*item.detail)) : Json(nullptr)}};
  put_facts(object, item);
  return object;
}

Record record_of(const Json& object, std::int64_t unit, std::int64_t version) {
  Record record;
  Item& item = record.item;
  item.variant = text_of(object, "variant");
  item.case_name = text_of(object, "case");
  item.tensor = text_of(object, "tensor");
  item.convention = text_of(object, "convention");
  item.status = parse_status(text_of(object, "status"));
  item.error_ratio = exact_number_of(object, "error_ratio");
  item.max_abs_error = exact_number_of(object, "max_abs_error");
  item.rel_frobenius = exact_number_of(object, "rel_frobenius");
  item.worst_index = integers_of(object, "worst_index");
  item.repro = text_of(object, "repro");
  item.note = text_of(object, "note");
  item.explanation = text_of(object, "explanation");
  get_facts(object, item);
  if (version < kVersion) infer_facts(item);
  if (const Json* detail = find_member(object, "detail"); detail != nullptr && !detail->is_null())
    item.detail = std::make_shared<Detail>(detail_of(object_of(object, "detail")));
  record.dtype = text_of(object, "dtype");
  record.unit = unit;
  return record;
}

}  // namespace

std::string to_line(const JournalHeader& header) {
  return serialize(Json{{"journal", kVersion},
                        {"source", program_source()},
                        {"plan", header.plan},
                        {"units", header.units},
                        {"shard", header.shard},
                        {"shard_units", header.shard_units}}) +
         "\n";
}

std::string to_line(std::int64_t unit, const std::vector<Record>& records) {
  Json list = Json::array();
  for (const Record& record : records) list.push_back(to_object(record));
  return serialize(Json{{"unit", unit}, {"records", std::move(list)}}) + "\n";
}

JournalContents parse_journal(std::string_view text, const std::string& source) {
  JournalContents contents;
  std::int64_t number = 0, version = 0;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string_view::npos; begin = end + 1) {
    ++number;
    try {
      const Json line = parse_json(text.substr(begin, end - begin), "the line");
      if (number == 1) {
        version = integer_of(line, "journal");
        if (version < 1 || version > kVersion)
          throw std::runtime_error(fmt::format("expected \"journal\" from 1 to {}", kVersion));
        contents.header = {text_of(line, "plan"), text_of(line, "shard"), integer_of(line, "units"),
                           integer_of(line, "shard_units")};
        const JournalHeader& header = contents.header;
        if (header.shard_units < 0 || header.units < header.shard_units)
          throw std::runtime_error("expected 0 <= shard_units <= units");
      } else {
        const std::int64_t unit = integer_of(line, "unit");
        if (unit < 0 || unit >= contents.header.units) throw std::runtime_error("expected a unit of the plan");
        std::vector<Record> records;
        for (const Json& record : array_of(line, "records")) records.push_back(record_of(record, unit, version));
        contents.done[unit] = std::move(records);
      }
    } catch (const std::exception& error) {
      throw FileError(fmt::format("{}: line {} is damaged ({})", source, number, error.what()));
    }
    contents.size = end + 1;
  }
  return contents;
}

Journal::Journal(const std::filesystem::path& directory, const Plan& plan, const std::vector<Unit>& units,
                 const std::string& shard, bool resume)
    : path_(directory / kJournalName) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw FileError(directory.string() + ": cannot create the directory (" + error.message() + ")");
  lock_ = std::make_unique<DirectoryLock>(directory);
  remove_temporaries(path_);
  for (const char* name : kReportNames) remove_temporaries(directory / name);
  const JournalHeader header{plan.id, shard, static_cast<std::int64_t>(plan.units.size()),
                             static_cast<std::int64_t>(units.size())};
  std::uint64_t size = 0;
  if (resume && std::filesystem::exists(path_)) {
    JournalContents contents = parse_journal(read_text_file(path_), path_.string());
    if (contents.size > 0 && contents.header != header)
      throw FileError(path_.string() +
                      ": belongs to another selection, shard, source or version; expected the same as now "
                      "(or leave out --resume to start anew)");
    size = contents.size;
    done_ = std::move(contents.done);
  }
  if (size == 0) {
    const std::string text = to_line(header);
    replace_file(path_, text);  // replaces an earlier journal in one step, or leaves it as it is
    size = text.size();
  }
  // A report that was there describes an earlier sweep, no longer this directory.
  if (done_.empty())
    for (const char* name : kReportNames)
      if (std::filesystem::remove(directory / name, error); error)
        throw FileError(fmt::format("{}: cannot be removed: {}", (directory / name).string(), error.message()));
  file_ = std::make_unique<AppendFile>(path_, size);
}

Journal::~Journal() = default;

void Journal::append(const Unit& unit, const std::vector<Record>& records) {
  file_->append(to_line(unit.index, records));
  done_[unit.index] = records;
}

void Journal::sync() { file_->sync(); }

FoundReport find_report(const std::filesystem::path& path, bool with_details) {
  const std::filesystem::path journal = path / kJournalName;
  if (std::filesystem::exists(path / "report.json") || !std::filesystem::exists(journal))
    return {with_details ? read_report_with_details(path) : read_report(path), {}};
  JournalContents contents = parse_journal(read_text_file(journal), journal.string());
  if (contents.size == 0) throw FileError(journal.string() + ": holds no complete line; expected a sweep's journal");
  FoundReport found;
  std::vector<Record> records;
  for (auto& [unit, done] : contents.done) std::move(done.begin(), done.end(), std::back_inserter(records));
  found.items = finish(std::move(records), GroupBy::variant, false).items;
  found.unfinished =
      fmt::format("{} of {} problems of {} are done; mlstm verify --resume with the same options goes on",
                  contents.done.size(), contents.header.shard_units, path.string());
  return found;
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
      const std::vector<Item> items = read_report_with_details(directory);
      final_items.insert(final_items.end(), items.begin(), items.end());
      continue;
    }
    const JournalContents contents = parse_journal(read_text_file(path), path.string());
    const JournalHeader& header = contents.header;
    if (contents.size == 0) throw FileError(path.string() + ": holds no complete line; expected a finished sweep");
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
