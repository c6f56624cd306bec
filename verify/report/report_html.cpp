// SPDX-License-Identifier: Apache-2.0
#include "report/report_html.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>

#include "cases/case_file.hpp"
#include "report/report_files.hpp"
#include "report/report_html_parts.hpp"

namespace mlstm::verify {
namespace {

std::string_view report_file(std::string_view name) {
  for (const ReportFile& file : report_files())
    if (file.name == name) return file.text;
  throw std::logic_error("verify/report has no file " + std::string(name));
}

/// All files whose names end so, in the order of their names.
std::string joined(std::string_view ending) {
  std::string text;
  for (const ReportFile& file : report_files())
    if (file.name.ends_with(ending)) text += file.text;
  return text;
}

/// SHA-256 in base 64, as a content security policy names the scripts that may run.
std::string sha256_base64(std::string_view bytes) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::string digits = sha256_of(bytes);
  std::vector<unsigned> sum;
  for (std::size_t n = 0; n < digits.size(); n += 2)
    sum.push_back(static_cast<unsigned>(std::stoul(digits.substr(n, 2), nullptr, 16)));
  std::string text;
  for (std::size_t n = 0; n < sum.size(); n += 3) {
    unsigned group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (n + k < sum.size() ? sum[n + k] : 0);
    for (std::size_t k = 0; k < 4; ++k) text += n + k <= sum.size() ? alphabet[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

/// The skeleton with each {{name}} replaced by its part. What the parts hold is not looked at.
std::string fill(std::string_view skeleton, const std::map<std::string_view, std::string>& parts) {
  std::string text;
  while (true) {
    const std::size_t begin = skeleton.find("{{");
    text += skeleton.substr(0, begin);
    if (begin == std::string_view::npos) return text;
    const std::size_t end = skeleton.find("}}", begin);
    text += parts.at(skeleton.substr(begin + 2, end - begin - 2));
    skeleton.remove_prefix(end + 2);
  }
}

}  // namespace

std::string to_html(const std::vector<Item>& items, const std::vector<MutationFile>& mutations,
                    const std::string& remark) {
  const html::Model model = html::model_of(items);
  const std::string script = joined(".js");
  const bool any_eps = std::any_of(model.entries.begin(), model.entries.end(),
                                   [](const html::Entry& entry) { return entry.judged() && entry.problem; });
  const bool any =
      std::any_of(model.entries.begin(), model.entries.end(), [](const html::Entry& entry) { return entry.judged(); });
  return fill(report_file("page.html"), {{"policy", "sha256-" + sha256_base64(script)},
                                         {"style", joined(".css")},
                                         {"verdict", items.empty() && !mutations.empty() ? "" : html::verdict(model)},
                                         {"remark", html::remark(remark) + html::remark(list_nondeterminism(items))},
                                         {"failures", html::failures(model)},
                                         {"by_regime", html::grid_by_regime(model)},
                                         {"by_eps", html::grid_by_eps(model)},
                                         {"worst", html::worst_elements(model)},
                                         {"kills", html::kill_matrices(mutations)},
                                         {"hidden", html::hidden_wrong_answers(model)},
                                         {"skipped", html::skipped(model)},
                                         {"any", any ? "" : "hidden"},
                                         {"any_eps", any_eps ? "" : "hidden"},
                                         {"source", html::escaped(program_source())},
                                         {"data", html::data(model, mutations)},
                                         {"script", script}});
}

std::optional<MutationFile> mutation_file_in(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "mutate.json";
  if (!std::filesystem::is_directory(directory) || !std::filesystem::exists(file)) return {};
  return MutationFile{read_text_file(file), file.string()};
}

}  // namespace mlstm::verify
