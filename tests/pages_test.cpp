// SPDX-License-Identifier: Apache-2.0
// ctest-labels: end_to_end
// What pages show happens: their commands run, in a copy of the tree, and print what stands there.
//
//   ```python    a file, which its first line names: # build/a.py
//   ```bash      commands for all later ones of the page, such as a PATH
//   ```console   commands, "$ ..." each, with the output that follows them. A line "…" stands for any lines. A command
//                that shows no output has to succeed. Numbers are compared to ten digits: the last ones of a float64
//                reference depend on the CPU
#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "program.hpp"

namespace {
using mlstm::test::Result, mlstm::test::Workplace;
namespace fs = std::filesystem;

const fs::path kRoot = MLSTM_SOURCE_DIR;
const std::string kOmitted = "\u2026";

constexpr std::size_t kLongestOutput = 4000;  // of a command in a message

using Lines = std::vector<std::string>;

struct Block {
  std::string kind;
  Lines lines;
};

struct Command {
  std::string text;
  Lines output;
};

Lines lines_of(const std::string& text) {
  std::istringstream stream(text);
  Lines lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string joined(const Lines& lines) {
  std::string text;
  for (const std::string& line : lines) text.append(line).append("\n");
  return text;
}

/// The fenced blocks of a page.
std::vector<Block> blocks_of(const std::string& page) {
  std::vector<Block> blocks;
  bool inside = false;
  for (const std::string& line : lines_of(page)) {
    if (line.starts_with("```")) {
      if (!inside) blocks.push_back({line.substr(3), {}});
      inside = !inside;
    } else if (inside) {
      blocks.back().lines.push_back(line);
    }
  }
  return blocks;
}

std::vector<Command> commands_of(const Block& block) {
  std::vector<Command> commands;
  for (const std::string& line : block.lines) {
    if (line.starts_with("$ "))
      commands.push_back({line.substr(2), {}});
    else if (!commands.empty())
      commands.back().output.push_back(line);
  }
  return commands;
}

/// The line with numbers of more than ten digits rounded to ten.
std::string rounded(const std::string& line) {
  static const std::regex number(R"(\d*\.\d+(e[-+]?\d+)?)");
  std::string result;
  auto end = line.cbegin();
  for (std::sregex_iterator match(line.begin(), line.end(), number), none; match != none; ++match) {
    result.append(end, (*match)[0].first);
    end = (*match)[0].second;
    char text[32];
    std::snprintf(text, sizeof text, "%.10g", std::strtod(match->str().c_str(), nullptr));
    result += match->length() > 11 ? text : match->str();
  }
  return result.append(end, line.cend());
}

/// True if `got` is what `shown` says, from these places on.
bool agrees(const Lines& shown, const Lines& got, std::size_t s = 0, std::size_t g = 0) {
  for (; s < shown.size(); ++s, ++g) {
    if (shown[s] == kOmitted) {
      for (; g <= got.size(); ++g)
        if (agrees(shown, got, s + 1, g)) return true;
      return false;
    }
    if (g == got.size() || rounded(shown[s]) != rounded(got[g])) return false;
  }
  return g == got.size();
}

/// A copy of what pages refer to, with the programs of this build.
void copy_tree(const fs::path& to) {
  for (const char* folder : {"reference", "kernels", "verify", "data", "notebooks"})
    fs::copy(kRoot / folder, to / folder, fs::copy_options::recursive);
  fs::create_directories(to / "build/release");
  fs::create_directory_symlink(fs::path(MLSTM_BINARY_DIR) / "bin", to / "build/release/bin");
}

/// Runs the page in `here`. What is not as shown; and how many commands there were.
Lines run_page(const std::string& page, const Workplace& here, std::size_t& commands) {
  Lines wrong;
  std::string before;
  for (const Block& block : blocks_of(page)) {
    if (block.kind == "python") {
      const std::string first = block.lines.empty() ? "" : block.lines.front();
      if (first.starts_with("# ") && first.find(' ', 2) == std::string::npos)
        here.write(first.substr(2), joined(block.lines));
      else
        wrong.push_back("a block of Python does not name its file in a comment at its beginning: " + first);
    } else if (block.kind == "bash") {
      before += joined(block.lines);
    } else if (block.kind == "console") {
      for (const Command& command : commands_of(block)) {
        ++commands;
        here.write("command", before + command.text + "\n");
        const Result result = here.shell("bash ./command");
        const bool good = command.output.empty() ? result.status == 0 && result.out.empty()
                                                 : agrees(command.output, lines_of(result.out));
        if (!good)
          wrong.push_back("$ " + command.text + "\n" + result.out.substr(0, kLongestOutput) + result.err +
                          "(exit status " + std::to_string(result.status) + ")");
      }
    }
  }
  return wrong;
}

Lines run_page(const std::string& page, const Workplace& here) {
  std::size_t commands = 0;
  return run_page(page, here, commands);
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(commands_in_pages_print_what_the_pages_show, Workplace) {
  copy_tree(path);
  for (const auto& [page, at_least] : {std::pair("README.md", 15u), {"reference/CONTRACT.md", 3u}}) {
    std::size_t commands = 0;
    const std::string text = "```bash\nexport PATH=$PWD/build/release/bin:$PATH\n```\n" +
                             mlstm::verify::read_text_file((kRoot / page).string());
    for (const std::string& wrong : run_page(text, *this, commands)) BOOST_ERROR(page << ": " << wrong);
    BOOST_TEST(commands >= at_least, page << " has " << commands << " commands");
  }
}

BOOST_FIXTURE_TEST_CASE(pages_that_show_something_else_are_found, Workplace) {
  const auto wrong = [&](const std::string& console) {
    return run_page("```console\n" + console + "```\n", *this).size();
  };
  BOOST_TEST(wrong("$ printf 'a\\nb\\n'\na\nb\n") == 0u);
  BOOST_TEST(wrong("$ printf 'a\\nb\\n'\na\n") == 1u);
  BOOST_TEST(wrong("$ printf 'a\\nb\\n'\na\nc\n") == 1u);
  BOOST_TEST(wrong("$ printf 'a\\nb\\n'\na\nb\nc\n") == 1u);
  BOOST_TEST(wrong("$ seq 9\n1\n" + kOmitted + "\n8\n9\n") == 0u);
  BOOST_TEST(wrong("$ seq 9\n" + kOmitted + "\n4\n" + kOmitted + "\n") == 0u);
  BOOST_TEST(wrong("$ seq 9\n" + kOmitted + "\n8\n" + kOmitted + "\n4\n" + kOmitted + "\n") == 1u);
  BOOST_TEST(wrong("$ seq 2\n1\n2\n" + kOmitted + "\n") == 0u);
  BOOST_TEST(wrong("$ echo got -0.84612736882622034\ngot -0.84612736882622049\n") == 0u);
  BOOST_TEST(wrong("$ echo 0.846127, 12.5\n0.846128, 12.5\n") == 1u);
  BOOST_TEST(wrong("$ true\n$ echo a\n$ no_such_program\n") == 2u);
  BOOST_TEST(wrong("$ false\n") == 1u);
  BOOST_TEST(run_page("```bash\na=1\n```\n```console\n$ echo $a\n1\n```\n", *this).empty());
  BOOST_TEST(
      run_page("```python\n# a.py\nprint(1)\n```\n```console\n$ cat a.py\n# a.py\nprint(1)\n```\n", *this).empty());
  BOOST_TEST(run_page("```python\nprint(1)\n```\n", *this).size() == 1u);
  BOOST_TEST(run_page("```text\n$ false\n```\n", *this).empty());
}
