// SPDX-License-Identifier: Apache-2.0
#include "sweep/doctor.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <xtensor/xview.hpp>

#include "cases/problems.hpp"
#include "sweep/declarations.hpp"

namespace mlstm::verify {
namespace {

constexpr double kLargest = 2e10;  // multiplications of a problem that is solved again for each answer

/// Questions in the order of the line, and what is said of an answer.
constexpr const char* kQuestions[] = {"gradients", "stabilizer_init", "scale", "eps", "gates", "padding", "precision"};

/// Whether everything in `items` passes, and something of it says something.
bool all_right(const std::vector<Item>& items) {
  return std::all_of(items.begin(), items.end(), [](const Item& i) { return i.status == Status::PASS; }) &&
         std::any_of(items.begin(), items.end(), [](const Item& i) { return !i.trivial; });
}

std::vector<Item> judged(const Case& c, const ReferenceData& reference, std::optional<Convention> convention,
                         int threads) {
  JudgeOptions options;
  options.convention = convention;
  options.explain = false;
  options.threads = threads;
  return judge(c, reference, options);
}

/// Whether the outputs are right for another problem: `change` makes it of this one.
bool outputs_fit(const Case& c, int threads, const std::function<void(Case&)>& change) {
  Case other = c;
  other.cotangents.clear();
  other.reference.reset();
  other.kernel->gradients.clear();
  change(other);
  if (other.kernel->outputs.empty()) return false;
  reference::Options how;
  how.threads = threads;
  return all_right(judged(other, evaluate_reference(other, how), {}, threads));
}

/// The problem as a kernel sees it that fills the last chunk up with zeros; h is then that of a longer sequence.
void pad_with_zeros(Case& c) {
  const std::int64_t S = c.problem.shape.S, L = c.problem.chunk_size;
  c.problem.shape.S = (S + L - 1) / L * L;
  for (const std::string_view name : kSequenceInputs) {
    Array& values = c.inputs.at(std::string(name));
    const auto extents = shape_of(name, c.problem.shape);
    Array padded = xt::zeros<double>(std::vector<std::size_t>(extents.begin(), extents.end()));
    xt::view(padded, xt::all(), xt::all(), xt::range(0, S)) = values;
    values = std::move(padded);
  }
}

/// h as a kernel with this denominator of |l|, m and eps would have computed it with that of the function (contract
/// §2).
void change_denominator(Case& c, int threads, double (*denominator)(double l, double floor, double eps)) {
  const auto found = c.kernel->outputs.find("h");
  if (found == c.kernel->outputs.end()) return;
  const Problem& p = c.problem;
  const auto rows = static_cast<std::size_t>(p.shape.heads() * p.shape.S), columns = found->second.size() / rows;
  std::vector<double> m(rows), l(rows), d(rows);
  Array right = found->second;
  reference::Request request;
  request.outputs.h = right.data();
  request.intermediates = {m.data(), l.data(), d.data()};
  reference::Options options;
  options.threads = threads;
  reference::evaluate(p, inputs_of(c.inputs), request, options);
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column)
      found->second.data()[row * columns + column] *=
          denominator(std::abs(l[row]), p.has_m() ? std::exp(-m[row]) : 1.0, p.eps) / d[row];
}

void ask_of_outputs(const Case& c, int threads, Symptoms& out) {
  const Problem& p = c.problem;
  const auto ask = [&](const char* question, const char* answer, const std::function<void(Case&)>& change) {
    std::vector<std::string>& fitting = out.fitting[question];
    if (outputs_fit(c, threads, change)) fitting.emplace_back(answer);
  };
  const auto scaled = [](double factor) {
    return [factor](Case& d) {
      for (double& q : d.inputs.at("q")) q *= factor;
    };
  };
  if (p.has_m() && !p.has_initial_state)
    for (const StabilizerInit init : {StabilizerInit::zero, StabilizerInit::neg_inf})
      ask("stabilizer_init", std::string(to_string(init)).c_str(),
          [init](Case& d) { d.problem.stabilizer_init = init; });
  if (const double root = std::sqrt(static_cast<double>(p.shape.DHQK)); root != 1) {
    ask("scale", "DHQK^-1/2", scaled(1));
    ask("scale", "none", scaled(root));
    ask("scale", "1/DHQK", scaled(1 / root));
  }
  if (p.normalized() && p.eps != 0) {
    ask("eps", "added to the maximum", scaled(1));
    ask("eps", "inside the maximum", [threads](Case& d) {
      change_denominator(d, threads, [](double l, double floor, double eps) { return std::max({l, floor, eps}); });
    });
    ask("eps", "left out", [](Case& d) { d.problem.eps = 0; });
    if (p.eps != 1e-6) ask("eps", "always 1e-6", [](Case& d) { d.problem.eps = 1e-6; });
  }
  ask("gates", "i and f as named", scaled(1));
  ask("gates", "i and f swapped", [](Case& d) { std::swap(d.inputs.at("i"), d.inputs.at("f")); });
  if (formulation_of(*c.kernel) != Module::recurrent && c.kernel->outputs.contains("c_last") && p.chunk_size > 0 &&
      p.shape.S % p.chunk_size != 0) {
    const auto last_states_alone = [](Case& d) { d.kernel->outputs.erase("h"); };
    ask("padding", "none", last_states_alone);
    ask("padding", "zeros, which alter last states", [&](Case& d) {
      last_states_alone(d);
      pad_with_zeros(d);
    });
  }
}

std::string sentence(const std::string& question, const std::vector<Symptoms>& files) {
  std::map<std::string, int> told;
  std::set<std::string> stated;
  bool asked = false, as_stated = true;
  for (const Symptoms& file : files) {
    const auto fitting = file.fitting.find(question);
    if (fitting == file.fitting.end()) continue;
    asked = true;
    const auto own = file.stated.find(question);
    if (own != file.stated.end()) stated.insert(own->second);
    // A file tells if one answer alone fits it; precision is not asked as a choice.
    if (fitting->second.size() != 1) continue;
    ++told[fitting->second.front()];
    as_stated &= own != file.stated.end() && own->second == fitting->second.front();
  }
  if (stated.size() > 1 && as_stated && !told.empty()) {
    int count = 0;
    for (const auto& [answer, files_that_tell] : told) count += files_that_tell;
    told = {{"as each file states", count}};
  }
  if (!asked) return {};
  if (told.empty()) return question + " open";
  if (told.size() == 1) {
    const auto& [answer, count] = *told.begin();
    return fmt::format("{} {} ({}: told by {} of {})", question, answer, count > 1 ? "sure" : "likely", count,
                       files.size());
  }
  std::vector<std::string> parts;
  for (const auto& [answer, count] : told) parts.push_back(fmt::format("{} in {}", answer, count));
  return fmt::format("{} contradictory: {}", question, fmt::join(parts, ", "));
}

}  // namespace

Symptoms examine(const Case& c, const ReferenceData& reference, const std::vector<Item>& items, int threads) {
  Symptoms out;
  if (!c.kernel) return out;
  out.variant = c.kernel->variant;
  if (cost_of(c.problem, !c.cotangents.empty()) > kLargest) return out;
  // What is computed more coarsely than declared would fit no answer.
  Case taken = c;
  std::vector<std::string>& precision = out.fitting["precision"];
  if (std::any_of(items.begin(), items.end(), [](const Item& i) { return i.status == Status::FAIL; })) {
    if (const auto tightest = find_declaration(c, reference, items, threads)) {
      precision.push_back(tightest->text);
      if (tightest->operand) taken.kernel->operand_dtype = tightest->operand;
      if (tightest->product) taken.kernel->product_dtype = tightest->product;
      if (tightest->gate) taken.kernel->gate_dtype = tightest->gate;
      if (tightest->state) taken.kernel->state_dtype = tightest->state;
    }
  } else {
    precision.emplace_back("as declared");
  }
  if (c.kernel->convention) out.stated["gradients"] = to_string(*c.kernel->convention);
  out.stated["stabilizer_init"] = to_string(c.problem.stabilizer_init);
  if (!c.kernel->gradients.empty() && !c.cotangents.empty()) {
    std::vector<std::string>& fitting = out.fitting["gradients"];
    Case gradients = taken;
    gradients.kernel->outputs.clear();
    for (const Convention convention : {Convention::exact, Convention::detached})
      if (all_right(judged(gradients, reference, convention, threads))) fitting.emplace_back(to_string(convention));
  }
  if (!c.kernel->outputs.empty()) ask_of_outputs(taken, threads, out);
  return out;
}

std::string diagnose(const std::vector<Symptoms>& files) {
  std::map<std::string, std::vector<Symptoms>> variants;
  std::set<std::pair<std::string, std::string>> seen;
  for (const Symptoms& file : files)
    if (!file.fitting.empty() && (file.digest.empty() || seen.insert({file.variant, file.digest}).second))
      variants[file.variant].push_back(file);
  std::string text;
  for (const auto& [variant, of_variant] : variants) {
    std::vector<std::string> sentences;
    for (const char* question : kQuestions)
      if (std::string one = sentence(question, of_variant); !one.empty()) sentences.push_back(std::move(one));
    text += fmt::format("{}: {} file{}: {}\n", variant.empty() ? "(not named)" : variant, of_variant.size(),
                        of_variant.size() == 1 ? "" : "s", fmt::join(sentences, "; "));
  }
  return text;
}

}  // namespace mlstm::verify
