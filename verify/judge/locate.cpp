// SPDX-License-Identifier: Apache-2.0
// Where the elements are that exceed their bounds: heads, time steps and chunks, columns, tiles.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "judge/locate.hpp"
#include "judge/tensor_view.hpp"

namespace mlstm::verify {
namespace {

using Indices = std::vector<std::int64_t>;

/// Above this share of its bounding box, a set of failing elements is called a block.
constexpr double kDense = 0.25;

bool is_range(const Indices& indices) {
  return indices.back() - indices.front() + 1 == static_cast<std::int64_t>(indices.size());
}

/// The positions that are not 0.
Indices marked(const std::vector<char>& marks) {
  Indices indices;
  for (std::size_t n = 0; n < marks.size(); ++n)
    if (marks[n] != 0) indices.push_back(static_cast<std::int64_t>(n));
  return indices;
}

/// Greatest common divisor of the distances; 0 for one index.
std::int64_t stride_of(const Indices& indices) {
  std::int64_t stride = 0;
  for (std::size_t n = 1; n < indices.size(); ++n) stride = std::gcd(stride, indices[n] - indices[n - 1]);
  return stride;
}

/// The distance of indices that are all equally far from each other, if there are enough of them to call that a rule;
/// else 1.
std::int64_t regular_stride_of(const Indices& indices) {
  constexpr std::size_t few = 4;
  const std::int64_t stride = stride_of(indices);
  const bool is_regular =
      indices.size() >= few && (indices.back() - indices.front()) / stride + 1 == std::ssize(indices);
  return is_regular ? stride : 1;
}

std::string ordinal(std::int64_t n) {
  const std::int64_t tens = n % 100 / 10, ones = n % 10;
  const char* ending = tens == 1 ? "th" : ones == 1 ? "st" : ones == 2 ? "nd" : ones == 3 ? "rd" : "th";
  return fmt::format("{}{}", n, ending);
}

/// The largest tile size that the range first ... last respects at both ends, 0 if none. The end of the axis counts as
/// the end of a tile.
std::int64_t alignment(std::int64_t first, std::int64_t last, std::int64_t extent) {
  for (const std::int64_t size : {256, 128, 64, 32, 16, 8})
    if (first % size == 0 && ((last + 1) % size == 0 || last + 1 == extent)) return size;
  return 0;
}

/// "16 ... 31", with what is known of the alignment.
std::string describe_range(const Indices& indices, std::int64_t extent) {
  const std::int64_t first = indices.front(), last = indices.back();
  const std::int64_t size = alignment(first, last, extent);
  return fmt::format("{} ... {}{}", first, last, size > 0 ? fmt::format(" (aligned to {})", size) : "");
}

std::string describe_indices(const std::string& name, const Indices& indices, std::int64_t extent) {
  if (static_cast<std::int64_t>(indices.size()) == extent) return extent == 1 ? "" : "every " + name;
  if (indices.size() == 1) return fmt::format("{} {} alone", name, indices.front());
  const std::int64_t stride = regular_stride_of(indices);
  if (stride > 1) return fmt::format("every {} {} from {} on", ordinal(stride), name, indices.front());
  return name + "s " + describe_range(indices, extent) +
         (is_range(indices) ? "" : fmt::format(", {} of them", indices.size()));
}

std::string describe_heads(const Indices& heads, const Shape& s) {
  if (s.heads() == 1) return "";
  if (static_cast<std::int64_t>(heads.size()) == s.heads()) return "in every head";
  if (heads.size() == 1) return fmt::format("in head [{}, {}] alone", heads.front() / s.NH, heads.front() % s.NH);
  std::set<std::int64_t> batches, within;
  for (const std::int64_t head : heads) {
    batches.insert(head / s.NH);
    within.insert(head % s.NH);
  }
  const Indices b(batches.begin(), batches.end()), h(within.begin(), within.end());
  if (b.size() * h.size() != heads.size())
    return fmt::format("in {} of {} heads, first in [{}, {}]", heads.size(), s.heads(), heads.front() / s.NH,
                       heads.front() % s.NH);
  std::string text = "in";
  if (static_cast<std::int64_t>(h.size()) < s.NH)
    text += fmt::format(" head{} {} of", h.size() > 1 ? "s" : "", fmt::join(h, ", "));
  if (static_cast<std::int64_t>(b.size()) == s.B) return text + " every batch entry";
  return text + fmt::format(" batch entr{} {}", b.size() > 1 ? "ies" : "y", fmt::join(b, ", "));
}

std::string chunk_words(const Indices& chunks) {
  if (chunks.size() == 1) return fmt::format("chunk {}", chunks.front());
  if (is_range(chunks)) return fmt::format("chunks {} to {}", chunks.front(), chunks.back());
  return fmt::format("chunks {}", fmt::join(chunks, ", "));
}

/// Where in its chunk a step is.
std::string place_in_chunk(std::int64_t t, std::int64_t S, std::int64_t L) {
  const std::int64_t chunk = t / L, step = t % L;
  if (step == 0) return fmt::format("the first step of chunk {}", chunk);
  if (step == L - 1 || t == S - 1) return fmt::format("the last step of chunk {}", chunk);
  return fmt::format("step {} of chunk {}", step, chunk);
}

/// Steps of one phase, or one range of phases, of several chunks; empty if they are not that.
std::string describe_phases(const Indices& rows, std::int64_t S, std::int64_t L) {
  std::set<std::int64_t> phases, chunks;
  for (const std::int64_t t : rows) {
    phases.insert(t % L);
    chunks.insert(t / L);
  }
  const Indices p(phases.begin(), phases.end()), c(chunks.begin(), chunks.end());
  if (c.size() < 2 || 2 * p.size() > static_cast<std::size_t>(L)) return "";
  if (p.size() > 1 && !is_range(p)) return "";
  std::int64_t of_these = 0;  // steps of these phases in these chunks; the ragged tail may have fewer
  for (const std::int64_t chunk : c)
    for (const std::int64_t phase : p) of_these += chunk * L + phase < S;
  if (10 * std::ssize(rows) < 9 * of_these) return "";
  std::string steps = fmt::format("steps {} of", describe_range(p, L));
  if (p.size() == 1)
    steps = p.front() == 0       ? "the first step of"
            : p.front() == L - 1 ? "the last step of"
                                 : fmt::format("step {} of", p.front());
  const std::int64_t holding = (S - p.front() + L - 1) / L;  // chunks that are long enough
  return steps + " " + (static_cast<std::int64_t>(c.size()) == holding ? std::string("every chunk") : chunk_words(c)) +
         fmt::format(", first t = {}", rows.front());
}

/// Steps that gather at the end, or at the beginning, of each chunk that has any; empty if they do not. What comes from
/// the next chunk (backward), or from the one before (forward), is forgotten with the distance.
std::string describe_gathering(const Indices& rows, std::int64_t S, std::int64_t L) {
  std::map<std::int64_t, std::pair<std::int64_t, std::int64_t>> extent;  // chunk -> first and last step in it
  for (const std::int64_t t : rows) {
    const auto [place, is_new] = extent.emplace(t / L, std::pair(t % L, t % L));
    if (!is_new) place->second.second = t % L;
  }
  const std::int64_t near = std::max<std::int64_t>(1, L / 16), far = L / 8;
  bool at_end = true, at_begin = true;
  std::vector<std::int64_t> last, first;  // how many steps
  Indices chunks;
  for (const auto& [chunk, steps] : extent) {
    const std::int64_t length = std::min(L, S - chunk * L);
    at_end &= steps.second >= length - near && steps.first >= far;
    at_begin &= steps.first < near && steps.second < length - far;
    last.push_back(length - steps.first);
    first.push_back(steps.second + 1);
    chunks.push_back(chunk);
  }
  if (L < 16 || at_end == at_begin) return "";
  return fmt::format("gathering at the {} of {}: within {} {} steps", at_end ? "end" : "beginning", chunk_words(chunks),
                     at_end ? "the last" : "the first", fmt::join(at_end ? last : first, ", "));
}

std::string describe_steps(const Indices& rows, std::int64_t S, std::int64_t L, bool chunked) {
  if (S == 1) return "";
  const std::int64_t first = rows.front(), last = rows.back();
  const auto with_chunk = [&](std::int64_t t) {
    return fmt::format("t = {}{}", t, chunked ? " (" + place_in_chunk(t, S, L) + ")" : "");
  };
  if (rows.size() == 1) return (first == S - 1 ? "only the last step, " : "only ") + with_chunk(first);
  if (first == 0 && static_cast<std::int64_t>(rows.size()) == S) return "every step";
  if (chunked) {
    if (const std::string phases = describe_phases(rows, S, L); !phases.empty()) return phases;
    if (const std::string gathering = describe_gathering(rows, S, L); !gathering.empty())
      return fmt::format("t = {} ... {}, {}", first, last, gathering);
  }
  if (const std::int64_t stride = regular_stride_of(rows); stride > 1)
    return fmt::format("every {} step from t = {} on", ordinal(stride), first);
  std::string text = fmt::format("t = {} ... {}", first, last);
  if (chunked) {
    const std::int64_t begin = first / L, end = last / L;
    const bool starts = first % L == 0, ends = (last + 1) % L == 0 || last == S - 1;
    if (S % L != 0 && begin == S / L)
      text += ", all in the ragged last chunk";
    else if (starts && ends && begin == end)
      text += fmt::format(", all of chunk {}", begin);
    else if (starts && last == S - 1)
      text += fmt::format(", all steps from the start of chunk {} on", begin);
    else if (first == 0 && ends)
      text += fmt::format(", all steps up to the end of chunk {}", end);
    else
      text += fmt::format(", from {} to {}", place_in_chunk(first, S, L), place_in_chunk(last, S, L));
  } else if (const std::int64_t size = alignment(first, last, S); size > 0 && (first > 0 || last < S - 1)) {
    text += fmt::format(" (aligned to {})", size);
  }
  return text + (is_range(rows) ? "" : fmt::format(", {} of these steps", rows.size()));
}

}  // namespace

TensorView view_of(const JudgedTensor& judged) {
  const Shape& s = judged.problem.shape;
  std::string name = judged.tensor;
  if (name.starts_with('d')) name.erase(0, 1);
  TensorView view;
  view.heads = s.heads();
  view.has_time = name.size() == 1;
  view.is_c = name.starts_with("c_");
  view.rows = view.has_time ? s.S : view.is_c ? s.DHQK : 1;
  view.columns = static_cast<std::int64_t>(judged.reference->size()) / (view.heads * view.rows);
  return view;
}

JudgedTensor judged_tensor(const Case& c, const ReferenceData& reference, const TensorMap& bounds, const Item& item) {
  JudgedTensor judged;
  judged.tensor = item.tensor;
  judged.problem = c.problem;
  judged.chunked = c.kernel->variant.starts_with("chunkwise--") && c.problem.chunk_size > 0 &&
                   c.problem.chunk_size < c.problem.shape.S;
  judged.bound = &bounds.at(bound_name(*c.kernel, item.tensor, item.convention));
  if (item.convention.empty()) {
    judged.values = &c.kernel->outputs.at(item.tensor);
    judged.reference = &reference.outputs.at(item.tensor);
  } else {
    const std::string name = item.tensor.substr(1);
    judged.values = &c.kernel->gradients.at(name);
    judged.reference = &(item.convention == "detached" ? reference.detached : reference.exact).at(name);
  }
  return judged;
}

Array ratios_of(const JudgedTensor& judged) {
  const std::string name = judged.tensor.starts_with('d') ? judged.tensor.substr(1) : judged.tensor;
  return error_ratios(*judged.values, *judged.reference, *judged.bound, storage_dtype(name, judged.problem));
}

Location locate(const JudgedTensor& judged) { return locate(judged, ratios_of(judged)); }

Location locate(const JudgedTensor& judged, const Array& ratios) {
  const TensorView view = view_of(judged);
  Location found;
  found.elements = static_cast<std::int64_t>(ratios.size());
  std::vector<char> heads(static_cast<std::size_t>(view.heads)), rows(static_cast<std::size_t>(view.rows)),
      columns(static_cast<std::size_t>(view.columns));
  for (std::int64_t n = 0; n < found.elements; ++n) {
    if (ratios.data()[n] <= 1) continue;
    ++found.failing;
    heads[static_cast<std::size_t>(view.head(n))] = 1;
    rows[static_cast<std::size_t>(view.row(n))] = 1;
    columns[static_cast<std::size_t>(view.column(n))] = 1;
  }
  found.text = fmt::format("{} of {} elements", found.failing, found.elements);
  if (found.failing == 0) return found;
  found.heads = marked(heads);
  found.rows = marked(rows);
  found.columns = marked(columns);
  const auto add = [&](const std::string& words) {
    if (!words.empty()) found.text += ", " + words;
  };
  add(describe_heads(found.heads, judged.problem.shape));
  if (view.has_time)
    add(describe_steps(found.rows, view.rows, judged.problem.chunk_size, judged.chunked));
  else if (view.is_c)
    add(describe_indices("row", found.rows, view.rows));
  add(describe_indices("column", found.columns, view.columns));
  const auto row_count = static_cast<std::int64_t>(found.rows.size()),
             column_count = static_cast<std::int64_t>(found.columns.size());
  const double box =
      static_cast<double>(found.heads.size()) * static_cast<double>(row_count) * static_cast<double>(column_count);
  const double density = static_cast<double>(found.failing) / box;
  if (row_count > 1 && column_count > 1 && row_count < view.rows && column_count < view.columns &&
      is_range(found.rows) && is_range(found.columns) && density >= kDense)
    add(fmt::format("a tile of {} x {}", row_count, column_count));
  else if (found.failing > 1 && density < kDense)
    add("scattered");
  return found;
}

std::string explain_tensor(const JudgedTensor& judged) {
  const Array ratios = ratios_of(judged);
  const Location where = locate(judged, ratios);
  if (where.failing == 0) {
    const std::string look = recognize_average(judged);
    return look.empty() ? look : "looks like: " + look;
  }
  std::string text = "where: " + where.text;
  const TensorView view = view_of(judged);
  const std::int64_t L = judged.problem.chunk_size;
  if (view.has_time && judged.chunked && (view.rows + L - 1) / L <= 16) {
    std::vector<std::int64_t> failing(static_cast<std::size_t>((view.rows + L - 1) / L)), all(failing.size());
    for (std::int64_t n = 0; n < where.elements; ++n) {
      const auto chunk = static_cast<std::size_t>(view.row(n) / L);
      ++all[chunk];
      failing[chunk] += !(ratios.data()[n] <= 1);
    }
    std::vector<std::string> shares;
    for (std::size_t chunk = 0; chunk < all.size(); ++chunk)
      shares.push_back(
          fmt::format("{:.3g} %", 100 * static_cast<double>(failing[chunk]) / static_cast<double>(all[chunk])));
    text += fmt::format("\nby chunk of {} steps: {}", L, fmt::join(shares, ", "));
  }
  std::string look = recognize(judged, ratios);
  if (look.empty()) look = recognize_average(judged);
  if (!look.empty()) text += "\nlooks like: " + look;
  return text;
}

}  // namespace mlstm::verify
