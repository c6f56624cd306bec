// SPDX-License-Identifier: Apache-2.0
#include "common/saved.hpp"
#include "common/variant.hpp"
#include "parallel/native_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_eigen {
namespace {

VariantInfo declaration() {
  VariantInfo info =
      takes_everything(Module::parallel, Device::cpu, "native_eigen_ownbw",
                       "CPU baseline: Eigen matrix products over materialised S x S matrices", all_dtypes());
  info.S.max = 4096;  // six float64 S x S matrices: 768 MiB per head at work
  return info;
}

class NativeEigen : public Variant {
 public:
  NativeEigen() : Variant(declaration()) {}
  std::size_t saved_size(const Problem& problem) const override { return saved_bytes(problem, 0); }

 private:
  void run_forward(const Problem& problem, const ForwardArgs& args) const override {
    parallel_native_eigen::forward(problem, args);
  }
  void run_backward(const Problem& problem, const BackwardArgs& args) const override {
    parallel_native_eigen::backward(problem, args);
  }
};

const RegisterKernel<NativeEigen> registration;

}  // namespace
}  // namespace mlstm::kernels::parallel_native_eigen
