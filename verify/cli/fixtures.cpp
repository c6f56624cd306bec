// SPDX-License-Identifier: Apache-2.0
// mlstm fixtures: problems with a golden reference; generated, recomputed, described.
#include <fmt/format.h>

#include "cases/case_file.hpp"
#include "cli/cli.hpp"
#include "studies/fixtures/fixtures.hpp"

namespace mlstm::cli {
namespace {

struct GenerateOptions {
  ProblemOptions problems;
  ThreadsOption threads;
  std::string out;
  bool no_bounds = false, manifest = false;
};

struct PathOptions {
  std::vector<std::string> paths;
  ThreadsOption threads;
  std::vector<std::filesystem::path> as_paths() const { return {paths.begin(), paths.end()}; }
};

int generate(const GenerateOptions& options) {
  const std::vector<verify::ProblemSpec> specs = options.problems.specs();
  verify::FixtureOptions how;
  how.bounds = !options.no_bounds;
  how.manifest = options.manifest;
  how.threads = options.threads.value();
  std::vector<std::filesystem::path> written;
  {
    Progress progress("files", static_cast<std::int64_t>(specs.size()), false);
    how.progress = [&](const std::filesystem::path&) { progress.advance(0); };
    written = verify::generate_fixtures(specs, options.out, how);
  }
  fmt::print("{} files written to {}\n", written.size(), options.out);
  return written.empty() ? kNothingJudged : kOk;
}

int check(const PathOptions& options) {
  verify::FixtureOptions how;
  how.threads = options.threads.value();
  verify::FixtureCheck result;
  {
    Progress progress("files", static_cast<std::int64_t>(verify::find_case_files(options.as_paths()).size()), false);
    how.progress = [&](const std::filesystem::path&) { progress.advance(0); };
    result = verify::check_fixtures(options.as_paths(), how);
  }
  for (const verify::Drift& drift : result.drifts) fmt::print("DRIFT  {}\n", verify::to_string(drift));
  for (const std::string& error : result.errors) print_error(error);
  fmt::print("{} tensors of {} files compared: {} drifted, {} files could not be checked\n", result.tensors,
             result.files, result.drifts.size(), result.errors.size());
  return !result.errors.empty()   ? kBadArguments
         : !result.drifts.empty() ? kFailed
         : result.tensors == 0    ? kNothingJudged
                                  : kOk;
}

int info(const PathOptions& options) {
  int status = kOk;
  for (const std::filesystem::path& path : verify::find_case_files(options.as_paths())) {
    try {
      fmt::print("{}\n", verify::describe_case(path));
    } catch (const verify::FileError& error) {
      print_error(error.what());
      status = kBadArguments;
    }
  }
  return status;
}

}  // namespace

void add_fixtures(Command& app, int& status) {
  Command* command = app.add_subcommand("fixtures", "Problems with a golden reference: generate, check, info");
  command->require_subcommand(0, 1);
  command->callback([command] {
    if (!command->subcommand_was_given())
      throw std::invalid_argument("COMMAND of fixtures is missing; expected generate, check or info");
  });

  auto generating = std::make_shared<GenerateOptions>();
  Command* generate_command = command->add_subcommand("generate",
                                                      "Writes problems with inputs, cotangents and reference. Fill in "
                                                      "/kernel with any HDF5 library, then judge what your "
                                                      "kernel computed with: mlstm verify --captures DIR");
  generate_command->add_option("--out", generating->out, "directory to write to")->required();
  generating->problems.add_to(*generate_command);
  generate_command->add_flag("--no-bounds", generating->no_bounds, "leave out /reference/bounds");
  generate_command->add_flag("--manifest", generating->manifest,
                             "also write MANIFEST.sha256; not if you are going to change the files");
  generating->threads.add_to(*generate_command);
  generate_command->callback([generating, &status] { status = generate(*generating); });

  auto checking = std::make_shared<PathOptions>();
  Command* check_command =
      command->add_subcommand("check", "Recomputes files and names whatever is not what they hold");
  check_command->add_option("PATH", checking->paths, "files, or directories with such files")->required();
  checking->threads.add_to(*check_command);
  check_command->callback([checking, &status] { status = check(*checking); });

  auto describing = std::make_shared<PathOptions>();
  Command* info_command = command->add_subcommand("info", "Describes files: problem, tensors and their ranges, origin");
  info_command->add_option("PATH", describing->paths, "files, or directories with such files")->required();
  info_command->callback([describing, &status] { status = info(*describing); });
}

}  // namespace mlstm::cli
