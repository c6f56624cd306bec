// SPDX-License-Identifier: Apache-2.0
#include "cli/command.hpp"

#include <CLI/CLI.hpp>
#include <utility>

#include "cli/cli.hpp"

namespace mlstm::cli {

Option* Option::group(const std::string& name) {
  option_->group(name);
  return this;
}

Option* Option::description(const std::string& text) {
  option_->description(text);
  return this;
}

Option* Option::required() {
  option_->required();
  return this;
}

Option* Option::delimiter(char delimiter) {
  option_->delimiter(delimiter);
  return this;
}

Option* Option::expected(int at_least, int at_most) {
  option_->expected(at_least, at_most);
  return this;
}

Option* Option::repeated() {
  option_->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return this;
}

Option* Option::type_name(const std::string& name) {
  option_->type_name(name);
  return this;
}

Option* Option::default_str(const std::string& text) {
  option_->default_str(text);
  return this;
}

Option* Option::needs(const Option* other) {
  option_->needs(other->option_);
  return this;
}

Option* Option::excludes(const Option* other) {
  option_->excludes(other->option_);
  return this;
}

Option* Option::excludes(const std::string& name) {
  option_->excludes(name);
  return this;
}

std::size_t Option::count() const { return option_->count(); }

Command::Command(const std::string& description, const std::string& name, const std::string& version)
    : program_(std::make_shared<CLI::App>(description, name)), app_(program_.get()) {
  app_->set_version_flag("--version", version);
}

Option* Command::keep(CLI::Option* option) { return &options_.emplace_back(option); }

Command* Command::add_subcommand(const std::string& name, const std::string& description) {
  subcommands_.emplace_back(new Command(app_->add_subcommand(name, description)));
  return subcommands_.back().get();
}

Command* Command::group(const std::string& name) {
  app_->group(name);
  return this;
}

void Command::footer(const std::string& text) { app_->footer(text); }

void Command::require_subcommand(std::size_t at_least, std::size_t at_most) {
  app_->require_subcommand(at_least, at_most);
}

Option* Command::add_option(const std::string& name, std::string& value, const std::string& description) {
  return keep(app_->add_option(name, value, description));
}

Option* Command::add_option(const std::string& name, std::vector<std::string>& values, const std::string& description) {
  return keep(app_->add_option(name, values, description));
}

Option* Command::add_option(const std::string& name, std::uint64_t& value, const std::string& description) {
  return keep(app_->add_option(name, value, description));
}

Option* Command::add_flag(const std::string& name, bool& value, const std::string& description) {
  return keep(app_->add_flag(name, value, description));
}

Option* Command::get_option(const std::string& name) { return keep(app_->get_option(name)); }

void Command::callback(std::function<void()> function) { app_->callback(std::move(function)); }

void Command::parse_complete_callback(std::function<void()> function) {
  app_->parse_complete_callback(std::move(function));
}

std::optional<int> Command::parse(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app_->exit(success);
  } catch (const CLI::ParseError& error) {
    print_error(error.what());
    std::fputs("Run with --help for what is expected.\n", stderr);
    return kBadArguments;
  }
  return std::nullopt;
}

bool Command::parsed() const { return app_->parsed(); }

bool Command::subcommand_was_given() const { return !app_->get_subcommands().empty(); }

}  // namespace mlstm::cli
