// SPDX-License-Identifier: Apache-2.0
#include "common/variant.hpp"
#include "recurrent/step_fused_eigen/variant.hpp"

namespace mlstm::kernels::recurrent_step_fused_eigen {
namespace {

class StepFusedEigen : public Variant {
 public:
  StepFusedEigen()
      : Variant(as_step(takes_everything(Module::recurrent, Device::cpu, "step_fused_eigen",
                                         "CPU baseline: one decoding step in one pass over the state, forward only",
                                         all_dtypes()))) {}

 private:
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    recurrent_step_fused_eigen::forward(problem, args);
  }
};

const RegisterKernel<StepFusedEigen> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_step_fused_eigen
