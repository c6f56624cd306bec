// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
// Which captures count as taken from other source than the tree's.
#include <boost/test/unit_test.hpp>
#include <functional>
#include <map>
#include <regex>

#include "base/files.hpp"
#include "cases/source_digest.hpp"
#include "program.hpp"

namespace {

using namespace mlstm;
using namespace mlstm::verify;
using test::contains, test::Result, test::Workplace;
namespace fs = std::filesystem;

const std::string kDigests = MLSTM_BINARY_DIR "/verify/mlstm_source_digests";

/// A tree of three variants: one includes common/a.hpp, which includes common/b.hpp; another is made of the first.
struct Tree : Workplace {
  Tree() {
    add("recurrent/one_cuda/fw.cu", "#include <vector>\n  #  include \"common/a.hpp\"  // why\n");
    add("recurrent/one_cuda/own.hpp", "");
    add("parallel/two_eigen/fw.cpp", "#include \"own.hpp\"\n#include \"mlstm/kernel.hpp\"\n");
    add("parallel/two_eigen/own.hpp", "");
    add("common/a.hpp", "#include \"common/b.hpp\"\n");
    add("common/b.hpp", "");
    for (const char* name : {"a.cpp", "a.cu", "a_more.cu", "alike.cu", "b.cu", "unused.hpp"})
      add(std::string("common/") + name, "");
    add("common/b.cu", "#include \"common/c.cuh\"\n");
    add("common/c.cuh", "");
    add("chunkwise/three_cuda/register.cpp", "#include \"recurrent/one_cuda/own.hpp\"\n");
    write("kernels/common/notes.md", "Notes, which don't count.\n");
    fs::create_directories(path / "kernels/chunkwise/empty_cuda");
  }

  void add(const std::string& file, const std::string& text) const {
    fs::create_directories((path / "kernels" / file).parent_path());
    write("kernels/" + file, text);
  }

  std::map<std::string, std::string> digests() const {
    const Result made = shell("'" + kDigests + "' kernels table.cpp");
    BOOST_REQUIRE_MESSAGE(made.status == 0, made.err);
    const std::string text = read_text_file(path / "table.cpp");
    static const std::regex line("\\{\"([^\"]+)\", \"([0-9a-f]{64})\"\\}");
    std::map<std::string, std::string> found;
    for (std::sregex_iterator at(text.begin(), text.end(), line), end; at != end; ++at) found[(*at)[1]] = (*at)[2];
    return found;
  }

  /// What counts of a file with this text.
  std::string plain(const std::string& text) const {
    write("text.cu", text);
    const Result result = shell("'" + kDigests + "' --plain text.cu");
    BOOST_REQUIRE_MESSAGE(result.status == 0, result.err);
    return result.out;
  }
};

const std::string kVariant = "chunkwise--native_eigen_ownbw";

KernelData capture_of(const std::string& variant, const std::string& digest) {
  KernelData kernel;
  kernel.variant = variant;
  kernel.attributes = {{"source", std::string("mlstm 0.0.1")}, {"source_sha256", digest}};
  return kernel;
}

/// The verdicts on a recorded capture after a change, and what the program printed.
std::pair<std::vector<Item>, Result> judged(const Workplace& here, const std::function<void(Case&)>& change) {
  const Result made = here.run("capture --out captures --convention exact --variant " + kVariant +
                               " --case \"regime=forget3,dtype=float32,NH=2,S=24,DHQK=8,DHV=4,L=8\"");
  BOOST_REQUIRE_MESSAGE(made.status == 0, made.err);
  Case c = read_case(find_case_files({here.path / "captures"}).front());
  change(c);
  write_case(c, here.path / "changed.h5");
  const Result result = here.run("verify --captures changed.h5 --report r");
  return {here.report("r"), result};
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(a_digest_is_that_of_the_folder_and_of_all_that_it_includes, Tree) {
  const auto before = digests();
  BOOST_TEST(before.size() == 3u);
  const Result by_hand = shell(
      "cd kernels && for file in common/a.cpp common/a.cu common/a.hpp common/a_more.cu common/b.cu common/b.hpp "
      "common/c.cuh recurrent/one_cuda/fw.cu recurrent/one_cuda/own.hpp; do "
      "echo \"$('" +
      kDigests + "' --plain $file | sha256sum | cut -c 1-64)  $file\"; done");
  BOOST_TEST(before.at("recurrent--one_cuda") == sha256_of(by_hand.out));
  // file -> which digests change with it: one_cuda, and three_cuda, which is made of it; two_eigen
  const std::map<std::string, std::pair<bool, bool>> changes{{"recurrent/one_cuda/own.hpp", {true, false}},
                                                             {"recurrent/one_cuda/fw.cu", {true, false}},
                                                             {"recurrent/one_cuda/new.cuh", {true, false}},
                                                             {"parallel/two_eigen/fw.cpp", {false, true}},
                                                             {"common/a.hpp", {true, false}},
                                                             {"common/a.cpp", {true, false}},
                                                             {"common/a_more.cu", {true, false}},
                                                             {"common/b.hpp", {true, false}},
                                                             {"common/b.cu", {true, false}},
                                                             {"common/c.cuh", {true, false}},
                                                             {"common/alike.cu", {false, false}},
                                                             {"common/unused.hpp", {false, false}},
                                                             {"recurrent/one_cuda/notes.md", {false, false}}};
  for (const auto& [file, changed] : changes) {
    const bool existed = fs::exists(path / "kernels" / file);
    const std::string text = existed ? read_text_file(path / "kernels" / file) : "";
    add(file, text + "\nint x;\n");
    const auto after = digests();
    BOOST_TEST((after.at("recurrent--one_cuda") != before.at("recurrent--one_cuda")) == changed.first, file);
    BOOST_TEST((after.at("chunkwise--three_cuda") != before.at("chunkwise--three_cuda")) == changed.first, file);
    BOOST_TEST((after.at("parallel--two_eigen") != before.at("parallel--two_eigen")) == changed.second, file);
    if (existed) {  // comments and white space
      add(file, "/* what\n it is */" + text + "\n  // and why\n");
      BOOST_TEST((digests() == before), file);
    }
    existed ? add(file, text) : void(fs::remove(path / "kernels" / file));
  }
  BOOST_TEST((digests() == before));
}

BOOST_FIXTURE_TEST_CASE(comments_and_white_space_do_not_count, Tree) {
  const std::string text = "int f(int a) { return a+1; }\n";
  for (const std::string same :
       {"int f(int a)\n{\n  return a + 1;\n}", "int f(int /*b*/ a) { return a+1; }  // int g();",
        "// #define f g\nint f(int a) { return a+1; }", "/* \" */ int f(int a) { return a+1; } /* ' */",
        "int f(int a) { re\\\nturn a+1; }", "int f(int a) { // what \\\n follows\n return a+1; }\r\n",
        "int/**/f(int a) { return a+1; }"})
    BOOST_TEST(plain(same) == plain(text), same);
  BOOST_TEST(plain("#define A(x) x  // why\nint a;") == plain("  #  define  A(x)\\\n  /* what */ x\n\nint  a ;\n"));
  BOOST_TEST(plain("#include <a.hpp> // a\n") == plain("#include <a.hpp>"));
}

BOOST_FIXTURE_TEST_CASE(everything_else_counts, Tree) {
  // each pair is two programs
  const std::pair<const char*, const char*> different[] = {{"a b", "ab"},
                                                           {"a + +b", "a ++b"},
                                                           {"a < < b", "a << b"},
                                                           {"f<<<1, 2>>>()", "f<< <1, 2>> >()"},
                                                           {"x = 1'000;", "x = 1 000;"},
                                                           {"x = 1e+5;", "x = 1e + 5;"},
                                                           {"\"a b\"", "\"a  b\""},
                                                           {"\"a // b\"", "\"a \""},
                                                           {"\"a /* b */ c\"", "\"a  c\""},
                                                           {"\"\\\" // a\" b", "\"\\\" // a\""},
                                                           {"'\"' // a", "'\"' \"// a\""},
                                                           {"\"a\"_b", "\"a\" _b"},
                                                           {"L\"a\"", "L \"a\""},
                                                           {"R\"(a  // b)\"", "R\"(a)\""},
                                                           {"R\"x(a\\\nb)x\"", "R\"x(ab)x\""},
                                                           {"R\"x(a)\" // b\n)x\"", "R\"x(a)\" // c\n)x\""},
                                                           {"#define A (x)", "#define A(x)"},
                                                           {"#define A\nb", "#define A b"},
                                                           {"#if A\nb\n#endif", "#if A b\n#endif"},
                                                           {"a\n#b", "a #b"},
                                                           {"#include <a//b>", "#include <a>"}};
  for (const auto& [a, b] : different) BOOST_TEST(plain(a) != plain(b), a << " | " << b);
  // what comes after a literal or a number is read as what it is
  for (const char* before :
       {"x = 1'000'000;", "c = '\\'';", "c = '\"';", "s = \"\\\\\";", "R\"(\")\";", "#error don't"})
    BOOST_TEST(plain(std::string(before) + "  // a\nb  c") == plain(std::string(before) + "\nb c"), before);
}

BOOST_AUTO_TEST_CASE(the_program_knows_the_digest_of_every_variant_folder) {
  std::size_t folders = 0;
  for (const std::string module : {"recurrent", "parallel", "chunkwise"})
    for (const auto& entry : fs::directory_iterator(fs::path(MLSTM_SOURCE_DIR) / "kernels" / module)) {
      if (!entry.is_directory() || fs::is_empty(entry)) continue;
      ++folders;
      BOOST_TEST(source_digest(module + "--" + entry.path().filename().string()).size() == 64u, entry.path());
    }
  BOOST_TEST(source_digests().size() == folders);
  BOOST_TEST(source_digest("chunkwise--absent").empty());
}

BOOST_AUTO_TEST_CASE(only_captures_of_this_program_can_be_stale) {
  BOOST_TEST(why_stale(capture_of(kVariant, source_digest(kVariant))).empty());
  KernelData foreign = capture_of("chunkwise--triton_xl_chunk", "");
  foreign.attributes["source"] = std::string("mlstm_kernels 2.0.2");
  BOOST_TEST(why_stale(foreign).empty());
  foreign.attributes["source"] = std::int64_t{1};
  BOOST_TEST(why_stale(foreign).empty());
  foreign.attributes.clear();
  BOOST_TEST(why_stale(foreign).empty());
}

BOOST_AUTO_TEST_CASE(the_reason_names_both_digests) {
  const std::string now = source_digest(kVariant).substr(0, 12);
  BOOST_TEST(why_stale(capture_of(kVariant, std::string(64, 'a'))) ==
             "recorded from other source (SHA-256 aaaaaaaaaaaa, the tree has " + now + ")");
  KernelData without = capture_of(kVariant, "");
  without.attributes.erase("source_sha256");
  BOOST_TEST(contains(why_stale(without), "(SHA-256 none, the tree has " + now + ")"));
  BOOST_TEST(why_stale(capture_of("chunkwise--gone_cuda", std::string(64, 'a'))) ==
             "there is no variant chunkwise--gone_cuda any more");
}

BOOST_FIXTURE_TEST_CASE(a_capture_of_another_version_passes_as_long_as_the_source_is_the_same, Workplace) {
  const auto [items, result] =
      judged(*this, [](Case& c) { c.kernel->attributes["source"] = std::string("mlstm 0.0.1"); });
  BOOST_TEST(result.status == 0, result.out);
  BOOST_TEST(!contains(result.out, "STALE"));
  for (const Item& item : items) BOOST_CHECK(item.status == Status::PASS);
}

BOOST_FIXTURE_TEST_CASE(a_capture_from_other_source_is_stale_and_the_last_word, Workplace) {
  const auto [items, result] =
      judged(*this, [](Case& c) { c.kernel->attributes["source_sha256"] = std::string(64, 'a'); });
  BOOST_TEST(result.status == 1);
  BOOST_TEST(items.size() == 9u);
  for (const Item& item : items) {
    BOOST_CHECK(item.status == Status::STALE);
    BOOST_TEST(contains(item.note, "recorded from other source (SHA-256 aaaaaaaaaaaa, the tree has "), item.note);
    BOOST_TEST(contains(item.note, "judged PASS"), item.note);
  }
  BOOST_TEST(contains(result.out, "\nSTALE CAPTURES: "));
  BOOST_TEST(result.out.ends_with("  " + kVariant + ": 1 capture\n"), result.out);
}
