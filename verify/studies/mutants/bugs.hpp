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

class BugInfo {
 public:
  constexpr BugInfo(std::string_view its_name, std::string_view its_family, unsigned specimens,
                    std::string_view description, int its_repeats = 1, std::string_view proof = {})
      : name(its_name), family(its_family), repeats(its_repeats), equivalent(proof), count_(1) {
    places_[0] = {{}, specimens, description, {}};
  }
  /// A bug that spoils one tensor here and another one there.
  constexpr BugInfo(std::string_view its_name, std::string_view its_family, std::initializer_list<Place> places)
      : name(its_name), family(its_family) {
    for (const Place& place : places) places_.at(count_++) = place;
  }
  constexpr std::span<const Place> places() const { return {places_.data(), count_}; }

  std::string_view name, family;
  int repeats = 1;                ///< Mutant::repeats
  std::string_view equivalent{};  ///< Mutant::equivalent

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
    // coherent errors, too small for 16 bits to show in any one element
    {"too_large",
     "bias",
     {{"h", kSequence | kStep, "h times 1.0156"},
      {"dq", kSequence, "dq times 1.01"},
      {"dk", kSequence, "dk times 1.01"},
      {"dv", kSequence, "dv times 1.01"},
      {"di", kSequence, "di times 1.01"}}},
    {"states_too_large",
     "bias",
     {{"c_last", kStates, "c_last times 1.01"},
      {"n_last", kStates, "n_last times 1.01"},
      {"dc_initial", kChunkwise, "dc_initial times 1.01"},
      {"dn_initial", kChunkwise, "dn_initial times 1.01"},
      {"df", kSequence | kRounded, "df times 1.03"}}},
    {"head_too_large",
     "bias",
     {{"h", kChunkwise, "h of the last head times 1.0156"},
      {"dq", kParallel, "dq of the last head times 1.01"},
      {"dk", kChunkwise, "dk of the last head times 1.01"},
      {"dv", kRecurrent, "dv of the last head times 1.01"},
      {"di", kChunkwise, "di of the last head times 1.01"}}},
    {"range_too_large",
     "bias",
     {{"h", kChunkwise, "h of one step in four, in a row, times 1.0156"},
      {"dq", kChunkwise, "dq of one step in four, in a row, times 1.01"},
      {"dk", kParallel, "dk of one step in four, in a row, times 1.01"},
      {"dv", kChunkwise, "dv of one step in four, in a row, times 1.01"}}},
    {"stored_truncated",
     "bias",
     {{"h", kSequence, "h truncated where it should be rounded"},
      {"dq", kChunkwise, "dq truncated where it should be rounded"},
      {"dk", kParallel, "dk truncated where it should be rounded"},
      {"dv", kRecurrent, "dv truncated where it should be rounded"}}},
    {"P_truncated", "bias", kBlocks, "P truncated where it should be rounded"},
    {"operands_truncated", "bias", kBlocks, "all operands of products truncated where they should be rounded"},
    {"inverse_approximate", "bias", kSequence, "1/d from a table of 32 numbers: relative errors up to 2^-6"},
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
