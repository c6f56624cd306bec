// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstdlib>
#include <map>

#include "cases/case_file.hpp"
#include "report/detail_json.hpp"
#include "report/report_html_parts.hpp"

namespace mlstm::verify::html {
namespace json = boost::json;
namespace {

/// Strings that occur often, each once.
class Table {
 public:
  std::size_t operator[](const std::string& text) {
    const auto [place, is_new] = places_.emplace(text, list_.size());
    if (is_new) list_.emplace_back(json::string(text));
    return place->second;
  }
  json::array take() { return std::move(list_); }

 private:
  std::map<std::string, std::size_t> places_;
  json::array list_;
};

/// More digits than are shown, so that rounding twice gives what tables show.
json::value rounded(const std::optional<double>& value) {
  if (!value || !std::isfinite(*value)) return nullptr;
  return std::strtod(fmt::format("{:.6g}", *value).c_str(), nullptr);
}

json::object case_of(const Entry& entry) {
  json::object object{{"name", entry.item.case_name}, {"regime", entry.regime}};
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
json::value shown(double value, const Entry& entry) {
  return json::value(entry.failed() ? fmt::format("{}", value) : fmt::format("{:.9g}", value));
}

/// "<" as an escape, so that no text can end the script element, or begin a comment in it.
std::string inside_script(const json::value& value) {
  std::string text;
  for (const char c : json::serialize(value)) text += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return text;
}

}  // namespace

std::string data(const Model& model, const std::vector<MutationFile>& mutations) {
  Table variants, tensors, conventions, repros, notes;
  std::map<std::string, std::size_t> case_places;
  json::array cases, items, pictures, statuses, names;
  for (const Status status : kStatuses) statuses.emplace_back(to_string(status));
  for (const Entry& entry : model.entries) {
    const Item& item = entry.item;
    json::object about = case_of(entry);
    const auto [place, is_new] = case_places.emplace(json::serialize(about), cases.size());
    if (is_new) cases.emplace_back(std::move(about));
    json::array row{variants[item.variant],
                    place->second,
                    tensors[item.tensor],
                    conventions[item.convention],
                    static_cast<int>(item.status),
                    std::isinf(entry.ratio) ? json::value("inf") : rounded(item.error_ratio),
                    rounded(item.max_abs_error),
                    rounded(item.rel_frobenius),
                    repros[item.repro],
                    notes[note_text(item)]};
    if (item.detail) {
      row.emplace_back(json::array(item.worst_index.begin(), item.worst_index.end()));
      row.emplace_back(shown(item.detail->got, entry));
      row.emplace_back(shown(item.detail->expected, entry));
      row.emplace_back(fmt::format("{:.3g}", item.detail->bound));
      if (item.detail->picture) {
        row.emplace_back(pictures.size());
        json::object detail = to_object(*item.detail);
        json::object picture = std::move(detail.at("picture").as_object());
        picture["storage"] = to_string(item.detail->storage);
        picture["shape"] = std::move(detail.at("shape"));
        pictures.emplace_back(std::move(picture));
      }
    }
    items.emplace_back(std::move(row));
  }
  json::object axes;
  for (const std::string_view tensor : kTensors) {
    json::array list;
    for (const std::string& axis : axis_names(tensor)) list.emplace_back(json::string(axis));
    axes[tensor] = std::move(list);
  }
  json::array kills;
  for (const MutationFile& file : mutations) {
    json::error_code error;
    json::value root = json::parse(file.text, error);
    if (error) throw FileError(file.source + ": not JSON (" + error.message() + ")");
    kills.emplace_back(std::move(root));
  }
  json::array regime_names;
  for (const std::string& regime : model.regimes) regime_names.emplace_back(json::string(regime));
  json::object root;
  root["statuses"] = std::move(statuses);
  root["variants"] = variants.take();
  root["tensors"] = tensors.take();
  root["conventions"] = conventions.take();
  root["regimes"] = std::move(regime_names);
  root["axes"] = std::move(axes);
  root["cases"] = std::move(cases);
  root["repros"] = repros.take();
  root["notes"] = notes.take();
  root["pictures"] = std::move(pictures);
  root["mutations"] = std::move(kills);
  root["items"] = std::move(items);
  return inside_script(root);
}

}  // namespace mlstm::verify::html
