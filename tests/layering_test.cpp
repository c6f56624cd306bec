// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <fstream>
#include <optional>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestFile = 600;
const fs::path kRoot = MLSTM_SOURCE_DIR;

/// Files whose path starts with `folder` and matches `file` may not include what matches `forbidden`.
struct Rule {
  std::string folder;
  std::regex file, forbidden;
  std::string because;
};

const std::regex kAnyFile(".*"), kDeviceFile(".*\\.cuh?"),
    kThirdParty("(xtensor|xtl|Eigen|unsupported|boost|nlohmann|fmt|CLI|Random123|openssl|hdf5)(/.*|\\.h(pp)?)");

const std::vector<Rule>& rules() {
  static const std::vector<Rule> all{
      {"kernels/", kAnyFile, std::regex("(mlstm/.*|base|cases|judge|runner|properties|report|sweep|studies|cli)/.*"),
       "kernels know only the contract headers mlstm/*.hpp"},
      {"kernels/", kAnyFile, std::regex("(xtensor|xtl|hdf5|fmt|nlohmann|CLI)(/.*|\\.h(pp)?)"),
       "kernels work on plain pointers"},
      {"kernels/", kDeviceFile, std::regex("(Eigen|unsupported)/.*"), "device code keeps host libraries out"},
      {"kernels/common/", kAnyFile, std::regex("(recurrent|parallel|chunkwise)/.*"), "building blocks know no variant"},
      {"kernels/common/", std::regex("kernels/common/[^/]*"), std::regex("common/cuda/.*"),
       "what all variants share knows no GPU"},
      {"kernels/common/cuda/", kAnyFile, std::regex("common/(?!variant[.])[^/]*|(Eigen|unsupported)/.*"),
       "building blocks of GPU variants know nothing of CPU variants"},
      {"kernels/common/cuda/", std::regex("kernels/common/cuda/[^/]*"), std::regex("common/cuda/chunks/.*"),
       "chunks are built on the rest of common/cuda"},
      {"reference/", kAnyFile, std::regex("(base|cases|judge|runner|properties|report|sweep|studies|cli|kernels)/.*"),
       "the reference knows only itself"},
      {"reference/", kAnyFile, std::regex("(xtensor|xtl|hdf5|fmt|nlohmann|CLI)(/.*|\\.h(pp)?)"),
       "the reference works on plain pointers"},
      {"reference/include/mlstm/", std::regex("reference/include/mlstm/[^/]*"), std::regex("mlstm/.*/.*"),
       "contract headers know only each other"},
      {"reference/include/mlstm/", std::regex("reference/include/mlstm/[^/]*"), kThirdParty,
       "contract headers are free of third-party code"},
      {"reference/src/contract/", kAnyFile, std::regex("mlstm/.*/.*"), "the contract knows only its own headers"},
      {"reference/src/contract/", kAnyFile, kThirdParty, "the contract is free of third-party code"},
      {"verify/", kAnyFile, std::regex("(.*/)?(kernels|chunkwise|parallel|recurrent|common)/.*"),
       "verify reaches kernels only through the registry"},
      {"", std::regex("(kernels|reference|verify)/.*"), std::regex("(.*/)?\\.\\./.*"),
       "includes are named from an include directory"},
  };
  return all;
}

/// The layers of verify/, lowest first: a folder may include headers of its own and of lower layers. Folders of one
/// layer do not know each other.
const std::vector<std::vector<std::string>> kLayers{
    {"base"}, {"cases"}, {"judge", "runner"}, {"properties", "report"}, {"sweep"}, {"studies"}, {"cli"}};

/// Number of the layer that `folder` belongs to; absent for a folder that is none.
std::optional<std::size_t> layer_of(const std::string& folder) {
  for (std::size_t layer = 0; layer < kLayers.size(); ++layer)
    if (std::find(kLayers[layer].begin(), kLayers[layer].end(), folder) != kLayers[layer].end()) return layer;
  return {};
}

/// Why a file in verify/ may not include `header`, named from verify/; empty if it may.
std::string layer_violation(const std::string& path, const std::string& header) {
  const std::string folder = "verify/";
  const std::string from = path.substr(folder.size(), path.find('/', folder.size()) - folder.size());
  const std::string to = header.substr(0, header.find('/'));
  if (from == "studies" && to == "studies") {
    // Studies stand side by side; mutation runs the kernels of mutants.
    const std::regex room("(?:verify/)?studies/([a-z]+)/.*");
    std::smatch mine, its;
    const bool in_rooms = std::regex_match(path, mine, room) && std::regex_match(header, its, room);
    if (in_rooms && mine[1] != its[1] && !(mine[1] == "mutation" && its[1] == "mutants"))
      return "studies/" + mine.str(1) + "/ does not know studies/" + its.str(1) + "/";
  }
  const auto layer = layer_of(from), other = layer_of(to);
  if (!layer || !other || from == to || *other < *layer) return {};
  return from + "/ is below " + to + "/ or beside it";
}

/// Why a variant may not include this header of another one; empty if it may, or if this is something else.
std::string complaint_about_variants(const std::string& path, const std::string& header) {
  static const std::regex variant("(kernels/)?((recurrent|parallel|chunkwise)/[^/]+)/(.*)");
  std::smatch from, to;
  if (!std::regex_match(path, from, variant) || !path.starts_with("kernels/")) return {};
  if (!std::regex_match(header, to, variant) || from[2] == to[2] || to[4] == "variant.hpp") return {};
  return "a variant that is made of another one knows that one's variant.hpp alone";
}

/// The complaints about one file, given its path from the root and its text.
std::vector<std::string> violations(const std::string& path, const std::string& text) {
  static const std::regex include(R"(^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"])");
  std::vector<std::string> found;
  std::istringstream lines(text);
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::smatch match;
    if (!std::regex_search(line, match, include)) continue;
    const std::string header = match[1];
    if (const std::string because = complaint_about_variants(path, header); !because.empty())
      found.push_back(path + ":" + std::to_string(number) + " includes " + header + ", but " + because);
    for (const Rule& rule : rules())
      if (path.starts_with(rule.folder) && std::regex_match(path, rule.file) &&
          std::regex_match(header, rule.forbidden))
        found.push_back(path + ":" + std::to_string(number) + " includes " + header + ", but " + rule.because);
    if (path.starts_with("verify/"))
      if (const std::string why = layer_violation(path, header); !why.empty())
        found.push_back(path + ":" + std::to_string(number) + " includes " + header + ", but " + why);
  }
  if (number > kLongestFile) found.push_back(path + " has " + std::to_string(number) + " lines");
  return found;
}

bool is_source(const fs::path& path) {
  static const std::vector<std::string> extensions{".cpp", ".hpp", ".h", ".cu", ".cuh", ".py"};
  return std::find(extensions.begin(), extensions.end(), path.extension().string()) != extensions.end();
}

std::vector<fs::path> sources() {
  std::vector<fs::path> paths;
  for (const char* folder : {"reference", "kernels", "verify", "tests"})
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder))
      if (entry.is_regular_file() && is_source(entry.path())) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string read(const fs::path& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_source_keeps_the_layers_and_the_length_limit) {
  const auto paths = sources();
  BOOST_TEST(paths.size() > 30u);
  for (const fs::path& path : paths)
    for (const std::string& complaint : violations(path.lexically_relative(kRoot).generic_string(), read(path)))
      BOOST_ERROR(complaint);
}

BOOST_AUTO_TEST_CASE(every_folder_of_the_verifier_has_its_layer) {
  for (const auto& entry : fs::directory_iterator(kRoot / "verify")) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || name == "include" || name == "examples") continue;
    BOOST_TEST(layer_of(name).has_value(), "verify/" << name << " has no layer");
  }
}

BOOST_AUTO_TEST_CASE(forbidden_includes_are_found) {
  const auto count = [](const std::string& path, const std::string& header) {
    return violations(path, "// text\n  # include <" + header + ">\n").size();
  };
  BOOST_TEST(count("kernels/parallel/x/fw.cpp", "cases/case.hpp") == 1u);
  BOOST_TEST(count("kernels/parallel/x/fw.cpp", "mlstm/reference/reference.hpp") == 1u);
  BOOST_TEST(count("kernels/common/x.hpp", "xtensor/xarray.hpp") == 1u);
  BOOST_TEST(count("kernels/common/x.hpp", "hdf5.h") == 1u);
  BOOST_TEST(count("kernels/common/x.cuh", "Eigen/Core") == 1u);
  BOOST_TEST(count("kernels/parallel/x/fw.cu", "unsupported/Eigen/FFT") == 1u);
  BOOST_TEST(count("kernels/common/x.hpp", "chunkwise/a_eigen/variant.hpp") == 1u);
  BOOST_TEST(count("kernels/common/x.hpp", "common/cuda/launch.hpp") == 1u);
  BOOST_TEST(count("kernels/common/cuda/x.hpp", "common/block.hpp") == 1u);
  BOOST_TEST(count("kernels/common/cuda/x.cpp", "Eigen/Core") == 1u);
  BOOST_TEST(count("kernels/common/cuda/x.hpp", "common/cuda/chunks/pass.hpp") == 1u);
  BOOST_TEST(count("kernels/parallel/a_cuda/fw.cu", "chunkwise/b_cuda/tiles.cuh") == 1u);
  BOOST_TEST(count("kernels/parallel/a_cuda/fw.cu", "parallel/b_cuda/tiles.cuh") == 1u);
  BOOST_TEST(count("reference/src/a.cpp", "cases/case.hpp") == 1u);
  BOOST_TEST(count("reference/include/mlstm/kernel.hpp", "Eigen/Core") == 1u);
  BOOST_TEST(count("reference/include/mlstm/kernel.hpp", "mlstm/reference/reference.hpp") == 1u);
  BOOST_TEST(count("reference/src/contract/a.cpp", "boost/multiprecision/cpp_bin_float.hpp") == 1u);
  BOOST_TEST(count("kernels/common/x.hpp", "nlohmann/json.hpp") == 1u);
  BOOST_TEST(count("verify/judge/a.cpp", "chunkwise/native_eigen_ownbw/variant.hpp") == 1u);
  BOOST_TEST(count("verify/cli/a.cpp", "kernels/common/head.hpp") == 1u);
  BOOST_TEST(count("verify/judge/a.cpp", "../../kernels/common/head.hpp") == 2u);
  BOOST_TEST(count("verify/cases/a.cpp", "judge/judge.hpp") == 1u);
  BOOST_TEST(count("verify/judge/hot/a.cpp", "runner/runner.hpp") == 1u);
  BOOST_TEST(count("verify/properties/a.cpp", "report/report.hpp") == 1u);
  BOOST_TEST(count("verify/sweep/a.cpp", "studies/fixtures/fixtures.hpp") == 1u);
  BOOST_TEST(count("verify/studies/mutants/a.cpp", "studies/mutation/mutate.hpp") == 1u);
  BOOST_TEST(count("verify/studies/bench/a.cpp", "studies/fixtures/fixtures.hpp") == 1u);
}

BOOST_AUTO_TEST_CASE(allowed_includes_are_not_found) {
  const auto none = [](const std::string& path, const std::string& header) {
    return violations(path, "#include \"" + header + "\"\n").empty();
  };
  BOOST_TEST(none("kernels/parallel/x/fw.cpp", "mlstm/kernel.hpp"));
  BOOST_TEST(none("kernels/parallel/x/fw.cpp", "Eigen/Core"));
  BOOST_TEST(none("kernels/parallel/x/fw.cpp", "common/head.hpp"));
  BOOST_TEST(none("kernels/common/cuda/x.hpp", "common/variant.hpp"));
  BOOST_TEST(none("kernels/common/cuda/chunks/x.hpp", "common/cuda/chunks/pass.hpp"));
  BOOST_TEST(none("kernels/parallel/a_cuda/fw.cu", "parallel/a_cuda/tiles.cuh"));
  BOOST_TEST(none("kernels/parallel/a_cuda/fw.cu", "chunkwise/b_cuda/variant.hpp"));
  BOOST_TEST(none("reference/src/a.cpp", "mlstm/reference/reference.hpp"));
  BOOST_TEST(none("reference/include/mlstm/reference/a.hpp", "Eigen/Core"));
  BOOST_TEST(none("verify/judge/a.cpp", "mlstm/reference/reference.hpp"));
  BOOST_TEST(none("verify/judge/a.cpp", "mlstm/kernel.hpp"));
  BOOST_TEST(none("verify/judge/hot/a.cpp", "judge/bounds.hpp"));
  BOOST_TEST(none("verify/report/a.cpp", "judge/judge.hpp"));
  BOOST_TEST(none("verify/cli/a.cpp", "cli/cli.hpp"));
  BOOST_TEST(none("verify/studies/mutants/a.cpp", "base/random.hpp"));
  BOOST_TEST(none("verify/studies/mutation/a.cpp", "studies/mutants/mutants.hpp"));
  BOOST_TEST(none("tests/a.cpp", "../verify/base/random.cpp"));
}

BOOST_AUTO_TEST_CASE(a_file_that_is_too_long_is_found) {
  std::string text;
  for (std::size_t line = 0; line < kLongestFile; ++line) text += "\n";
  BOOST_TEST(violations("tests/a.cpp", text).empty());
  BOOST_TEST(violations("tests/a.cpp", text + "\n").size() == 1u);
}
