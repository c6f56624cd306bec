// SPDX-License-Identifier: Apache-2.0
#include "common/saved.hpp"
#include "common/variant.hpp"
#include "recurrent/sequence_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::recurrent_sequence_eigen {
namespace {

class SequenceEigen : public Variant {
 public:
  SequenceEigen()
      : Variant(takes_everything(Module::recurrent, Device::cpu, "sequence_eigen_ownbw",
                                 "CPU baseline: step by step; backward from one kept state in sqrt(S)", all_dtypes())) {
  }
  std::size_t saved_size(const Problem& problem) const override {
    return saved_bytes(problem, number_of_segments(problem));
  }

 private:
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    recurrent_sequence_eigen::forward(problem, args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const override {
    recurrent_sequence_eigen::backward(problem, args);
  }
};

const RegisterKernel<SequenceEigen> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_sequence_eigen
