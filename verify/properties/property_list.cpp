// SPDX-License-Identifier: Apache-2.0
// The properties, and the problems on which each is telling: both gates, every kind of denominator, states given and
// not, ragged chunks, one step for variants that take no more; dimensions in eights, which every variant takes.
#include "properties/property_check.hpp"

namespace mlstm::verify {
namespace {

const std::vector<DType> kAll{DType::float64, DType::float32, DType::bfloat16, DType::float16};

}  // namespace

const std::vector<Property>& all_properties() {
  static const std::vector<Property> all{
      {{"split_state", "a run in parts, states handed over, equals one run (within bounds), forward and backward"},
       {"regime=standard,NH=2,S=44,DHQK=16,DHV=8,L=16,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=input_open,S=40,DHQK=8,DHV=16,L=16,stabilizer_init=neg_inf,eps=1",
        "regime=forget6,gate=sigmoid,S=40,DHQK=8,DHV=16,L=16,initial_states=1,last_state_cotangents=1",
        "regime=forget3,gate=sigmoid,normalize=0,S=37,DHQK=8,DHV=8,L=16"},
       kAll,
       split_state_refusal,
       check_split_state},
      {{"causality", "later steps change no earlier h and get no gradient from it, bit for bit"},
       {"regime=standard,NH=2,S=44,DHQK=16,DHV=8,L=16,eps=0.01,initial_states=1",
        "regime=large_m,NH=2,S=75,DHQK=8,DHV=16,L=64,stabilizer_init=neg_inf,eps=1",
        "regime=forget6,gate=sigmoid,S=40,DHQK=8,DHV=16,L=16"},
       kAll,
       causality_refusal,
       check_causality},
      {{"permutation", "batches and heads in another order give the same results in that order"},
       {"regime=standard,B=2,NH=3,S=40,DHQK=16,DHV=8,L=16,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=forget6,gate=sigmoid,B=2,NH=2,S=20,DHQK=8,DHV=16,L=16",
        "regime=forget3,B=2,NH=3,S=1,DHQK=16,DHV=8,L=16,initial_states=1",
        "regime=forget3,gate=sigmoid,B=2,NH=3,S=1,DHQK=16,DHV=8,L=16,initial_states=1"},
       kAll,
       several_heads_refusal,
       check_permutation},
      {{"neighbours", "what other heads hold changes nothing in a head, bit for bit"},
       {"regime=standard,B=2,NH=3,S=40,DHQK=16,DHV=8,L=16,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=forget6,gate=sigmoid,B=2,NH=2,S=20,DHQK=8,DHV=16,L=16",
        "regime=forget3,B=2,NH=3,S=1,DHQK=16,DHV=8,L=16,initial_states=1",
        "regime=forget3,gate=sigmoid,B=2,NH=3,S=1,DHQK=16,DHV=8,L=16,initial_states=1"},
       kAll,
       several_heads_refusal,
       check_neighbours},
      {{"chunk_size", "results with different chunk sizes agree (within bounds)"},
       {"regime=input_closed,NH=2,S=75,DHQK=16,DHV=8,L=16,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=forget6,gate=sigmoid,S=75,DHQK=8,DHV=16,L=16"},
       kAll,
       chunk_size_refusal,
       check_chunk_size},
      {{"linear_v", "h and c_last are linear in (v, c_initial): times -2 bit for bit, sums within bounds"},
       {"regime=standard,NH=2,S=40,DHQK=16,DHV=8,L=16,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=forget6,gate=sigmoid,S=40,DHQK=8,DHV=16,L=16",
        "regime=forget3,NH=2,S=1,DHQK=16,DHV=8,L=16,initial_states=1",
        "regime=forget3,gate=sigmoid,NH=2,S=1,DHQK=16,DHV=8,L=16,initial_states=1"},
       kAll,
       linearity_refusal,
       check_linearity},
      {{"stabilizer_shift", "(c, n, m) as (c e^-x, n e^-x, m + x) leaves h unchanged at eps = 0 (within bounds)"},
       {"regime=forget3,NH=2,S=40,DHQK=16,DHV=8,L=16,eps=0,initial_states=1",
        "regime=input_closed,NH=2,S=40,DHQK=16,DHV=8,L=16,eps=0,initial_states=1",
        "regime=positive,NH=2,S=1,DHQK=16,DHV=8,L=16,eps=0,initial_states=1"},
       kAll,
       stabilizer_shift_refusal,
       check_stabilizer_shift},
      {{"dot_product", "gradients equal differences of the kernel's own outputs, in every input (within bounds)"},
       {"regime=standard,NH=2,S=20,DHQK=8,DHV=8,L=8,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=input_open,NH=2,S=20,DHQK=8,DHV=8,L=8,stabilizer_init=neg_inf,eps=1",
        "regime=input_closed,S=20,DHQK=8,DHV=16,L=16,eps=0",
        "regime=forget3,gate=sigmoid,NH=2,S=20,DHQK=8,DHV=8,L=8,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=forget3,gate=sigmoid,normalize=0,S=20,DHQK=8,DHV=16,L=8"},
       {DType::float64, DType::float32},
       dot_product_refusal,
       check_dot_product},
      {{"determinism", "the same problem gives the same bits, also after another one"},
       {"regime=standard,B=2,NH=2,S=75,DHQK=16,DHV=24,L=32,eps=0.01,initial_states=1,last_state_cotangents=1",
        "regime=forget6,gate=sigmoid,NH=2,S=40,DHQK=8,DHV=16,L=16",
        "regime=forget3,B=2,NH=2,S=1,DHQK=16,DHV=24,L=16,initial_states=1"},
       kAll,
       determinism_refusal,
       check_determinism},
  };
  return all;
}

}  // namespace mlstm::verify
