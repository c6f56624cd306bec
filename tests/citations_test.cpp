// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// What texts point to is there: sections of the contract, pages, headings, and the files that pages name.
#include <algorithm>
#include <array>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = MLSTM_SOURCE_DIR;
const std::string kContract = "reference/CONTRACT.md", kSection = "\u00a7";
const std::array<const char*, 6> kFolders{"reference", "kernels", "verify", "data", "notebooks", "tests"};

/// The repository as the checks see it; paths are relative to its root.
struct Tree {
  std::function<bool(const std::string&)> exists;
  std::function<std::string(const std::string&)> read;
};

std::string read_file(const fs::path& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// Lines of a page; those of fenced and indented code are empty.
std::vector<std::string> prose_of(const std::string& page) {
  std::vector<std::string> lines = lines_of(page);
  bool fenced = false;
  for (std::string& line : lines) {
    const bool fence = line.starts_with("```");
    if (fence) fenced = !fenced;
    if (fence || fenced || line.starts_with("    ")) line.clear();
  }
  return lines;
}

/// The anchor that GitHub gives to a heading: lower case, no punctuation, hyphens for blanks.
std::string anchor_of(std::string_view heading) {
  std::string anchor;
  for (const char c : heading) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == ' ')
      anchor += '-';
    else if (byte >= 0x80 || std::isalnum(byte) != 0 || c == '-' || c == '_')
      anchor += static_cast<char>(byte < 0x80 ? std::tolower(byte) : byte);
  }
  return anchor;
}

std::set<std::string> anchors_of(const std::string& page) {
  std::set<std::string> anchors;
  std::map<std::string, int> seen;
  for (const std::string& line : prose_of(page)) {
    const std::size_t level = std::min(line.find_first_not_of('#'), line.size());
    if (level == 0 || level > 6 || line[level] != ' ') continue;
    std::string anchor = anchor_of(std::string_view(line).substr(level + 1));
    if (const int count = seen[anchor]++; count > 0) anchor.append("-").append(std::to_string(count));
    anchors.insert(anchor);
  }
  return anchors;
}

/// Numbers of the sections of the contract: "## 3. Title".
std::set<std::string> sections_of(const std::string& contract) {
  static const std::regex heading(R"(^## (\d+)\. .*)");
  std::set<std::string> sections;
  for (const std::string& line : prose_of(contract))
    if (std::smatch match; std::regex_match(line, match, heading)) sections.insert(match[1]);
  return sections;
}

/// What is wrong with the citations of one line of the file `path`: sections of the contract, and pages by their path.
/// Tests name pages that they make up.
std::vector<std::string> bad_citations(const std::string& path, const std::string& line, const Tree& tree) {
  std::vector<std::string> found;
  for (std::size_t at = line.find(kSection); at != std::string::npos; at = line.find(kSection, at + 1)) {
    const std::size_t begin = at + kSection.size();
    const std::string number = line.substr(begin, line.find_first_not_of("0123456789", begin) - begin);
    if (number.empty()) continue;
    if (!sections_of(tree.read(kContract)).contains(number))
      found.push_back(kSection + number + " is no section of " + kContract);
  }
  static const std::regex page(R"(\b(reference|kernels|verify|data|notebooks|tests)/[A-Za-z0-9_/.-]*\.md\b)");
  if (path.starts_with("tests/")) return found;
  for (std::sregex_iterator match(line.begin(), line.end(), page), end; match != end; ++match)
    if (!tree.exists(match->str())) found.push_back(match->str() + " does not exist");
  return found;
}

/// What is wrong with a link from the page `path`; empty if nothing is.
std::string bad_link(const std::string& path, const std::string& target, const Tree& tree) {
  if (target.find("://") != std::string::npos || target.starts_with("mailto:")) return {};
  const std::size_t hash = std::min(target.find('#'), target.size());
  const std::string file =
      hash == 0 ? path : (fs::path(path).parent_path() / target.substr(0, hash)).lexically_normal().generic_string();
  if (file.starts_with("..") || !tree.exists(file)) return "the link to " + target + " leads nowhere";
  if (hash == target.size()) return {};
  if (!file.ends_with(".md") || !anchors_of(tree.read(file)).contains(target.substr(hash + 1)))
    return "the link to " + target + " names no heading of " + file;
  return {};
}

/// True for words in code that name a source file by its path, as in `judge/judge.hpp`.
bool names_a_source(const std::string& code) {
  static const std::regex source(R"([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+\.(hpp|cpp|h|c|cu|cuh|py|js|sh|md|cmake))");
  return std::regex_match(code, source) && !code.starts_with("build/");
}

/// True if a page in the folder of `path` may call an existing file `name`: from the root, from the folder, or as it is
/// included.
bool is_a_source(const std::string& path, const std::string& name, const Tree& tree) {
  const std::string folder = fs::path(path).parent_path().generic_string();
  for (const std::string& base : {std::string(), folder, std::string("reference/include"), std::string("verify"),
                                  std::string("verify/include"), std::string("kernels")})
    if (tree.exists((fs::path(base) / name).generic_string())) return true;
  return false;
}

/// The complaints about one file, given its path from the root and its text.
std::vector<std::string> complaints(const std::string& path, const std::string& text, const Tree& tree) {
  static const std::regex link(R"(\]\(([^)\s]+)\))"), definition(R"(^\[[^\]]+\]:\s*(\S+))"), code("`([^`]+)`");
  std::vector<std::string> found;
  const auto complain = [&](std::size_t line, const std::string& what) {
    if (!what.empty()) found.push_back(path + ":" + std::to_string(line + 1) + ": " + what);
  };
  const std::vector<std::string> lines = lines_of(text);
  for (std::size_t n = 0; n < lines.size(); ++n)
    for (const std::string& what : bad_citations(path, lines[n], tree)) complain(n, what);
  if (!path.ends_with(".md")) return found;
  const std::vector<std::string> prose = prose_of(text);
  for (std::size_t n = 0; n < prose.size(); ++n) {
    const std::sregex_iterator end;
    for (std::sregex_iterator match(prose[n].begin(), prose[n].end(), code); match != end; ++match)
      if (const std::string name = (*match)[1]; names_a_source(name) && !is_a_source(path, name, tree))
        complain(n, name + " does not exist");
    const std::string without_code = std::regex_replace(prose[n], code, "`");
    for (const std::regex& kind : {link, definition})
      for (std::sregex_iterator match(without_code.begin(), without_code.end(), kind); match != end; ++match)
        complain(n, bad_link(path, (*match)[1], tree));
  }
  return found;
}

bool is_text(const fs::path& path) {
  static const std::set<std::string> extensions{".md", ".cpp", ".hpp", ".h",     ".c",    ".cu",  ".cuh",
                                                ".py", ".sh",  ".js",  ".cmake", ".html", ".css", ".ipynb"};
  const std::string name = path.filename().string();
  return extensions.contains(path.extension().string()) || name == "CMakeLists.txt" || name == "run";
}

std::vector<fs::path> texts() {
  std::vector<fs::path> paths;
  for (const char* folder : kFolders)
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder))
      if (entry.is_regular_file() && is_text(entry.path())) paths.push_back(entry.path());
  for (const auto& entry : fs::directory_iterator(kRoot))
    if (entry.is_regular_file() && is_text(entry.path())) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// The files on disk, each read once.
Tree repository() {
  static std::map<std::string, std::string> known;
  return {[](const std::string& path) { return fs::exists(kRoot / path); },
          [](const std::string& path) {
            const auto [place, is_new] = known.try_emplace(path);
            if (is_new) place->second = read_file(kRoot / path);
            return place->second;
          }};
}

/// Two pages and a source to point to.
Tree sample() {
  static const std::map<std::string, std::string> files{
      {kContract, "# Contract\n## 1. Notation\n```\n## 7. No heading\n```\n## 2. The function\n## Files: one, two\n"},
      {"README.md", "# Sample\n"},
      {"verify/judge/judge.hpp", ""}};
  return {[](const std::string& path) { return files.contains(path); },
          [](const std::string& path) { return files.at(path); }};
}

std::size_t count(const std::string& path, const std::string& text) { return complaints(path, text, sample()).size(); }

}  // namespace

BOOST_AUTO_TEST_CASE(whatever_a_text_points_to_is_there) {
  const auto paths = texts();
  BOOST_TEST(paths.size() > 200u);
  const Tree tree = repository();
  std::size_t citations = 0;
  for (const fs::path& path : paths) {
    const std::string text = read_file(path);
    for (std::size_t at = text.find(kSection); at != std::string::npos; at = text.find(kSection, at + 1)) ++citations;
    for (const std::string& complaint : complaints(path.lexically_relative(kRoot).generic_string(), text, tree))
      BOOST_ERROR(complaint);
  }
  BOOST_TEST(citations > 30u);
}

BOOST_AUTO_TEST_CASE(the_contract_has_its_six_sections) {
  BOOST_TEST((sections_of(read_file(kRoot / kContract)) == std::set<std::string>{"1", "2", "3", "4", "5", "6"}));
}

BOOST_AUTO_TEST_CASE(citations_of_sections_that_are_missing_are_found) {
  BOOST_TEST(count("verify/a.cpp", "// (contract " + kSection + "1, " + kSection + "2)\n") == 0u);
  BOOST_TEST(count("verify/a.cpp", "// (contract " + kSection + "3)\n") == 1u);
  BOOST_TEST(count("verify/a.cpp", "// contract " + kSection + "2 and " + kSection + "12\n") == 1u);
  BOOST_TEST(count("README.md", "In code: `" + kSection + "7`\n") == 1u);
  BOOST_TEST(count("verify/a.cpp", "// contract " + kSection + "n\n") == 0u);
}

BOOST_AUTO_TEST_CASE(pages_that_are_missing_are_found) {
  const std::string folder = "reference/";
  BOOST_TEST(count("verify/a.cpp", "// see " + folder + "CONTRACT.md.\n") == 0u);
  BOOST_TEST(count("verify/a.cpp", "// see " + folder + "MISSING.md.\n") == 1u);
  BOOST_TEST(count("tests/a.cpp", "write(\"" + folder + "MISSING.md\");\n") == 0u);
}

BOOST_AUTO_TEST_CASE(links_that_lead_nowhere_are_found) {
  const auto bad = [](const std::string& path, const std::string& target) {
    return count(path, "A [link](" + target + ").\n");
  };
  for (const char* target :
       {"reference/CONTRACT.md", "reference/CONTRACT.md#2-the-function", "#sample", "verify/judge/judge.hpp",
        "reference/CONTRACT.md#files-one-two", "https://example.org/a.md", "mailto:a@example.org"})
    BOOST_TEST(bad("README.md", target) == 0u, target);
  BOOST_TEST(bad(kContract, "../README.md") == 0u);
  for (const char* target : {"CONTRACT.md", "reference/CONTRACT.md#the-function", "reference/CONTRACT.md#7-no-heading",
                             "#missing", "../README.md", "verify/judge/judge.hpp#L1"})
    BOOST_TEST(bad("README.md", target) == 1u, target);
  BOOST_TEST(count("README.md", "[a]: missing.cpp\n") == 1u);
  BOOST_TEST(count("README.md", "`[a](missing.cpp)`\n\n```\n[a](missing.cpp)\n```\n") == 0u);
}

BOOST_AUTO_TEST_CASE(sources_that_pages_name_and_that_are_missing_are_found) {
  BOOST_TEST(count("README.md", "`verify/judge/judge.hpp`, `judge/judge.hpp`\n") == 0u);
  BOOST_TEST(count("README.md", "`verify/src/judge.hpp`\n") == 1u);
  BOOST_TEST(count("README.md", "`judge/*.hpp` `build/a/b.hpp` `cc a/b.c -o c/d.h` `h/dq`\n") == 0u);
  BOOST_TEST(count("verify/a.cpp", "// `verify/src/judge.hpp`\n") == 0u);
}

BOOST_AUTO_TEST_CASE(headings_get_the_anchors_of_github) {
  BOOST_TEST((anchors_of("# A b\n## C: d, `e`\n```\n# f\n```\n## A b\n#g\n") ==
              std::set<std::string>{"a-b", "c-d-e", "a-b-1"}));
}
