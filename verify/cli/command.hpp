// SPDX-License-Identifier: Apache-2.0
// The command line as subcommands see it. CLI11 is behind it: each file that includes that takes seconds longer to
// compile, so only command.cpp does. Members have the names and meanings of CLI11's.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mlstm::cli {

class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option* group(const std::string& name);
  Option* description(const std::string& text);
  Option* required();
  Option* delimiter(char delimiter);
  Option* expected(int at_least, int at_most);
  Option* repeated();  ///< one value each time, any number of times
  Option* type_name(const std::string& name);
  Option* default_str(const std::string& text);  ///< for the help alone
  Option* needs(const Option* other);
  Option* excludes(const Option* other);
  Option* excludes(const std::string& name);
  std::size_t count() const;

 private:
  CLI::Option* option_;
};

/// The program, or one of its subcommands. What its functions return lives as long as it does.
class Command {
 public:
  Command(const std::string& description, const std::string& name, const std::string& version);
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  Command* add_subcommand(const std::string& name, const std::string& description);
  Command* group(const std::string& name);
  void footer(const std::string& text);
  void require_subcommand(std::size_t at_least, std::size_t at_most);

  /// `value` has to live as long as the program runs; it keeps its value if the option is not given.
  Option* add_option(const std::string& name, std::string& value, const std::string& description);
  Option* add_option(const std::string& name, std::vector<std::string>& values, const std::string& description);
  Option* add_option(const std::string& name, std::uint64_t& value, const std::string& description);
  Option* add_flag(const std::string& name, bool& value, const std::string& description);
  /// One that was added before.
  Option* get_option(const std::string& name);

  /// Called once all is parsed, for each subcommand that was given.
  void callback(std::function<void()> function);
  /// The same, before any callback().
  void parse_complete_callback(std::function<void()> function);

  /// The program's arguments. Runs callbacks, whose exceptions leave. An exit status if nothing else is to be done:
  /// what was asked for (--help, --version) is printed, or what is wrong with the arguments.
  std::optional<int> parse(int argc, char** argv);
  bool parsed() const;                ///< this subcommand was given
  bool subcommand_was_given() const;  ///< one of this one's

 private:
  explicit Command(CLI::App* app) : app_(app) {}
  Option* keep(CLI::Option* option);

  std::shared_ptr<CLI::App> program_;  // null for subcommands, which their program owns
  CLI::App* app_;
  std::deque<std::unique_ptr<Command>> subcommands_;
  std::deque<Option> options_;
};

}  // namespace mlstm::cli
