// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/native_eigen_ownbw/variant.hpp"
#include "common/saved.hpp"
#include "common/variant.hpp"

namespace mlstm::kernels::chunkwise_native_eigen {
namespace {

class NativeEigen : public Variant {
 public:
  NativeEigen()
      : Variant(takes_everything(Module::chunkwise, Device::cpu, "native_eigen_ownbw",
                                 "CPU baseline: Eigen matrix products chunk by chunk, any chunk size", all_dtypes())) {}
  std::size_t saved_size(const Problem& problem) const override {
    return saved_bytes(problem, number_of_chunks(problem));
  }

 private:
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    chunkwise_native_eigen::forward(problem, args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const override {
    chunkwise_native_eigen::backward(problem, args);
  }
};

const RegisterKernel<NativeEigen> registration;

}  // namespace
}  // namespace mlstm::kernels::chunkwise_native_eigen
