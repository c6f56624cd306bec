// SPDX-License-Identifier: Apache-2.0
// The table of planted bugs: the one place where a bug is declared. The code that plants it asks for it by its name,
// `c.has("eps_missing")`; a name that is not in the table does not compile.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string_view>

namespace mlstm::verify::planted {

/// Sets of specimens.
enum Specimens : unsigned {
  kStep = 1,       ///< one decoding step
  kRecurrent = 2,  ///< the whole recurrence
  kParallel = 4,   ///< one block of queries and keys
  kChunkwise = 8,  ///< chunks between states
  kRounded = 16,   ///< the same, df from stored dq and dk
  kSequence = kRecurrent | kParallel | kChunkwise,
  kBlocks = kParallel | kChunkwise,
  kStates = kRecurrent | kChunkwise,
};

/// Where a bug is planted: each specimen of the set gives one mutant.
struct Place {
  std::string_view target;  ///< tensor or buffer that the bug is about, and part of the mutant's name; empty: no choice
  unsigned specimens = 0;   ///< of Specimens
  std::string_view description{};  ///< Mutant::description
  std::string_view family{};       ///< if it is not the bug's
};

/// The line of a problem that shows a bug which smaller or rounder ones do not, as `--case` takes it.
struct Needs {
  std::string_view problem;
};

class BugInfo {
 public:
  constexpr BugInfo(std::string_view its_name, std::string_view its_family, unsigned specimens,
                    std::string_view description, int its_repeats = 1, std::string_view proof = {})
      : name(its_name), family(its_family), repeats(its_repeats), equivalent(proof), count_(1) {
    places_[0] = {{}, specimens, description, {}};
  }
  constexpr BugInfo(std::string_view its_name, std::string_view its_family, unsigned specimens,
                    std::string_view description, Needs needed)
      : BugInfo(its_name, its_family, specimens, description) {
    needs = needed.problem;
  }
  /// A bug that spoils one tensor here and another one there.
  constexpr BugInfo(std::string_view its_name, std::string_view its_family, std::initializer_list<Place> places,
                    Needs needed = {})
      : name(its_name), family(its_family), needs(needed.problem) {
    for (const Place& place : places) places_.at(count_++) = place;
  }
  constexpr std::span<const Place> places() const { return {places_.data(), count_}; }

  std::string_view name, family;
  int repeats = 1;                ///< Mutant::repeats
  std::string_view equivalent{};  ///< Mutant::equivalent
  std::string_view needs{};       ///< Mutant::needs

 private:
  std::array<Place, 5> places_{};
  std::size_t count_ = 0;
};

/// A race that is lost in one call of 50: 228 calls show it with 1 - 0.98^228 = 99 %, two of which are always made.
inline constexpr int kRaceRepeats = 226;

/// Name, family, specimens, description; or name, family and a place for each target.
inline constexpr BugInfo kBugs[] = {
    // gates
    {"log_of_sigmoid", "gate", kRecurrent, "log(sigmoid(f)): -inf from f < -88 on"},
    {"forget_gate_exp", "gate", kRecurrent, "exp(f) for the forget gate"},
    {"forget_gate_hard", "gate", kChunkwise, "min(f, 0) for log(sigmoid(f))"},
    {"input_gate_exp", "gate", kStep, "exp(i) for the sigmoid input gate"},
    {"log_gate_16_bit", "gate", kChunkwise, "log(sigmoid(f)) kept in the 16-bit storage type"},
    // stabiliser
    {"m_bfloat16", "stabilizer", kStep, "m_t rounded to bfloat16 at every step"},
    {"saved_m_bfloat16", "stabilizer", kChunkwise, "m saved for the backward pass in bfloat16"},
    {"m_not_rescaled", "stabilizer", kStates, "the state is not rescaled when m changes"},
    {"m_one_chunk_late", "stabilizer", kChunkwise, "the state before is taken to have the m of a chunk ago"},
    {"floor_m_of_step_before", "stabilizer", kParallel, "exp(-m) with m of the step before"},
    {"input_unstabilized", "stabilizer", kStep, "exp(i) without -m enters the state"},
    {"m_initial_ignored", "stabilizer", kSequence, "m_initial taken for 0"},
    {"stabilizer_init_swapped", "stabilizer", kParallel, "m_0 = 0 for -inf and the other way round"},
    {"m_last_of_chunk_before", "stabilizer", kChunkwise, "m_last is m before the last chunk"},
    // denominator
    {"no_absolute_value", "denominator", kSequence, "max(n.q, exp(-m)) without the absolute value"},
    {"floor_one", "denominator", kParallel, "floor 1 for exp(-m)"},
    {"floor_exp_plus_m", "denominator", kRecurrent, "floor exp(+m) for exp(-m)"},
    {"floor_missing", "denominator", kStep, "|n.q| without a floor"},
    {"floor_zero_sigmoid", "denominator", kRecurrent, "sigmoid gate: floor 0 for 1"},
    {"normalize_always", "denominator", kParallel, "normalize = 0 is not looked at"},
    {"normalize_never", "denominator", kRecurrent, "sigmoid gate: normalize = 1 is not looked at"},
    {"sum_for_max", "denominator", kChunkwise, "|n.q| + exp(-m) for the maximum"},
    {"denominator_of_row_before", "denominator", kParallel, "rows within a tile use the denominator of the row before"},
    {"denominator_float16", "denominator", kChunkwise, "d kept in float16"},
    {"row_sum_float16", "denominator", kParallel, "the row sum of P kept in float16"},
    {"last_key_dimension_lost", "denominator", kRecurrent, "n.q without its last product"},
    // eps
    {"eps_missing", "eps", kSequence, "eps left out"},
    {"eps_squared", "eps", kRecurrent, "eps squared"},
    {"eps_twice", "eps", kChunkwise, "eps added twice"},
    {"eps_default", "eps", kParallel, "always 1e-6, whatever was asked for"},
    {"eps_inside_max", "eps", kChunkwise, "max(|n.q|, exp(-m) + eps)"},
    {"eps_on_floor_only", "eps", kStep, "eps only where the floor is the denominator"},
    {"eps_unstabilized", "eps", kRecurrent, "eps exp(-m): eps added before the stabilisation"},
    // scale
    {"scale_missing", "scale", kStep, "q not scaled"},
    {"scale_of_value", "scale", kChunkwise, "DHV^-1/2 for DHQK^-1/2"},
    {"scale_twice", "scale", kParallel, "q scaled twice"},
    {"scale_bfloat16", "scale", kChunkwise, "DHQK^-1/2 rounded to bfloat16"},
    {"state_query_unscaled", "scale", kChunkwise, "q scaled within the chunk, but not on the state"},
    // masks
    {"mask_includes_next", "mask", kBlocks, "causal mask j <= t + 1"},
    {"mask_excludes_diagonal", "mask", kParallel, "causal mask j < t"},
    {"mask_includes_next_backward", "mask", kParallel, "causal mask j <= t + 1 in the backward pass"},
    {"mask_excludes_diagonal_backward", "mask", kChunkwise, "causal mask j < t in the backward pass"},
    {"first_key_lost", "mask", kChunkwise, "the first key of a block is never seen"},
    {"ragged_keys_lost", "mask", kParallel, "keys beyond the last full tile of 16 are not seen"},
    {"key_tile_lost", "mask", kParallel, "one tile of queries skips one tile of keys"},
    {"keys_beyond_window_lost", "mask", kParallel, "keys more than 63 steps back are not seen"},
    // decays
    {"decay_inclusive", "decay", kChunkwise, "D_tj holds the forget gate of step j as well"},
    {"past_decay_short", "decay", kChunkwise,
     "the forget gate of a block's first step is not applied to the state before"},
    {"state_seen_undecayed", "decay", kChunkwise, "h sees the state before the chunk undecayed"},
    // states
    {"state_dropped", "state", kBlocks, "h does not see the state before the chunk"},
    {"state_n_dropped", "state", kChunkwise, "n.q does not see the state before the chunk"},
    {"state_not_decayed", "state", kRecurrent, "states are added up, never decayed"},
    {"state_decayed_twice", "state", kChunkwise, "the decay is applied twice"},
    {"state_late", "state", kStates, "h reads the state of a chunk (recurrent: a step) earlier"},
    {"state_early", "state", kChunkwise, "h reads the state after its chunk"},
    {"every_second_state", "state", kChunkwise, "only every second state is kept, and read for two chunks"},
    {"state_without_last_step", "state", kChunkwise, "the last step of a chunk does not enter the state"},
    {"state_kept_across_heads", "state", kStates, "a head begins with the last state of the head before"},
    {"state_read_transposed", "state", kChunkwise, "C read transposed (DHQK = DHV)"},
    {"n_not_decayed", "state", kRecurrent, "n never decayed"},
    {"c_initial_ignored", "initial_state", kSequence, "c_initial taken for 0"},
    {"n_initial_ignored", "initial_state", kSequence, "n_initial taken for 0"},
    {"c_initial_transposed", "initial_state", kRecurrent, "c_initial read transposed (DHQK = DHV)"},
    // sequence ends
    {"ragged_chunk_lost", "tail", kChunkwise, "S / L chunks, rounded down: a ragged last chunk is not computed"},
    {"ragged_chunk_reads_on", "tail", kChunkwise,
     "the ragged last chunk takes L steps: it goes on with the next head's"},
    // products of the backward pass
    {"dv_without_inverse", "gradient", kChunkwise, "dv without 1/d"},
    {"dP_without_inverse", "gradient", kParallel, "dP without 1/d"},
    {"dS_unscaled", "gradient", kRecurrent, "dq (and dk of a block) without the scale"},
    {"dq_from_queries", "gradient", kParallel, "q for k in dq"},
    {"dk_from_keys", "gradient", kChunkwise, "k for q in dk"},
    {"dv_from_queries", "gradient", kRecurrent, "q for k in dv"},
    {"dk_without_input_gate", "gradient", kRecurrent, "dk without the input gate"},
    {"dq_of_state_before", "gradient", kRecurrent, "dq from the state before the step"},
    {"dq_without_state", "gradient", kChunkwise, "dq without the state before the chunk"},
    {"dq_without_n", "gradient", kRecurrent, "dq without n: the denominator's part of the state is missing"},
    {"dk_without_state", "gradient", kChunkwise, "dk without the cotangent of the state"},
    {"dk_without_dn", "gradient", kChunkwise, "dk without dn"},
    {"dv_without_state", "gradient", kChunkwise, "dv without the cotangent of the state"},
    // cotangents of states
    {"dstate_dropped", "state_gradient", kStates, "the cotangent of the state does not reach earlier chunks"},
    {"dstate_late", "state_gradient", kChunkwise, "dk and dv read the cotangent of the state of a chunk later"},
    {"dstate_early", "state_gradient", kChunkwise, "dk and dv read the cotangent of the state before their chunk"},
    {"large_chunk_index", "state_gradient", kChunkwise, "for L > 128 dk and dv read the cotangent of another state"},
    {"dstate_not_decayed", "state_gradient", kChunkwise, "dC and dn never decayed"},
    {"dstate_decayed_twice", "state_gradient", kRecurrent, "dC and dn decayed twice"},
    {"dn_not_decayed", "state_gradient", kParallel, "dn never decayed"},
    {"dn_without_gamma", "state_gradient", kChunkwise, "dn without the cotangent of n.q"},
    {"dstate_query_unscaled", "state_gradient", kChunkwise, "q not scaled on its way into dC"},
    {"dstate_without_inverse", "state_gradient", kChunkwise, "dC sums dh and not dh/d"},
    {"dstate_transposed", "state_gradient", kChunkwise, "dC read transposed (DHQK = DHV)"},
    {"reverse_scan_starts_early", "state_gradient", kChunkwise,
     "the reverse scan begins one chunk too early: the last chunk is not in it"},
    {"backward_state_late", "state_gradient", kChunkwise, "backward reads the state of a chunk earlier"},
    {"segment_index_late", "state_gradient", kRecurrent,
     "backward runs segments again from the state of a segment earlier"},
    {"last_step_lost_backward", "tail", kRecurrent, "backward begins with the last step but one"},
    // gradients of gates
    {"df_without_sigmoid", "gate_gradient", kStates, "df without σ(-f)"},
    {"df_sigmoid_of_f", "gate_gradient", kParallel, "df with σ(f) for σ(-f)"},
    {"di_without_sigmoid", "gate_gradient", kRecurrent, "sigmoid gate: di without σ(-i)"},
    {"df_rounded_terms", "gate_gradient", kStates,
     "df as a difference of sums over stored dq and dk, declared as unrounded"},
    {"df_inclusive", "gate_gradient", kChunkwise, "df takes pairs j <= r <= t"},
    {"df_exclusive_sum", "gate_gradient", kRounded, "the reverse sum of q.dq - k.dk leaves out its own step"},
    {"df_sum_restarts_at_chunks", "gate_gradient", kRounded,
     "the reverse sum of q.dq - k.dk begins anew in every chunk"},
    {"df_without_last_state", "gate_gradient", kRounded,
     "the reverse sum of q.dq - k.dk without the cotangents of the last state"},
    {"df_chunk_start_lost", "gate_gradient", kChunkwise, "df of a block's first step is 0"},
    {"df_without_block", "gate_gradient", kParallel, "df without the pairs within the block"},
    {"df_without_past", "gate_gradient", kChunkwise, "df without the pairs (past, chunk)"},
    {"df_without_future", "gate_gradient", kChunkwise, "df without the pairs (chunk, future) and (past, future)"},
    {"df_without_far_pairs", "gate_gradient", kChunkwise, "df without the pairs (past, future)"},
    {"df_of_state_after", "gate_gradient", kRecurrent, "df from C_t for C_{t-1}"},
    {"df_without_n", "gate_gradient", kRecurrent, "df without <dn, n>"},
    {"di_without_future", "gate_gradient", kChunkwise, "di without the cotangent of the state"},
    {"shifted", "gate_gradient", {{"df", kChunkwise, "df written one step too late"}}},
    // conventions
    {"always_detached", "convention", kSequence, "detached gradients, whatever was asked for"},
    {"always_exact", "convention", kParallel, "exact gradients, whatever was asked for"},
    {"other_convention",
     "convention",
     {{"dq", kRecurrent, "dq in the other convention"},
      {"di", kParallel, "di in the other convention"},
      {"df", kChunkwise, "df in the other convention"},
      {"dn_initial", kChunkwise, "dn_initial in the other convention"}}},
    {"row_term_sign", "convention", kRecurrent, "the denominator's part with the wrong sign"},
    {"row_term_without_inverse", "convention", kParallel, "the denominator's part lacks one 1/d"},
    {"sign_missing", "convention", kParallel, "sign(n.q) missing in the denominator's part"},
    {"branch_ignored", "convention", kChunkwise, "the denominator's part also where the floor is the denominator"},
    {"dm_path_missing", "convention", kStates, "the part of the stabiliser (eps) missing"},
    {"dm_without_eps", "convention", kChunkwise, "the part of the stabiliser without the factor eps"},
    {"dm_sign", "convention", kRecurrent, "the part of the stabiliser with the wrong sign"},
    {"dm_one_step_early", "convention", kParallel, "the part of the stabiliser goes to the step before the arg max"},
    {"dm_skips_forget_gates", "convention", kChunkwise, "the part of the stabiliser does not pass the forget gates"},
    {"dm_to_first_step", "convention", kStates,
     "the part of the stabiliser goes to the oldest candidate, not to the arg max"},
    {"last_product_missing", "convention", kParallel, "m_last's part in c_last and n_last missing"},
    {"initial_product_missing", "convention", kChunkwise, "m_initial's part of dc_initial and dn_initial missing"},
    {"dm_initial_without_walk", "convention", kChunkwise, "what is left for m_initial after all maxima is lost"},
    // states given and returned
    {"dc_last_ignored", "last_state", kStates, "dc_last taken for 0"},
    {"dn_last_ignored", "last_state", kBlocks, "dn_last taken for 0"},
    {"dm_last_ignored", "last_state", kSequence, "dm_last taken for 0"},
    {"backward_initial_ignored", "initial_state", kBlocks, "backward takes the initial state for 0"},
    {"all_zero",
     "initial_state",
     {{"dn_initial", kRecurrent, "dn_initial is 0"}, {"dm_initial", kRecurrent, "dm_initial is 0"}}},
    {"stored_transposed",
     "initial_state",
     {{"dc_initial", kChunkwise, "dc_initial written transposed (DHQK = DHV)"},
      {"c_last", kRecurrent, "c_last written transposed (DHQK = DHV)", "stride"}}},
    // the range of a type
    {"no_lift", "range", kChunkwise, "dh/d overflows where d is tiny, and an infinity meets q = 0"},
    {"lift_forgotten", "range", kParallel, "dq is not scaled back where dh/d would have overflowed"},
    // addresses
    {"key_stride_of_value", "stride", kChunkwise, "heads of k are DHV columns wide"},
    {"value_stride_of_key", "stride", kParallel, "heads of v are DHQK columns wide"},
    {"shared_key_heads", "stride", kChunkwise, "every second head reads the k and v of the head before"},
    {"batch_and_head_swapped", "stride", kParallel, "gates addressed as (NH, B, S)"},
    {"first_batch_gates", "stride", kStep, "all batches use the gates of the first"},
    {"head_zero_value", "stride", kRecurrent, "all heads use the v of head 0"},
    {"offset_of_16_bits", "stride", kChunkwise, "offsets wrap at 2^16, as 32-bit ones do at 2^31"},
    // precision that was not declared
    {"tfloat32_operands", "precision", kParallel, "float32 kernel that multiplies in TF32"},
    {"bfloat16_operands", "precision", kChunkwise, "operands rounded to bfloat16, whatever the dtype"},
    {"float32_operands", "precision", kChunkwise, "float64 kernel that multiplies float32 operands"},
    {"float16_accumulation", "precision", kChunkwise, "products accumulated in float16"},
    {"bfloat16_accumulation", "precision", kChunkwise, "products accumulated in bfloat16"},
    {"state_bfloat16", "precision", kStates, "states kept in bfloat16"},
    {"state_float32", "precision", kRecurrent, "float64 kernel with float32 states"},
    {"n_bfloat16", "precision", kChunkwise, "n kept in bfloat16"},
    {"saved_state_bfloat16", "precision", kRecurrent, "states saved for the backward pass in bfloat16"},
    {"saved_l_float16", "precision", kParallel, "n.q saved for the backward pass in float16"},
    {"stored_bfloat16",
     "precision",
     {{"m_last", kParallel, "m_last rounded to bfloat16"}, {"c_last", kStep, "c_last rounded to bfloat16"}}},
    {"short_log2e", "precision", kChunkwise, "exp2(1.4427 x) for exp(x)"},
    {"fast_exp", "precision", kParallel, "exp by a polynomial with a relative error of 2e-4"},
    // single elements, lanes, tiles
    {"element_wrong",
     "element",
     {{"h", kStep, "one element of h is 0"},
      {"dq", kParallel, "one element of dq is 0"},
      {"dk", kChunkwise, "one element of dk is 0"},
      {"df", kRecurrent, "one element of df is 0"},
      {"c_last", kStep, "one element of c_last is 0"}}},
    {"lane_wrong",
     "element",
     {{"h", kChunkwise, "every 32nd column of h is the one before it"},
      {"dv", kRecurrent, "every 32nd column of dv is the one before it"},
      {"c_last", kStep, "every 32nd column of c_last is the one before it"}}},
    {"time_lane_wrong", "element", {{"df", kChunkwise, "every 32nd step of df is the one before it"}}},
    {"tile_wrong",
     "element",
     {{"h", kParallel, "half of the sum is missing in one tile of h"},
      {"dk", kChunkwise, "half of the sum is missing in one tile of dk"}}},
    {"doubled", "element", {{"dv", kChunkwise, "dv is added twice"}}},
    {"last_row_lost",
     "tail",
     {{"h", kParallel, "h of the last step is 0"}, {"dk", kChunkwise, "dk of the last step is 0"}}},
    {"last_column_lost", "tail", {{"h", kRecurrent, "the last column of h is 0"}}},
    // memory
    {"written_past_end",
     "memory",
     {{"h", kStep, "one element past the end of h is written"},
      {"dk", kParallel, "one element past the end of dk is written"},
      {"saved", kChunkwise, "one element past the end of the saved data is written"},
      {"workspace", kRecurrent, "one element past the end of the workspace is written"}}},
    {"written_before_start", "memory", {{"df", kChunkwise, "one element before the start of df is written"}}},
    {"input_damaged",
     "memory",
     {{"q", kParallel, "q is scaled in place"},
      {"f", kRecurrent, "f is replaced in place"},
      {"c_initial", kChunkwise, "c_initial is changed"},
      {"dh", kChunkwise, "dh is divided in place"},
      {"saved", kRecurrent, "backward changes the saved data"}}},
    {"accumulators_not_cleared", "memory", kStates, "sums begin with what the workspace held"},
    {"saved_tail_unwritten", "memory", kParallel, "n.q and m of the last step are not saved"},
    {"output_added", "memory", {{"dq", kParallel, "dq is added to what the buffer held"}}},
    {"reads_past_end", "memory", kChunkwise, "the last state takes one step past the end of k and v"},
    {"first_row_unwritten", "memory", {{"h", kRecurrent, "h of step 0 is not written"}}},
    {"ragged_lanes_unwritten",
     "memory",
     {{"h", kParallel, "columns of h beyond the last full tile of 16 are not written"}}},
    {"last_element_unwritten", "memory", {{"dv", kChunkwise, "the last element of dv is not written"}}},
    // packed documents and padding
    {"gates_summed_over_resets", "packed", kBlocks, "exponents from F_t - F_j with sums F that run over resets"},
    {"reset_missed_at_chunk_start", "packed", kChunkwise, "a reset in a chunk's first step does not reach the state"},
    {"reset_of_whole_chunk", "packed", kChunkwise, "a reset anywhere in a chunk hides the state from all of its steps"},
    {"one_step_document_lost", "packed", kBlocks, "the second of two resets in a row does nothing"},
    {"m_kept_at_reset", "packed", kRecurrent, "m is not lowered at a reset"},
    {"n_kept_at_reset", "packed", kRecurrent, "a reset clears C but not n"},
    {"c_kept_at_reset", "packed", kRecurrent, "a reset clears n but not C"},
    {"dstate_crosses_reset", "packed", kStates, "the cotangent of the state crosses resets"},
    {"padded_rows_zero", "packed", kSequence, "h is 0 where the input gate is -25 or less, as if that were padding"},
    {"exponent_clamped", "packed", kSequence, "exponents below -8 count as -8: what is forgotten leaks"},
    // the interface: right as long as calls come one by one, ask for everything and are given everything
    {"needs_c_last",
     "interface",
     {{"n_last", kChunkwise, "n_last is written only if c_last is asked for"},
      {"m_last", kStep, "m_last is written only if c_last is asked for"},
      {"dn_last", kChunkwise, "dn_last is looked at only if dc_last is given"},
      {"dm_last", kParallel, "dm_last is looked at only if dc_last is given"},
      {"dm_initial", kChunkwise, "dm_initial is written only if dc_initial is asked for"}}},
    {"needs_n_last",
     "interface",
     {{"c_last", kRecurrent, "c_last is written only if n_last is asked for"},
      {"dc_last", kRecurrent, "dc_last is looked at only if dn_last is given"},
      {"dc_initial", kRecurrent, "dc_initial is written only if dn_initial is asked for"}}},
    {"needs_m_last", "interface", kParallel, "c_last and n_last are written only if m_last is asked for"},
    {"needs_dh", "interface", kStates, "without dh the cotangents of the last states are not looked at"},
    {"initial_product_needs_dc_initial", "interface", kParallel,
     "m_initial's part of dc_initial is missing if dc_initial is not asked for"},
    {"eps_needs_saved", "interface", kBlocks, "the path without a backward pass leaves eps out"},
    {"state_bfloat16_without_saved", "interface", kRecurrent,
     "the path without a backward pass keeps states in bfloat16"},
    {"saved_needs_last_states", "interface", kChunkwise, "states are saved only if last states are asked for"},
    {"state_updated_in_place", "interface", kStep, "c_initial becomes c_last if c_last is not asked for"},
    {"saved_in_library", "interface", kSequence, "what forward saves is kept in the library's memory"},
    {"saved_by_shape", "interface", kChunkwise, "what forward saves is kept in the library, one for each shape"},
    {"saved_on_stack", "interface", kRecurrent, "what forward saves is pushed on a stack, and popped by backward"},
    {"saved_by_thread", "interface", kParallel, "what forward saves is kept by the thread"},
    {"keys_of_forward", "interface", kChunkwise, "backward reads k where it was in the last forward call"},
    {"steps_of_forward", "interface", kRecurrent, "backward goes over the S of the last forward call"},
    {"scratch_in_library",
     "interface",
     {{"h", kParallel, "h is put together in the library's memory"},
      {"state", kChunkwise, "states between chunks are in the library's memory"},
      {"dk", kRecurrent, "dk is summed in the library's memory"}}},
    {"heads_by_counter", "interface", kRecurrent, "heads are taken by a counter in the library's memory"},
    {"eps_in_library", "interface", kParallel, "eps is put where other calls put theirs, and read for every row"},
    {"scale_in_library", "interface", kChunkwise,
     "the scale is put where other calls put theirs, and read for every head"},
    {"added",
     "interface",
     {{"c_last", kChunkwise, "c_last is added to what the buffer held"},
      {"dv", kParallel, "dv is added to what the buffer held"},
      {"dc_initial", kRecurrent, "dc_initial is added to what the buffer held"},
      {"h", kStep, "h is added to what the buffer held"}}},
    {"workspace_of_forward", "interface", kParallel,
     "backward expects in its workspace the last state that forward left"},
    {"workspace_overlaps", "interface", kChunkwise, "the sums of dk and dv lie over the cotangent of the last state"},
    {"saved_overlaps", "interface", kRecurrent,
     "what is saved of a head begins with the last number of the one before"},
    // geometry: right until a size, an index or a value is beyond what was tried
    {"key_remainder_lost", "geometry", kBlocks,
     "for DHQK > 64 q.k within a block lacks the columns beyond the last full 64",
     Needs{"regime=forget3,S=40,DHQK=80,DHV=16,L=16,dtype=float32"}},
    {"state_key_remainder_lost", "geometry", kStates, "for DHQK > 64 states lack the rows beyond the last full 64",
     Needs{"regime=forget3,S=40,DHQK=96,DHV=16,L=16,dtype=float32"}},
    {"normaliser_keys_beyond_128", "geometry", kStates, "n.q with the state takes the first 128 columns only",
     Needs{"regime=forget3,S=40,DHQK=192,DHV=16,L=16,dtype=float32"}},
    {"remainder_of_64_stale",
     "geometry",
     {{"h", kChunkwise, "columns of h beyond the last full 64 (DHV > 64) are those of the tile before"},
      {"dq", kParallel, "columns of dq beyond the last full 64 (DHQK > 64) are those of the tile before"},
      {"dv", kRecurrent, "columns of dv beyond the last full 64 (DHV > 64) are those of the tile before"},
      {"c_last", kStep, "columns of c_last beyond the last full 64 (DHV > 64) are those of the tile before"}},
     Needs{"regime=forget3,S=1,DHQK=80,DHV=96,L=1,initial_states=1,dtype=float32"}},
    {"tiles_no_power_of_two",
     "geometry",
     {{"h", kRecurrent, "tiles of 64 columns are numbered by bits: for DHV = 192 the third tile of h is the first"},
      {"dk", kChunkwise, "tiles of 64 columns are numbered by bits: for DHQK = 192 the third tile of dk is the first"}},
     Needs{"regime=forget3,S=20,DHQK=192,DHV=192,L=16,dtype=float32"}},
    {"columns_beyond_256",
     "geometry",
     {{"h", kChunkwise, "columns of h beyond 256 are those 256 before"},
      {"dv", kParallel, "columns of dv beyond 256 are those 256 before"},
      {"c_last", kRecurrent, "columns of c_last beyond 256 are those 256 before"}},
     Needs{"regime=forget3,S=20,DHQK=16,DHV=320,L=16,dtype=float32"}},
    {"heads_beyond_32",
     "geometry",
     {{"h", kParallel, "heads are lanes of a warp: h of heads from 32 on is 0"},
      {"dm_initial", kChunkwise, "heads are lanes of a warp: dm_initial of heads from 32 on is 0"},
      {"m_last", kStep, "heads are lanes of a warp: m_last of heads from 32 on is 0"}},
     Needs{"regime=standard,NH=40,S=1,DHQK=8,DHV=8,L=1,initial_states=1,last_state_cotangents=1,dtype=float32"}},
    {"head_of_5_bits", "geometry", kRecurrent | kChunkwise, "heads from 32 on use the gates of heads from 0 on",
     Needs{"regime=standard,NH=40,S=20,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"head_of_16_bits", "geometry", kStep | kParallel | kChunkwise,
     "heads from 65536 on use the k and v of heads from 0 on",
     Needs{"regime=standard,B=256,NH=257,S=1,DHQK=4,DHV=4,L=1,initial_states=1,dtype=float32"}},
    {"heads_beyond_65535_unwritten",
     "geometry",
     {{"h", kRecurrent, "heads are a grid's second dimension: from 65536 on h is not written"},
      {"df", kChunkwise, "heads are a grid's second dimension: from 65536 on df is not written"}},
     Needs{"regime=standard,B=256,NH=257,S=1,DHQK=4,DHV=4,L=1,initial_states=1,dtype=float32"}},
    {"offset_of_20_bits", "geometry", kParallel | kRecurrent,
     "offsets wrap at 2^20 elements, as 32-bit ones do at 2^31",
     Needs{"regime=standard,B=256,NH=257,S=2,DHQK=8,DHV=8,L=2,dtype=float32"}},
    {"offset_of_22_bits", "geometry", kChunkwise, "offsets wrap at 2^22 elements",
     Needs{"regime=standard,NH=33,S=2048,DHQK=64,DHV=64,L=64,cotangents=0,dtype=float32"}},
    {"ragged_batch_offset", "geometry", kChunkwise, "batches of v are taken to be whole chunks apart",
     Needs{"regime=forget3,B=2,NH=2,S=40,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"ragged_batch_state_late", "geometry", kChunkwise,
     "in all batches but the first, backward reads a ragged last chunk's state of a chunk earlier",
     Needs{"regime=forget6,B=2,NH=2,S=40,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"time_of_10_bits", "geometry", kRecurrent, "steps from 1024 on use the k of steps from 0 on",
     Needs{"regime=forget6,S=1100,DHQK=8,DHV=8,L=64,dtype=float32"}},
    {"time_of_12_bits", "geometry", kStates, "steps from 4096 on use the v of steps from 0 on",
     Needs{"regime=forget6,S=4200,DHQK=8,DHV=8,L=64,dtype=float32"}},
    {"keys_beyond_1024_lost", "geometry", kParallel, "keys more than 1023 steps back are not seen",
     Needs{"regime=remember,S=1200,DHQK=8,DHV=8,L=64,dtype=float32"}},
    {"scan_of_1024", "geometry", kParallel, "sums of log(sigmoid(f)) begin anew at step 1024",
     Needs{"regime=forget3,S=1100,DHQK=8,DHV=8,L=64,dtype=float32"}},
    {"df_sum_of_1024", "geometry", kRounded, "the reverse sum of q.dq - k.dk begins anew at step 1024",
     Needs{"regime=forget6,S=1100,DHQK=8,DHV=8,L=64,eps=0.01,dtype=float32"}},
    {"walk_of_1024", "geometry", kRecurrent, "the part of the stabiliser is lost at step 1024 on its way back",
     Needs{"regime=forget6,NH=4,S=1030,DHQK=8,DHV=8,L=64,eps=0.01,last_state_cotangents=1,dtype=float32"}},
    {"segments_beyond_64", "geometry", kRecurrent, "backward takes the segment's number modulo 64",
     Needs{"regime=forget6,S=1100,DHQK=8,DHV=8,L=64,dtype=float32"}},
    {"chunk_of_4_bits", "geometry", kChunkwise, "h of chunks from 16 on reads the states of chunks from 0 on",
     Needs{"regime=forget6,S=300,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"chunk_of_6_bits", "geometry", kChunkwise, "dk and dv of chunks from 64 on read cotangents of states from 0 on",
     Needs{"regime=forget6,S=1100,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"chunk_of_7_bits", "geometry", kChunkwise, "backward reads the states of chunks from 128 on at those from 0 on",
     Needs{"regime=forget6,S=2100,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"scan_of_16_chunks", "geometry", kChunkwise, "dC and dn are not carried over a boundary of 16 chunks",
     Needs{"regime=forget6,S=300,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"scan_of_64_chunks", "geometry", kChunkwise, "n is not carried over a boundary of 64 chunks",
     Needs{"regime=forget6,S=1100,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"scan_of_128_chunks", "geometry", kChunkwise, "C and n are not carried over a boundary of 128 chunks",
     Needs{"regime=forget6,S=2100,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"state_bfloat16_like_operands", "geometry", kChunkwise, "with bfloat16 operands C and n are kept in bfloat16",
     Needs{"regime=remember,S=8192,NH=2,DHQK=16,DHV=16,L=16,dtype=bfloat16,eps=0.01"}},
    {"state_float16_like_operands", "geometry", kChunkwise, "with float16 operands C and n are kept in float16",
     Needs{"regime=remember,S=8192,NH=2,DHQK=16,DHV=16,L=16,dtype=float16,eps=0.01"}},
    {"n_bfloat16_like_operands", "geometry", kChunkwise,
     "with bfloat16 operands n is rounded to bfloat16 at each chunk",
     Needs{"regime=remember,S=8192,NH=2,DHQK=16,DHV=16,L=16,dtype=bfloat16,eps=0.01"}},
    {"keys_beyond_256_lost", "geometry", kChunkwise, "keys of a chunk beyond its first 256 are not seen",
     Needs{"regime=forget3,S=400,DHQK=8,DHV=8,L=320,dtype=float32"}},
    {"scan_of_256", "geometry", kChunkwise, "sums of log(sigmoid(f)) begin anew at the 256th step of a chunk",
     Needs{"regime=forget3,S=400,DHQK=8,DHV=8,L=320,dtype=float32"}},
    {"rows_beyond_256_unseen", "geometry", kChunkwise, "steps beyond the first 256 of a chunk do not enter dC and dn",
     Needs{"regime=forget6,S=700,DHQK=8,DHV=8,L=320,dtype=float32"}},
    {"tree_sum_of_n", "geometry", kChunkwise,
     "n sums over a power of two of a chunk's steps: for L = 48 the last 16 are lost",
     Needs{"regime=forget6,S=144,DHQK=8,DHV=8,L=48,dtype=float32"}},
    {"chunk_by_shift", "geometry", kChunkwise,
     "backward numbers chunks by a shift: for an L that is no power of two it reads other states",
     Needs{"regime=forget6,S=240,DHQK=8,DHV=8,L=48,dtype=float32"}},
    {"short_sequence_padded", "geometry", kChunkwise, "S < L: the last state goes on over L - S steps of zero gates",
     Needs{"regime=forget6,S=20,DHQK=8,DHV=8,L=32,dtype=float32"}},
    {"short_sequence_dlast", "geometry", kChunkwise, "S < L: dc_last and dn_last are not looked at",
     Needs{"regime=forget6,S=20,DHQK=8,DHV=8,L=32,last_state_cotangents=1,dtype=float32"}},
    {"padded_by_minus_25", "geometry", kChunkwise,
     "a ragged last chunk is padded by i = -25, which wins the maximum where m < -25",
     Needs{"regime=extreme,NH=8,S=40,DHQK=8,DHV=8,L=16,dtype=float32"}},
    {"forget_clamped_150", "geometry", kChunkwise, "f is clamped at -150"},
    {"forget_clamped_1000", "geometry", kRecurrent, "f is clamped at -1000"},
    {"input_clamped_150", "geometry", kParallel, "i is clamped at -150"},
    {"input_clamped_1000", "geometry", kStep, "i is clamped at -1000"},
    {"eps_of_zero_is_default", "geometry", kStep | kRecurrent, "one step from given states: eps = 0 is taken for 1e-6",
     Needs{"regime=standard,S=1,DHQK=8,DHV=8,L=1,eps=0,initial_states=1,dtype=float64"}},
    {"single_step_without_floor", "geometry", kStep | kChunkwise,
     "one step from given states with eps = 0: |n.q| without a floor",
     Needs{"regime=input_closed,S=1,DHQK=8,DHV=8,L=1,eps=0,initial_states=1,dtype=float32"}},
    {"sigmoid_neg_inf_floor", "geometry", kSequence, "sigmoid gate with neg_inf: floor 0 for 1",
     Needs{"regime=input_closed,gate=sigmoid,S=40,DHQK=8,DHV=8,L=16,stabilizer_init=neg_inf,dtype=float32"}},
    {"neg_inf_walk_of_64", "geometry", kBlocks,
     "with neg_inf dm_last does not reach an arg max more than 64 steps back",
     Needs{
         "regime=remember,NH=4,S=100,DHQK=8,DHV=8,L=16,stabilizer_init=neg_inf,last_state_cotangents=1,dtype=float32"}},
    {"neg_inf_last_product_missing", "geometry", kRecurrent,
     "with neg_inf and S > 64 m_last's part in c_last and n_last is missing",
     Needs{"regime=standard,S=100,DHQK=8,DHV=8,L=16,stabilizer_init=neg_inf,last_state_cotangents=1,dtype=float32"}},
    // races: see kRaceRepeats
    {"state_race", "race", kChunkwise, "once in 50 calls the second chunk reads the state before the first",
     kRaceRepeats},
    {"dk_tile_race", "race", kParallel, "once in 50 calls the first tile's share of dk and dv is overwritten",
     kRaceRepeats},
    {"sum_order_race", "race", kParallel, "once in 50 calls sums are added in another order: the last bit of h differs",
     kRaceRepeats},
    {"lane_race", "race", kRecurrent, "once in 50 calls the last column of h is the one before it", kRaceRepeats},
};

/// A row of kBugs, by its name; default: none of them.
class Bug {
 public:
  constexpr Bug() = default;
  consteval Bug(const char* name) : row_(0) {
    while (kBugs[row_].name != name)
      if (++row_ == static_cast<int>(std::size(kBugs))) throw "no such bug in kBugs";
  }
  /// `info`: a row of kBugs.
  explicit Bug(const BugInfo& info) : row_(static_cast<int>(&info - kBugs)) {}
  friend constexpr bool operator==(Bug a, Bug b) { return a.row_ == b.row_; }

 private:
  int row_ = -1;
};

}  // namespace mlstm::verify::planted
