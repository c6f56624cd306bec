// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "report/detail_json.hpp"
#include "report/report_html_parts.hpp"

namespace mlstm::verify::html {
namespace {

/// Strings that occur often, each once.
class Table {
 public:
  std::size_t operator[](const std::string& text) {
    const auto [place, is_new] = places_.emplace(text, list_.size());
    if (is_new) list_.push_back(text);
    return place->second;
  }
  Json take() { return std::move(list_); }

 private:
  std::map<std::string, std::size_t> places_;
  Json list_ = Json::array();
};

/// More digits than are shown, so that rounding twice gives what tables show.
Json rounded(const std::optional<double>& value) {
  if (!value || !std::isfinite(*value)) return nullptr;
  return std::strtod(fmt::format("{:.6g}", *value).c_str(), nullptr);
}

Json case_of(const Entry& entry) {
  Json object{{"name", entry.item.case_name}, {"regime", entry.regime}};
  if (!entry.problem) return object;
  const Problem& p = *entry.problem;
  object["dtype"] = to_string(p.dtype);
  object["gate"] = std::string(to_string(p.gate)) + (p.normalized() ? "" : " (unnormalized)");
  object["eps"] = fmt::format("{}", p.eps);
  object["shape"] = shape_text(entry);
  object["S"] = p.shape.S;
  object["L"] = p.chunk_size;
  return object;
}

/// Numbers as they are shown: all digits where something is wrong.
Json shown(double value, const Entry& entry) {
  return Json(entry.failed() ? fmt::format("{}", value) : fmt::format("{:.9g}", value));
}

/// "<" as an escape, so that no text can end the script element, or begin a comment in it.
std::string inside_script(const Json& value) {
  std::string text;
  for (const char c : serialize(value)) text += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return text;
}

}  // namespace

std::string data(const Model& model, const std::vector<MutationFile>& mutations) {
  Table variants, tensors, conventions, repros, notes;
  std::map<std::string, std::size_t> case_places;
  Json cases = Json::array(), items = cases, pictures = cases, statuses = cases, biases = cases;
  Json marks = Json::array();
  for (const std::string_view shown : kShown) {
    statuses.push_back(shown);
    marks.push_back(status_mark(shown));
  }
  for (const Entry& entry : model.entries) {
    const Item& item = entry.item;
    Json about = case_of(entry);
    const auto [place, is_new] = case_places.emplace(serialize(about), cases.size());
    if (is_new) cases.push_back(std::move(about));
    Json row = Json::array({variants[item.variant], place->second, tensors[item.tensor], conventions[item.convention],
                            severity(entry.shown()), std::isinf(entry.ratio) ? Json("inf") : rounded(item.error_ratio),
                            rounded(item.max_abs_error), rounded(item.rel_frobenius), repros[item.repro],
                            notes[note_text(item)]});
    if (item.detail) {
      row.push_back(item.worst_index);
      row.push_back(shown(item.detail->got, entry));
      row.push_back(shown(item.detail->expected, entry));
      row.push_back(fmt::format("{:.3g}", item.detail->bound));
      if (item.detail->picture) {
        row.push_back(pictures.size());
        Json detail = to_object(*item.detail);
        Json picture = std::move(detail.at("picture"));
        picture["storage"] = to_string(item.detail->storage);
        picture["shape"] = std::move(detail.at("shape"));
        pictures.push_back(std::move(picture));
      }
    }
    items.push_back(std::move(row));
    biases.push_back(item.bias_ratio ? Json::array({rounded(item.bias_ratio), rounded(item.bias)}) : Json(nullptr));
  }
  Json axes;
  for (const std::string_view tensor : kTensors) axes[tensor] = axis_names(tensor);
  Json kills = Json::array();
  for (const MutationFile& file : mutations) kills.push_back(parse_json(file.text, file.source));
  Json root;
  root["statuses"] = std::move(statuses);
  root["marks"] = std::move(marks);
  root["variants"] = variants.take();
  root["tensors"] = tensors.take();
  root["conventions"] = conventions.take();
  root["regimes"] = model.regimes;
  root["axes"] = std::move(axes);
  root["cases"] = std::move(cases);
  root["repros"] = repros.take();
  root["notes"] = notes.take();
  root["pictures"] = std::move(pictures);
  root["mutations"] = std::move(kills);
  root["items"] = std::move(items);
  root["biases"] = std::move(biases);
  return inside_script(root);
}

}  // namespace mlstm::verify::html
