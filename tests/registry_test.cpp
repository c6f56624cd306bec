// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cases/problems.hpp"
#include "mlstm/kernel.hpp"
#include "runner/runner.hpp"

using namespace mlstm;

namespace {

namespace fs = std::filesystem;

struct Name {
  std::vector<std::string> words;
  std::string backend;
  std::optional<std::string> suffix;
};

/// The words of a specifier, longest first where one starts with another's letters; xl_chunk and the like are one word.
const std::vector<std::string> kWords{"native",        "stablef",     "sequence", "step",
                                      "limit_headdim", "limit_chunk", "xl_chunk", "fused"};
const std::vector<std::string> kBackends{"eigen", "cublas", "cuda", "triton", "torch", "jax"};

/// <specifier>_<backend>[_<autograd|ownbw>], or nothing if `text` is no such name.
std::optional<Name> parse_name(const std::string& text) {
  Name name;
  std::string rest = text + "_";
  const auto take = [&](const std::vector<std::string>& choices) -> std::optional<std::string> {
    for (const std::string& choice : choices)
      if (rest.starts_with(choice + "_")) {
        rest.erase(0, choice.size() + 1);
        return choice;
      }
    return std::nullopt;
  };
  while (const auto word = take(kWords)) name.words.push_back(*word);
  const auto backend = take(kBackends);
  name.suffix = take({"autograd", "ownbw"});
  const bool repeats = std::set(name.words.begin(), name.words.end()).size() != name.words.size();
  if (name.words.empty() || repeats || !backend || !rest.empty()) return std::nullopt;
  name.backend = *backend;
  return name;
}

/// Full keys of all variant folders.
std::set<std::string> folders() {
  std::set<std::string> keys;
  for (const char* module : {"recurrent", "parallel", "chunkwise"}) {
    const fs::path folder = fs::path(MLSTM_SOURCE_DIR) / "kernels" / module;
    if (!fs::exists(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder))
      keys.insert(std::string(module) + "--" + entry.path().filename().string());
  }
  return keys;
}

std::string name_in(const std::string& key) { return key.substr(key.find("--") + 2); }

bool has_word(const Name& name, const std::string& word) {
  return std::find(name.words.begin(), name.words.end(), word) != name.words.end();
}

template <class T>
bool is_set(const std::vector<T>& values) {
  return std::set<T>(values.begin(), values.end()).size() == values.size();
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_registry_is_not_empty_and_sorted_by_key) {
  const auto& kernels = registered_kernels();
  BOOST_TEST_REQUIRE(!kernels.empty());
  BOOST_TEST(std::is_sorted(kernels.begin(), kernels.end(),
                            [](const Kernel* a, const Kernel* b) { return a->info().key() < b->info().key(); }));
  for (const Kernel* kernel : kernels) BOOST_TEST(find_kernel(kernel->info().key()) == kernel);
  BOOST_TEST(find_kernel("parallel--no_such_variant") == nullptr);
}

BOOST_AUTO_TEST_CASE(every_module_has_a_cpu_variant_with_a_backward_pass) {
  for (const Module module : {Module::recurrent, Module::parallel, Module::chunkwise})
    BOOST_TEST(std::any_of(registered_kernels().begin(), registered_kernels().end(),
                           [&](const Kernel* kernel) {
                             const VariantInfo& info = kernel->info();
                             return info.module == module && info.device == Device::cpu &&
                                    !info.gradient_conventions.empty();
                           }),
               to_string(module));
}

BOOST_AUTO_TEST_CASE(the_grammar_takes_published_names_and_refuses_others) {
  for (const std::string text :
       {"native_eigen_ownbw", "native_stablef_torch_autograd", "limit_headdim_triton_ownbw", "limit_chunk_cuda_ownbw",
        "xl_chunk_cuda_ownbw", "native_sequence_triton", "step_fused_cuda", "step_jax", "native_cublas_autograd"})
    BOOST_TEST(parse_name(text).has_value(), text);
  for (const std::string text :
       {"", "eigen", "native", "native_eigen_custbw", "native_eigen_ownbw_2", "native_opencl_ownbw",
        "eigen_native_ownbw", "native__eigen", "native_eigen_", "_native_eigen", "Native_eigen", "xl_cuda_ownbw",
        "native_native_eigen", "native_ownbw_eigen", "fast_cuda_ownbw", "native_eigen_cuda"})
    BOOST_TEST(!parse_name(text).has_value(), text);
}

BOOST_AUTO_TEST_CASE(every_variant_folder_has_a_name_of_the_grammar_and_registers_itself) {
  const auto keys = folders();
  BOOST_TEST(!keys.empty());
  const bool has_cuda = std::any_of(registered_kernels().begin(), registered_kernels().end(),
                                    [](const Kernel* kernel) { return kernel->info().device == Device::cuda; });
  for (const std::string& key : keys) {
    const auto name = parse_name(name_in(key));
    BOOST_TEST(name.has_value(), key);
    if (!name) continue;
    const bool built = (name->backend != "cuda" && name->backend != "cublas") || has_cuda;
    BOOST_TEST((!built || find_kernel(key) != nullptr), key << " is a folder, but no variant registers that key");
  }
}

BOOST_AUTO_TEST_CASE(every_registered_variant_has_its_folder) {
  const auto keys = folders();
  for (const Kernel* kernel : registered_kernels())
    BOOST_TEST(keys.contains(kernel->info().key()), kernel->info().key());
}

BOOST_AUTO_TEST_CASE(names_say_what_variants_declare) {
  for (const Kernel* kernel : registered_kernels()) {
    const VariantInfo& info = kernel->info();
    const auto name = parse_name(info.name);
    BOOST_TEST_CONTEXT(info.key()) {
      BOOST_TEST_REQUIRE(name.has_value());
      BOOST_TEST(name->suffix.has_value() == !info.gradient_conventions.empty());
      BOOST_TEST((info.device == Device::cuda) == (name->backend != "eigen"));
      BOOST_TEST((has_word(*name, "step") || has_word(*name, "sequence")) == (info.module == Module::recurrent));
      const bool names_chunks = has_word(*name, "limit_chunk") || has_word(*name, "xl_chunk");
      BOOST_TEST((!names_chunks || info.module == Module::chunkwise));
      if (has_word(*name, "step")) BOOST_TEST(info.S.max == 1);
    }
  }
}

BOOST_AUTO_TEST_CASE(declarations_are_complete_and_consistent) {
  for (const Kernel* kernel : registered_kernels()) {
    const VariantInfo& info = kernel->info();
    BOOST_TEST_CONTEXT(info.key()) {
      BOOST_TEST(!info.description.empty());
      BOOST_TEST(info.description.find('\n') == std::string::npos);
      BOOST_TEST(!info.dtypes.empty());
      BOOST_TEST((is_set(info.dtypes) && is_set(info.gates) && is_set(info.gradient_conventions) &&
                  is_set(info.stabilizer_init)));
      BOOST_TEST((std::find(info.dtypes.begin(), info.dtypes.end(), DType::tfloat32) == info.dtypes.end()));
      BOOST_TEST(!info.gates.empty());
      const bool has_exp = std::find(info.gates.begin(), info.gates.end(), Gate::exp) != info.gates.end();
      BOOST_TEST(has_exp == !info.stabilizer_init.empty());
      BOOST_TEST((!info.last_state_cotangents || (info.last_states && !info.gradient_conventions.empty())));
      for (const SizeLimit& limit : {info.S, info.L, info.DHQK, info.DHV})
        BOOST_TEST((limit.min >= 1 && limit.max >= limit.min && limit.multiple_of >= 1));
    }
  }
}

BOOST_AUTO_TEST_CASE(forward_only_variants_refuse_a_backward_pass) {
  for (const Kernel* kernel : registered_kernels())
    if (kernel->info().gradient_conventions.empty()) BOOST_CHECK_THROW(kernel->backward({}, {}), std::logic_error);
}

BOOST_AUTO_TEST_CASE(the_smoke_suite_reaches_every_variant_in_every_dtype_and_gate) {
  const auto specs = verify::suite("smoke");
  for (const Kernel* kernel : registered_kernels()) {
    for (const DType dtype : kernel->info().dtypes)
      BOOST_TEST(std::any_of(specs.begin(), specs.end(),
                             [&](const verify::ProblemSpec& spec) {
                               return spec.problem.dtype == dtype && kernel->unsupported(spec.problem).empty();
                             }),
                 kernel->info().key() << " " << to_string(dtype));
    for (const Gate gate : kernel->info().gates)
      BOOST_TEST(std::any_of(specs.begin(), specs.end(),
                             [&](const verify::ProblemSpec& spec) {
                               return spec.problem.gate == gate && kernel->unsupported(spec.problem).empty();
                             }),
                 kernel->info().key() << " " << to_string(gate));
  }
}

BOOST_AUTO_TEST_CASE(every_variant_that_can_run_here_keeps_to_its_buffers) {
  int runs = 0;
  for (const Kernel* kernel : registered_kernels()) {
    const VariantInfo& info = kernel->info();
    if (!verify::unavailable(*kernel).empty()) continue;
    for (const verify::ProblemSpec& spec : verify::suite("smoke")) {
      if (!kernel->unsupported(spec.problem).empty()) continue;
      if (spec.last_state_cotangents && !info.last_state_cotangents) continue;
      const auto convention =
          info.gradient_conventions.empty() ? std::nullopt : std::optional(info.gradient_conventions.front());
      BOOST_TEST_CONTEXT(verify::to_line(spec))
      BOOST_CHECK_NO_THROW(verify::run_kernel(*kernel, verify::make_case(spec), convention));
      ++runs;
    }
  }
  BOOST_TEST(runs > 50);
}
