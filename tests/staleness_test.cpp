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

/// A tree of two variants, of which one includes common/a.hpp, which includes common/b.hpp.
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
    fs::create_directories(path / "kernels/chunkwise/empty_cuda");
  }

  void add(const std::string& file, const std::string& text) const {
    fs::create_directories((path / "kernels" / file).parent_path());
    write("kernels/" + file, text);
  }

  std::map<std::string, std::string> digests() const {
    const Result made = shell("'" MLSTM_CMAKE "' -DKERNELS=kernels -DOUTPUT=table.cpp -P '" MLSTM_SOURCE_DIR
                              "/verify/source_digests.cmake'");
    BOOST_REQUIRE_MESSAGE(made.status == 0, made.err);
    const std::string text = read_text_file(path / "table.cpp");
    static const std::regex line("\\{\"([^\"]+)\", \"([0-9a-f]{64})\"\\}");
    std::map<std::string, std::string> found;
    for (std::sregex_iterator at(text.begin(), text.end(), line), end; at != end; ++at) found[(*at)[1]] = (*at)[2];
    return found;
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
  BOOST_TEST(before.size() == 2u);
  const Result by_hand = shell(
      "cd kernels && sha256sum common/a.cpp common/a.cu common/a.hpp common/a_more.cu common/b.cu common/b.hpp "
      "common/c.cuh recurrent/one_cuda/fw.cu recurrent/one_cuda/own.hpp");
  BOOST_TEST(before.at("recurrent--one_cuda") == sha256_of(by_hand.out));
  // file -> which digests change with it
  const std::map<std::string, std::pair<bool, bool>> changes{{"recurrent/one_cuda/own.hpp", {true, false}},
                                                             {"recurrent/one_cuda/new.cuh", {true, false}},
                                                             {"parallel/two_eigen/fw.cpp", {false, true}},
                                                             {"common/a.hpp", {true, false}},
                                                             {"common/a.cpp", {true, false}},
                                                             {"common/a_more.cu", {true, false}},
                                                             {"common/b.hpp", {true, false}},
                                                             {"common/b.cu", {true, false}},
                                                             {"common/c.cuh", {true, false}},
                                                             {"common/alike.cu", {false, false}},
                                                             {"common/unused.hpp", {false, false}}};
  for (const auto& [file, changed] : changes) {
    const bool existed = fs::exists(path / "kernels" / file);
    const std::string text = existed ? read_text_file(path / "kernels" / file) : "";
    add(file, text + "\n");
    const auto after = digests();
    BOOST_TEST((after.at("recurrent--one_cuda") != before.at("recurrent--one_cuda")) == changed.first, file);
    BOOST_TEST((after.at("parallel--two_eigen") != before.at("parallel--two_eigen")) == changed.second, file);
    existed ? add(file, text) : void(fs::remove(path / "kernels" / file));
  }
  BOOST_TEST((digests() == before));
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
