// SPDX-License-Identifier: Apache-2.0
#include "common/eigen_variant.hpp"
#include "common/saved.hpp"
#include "parallel/native_eigen_ownbw/variant.hpp"

namespace mlstm::kernels::parallel_native_eigen {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = [] {
      VariantInfo about = eigen_variant(Module::parallel, "native_eigen_ownbw",
                                        "CPU baseline: Eigen matrix products over materialised S x S matrices");
      about.S.max = 4096;  // six float64 S x S matrices: 768 MiB per head at work
      return about;
    }();
    return info;
  }
  std::size_t saved_size(const Problem& problem) const override { return saved_bytes(problem, 0); }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    require_supported(*this, problem);
    parallel_native_eigen::forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    require_supported(*this, problem);
    parallel_native_eigen::backward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::parallel_native_eigen
