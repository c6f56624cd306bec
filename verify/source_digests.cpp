// SPDX-License-Identifier: Apache-2.0
// The SHA-256 of every variant's source, built and run at build time:
//
//   mlstm_source_digests <folder kernels/> <output>    writes a C++ file with a table variant -> digest
//   mlstm_source_digests --plain <file>                prints the plain form of one file
//
// A variant's source is all C++ and CUDA files of its folder, every file below kernels/ that these include with quotes,
// directly or not, and what implements each of those: the .cpp or .cu beside it that has its name, or its name, _ and
// more; for a header of another variant, all of that variant's folder. The digest is that of the text that sha256sum
// prints for the plain forms of these files in the order of their paths from kernels/.
//
// The plain form keeps what a compiler sees and drops what it does not: comments and white space. It is the file's
// tokens with one space between them; a preprocessor directive has a line of its own. Literals stay as they are, raw
// strings included. Two files have the same plain form just if they have the same tokens; in a #define, whether the
// name is followed by its parameters or by a parenthesis counts too.
#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

bool starts_word(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80) != 0; }
bool continues_word(char c) { return starts_word(c) || std::isdigit(static_cast<unsigned char>(c)); }
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v'; }

/// Punctuators of more than one character, CUDA's <<< and >>> included; longer ones first.
constexpr std::string_view kPunctuators[] = {"<<<", ">>>", "<<=", ">>=", "<=>", "->*", "...", "::", "->", ".*",
                                             "++",  "--",  "<<",  ">>",  "<=",  ">=",  "==",  "!=", "&&", "||",
                                             "+=",  "-=",  "*=",  "/=",  "%=",  "&=",  "|=",  "^=", "##"};

/// Reads the tokens of one file.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::string plain() {
    while (at_ < text_.size()) {
      if (skip_space()) continue;
      if (line_start_ && peek() == '#')
        directive();
      else
        append(token(), " ");
      line_start_ = false;
    }
    return out_ + "\n";
  }

 private:
  /// The character `ahead` of the next one, 0 at the end; spliced lines are one line.
  char peek(std::size_t ahead = 0) const {
    std::size_t at = unspliced(at_);
    for (; ahead > 0 && at < text_.size(); --ahead) at = unspliced(at + 1);
    return at < text_.size() ? text_[at] : '\0';
  }
  char take() {
    at_ = unspliced(at_);
    if (at_ >= text_.size()) throw std::runtime_error("it ends within a comment or a literal");
    return text_[at_++];
  }
  std::string take(std::size_t n) {
    std::string taken;
    while (n-- > 0) taken += take();
    return taken;
  }
  bool next_is(std::string_view what) const {
    for (std::size_t n = 0; n < what.size(); ++n)
      if (peek(n) != what[n]) return false;
    return true;
  }
  /// The first position from `at` on that is not a backslash before a line's end.
  std::size_t unspliced(std::size_t at) const {
    while (at + 1 < text_.size() && text_[at] == '\\') {
      if (text_[at + 1] == '\n')
        at += 2;
      else if (at + 2 < text_.size() && text_[at + 1] == '\r' && text_[at + 2] == '\n')
        at += 3;
      else
        break;
    }
    return at;
  }

  /// Skips one comment or character of white space. In a directive its line's end is not white space.
  bool skip_space() {
    if (unspliced(at_) >= text_.size()) {
      at_ = text_.size();
    } else if (next_is("//")) {
      while (unspliced(at_) < text_.size() && peek() != '\n') take();
    } else if (next_is("/*")) {
      take(2);
      while (!next_is("*/")) take();
      take(2);
    } else if (is_space(peek()) && !(in_directive_ && peek() == '\n')) {
      if (take() == '\n') line_start_ = true;
    } else {
      return false;
    }
    return true;
  }

  std::string token() {
    if (starts_word(peek())) {
      const std::string word = rest_of_word();
      if (peek() == '"' && !word.empty() && word.back() == 'R' && is_prefix(word.substr(0, word.size() - 1)))
        return word + raw_string();
      if ((peek() == '"' || peek() == '\'') && is_prefix(word)) return word + quoted();
      return word;
    }
    if (std::isdigit(static_cast<unsigned char>(peek())) ||
        (peek() == '.' && std::isdigit(static_cast<unsigned char>(peek(1)))))
      return number();
    if (peek() == '"' || peek() == '\'') return quoted();
    for (const std::string_view punctuator : kPunctuators)
      if (next_is(punctuator)) return take(punctuator.size());
    return take(1);
  }
  static bool is_prefix(std::string_view word) {
    return word.empty() || word == "u8" || word == "u" || word == "U" || word == "L";
  }
  /// A number of the preprocessor: 1'000, 0x1p-3, 1e+5f.
  std::string number() {
    std::string digits;
    while (true) {
      if (continues_word(peek()) || peek() == '.' || (peek() == '\'' && continues_word(peek(1))))
        digits += take();
      else if ((peek() == '+' || peek() == '-') && std::string_view("eEpP").find(digits.back()) != std::string::npos)
        digits += take();
      else
        return digits;
    }
  }
  /// A string or a character with what is written close to it, "..."sv; the quote alone if the line ends before the
  /// other one (as in #error don't).
  std::string quoted() {
    const std::size_t begin = at_;
    const char quote = take();
    std::string literal(1, quote);
    while (peek() != quote) {
      if (peek() == '\n' || unspliced(at_) >= text_.size()) {
        at_ = unspliced(begin) + 1;
        return {quote};
      }
      literal += take(peek() == '\\' ? 2 : 1);
    }
    literal += take();
    return literal + rest_of_word();
  }
  std::string rest_of_word() {
    std::string word;
    while (continues_word(peek())) word += take();
    return word;
  }
  /// "delimiter( ... )delimiter", byte by byte: lines are not spliced in it.
  std::string raw_string() {
    at_ = unspliced(at_);
    const std::size_t open = text_.find('(', at_);
    if (open == std::string_view::npos) throw std::runtime_error("a raw string has no (");
    std::string end(1, ')');
    end += text_.substr(at_ + 1, open - at_ - 1);
    end += '"';
    const std::size_t close = text_.find(end, open);
    if (close == std::string_view::npos) throw std::runtime_error("a raw string does not end");
    const std::string literal(text_.substr(at_, close + end.size() - at_));
    at_ = close + end.size();
    return literal + rest_of_word();
  }

  /// One line: # and its tokens. The name of a header is one token, and so is a macro's name with the parenthesis that
  /// makes it a function.
  void directive() {
    in_directive_ = true;
    std::vector<std::string> tokens{take(1)};
    while (at_ < text_.size() && peek() != '\n') {
      if (skip_space()) continue;
      if (tokens.size() == 2 && tokens[1] == "include" && peek() == '<') {
        std::string header;
        while (unspliced(at_) < text_.size() && peek() != '\n' && !header.ends_with('>')) header += take();
        tokens.push_back(header);
        continue;
      }
      tokens.push_back(token());
      if (tokens.size() == 3 && tokens[1] == "define" && peek() == '(') tokens.back() += take();
    }
    in_directive_ = false;
    for (std::size_t n = 0; n < tokens.size(); ++n) append(tokens[n], n == 0 ? "\n" : " ");
    out_ += '\n';
  }

  void append(const std::string& token, std::string_view separator) {
    if (!out_.empty() && out_.back() != '\n') out_ += separator;
    out_ += token;
  }

  std::string_view text_;
  std::string out_;
  std::size_t at_ = 0;
  bool line_start_ = true, in_directive_ = false;
};

std::string sha256_of(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) != 1)
    throw std::runtime_error("SHA-256 failed");
  std::string hex;
  for (unsigned n = 0; n < size; ++n) {
    hex += "0123456789abcdef"[digest[n] >> 4];
    hex += "0123456789abcdef"[digest[n] & 15];
  }
  return hex;
}

std::string plain_form(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw std::runtime_error("cannot read " + file.string());
  try {
    return Lexer(text).plain();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

bool is_source(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".cpp" || extension == ".hpp" || extension == ".h" || extension == ".cu" || extension == ".cuh";
}

/// The sources below kernels/. Files are named by their paths from there.
class Tree {
 public:
  explicit Tree(const fs::path& root) {
    for (const auto& entry : fs::recursive_directory_iterator(root))
      if (entry.is_regular_file() && is_source(entry.path()))
        plain_[entry.path().lexically_relative(root).generic_string()] = plain_form(entry.path());
  }

  /// <module>/<registry name> of all variants.
  std::set<std::string> variants() const {
    std::set<std::string> folders;
    for (const auto& [file, plain] : plain_)
      if (const std::string folder = variant_of(file); !folder.empty()) folders.insert(folder);
    return folders;
  }

  std::string digest_of(const std::string& variant) const {
    std::set<std::string> files;
    std::vector<std::string> open = files_of(variant);
    while (!open.empty()) {
      const std::string file = open.back();
      open.pop_back();
      if (!files.insert(file).second) continue;
      for (const std::string& included : includes_of(file)) {
        open.push_back(included);
        for (const std::string& more : implementations_of(included)) open.push_back(more);
      }
    }
    std::string sums;
    for (const std::string& file : files) sums += sha256_of(plain_.at(file)) + "  " + file + "\n";
    return sha256_of(sums);
  }

 private:
  /// The variant whose folder a file is in; empty for a building block.
  static std::string variant_of(const std::string& file) {
    const std::size_t first = file.find('/');
    const std::size_t second = first == std::string::npos ? first : file.find('/', first + 1);
    if (second == std::string::npos) return {};
    const std::string module = file.substr(0, first);
    return module == "recurrent" || module == "parallel" || module == "chunkwise" ? file.substr(0, second) : "";
  }
  std::vector<std::string> files_of(const std::string& variant) const {
    std::vector<std::string> files;
    for (const auto& [file, plain] : plain_)
      if (variant_of(file) == variant) files.push_back(file);
    return files;
  }

  std::vector<std::string> includes_of(const std::string& file) const {
    std::vector<std::string> found;
    const std::string& plain = plain_.at(file);
    const std::string folder = fs::path(file).parent_path().generic_string();
    const std::string_view directive = "# include \"";
    for (std::size_t at = plain.find(directive); at != std::string::npos; at = plain.find(directive, at + 1)) {
      if (at > 0 && plain[at - 1] != '\n') continue;
      const std::size_t begin = at + directive.size();
      const std::string header = plain.substr(begin, plain.find('"', begin) - begin);
      for (const std::string& candidate : {folder + "/" + header, header})
        if (plain_.contains(candidate)) {
          found.push_back(candidate);
          break;
        }
    }
    return found;
  }
  std::vector<std::string> implementations_of(const std::string& header) const {
    if (const std::string variant = variant_of(header); !variant.empty()) return files_of(variant);
    const std::string stem = header.substr(0, header.rfind('.'));
    std::vector<std::string> found;
    for (const auto& [file, plain] : plain_) {
      const fs::path path(file);
      if (path.extension() != ".cpp" && path.extension() != ".cu") continue;
      const std::string own = file.substr(0, file.rfind('.'));
      if (path.parent_path() == fs::path(header).parent_path() && (own == stem || own.starts_with(stem + "_")))
        found.push_back(file);
    }
    return found;
  }

  std::map<std::string, std::string> plain_;
};

void write_table(const Tree& tree, const fs::path& output) {
  std::string text =
      "// Written by source_digests.cpp.\n"
      "#include \"cases/source_digest.hpp\"\n\n"
      "namespace mlstm::verify {\n\n"
      "const std::map<std::string, std::string, std::less<>>& source_digests() {\n"
      "  static const std::map<std::string, std::string, std::less<>> digests{\n";
  for (const std::string& variant : tree.variants()) {
    std::string key = variant;
    key.replace(key.find('/'), 1, "--");
    text += "      {\"" + key + "\", \"" + tree.digest_of(variant) + "\"},\n";
  }
  text += "  };\n  return digests;\n}\n\n}  // namespace mlstm::verify\n";
  std::ofstream stream(output, std::ios::binary);
  stream << text;
  if (!stream.flush()) throw std::runtime_error("cannot write " + output.string());
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("expected <folder kernels/> <output>, or --plain <file>");
  if (std::string_view(argv[1]) == "--plain")
    std::cout << plain_form(argv[2]);
  else
    write_table(Tree(argv[1]), argv[2]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << "mlstm_source_digests: " << error.what() << "\n";
  return 1;
}
