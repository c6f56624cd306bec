// SPDX-License-Identifier: Apache-2.0
#include "chunkwise/native_eigen_ownbw/variant.hpp"
#include "common/eigen_variant.hpp"
#include "common/saved.hpp"

namespace mlstm::kernels::chunkwise_native_eigen {
namespace {

class Variant : public Kernel {
 public:
  const VariantInfo& info() const override {
    static const VariantInfo info = eigen_variant(Module::chunkwise, "native_eigen_ownbw",
                                                  "CPU baseline: Eigen matrix products chunk by chunk, any chunk size");
    return info;
  }
  std::size_t saved_size(const Problem& problem) const override {
    return saved_bytes(problem, number_of_chunks(problem));
  }
  void forward(const Problem& problem, const ForwardArgs& args) const override {
    require_supported(*this, problem);
    chunkwise_native_eigen::forward(problem, args);
  }
  void backward(const Problem& problem, const BackwardArgs& args) const override {
    require_supported(*this, problem);
    chunkwise_native_eigen::backward(problem, args);
  }
};

const RegisterKernel<Variant> registration;

}  // namespace
}  // namespace mlstm::kernels::chunkwise_native_eigen
