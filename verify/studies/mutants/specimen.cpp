// SPDX-License-Identifier: Apache-2.0
#include "studies/mutants/specimen.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "studies/mutants/flush.hpp"

namespace mlstm::verify::planted {
namespace {

VariantInfo declaration(Module module, std::string name, std::string description) {
  VariantInfo info;
  info.module = module;
  info.name = std::move(name);
  info.description = std::move(description);
  info.dtypes = {DType::float64, DType::float32, DType::bfloat16, DType::float16};
  info.gates = {Gate::exp, Gate::sigmoid};
  info.gradient_conventions = {Convention::exact, Convention::detached};
  info.stabilizer_init = {StabilizerInit::zero, StabilizerInit::neg_inf};
  info.full_precision_rows = info.straddling_gate_gradients = true;
  info.initial_states = info.last_states = info.last_state_cotangents = true;
  return info;
}

std::vector<Kind> all_kinds() {
  VariantInfo step = declaration(Module::recurrent, "step_fused_specimen", "one decoding step in plain loops");
  step.gradient_conventions.clear();
  step.last_state_cotangents = false;
  step.S.max = 1;
  VariantInfo parallel =
      declaration(Module::parallel, "limit_headdim_specimen_ownbw", "tiles of queries over all keys in plain loops");
  parallel.S.max = 4096;
  VariantInfo rounded = declaration(Module::chunkwise, "xl_chunk_specimen_ownbw",
                                    "chunks in plain loops, df summed over stored dq and dk");
  rounded.straddling_gate_gradients = false;
  rounded.dtypes = {DType::float64, DType::float32, DType::bfloat16};  // in float16 an overflow of dq would spoil df
  return {{kStep, "step", Formulation::step, false, std::move(step)},
          {kRecurrent, "recurrent", Formulation::recurrent, false,
           declaration(Module::recurrent, "sequence_specimen_ownbw", "step by step in plain loops")},
          {kParallel, "parallel", Formulation::parallel, false, std::move(parallel)},
          {kChunkwise, "chunkwise", Formulation::chunkwise, false,
           declaration(Module::chunkwise, "limit_chunk_specimen_ownbw", "chunks between states in plain loops")},
          {kRounded, "chunkwise_rounded", Formulation::chunkwise, true, std::move(rounded)}};
}

/// A specimen with a habit.
Kind other_kind(Formulation formulation, Module module, unsigned habits, const std::string& name,
                std::string description) {
  VariantInfo info = declaration(module, name, std::move(description));
  if (module == Module::parallel) info.S.max = 4096;
  if ((habits & kNarrowGates) != 0) info.gate_dtype = DType::bfloat16;
  if ((habits & kRoundsProducts) != 0) info.product_dtype = DType::bfloat16;
  if ((habits & kNarrowStates) != 0) info.state_dtype = DType::bfloat16;
  if ((habits & (kNarrowStates | kNarrowGates | kRoundsProducts)) != 0) {
    info.dtypes = {DType::float32, DType::bfloat16};  // in float16 an overflow of dq would spoil df
  }
  return {Specimens{}, name, formulation, false, std::move(info), habits};
}

std::vector<Kind> all_other_kinds() {
  using F = Formulation;
  using M = Module;
  std::vector<Kind> all;
  const auto add = [&](F formulation, M module, unsigned habits, const std::string& name, const std::string& what) {
    all.push_back(other_kind(formulation, module, habits, name, what));
  };
  const std::string rounds_g = "dh/d rounded before its product with v";
  add(F::chunkwise, M::chunkwise, kRoundsScaledCotangent, "scaled_cotangent_specimen_ownbw", rounds_g);
  add(F::parallel, M::parallel, kRoundsScaledCotangent, "scaled_cotangent_specimen_ownbw", rounds_g);
  add(F::recurrent, M::recurrent, kReadsRoundedState, "rounded_reads_specimen_ownbw",
      "C, n and dC rounded to the operands' dtype where products read them");
  add(F::chunkwise, M::chunkwise, kShortChunks | kRoundsScaledCotangent, "short_chunks_specimen_ownbw",
      "chunks of a quarter of L, dh/d rounded");
  add(F::chunkwise, M::chunkwise, kScattersByDifferences, "differences_specimen_ownbw",
      "the stabiliser's part of df by differences and a sum over them");
  add(F::chunkwise, M::chunkwise, kCutsByHead, "stream_k_specimen_ownbw", "sums cut at places that depend on the head");
  const std::string gates = "gates, stabiliser and their sums in bfloat16";
  add(F::recurrent, M::recurrent, kNarrowGates, "narrow_gates_specimen_ownbw", gates);
  add(F::parallel, M::parallel, kNarrowGates, "narrow_gates_specimen_ownbw", gates);
  add(F::chunkwise, M::chunkwise, kNarrowGates, "narrow_gates_specimen_ownbw", gates);
  add(F::recurrent, M::recurrent, kRoundsProducts, "rounded_products_specimen_ownbw",
      "every product rounded to bfloat16");
  add(F::recurrent, M::recurrent, kNarrowGates | kNarrowStates | kReadsRoundedState | kRoundsProducts,
      "all_bfloat16_specimen_ownbw", "gates, states and products in bfloat16");
  const std::string narrow = "states rounded to bfloat16 whenever they change";
  add(F::recurrent, M::recurrent, kNarrowStates, "narrow_states_specimen_ownbw", narrow);
  add(F::chunkwise, M::chunkwise, kNarrowStates, "narrow_states_specimen_ownbw", narrow);
  if (can_flush_subnormals()) {
    const std::string flushes = "subnormal numbers flushed to zero";
    add(F::recurrent, M::recurrent, kFlushesSubnormals, "flush_specimen_ownbw", flushes);
    add(F::parallel, M::parallel, kFlushesSubnormals, "flush_specimen_ownbw", flushes);
    add(F::chunkwise, M::chunkwise, kFlushesSubnormals, "flush_specimen_ownbw", flushes);
  }
  return all;
}

/// The problem as head number `head` is cut into chunks.
Problem cut(const Kind& kind, const Problem& problem, Index head) {
  Problem own = problem;
  const Index parts = (kind.habits & kShortChunks) != 0 ? 4 : (kind.habits & kCutsByHead) != 0 && head % 2 != 0 ? 2 : 1;
  if (parts > 1) own.chunk_size = std::max<Index>(1, problem.chunk_size / parts);
  return own;
}

/// Numbers per head of `saved` and of the workspace: enough for any head.
Index saved_numbers(const Kind& kind, const Problem& problem) {
  return std::max(saved_numbers(kind.formulation, cut(kind, problem, 0)),
                  saved_numbers(kind.formulation, cut(kind, problem, 1)));
}
Index workspace_numbers(const Kind& kind, const Problem& problem, bool backward) {
  return std::max(workspace_numbers(kind.formulation, cut(kind, problem, 0), backward),
                  workspace_numbers(kind.formulation, cut(kind, problem, 1), backward));
}

/// Whether call number `call` loses the race: one in 50, in no pattern, but the same ones every time.
bool loses_race(std::uint64_t call) {
  std::uint64_t x = (call + 1) * 0x9e3779b97f4a7c15u;  // splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return (x ^ (x >> 31)) % 50 == 0;
}

template <class Real>
void run_forward(Formulation formulation, const Context& c, const ForwardArgs& args, Index head, Memory<Real> memory) {
  switch (formulation) {
    case Formulation::step:
      return step_forward(c, args, head, memory);
    case Formulation::recurrent:
      return recurrent_forward(c, args, head, memory);
    case Formulation::parallel:
      return parallel_forward(c, args, head, memory);
    case Formulation::chunkwise:
      return chunkwise_forward(c, args, head, memory);
  }
}

template <class Real>
void run_backward(Formulation formulation, const Context& c, const BackwardArgs& args, Index head,
                  Memory<Real> memory) {
  switch (formulation) {
    case Formulation::step:
      throw std::logic_error("a decoding step has no backward pass");
    case Formulation::recurrent:
      return recurrent_backward(c, args, head, memory);
    case Formulation::parallel:
      return parallel_backward(c, args, head, memory);
    case Formulation::chunkwise:
      return chunkwise_backward(c, args, head, memory);
  }
}

/// Calls run(head, memory) for every head with its part of the buffers, in the type that the dtype is computed in.
template <class Run>
void for_each_head(const Context& c, const Kind& kind, void* saved, void* workspace, bool backward, const Run& run) {
  const Problem& problem = c.problem;
  const Index heads = problem.shape.heads(), kept = saved_numbers(kind, problem),
              scratch = workspace_numbers(kind, problem, backward);
  const auto all = [&](auto zero) {
    using Real = decltype(zero);
    Real *const keep = static_cast<Real*>(saved), *const work = static_cast<Real*>(workspace);
    const Index apart = kept - (c.has("saved_overlaps") ? 1 : 0);
    const auto one = [&](Index head) {
      run(head, Memory<Real>{keep == nullptr ? nullptr : keep + head * apart, work + head * scratch});
    };
    if (c.has("heads_by_counter")) {
      c.library->next_head = 0;
      for (Index head = c.library->next_head++; head < heads; head = c.library->next_head++) one(head);
    } else {
      for (Index head = 0; head < heads; ++head) one(head);
    }
    if (c.has("written_past_end", "workspace") && scratch > 0) work[heads * scratch] = 0;
    if (c.has("written_past_end", "saved") && keep != nullptr && !backward) keep[heads * kept] = 0;
  };
  problem.dtype == DType::float64 ? all(double{}) : all(float{});
}

std::size_t bytes(const Problem& problem, Index numbers_per_head) {
  return static_cast<std::size_t>(problem.shape.heads() * numbers_per_head) * size_of(state_dtype_of(problem.dtype));
}

}  // namespace

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = all_kinds();
  return all;
}

const std::vector<Kind>& other_kinds() {
  static const std::vector<Kind> all = all_other_kinds();
  return all;
}

std::string bug_name(const BugInfo& bug, const Place& place) {
  std::string name(place.target);
  if (!name.empty()) name += '_';
  return name.append(bug.name);
}

Specimen::Specimen(const Kind& kind) : kind_(kind), info_(kind.info) {}

Specimen::Specimen(const Kind& kind, const BugInfo& bug, const Place& place)
    : kind_(kind), bug_(bug), target_(place.target), is_race_(bug.repeats > 1), info_(kind.info) {
  info_.name.append("+").append(bug_name(bug, place));
  info_.description.append("; bug: ").append(place.description);
}

std::size_t Specimen::saved_size(const Problem& problem) const { return bytes(problem, saved_numbers(kind_, problem)); }

std::size_t Specimen::workspace_size(const Problem& problem, bool backward) const {
  return bytes(problem, workspace_numbers(kind_, problem, backward));
}

Context Specimen::context(const Problem& problem, bool backward) const {
  const bool in_this_direction = is_race_ && backward == (bug_ == "dk_tile_race");
  const bool raced = in_this_direction && loses_race(calls_++);
  return context_of(problem, bug_, target_, raced, library_, kind_.rounded_gates, kind_.habits);
}

namespace {

std::string shape_key(const Shape& s) {
  std::string key;
  for (const std::int64_t n : {s.B, s.NH, s.S, s.DHQK, s.DHV}) key.append(std::to_string(n)).append(" ");
  return key;
}

/// What the thread keeps for the kernel that ran last in it.
Library::Bytes& of_thread() {
  thread_local Library::Bytes memory;
  return memory;
}

}  // namespace

ForwardArgs Specimen::bent(const ForwardArgs& args) const {
  ForwardArgs bent = args;
  const bool needs_c = bug_ == "needs_c_last" && args.c_last == nullptr;
  if (needs_c && target_ == "n_last") bent.n_last = nullptr;
  if (needs_c && target_ == "m_last") bent.m_last = nullptr;
  if (bug_ == "needs_n_last" && target_ == "c_last" && args.n_last == nullptr) bent.c_last = nullptr;
  if (bug_ == "needs_m_last" && args.m_last == nullptr) bent.c_last = bent.n_last = nullptr;
  if (bug_ == "state_updated_in_place" && args.c_last == nullptr) bent.c_last = const_cast<void*>(args.c_initial);
  return bent;
}

void Specimen::after_forward(const Problem& problem, const ForwardArgs& args) const {
  library_.steps = problem.shape.S;
  library_.keep_keys(problem.shape, args.k);
  const std::size_t bytes = saved_size(problem);
  if (args.saved == nullptr || bytes == 0) return;
  if (bug_ == "saved_in_library") library_.keep({}, args.saved, bytes);
  if (bug_ == "saved_by_shape") library_.keep(shape_key(problem.shape), args.saved, bytes);
  if (bug_ == "saved_on_stack") library_.push(args.saved, bytes);
  if (bug_ == "saved_by_thread") {
    const auto* const saved = static_cast<const std::byte*>(args.saved);
    of_thread().assign(saved, saved + bytes);
  }
}

BackwardArgs Specimen::bent(const Problem& problem, const BackwardArgs& args, Library::Bytes& memory) const {
  BackwardArgs bent = args;
  const bool no_dc = bug_ == "needs_c_last" && args.dc_last == nullptr;
  if (no_dc && target_ == "dn_last") bent.dn_last = nullptr;
  if (no_dc && target_ == "dm_last") bent.dm_last = nullptr;
  if (bug_ == "needs_c_last" && target_ == "dm_initial" && args.dc_initial == nullptr) bent.dm_initial = nullptr;
  if (bug_ == "needs_n_last" && target_ == "dc_last" && args.dn_last == nullptr) bent.dc_last = nullptr;
  if (bug_ == "needs_n_last" && target_ == "dc_initial" && args.dn_initial == nullptr) bent.dc_initial = nullptr;
  if (bug_ == "needs_dh" && args.dh == nullptr) bent.dc_last = bent.dn_last = bent.dm_last = nullptr;
  if (bug_ == "keys_of_forward") bent.k = library_.keys(problem.shape, args.k);
  const std::size_t bytes = saved_size(problem);
  if (bug_ == "saved_in_library") memory = library_.kept({}, bytes);
  if (bug_ == "saved_by_shape") memory = library_.kept(shape_key(problem.shape), bytes);
  if (bug_ == "saved_on_stack") memory = library_.pop(bytes);
  if (bug_ == "saved_by_thread") {
    memory = of_thread();
    memory.resize(bytes);
  }
  if (!memory.empty()) bent.saved = memory.data();
  return bent;
}

void Specimen::begin_call(const Problem& problem) const {
  library_.eps = problem.eps;
  library_.scale = 1 / std::sqrt(static_cast<double>(problem.shape.DHQK));
}

void Specimen::require_supported(const Problem& problem) const {
  validate(problem);
  if (const std::string reason = unsupported(problem); !reason.empty())
    throw std::invalid_argument(info_.key() + ": " + reason);
}

void Specimen::forward(const Problem& problem, const ForwardArgs& args) const {
  require_supported(problem);
  begin_call(problem);
  Problem taken = problem;
  if (bug_ == "eps_needs_saved" && args.saved == nullptr) taken.eps = 0;
  const FlushSubnormals flush((kind_.habits & kFlushesSubnormals) != 0);
  Context c = context(taken, false);
  if (bug_ == "state_bfloat16_without_saved" && args.saved == nullptr) c.state = Rounding::bfloat16;
  const ForwardArgs taken_args = bent(args);
  for_each_head(c, kind_, args.saved, args.workspace, false, [&](Index head, auto memory) {
    const Problem own = cut(kind_, taken, head);
    run_forward(kind_.formulation, c.on(own), taken_args, head, memory);
  });
  after_forward(problem, args);
}

void Specimen::backward_once(const Problem& problem, const BackwardArgs& args) const {
  begin_call(problem);
  const FlushSubnormals flush((kind_.habits & kFlushesSubnormals) != 0);
  const Context c = context(problem, true);
  Library::Bytes kept;
  const BackwardArgs taken = bent(problem, args, kept);
  for_each_head(c, kind_, const_cast<void*>(taken.saved), args.workspace, true, [&](Index head, auto memory) {
    const Problem own = cut(kind_, problem, head);
    run_backward(kind_.formulation, c.on(own), taken, head, memory);
  });
}

void Specimen::backward(const Problem& problem, const BackwardArgs& args) const {
  if (kind_.formulation == Formulation::step) return Kernel::backward(problem, args);
  require_supported(problem);
  if (bug_ != "other_convention") return backward_once(problem, args);
  // One gradient from a pass in the other convention, all others from this one.
  BackwardArgs most = args, one = args;
  one.convention = args.convention == Convention::exact ? Convention::detached : Convention::exact;
  const std::pair<std::string_view, void * BackwardArgs::*> gradients[] = {{"dq", &BackwardArgs::dq},
                                                                           {"dk", &BackwardArgs::dk},
                                                                           {"dv", &BackwardArgs::dv},
                                                                           {"di", &BackwardArgs::di},
                                                                           {"df", &BackwardArgs::df},
                                                                           {"dc_initial", &BackwardArgs::dc_initial},
                                                                           {"dn_initial", &BackwardArgs::dn_initial},
                                                                           {"dm_initial", &BackwardArgs::dm_initial}};
  for (const auto& [name, pointer] : gradients) (name == target_ ? most : one).*pointer = nullptr;
  backward_once(problem, most);
  backward_once(problem, one);
}

}  // namespace mlstm::verify::planted
