// SPDX-License-Identifier: Apache-2.0
#include "common/eigen_variant.hpp"
#include "recurrent/step_fused_eigen/variant.hpp"

namespace mlstm::kernels::recurrent_step_fused_eigen {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = [] {
      VariantInfo about = eigen_variant(Module::recurrent, "step_fused_eigen",
                                        "CPU baseline: one decoding step in one pass over the state, forward only");
      about.gradient_conventions.clear();
      about.last_state_cotangents = false;
      about.S.max = 1;
      return about;
    }();
    return info;
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    require_supported(*this, problem);
    recurrent_step_fused_eigen::forward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_step_fused_eigen
