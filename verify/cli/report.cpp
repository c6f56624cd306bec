// SPDX-License-Identifier: Apache-2.0
// mlstm report: renders and merges reports.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <iterator>

#include "cases/case_file.hpp"
#include "cli/cli.hpp"
#include "report/report.hpp"
#include "report/report_html.hpp"
#include "sweep/sweep.hpp"

namespace mlstm::cli {
namespace {

struct Options {
  std::vector<std::string> directories;
  std::string format = "table", by = "variant", out;
};

verify::GroupBy parse_by(const std::string& text) {
  require_choice(text, "--by", {"variant", "case"});
  return text == "case" ? verify::GroupBy::item_case : verify::GroupBy::variant;
}

/// False for what says only what `mlstm mutate` found.
bool has_verdicts(const std::filesystem::path& directory) {
  return std::filesystem::exists(directory / "report.json") || std::filesystem::exists(directory / "journal.jsonl");
}

int render(const Options& options) {
  require_choice(options.format, "--format", {"table", "json", "html"});
  const verify::GroupBy by = parse_by(options.by);
  if (options.directories.empty())
    throw std::invalid_argument("DIR is missing; expected a directory with a report.json or a journal.jsonl");
  std::vector<verify::Item> items;
  std::vector<verify::MutationFile> mutations;
  std::vector<std::string> unfinished;
  bool any_verdicts = false;
  for (const std::string& directory : options.directories) {
    if (options.format == "html")
      if (auto file = verify::mutation_file_in(directory)) {
        mutations.push_back(std::move(*file));
        if (!has_verdicts(directory)) continue;
      }
    any_verdicts = true;
    verify::FoundReport found = verify::find_report(directory, options.format == "html");
    std::move(found.items.begin(), found.items.end(), std::back_inserter(items));
    if (!found.unfinished.empty()) unfinished.push_back(found.unfinished);
  }
  std::string remark = fmt::format("{}", fmt::join(unfinished, "; "));
  if (!remark.empty()) remark = "UNFINISHED: " + remark;
  std::string text;
  if (options.format == "html")
    text = verify::to_html(items, mutations, remark);
  else if (options.format == "json")
    text = verify::to_json(items);
  else
    text = verify::to_text(items, by, {}, options.out.empty() ? text_width() : verify::kTextWidth) +
           (remark.empty() ? "" : remark + "\n");
  if (options.out.empty())
    fmt::print("{}", text);
  else
    verify::replace_file(options.out, text);
  if (!unfinished.empty()) {
    print_error(remark);
    return kBadArguments;  // as for a file that cannot be read: the others are rendered
  }
  return any_verdicts ? verify::exit_status(items) : kOk;
}

int merge(const Options& options) {
  const verify::GroupBy by = parse_by(options.by);
  verify::require_report_directory(options.out);
  const auto [items, remarks] = verify::merge_reports({options.directories.begin(), options.directories.end()});
  verify::write_report(items, by, remarks, options.out);
  fmt::print("{}", verify::to_text(items, by, remarks, text_width()));
  return verify::exit_status(items);
}

}  // namespace

void add_report(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command = app.add_subcommand(
      "report",
      "Renders reports, or merges those of shards (report merge); the exit status is that of the verdicts, or 2 if a "
      "sweep is unfinished");
  command->add_option("DIR", options->directories,
                      "directories with a report.json, or such files; of an interrupted sweep what its journal has");
  command->add_option("--format", options->format,
                      "table (the default), json, or html: one file for a browser, with what "
                      "mutate.json in the same directories says");
  command->add_option("--out", options->out, "file to write instead of standard output");
  command->add_option("--by", options->by, "one block per variant (the default) or per case");

  auto merged = std::make_shared<Options>();
  Command* merge_command =
      command->add_subcommand("merge", "Writes one report for several; shards become the report of the whole sweep");
  merge_command->add_option("OUT", merged->out, "directory to write")->required();
  merge_command->add_option("DIR", merged->directories, "directories that verify --report wrote")->required();
  merge_command->add_option("--by", merged->by, "one block per variant (the default) or per case");
  merge_command->callback([merged, &status] { status = merge(*merged); });
  command->callback([options, merge_command, &status] {
    if (!merge_command->parsed()) status = render(*options);
  });
}

}  // namespace mlstm::cli
