// SPDX-License-Identifier: Apache-2.0
// mlstm report: renders and merges reports.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

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

int render(const Options& options) {
  require_choice(options.format, "--format", {"table", "json", "html"});
  const verify::GroupBy by = parse_by(options.by);
  if (options.directories.empty())
    throw std::invalid_argument("DIR is missing; expected a directory with a report.json");
  std::vector<verify::Item> items;
  std::string text;
  if (options.format == "html") {
    text = verify::html_of_reports({options.directories.begin(), options.directories.end()}, items);
  } else {
    for (const std::string& directory : options.directories)
      for (verify::Item& item : verify::read_report(directory)) items.push_back(std::move(item));
    text = options.format == "json" ? verify::to_json(items) : verify::to_text(items, by);
  }
  if (options.out.empty())
    fmt::print("{}", text);
  else
    verify::replace_file(options.out, text);
  // What says only what `mlstm mutate` found has no verdicts.
  const auto has_verdicts = [](const std::string& path) {
    return !std::filesystem::is_directory(path) || std::filesystem::exists(std::filesystem::path(path) / "report.json");
  };
  if (std::none_of(options.directories.begin(), options.directories.end(), has_verdicts)) return kOk;
  return verify::exit_status(items);
}

int merge(const Options& options) {
  const verify::GroupBy by = parse_by(options.by);
  const auto [items, remarks] = verify::merge_reports({options.directories.begin(), options.directories.end()});
  verify::write_report(items, by, remarks, options.out);
  fmt::print("{}", verify::to_text(items, by, remarks));
  return verify::exit_status(items);
}

}  // namespace

void add_report(Command& app, int& status) {
  auto options = std::make_shared<Options>();
  Command* command = app.add_subcommand(
      "report", "Renders reports, or merges those of shards (report merge); the exit status is that of the verdicts");
  command->add_option("DIR", options->directories, "directories with a report.json, or such files");
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
