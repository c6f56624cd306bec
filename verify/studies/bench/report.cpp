// SPDX-License-Identifier: Apache-2.0
// What was timed, as a table and as JSON, and what others took.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "report/report.hpp"
#include "studies/bench/bench.hpp"

namespace mlstm::verify {
namespace {

/// What one pass, or both, achieved.
struct Rates {
  double bytes_per_second = 0, flops_per_second = 0;
};

Rates rates_of(const BenchRow& row, bool with_backward) {
  Work work = forward_work(row.task);
  if (with_backward) {
    const Work backward = backward_work(row.task);
    work.bytes += backward.bytes;
    work.flops += backward.flops;
  }
  const double seconds = (with_backward ? row.forward_backward : row.forward)->median;
  return {work.bytes / seconds, work.flops / seconds};
}

std::string shape_text(const Shape& s) { return fmt::format("{},{},{},{},{}", s.B, s.NH, s.S, s.DHQK, s.DHV); }

/// "forward / forward + backward", or the first alone.
template <class Value>
std::string pair_text(const BenchRow& row, const Value& value) {
  return row.forward_backward ? value(false) + " / " + value(true) : value(false);
}

std::string ratio_text(const std::optional<Timing>& ours, const std::optional<double>& theirs) {
  return ours && theirs ? fmt::format("{:.2f}", 1e3 * ours->median / *theirs) : "-";
}

/// About three digits, never with an exponent.
std::string digits(double number) {
  return fmt::format("{:.{}f}", number, number < 1 ? 3 : number < 10 ? 2 : number < 100 ? 1 : 0);
}

constexpr std::string_view kColumns = "  {:<19} {:<8} {:<7} {:<8} {:>4} {:>9} {:>9}  {:>15}  {:>13}  {:>13}";

Json milliseconds(const std::optional<Timing>& timing) { return timing ? Json(1e3 * timing->median) : Json(nullptr); }

Json to_array(const Shape& s) { return Json::array({s.B, s.NH, s.S, s.DHQK, s.DHV}); }

Json pass_object(const BenchRow& row, bool with_backward) {
  const Timing& timing = *(with_backward ? row.forward_backward : row.forward);
  const Rates rates = rates_of(row, with_backward);
  return {{"fastest_ms", 1e3 * timing.fastest},
          {"samples", timing.samples},
          {"method", timing.method},
          {"extra_bytes", with_backward ? row.forward_backward_memory : row.forward_memory},
          {"gb_per_s", 1e-9 * rates.bytes_per_second},
          {"tflop_per_s", 1e-12 * rates.flops_per_second}};
}

Json peer_value(const BenchRow& row) {
  if (!row.peer) return nullptr;
  const auto ratio = [](const std::optional<Timing>& ours, const std::optional<double>& theirs) {
    return ours && theirs ? Json(1e3 * ours->median / *theirs) : Json(nullptr);
  };
  const PeerTimes& peer = *row.peer;
  return Json{{"kernel", peer.kernel},
              {"forward_ms", number_or_null(peer.forward_ms)},
              {"forward_backward_ms", number_or_null(peer.forward_backward_ms)},
              {"forward_ours_over_theirs", ratio(row.forward, peer.forward_ms)},
              {"forward_backward_ours_over_theirs", ratio(row.forward_backward, peer.forward_backward_ms)}};
}

Json to_object(const BenchRow& row) {
  const Problem& problem = row.task.problem;
  const auto& convention = row.task.convention;
  Json object;
  object["variant"] = row.task.kernel->info().key();
  object["status"] = to_string(row.status);
  object["note"] = to_utf8(row.note);
  object["device"] = to_string(row.task.kernel->info().device);
  object["shape"] = to_array(problem.shape);
  object["dtype"] = to_string(problem.dtype);
  object["gate"] = to_string(problem.gate);
  object["convention"] = convention ? Json(to_string(*convention)) : Json(nullptr);
  object["chunk_size"] = problem.chunk_size;
  object["initial_states"] = problem.has_initial_state;
  object["forward_ms"] = milliseconds(row.forward);
  object["forward_backward_ms"] = milliseconds(row.forward_backward);
  object["forward"] = row.forward ? Json(pass_object(row, false)) : Json(nullptr);
  object["forward_backward"] = row.forward_backward ? Json(pass_object(row, true)) : Json(nullptr);
  object["peer"] = peer_value(row);
  return object;
}

[[noreturn]] void refuse(const std::string& where, std::string_view key, std::string_view expected) {
  throw FileError(fmt::format("{}: \"{}\" is missing or wrong; expected {}", where, key, expected));
}

std::string text_member(const Json& object, std::string_view key, const std::string& where) {
  const Json* const value = find_member(object, key);
  if (value == nullptr || !value->is_string()) refuse(where, key, "a string");
  return value->get<std::string>();
}

/// Milliseconds; absent where there are none.
std::optional<double> time_member(const Json& object, std::string_view key, const std::string& where) {
  const Json* const value = find_member(object, key);
  if (value == nullptr || value->is_null()) return {};
  const double time = value->is_number() ? value->get<double>() : 0;
  if (!(time > 0) || !std::isfinite(time)) refuse(where, key, "a number of milliseconds > 0, or null");
  return time;
}

Shape shape_member(const Json& object, const std::string& where) {
  Shape shape;
  std::int64_t* const extents[] = {&shape.B, &shape.NH, &shape.S, &shape.DHQK, &shape.DHV};
  const Json* const value = find_member(object, "shape");
  const bool five = value != nullptr && value->is_array() && value->size() == std::size(extents);
  for (std::size_t n = 0; n < std::size(extents); ++n) {
    const std::optional<std::int64_t> extent = five ? as_integer((*value)[n]) : std::nullopt;
    if (!extent || *extent < 1) refuse(where, "shape", "five positive integers B, NH, S, DHQK, DHV");
    *extents[n] = *extent;
  }
  return shape;
}

void take_smaller(std::optional<double>& smallest, const std::optional<double>& other) {
  if (other && (!smallest || *other < *smallest)) smallest = other;
}

}  // namespace

BenchPeers BenchPeers::parse(std::string_view text, const std::string& source) {
  const Json object = parse_json(text, source);
  if (!object.is_object()) throw FileError(source + ": expected a JSON object");
  if (text_member(object, "schema", source) != "mlstm-bench-peers") refuse(source, "schema", "\"mlstm-bench-peers\"");
  BenchPeers peers;
  peers.device_ = text_member(object, "device", source);
  const Json* const rows = find_member(object, "rows");
  if (rows == nullptr || !rows->is_array()) refuse(source, "rows", "an array");
  for (const Json& row : *rows) {
    const std::string where = fmt::format("{}: row {}", source, peers.rows_.size());
    if (!row.is_object()) throw FileError(where + " is no object");
    const Json* const states = find_member(row, "initial_states");
    if (states != nullptr && !states->is_boolean()) refuse(where, "initial_states", "true or false");
    try {
      peers.rows_.push_back({text_member(row, "compares_with", where),
                             shape_member(row, where),
                             parse_dtype(text_member(row, "dtype", where)),
                             parse_gate(text_member(row, "gate", where)),
                             states != nullptr && states->get<bool>(),
                             {text_member(row, "kernel", where), time_member(row, "forward_ms", where),
                              time_member(row, "forward_backward_ms", where)}});
    } catch (const std::invalid_argument& wrong) {
      throw FileError(where + ": " + wrong.what());
    }
  }
  return peers;
}

std::optional<PeerTimes> BenchPeers::find(const BenchTask& task) const {
  const Problem& problem = task.problem;
  std::optional<PeerTimes> found;
  for (const Row& row : rows_) {
    if (row.compares_with != task.kernel->info().key() || row.shape != problem.shape || row.dtype != problem.dtype ||
        row.gate != problem.gate || row.initial_states != problem.has_initial_state)
      continue;
    if (!found) found = PeerTimes{row.times.kernel, {}, {}};
    take_smaller(found->forward_ms, row.times.forward_ms);
    take_smaller(found->forward_backward_ms, row.times.forward_backward_ms);
  }
  return found;
}

std::string bench_heading(const std::map<Device, BenchDevice>& devices, bool with_peers) {
  std::string text;
  for (const auto& [device, about] : devices) {
    text += fmt::format("{}: {}\n", to_string(device), about.name);
    if (about.ceilings)
      text += fmt::format(
          "  measured: copies {:.0f} GB/s (read + written), bfloat16 products of 8192 x 8192 {:.0f} TFLOP/s\n",
          1e-9 * about.ceilings->copy_bytes_per_second, 1e-12 * about.ceilings->product_flops_per_second);
  }
  text += "\nMedian times; x / y: forward / forward + backward. MiB: memory beyond inputs and outputs.\n";
  if (with_peers) text += "ours/theirs: time over that of the published kernel; below 1 is faster than it.\n";
  text += "\n";
  text += fmt::format(fmt::runtime(kColumns), "B,NH,S,DHQK,DHV", "dtype", "gate", "gradient", "L", "fw ms", "fw+bw ms",
                      "MiB", "GB/s", "TFLOP/s");
  return text + (with_peers ? "    ours/theirs\n" : "\n");
}

std::string bench_line(const BenchRow& row, bool with_peers) {
  const Problem& problem = row.task.problem;
  const auto ms = [](const std::optional<Timing>& timing) {
    return timing ? digits(1e3 * timing->median) : std::string("-");
  };
  std::string forward = ms(row.forward), both = ms(row.forward_backward), memory, bytes, flops;
  if (row.status == BenchStatus::TIMED) {
    memory = pair_text(row, [&](bool backward) {
      return fmt::format("{:.0f}",
                         static_cast<double>(backward ? row.forward_backward_memory : row.forward_memory) / 0x1p20);
    });
    bytes = pair_text(row, [&](bool backward) { return digits(1e-9 * rates_of(row, backward).bytes_per_second); });
    flops = pair_text(row, [&](bool backward) { return digits(1e-12 * rates_of(row, backward).flops_per_second); });
  }
  std::string line = fmt::format(fmt::runtime(kColumns), shape_text(problem.shape), to_string(problem.dtype),
                                 to_string(problem.gate), row.task.convention ? to_string(*row.task.convention) : "-",
                                 problem.chunk_size > 0 ? std::to_string(problem.chunk_size) : "-", forward, both,
                                 memory, bytes, flops);
  if (row.status == BenchStatus::TIMED) {
    if (with_peers)
      line += fmt::format("  {:>13}", row.peer ? pair_text(row,
                                                           [&](bool backward) {
                                                             return backward
                                                                        ? ratio_text(row.forward_backward,
                                                                                     row.peer->forward_backward_ms)
                                                                        : ratio_text(row.forward, row.peer->forward_ms);
                                                           })
                                               : "-");
    return line + "\n";
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + fmt::format("  {}: {}\n", to_string(row.status), row.note);
}

std::string bench_json(const std::map<Device, BenchDevice>& devices, const std::vector<BenchRow>& rows) {
  Json about = Json::object();
  for (const auto& [device, description] : devices) {
    Json object{{"name", to_utf8(description.name)}};
    const auto& ceilings = description.ceilings;
    object["copy_gb_per_s"] = ceilings ? Json(1e-9 * ceilings->copy_bytes_per_second) : Json(nullptr);
    object["bf16_product_tflop_per_s"] = ceilings ? Json(1e-12 * ceilings->product_flops_per_second) : Json(nullptr);
    about[to_string(device)] = std::move(object);
  }
  std::string text = fmt::format(
      "{{\"schema\": \"mlstm-bench\", \"schema_version\": 1, \"source\": \"{}\",\n\"devices\": {},\n\"rows\": [",
      program_source(), serialize(about));
  const char* separator = "\n";
  for (const BenchRow& row : rows) {
    text += separator + serialize(to_object(row));
    separator = ",\n";
  }
  return text + "\n]}\n";
}

}  // namespace mlstm::verify
