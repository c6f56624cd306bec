// SPDX-License-Identifier: Apache-2.0
#include "common/eigen_variant.hpp"
#include "common/saved.hpp"
#include "recurrent/sequence_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::recurrent_sequence_eigen {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info =
        eigen_variant(Module::recurrent, "sequence_eigen_ownbw",
                      "CPU baseline: step by step; backward from one kept state in sqrt(S)");
    return info;
  }
  std::size_t saved_size(const Problem& problem) const override {
    return saved_bytes(problem, number_of_segments(problem));
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    require_supported(*this, problem);
    recurrent_sequence_eigen::forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    require_supported(*this, problem);
    recurrent_sequence_eigen::backward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::recurrent_sequence_eigen
