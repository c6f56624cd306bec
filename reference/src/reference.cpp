// SPDX-License-Identifier: Apache-2.0
#include "mlstm/reference/reference.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>

#include "mlstm/parallel_for.hpp"
#include "mlstm/reference/autograd.hpp"
#include "mlstm/reference/differences.hpp"
#include "mlstm/reference/extended.hpp"
#include "mlstm/reference/fields.hpp"
#include "mlstm/reference/hot.hpp"

namespace mlstm::reference {
namespace {

[[noreturn]] void refuse(const std::string& argument, const std::string& value, const std::string& expected) {
  throw std::invalid_argument(argument + " is " + value + ", expected " + expected);
}

std::string quoted(std::string_view text) {
  std::string result(1, '"');
  result.append(text).push_back('"');
  return result;
}

template <class Struct>
bool all_finite(const Struct& pointers, const Shape& shape) {
  for (const auto& field : fields_of(pointers)) {
    const double* data = pointers.*(field.member);
    if (data && !hot::all_finite(data, mlstm::size_of(field.tensor, shape))) return false;
  }
  return true;
}

/// Throws for the first element that is not finite.
template <class Struct>
void name_not_finite(const Struct& pointers, const Shape& shape, const std::string& prefix) {
  for (const auto& field : fields_of(pointers)) {
    const double* data = pointers.*(field.member);
    if (!data) continue;
    for (std::int64_t e = 0, n = mlstm::size_of(field.tensor, shape); e < n; ++e) {
      if (std::isfinite(data[e])) continue;
      refuse(prefix + std::string(field.name) + "[" + std::to_string(e) + "]", std::to_string(data[e]),
             "a finite value");
    }
  }
}

void require_finite(const Problem& problem, const Inputs<double>& in, const Cotangents<double>& cotangents,
                    int threads) {
  const Shape& shape = problem.shape;
  const Shape head_shape{1, 1, shape.S, shape.DHQK, shape.DHV};
  std::atomic<bool> finite = true;
  parallel_for(shape.heads(), threads, [&](std::int64_t head) {
    if (!all_finite(slice(in, shape, head), head_shape) || !all_finite(slice(cotangents, shape, head), head_shape)) {
      finite = false;
    }
  });
  if (finite) return;
  name_not_finite(in, shape, "");
  name_not_finite(cotangents, shape, "cotangent ");
}

template <class T>
void require_no_states(const Gradients<T>& g, const std::string& prefix) {
  if (g.c_initial || g.n_initial || g.m_initial) {
    refuse("gradient " + prefix + " of the initial state", "wanted", "no such request without an initial state");
  }
}

void require_valid(const Problem& problem, const Inputs<double>& in, const Request& request, const Options& options) {
  validate(problem);
  for (const auto& field : fields_of(in)) {
    const bool state = field.name.ends_with("_initial");
    const bool needed = !state || (problem.has_initial_state && (problem.has_m() || field.name != "m_initial"));
    const bool given = in.*(field.member) != nullptr;
    if (needed && !given) {
      refuse(std::string(field.name), "missing", state ? "all initial states or none" : "a pointer to its data");
    }
    if (!needed && given) {
      refuse(std::string(field.name), "given",
             problem.has_initial_state ? "no m_initial with the sigmoid gate"
                                       : "no initial state, as the problem says has_initial_state = false");
    }
  }
  if (!problem.has_m()) {
    const auto refuse_m = [](const void* pointer, const char* name) {
      if (pointer) refuse(name, "given", "no m with the sigmoid gate");
    };
    refuse_m(request.outputs.m_last, "output m_last");
    refuse_m(request.cotangents.m_last, "cotangent m_last");
    refuse_m(request.exact.m_initial, "exact gradient m_initial");
    refuse_m(request.detached.m_initial, "detached gradient m_initial");
  }
  if (!problem.has_initial_state) {
    require_no_states(request.exact, "exact");
    require_no_states(request.detached, "detached");
  }
  if (options.chunk_size < 0) refuse("chunk_size", std::to_string(options.chunk_size), "a value >= 0");
  if (options.threads < 0) refuse("threads", std::to_string(options.threads), "a value >= 0");
  require_finite(problem, in, request.cotangents, options.threads);
}

HeadProblem head_problem(const Problem& problem, const Options& options) {
  HeadProblem p;
  p.S = problem.shape.S;
  p.DHQK = problem.shape.DHQK;
  p.DHV = problem.shape.DHV;
  p.gate = problem.gate;
  p.normalized = problem.normalized();
  p.eps = problem.eps;
  p.stabilizer_init = problem.stabilizer_init;
  p.formulation = options.formulation;
  p.L = options.chunk_size > 0 ? options.chunk_size : problem.chunk_size > 0 ? problem.chunk_size : 64;
  p.L = std::min<Index>(p.L, p.S);
  return p;
}

template <class EvaluateHead>
void for_each_head(const Problem& problem, const Inputs<double>& in, const Request& request, const Options& options,
                   const EvaluateHead& evaluate_head) {
  require_valid(problem, in, request, options);
  const HeadProblem p = head_problem(problem, options);
  const Shape& shape = problem.shape;
  parallel_for(shape.heads(), options.threads, [&](std::int64_t head) {
    const HeadRequest<double> part{slice(request.outputs, shape, head), slice(request.intermediates, shape, head),
                                   slice(request.cotangents, shape, head), slice(request.exact, shape, head),
                                   slice(request.detached, shape, head)};
    evaluate_head(p, slice(in, shape, head), part);
  });
}

}  // namespace

std::string_view to_string(Backward backward) { return backward == Backward::ownbw ? "ownbw" : "autograd"; }

Backward parse_backward(std::string_view text, std::string_view argument) {
  for (const Backward backward : {Backward::ownbw, Backward::autograd}) {
    if (text == to_string(backward)) return backward;
  }
  refuse(std::string(argument), quoted(text), "\"ownbw\" or \"autograd\"");
}

void evaluate(const Problem& problem, const Inputs<double>& inputs, const Request& request, const Options& options) {
  // Memory that is kept from head to head goes with the last one, also when an exception ends the work.
  struct Release {
    ~Release() { hot::release_memory(); }
  } const release;
  const auto evaluate_head = options.backward == Backward::ownbw ? hot::evaluate_head : evaluate_head_autograd;
  for_each_head(problem, inputs, request, options,
                [&](const HeadProblem& p, const Inputs<double>& in, const HeadRequest<double>& part) {
                  if (!evaluate_head(p, in, part)) evaluate_head_extended(p, in, part);
                });
}

void evaluate_extended(const Problem& problem, const Inputs<double>& inputs, const Request& request,
                       const Options& options) {
  if (options.backward != Backward::ownbw) {
    refuse("backward", quoted(to_string(options.backward)), "\"ownbw\" in extended precision");
  }
  for_each_head(problem, inputs, request, options, evaluate_head_extended);
}

void differences(const Problem& problem, const Inputs<double>& inputs, const Cotangents<double>& cotangents,
                 Convention convention, const Gradients<double>& wanted, const Options& options) {
  Request request;
  request.cotangents = cotangents;
  request.exact = wanted;  // of either convention; only the place is used
  for_each_head(problem, inputs, request, options,
                [&](const HeadProblem& p, const Inputs<double>& in, const HeadRequest<double>& part) {
                  evaluate_head_differences(p, in, part.cotangents, convention, part.exact);
                });
}

}  // namespace mlstm::reference
