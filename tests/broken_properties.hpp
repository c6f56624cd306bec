// SPDX-License-Identifier: Apache-2.0
// What tests of properties share: right kernels with one thing wrong, and what a property says of them.
#pragma once

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstddef>
#include <cstring>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "fake_kernels.hpp"
#include "properties/properties.hpp"

namespace mlstm::test {

using verify::Item, verify::Status, verify::ProblemSpec;

/// element = change(element, flat index) for all of a float64 or float32 tensor.
template <class Change>
void for_each(void* address, std::string_view tensor, const Problem& problem, const Change& change) {
  if (address == nullptr) return;
  const auto walk = [&](auto* data) {
    for (std::int64_t n = 0; n < size_of(tensor, problem.shape); ++n)
      data[n] = static_cast<std::remove_reference_t<decltype(*data)>>(change(static_cast<double>(data[n]), n));
  };
  storage_dtype(tensor, problem) == DType::float64 ? walk(static_cast<double*>(address))
                                                   : walk(static_cast<float*>(address));
}

inline double at(const void* address, std::string_view tensor, const Problem& problem, std::int64_t n) {
  return storage_dtype(tensor, problem) == DType::float64 ? static_cast<const double*>(address)[n]
                                                          : static_cast<double>(static_cast<const float*>(address)[n]);
}

/// Zeros to read instead of an input; one set per thread is enough, as calls do not overlap on one.
inline const void* zeros() {
  static const std::vector<double> none(1 << 14, 0.0);
  return none.data();
}

/// A copy of an input with every element changed.
template <class Change>
const void* changed_copy(const void* address, std::string_view tensor, const Problem& problem, const Change& change) {
  thread_local std::vector<std::byte> copy;
  copy.resize(static_cast<std::size_t>(size_of(tensor, problem.shape)) * size_of(storage_dtype(tensor, problem)));
  std::memcpy(copy.data(), address, copy.size());
  for_each(copy.data(), tensor, problem, change);
  return copy.data();
}

/// Items of one property on its own problems, in one dtype. A run that was stopped is one FAIL.
inline std::vector<Item> items_of(const std::string& property, const Kernel& kernel, DType dtype,
                                  std::optional<Convention> convention = {}) {
  std::vector<Item> all;
  for (const ProblemSpec& spec : verify::property_problems(property)) {
    if (spec.problem.dtype != dtype || !verify::property_refusal(property, kernel, spec).empty()) continue;
    try {
      for (const Item& item : verify::check_property(property, kernel, spec, {.convention = convention}))
        all.push_back(item);
    } catch (const std::runtime_error& error) {
      Item item;
      item.status = Status::FAIL;
      item.note = error.what();
      all.push_back(item);
    }
  }
  BOOST_REQUIRE(!all.empty());
  return all;
}

inline std::size_t failures(const std::vector<Item>& items) {
  return static_cast<std::size_t>(
      std::count_if(items.begin(), items.end(), [](const Item& item) { return item.status != Status::PASS; }));
}

inline bool caught(const std::string& property, const Damage& bug, DType dtype = DType::float64) {
  return failures(items_of(property, DamagedKernel(bug), dtype)) > 0;
}

/// Failing tensors, each once.
inline std::vector<std::string> failing(const std::vector<Item>& items) {
  std::vector<std::string> tensors;
  for (const Item& item : items)
    if (item.status != Status::PASS && std::find(tensors.begin(), tensors.end(), item.tensor) == tensors.end())
      tensors.push_back(item.tensor);
  return tensors;
}

inline void* member_of(const BackwardArgs& args, const std::string& input) {
  const std::map<std::string, void*> members{{"q", args.dq},
                                             {"k", args.dk},
                                             {"v", args.dv},
                                             {"i", args.di},
                                             {"f", args.df},
                                             {"c_initial", args.dc_initial},
                                             {"n_initial", args.dn_initial},
                                             {"m_initial", args.dm_initial}};
  return members.at(input);
}

inline std::string gradient_of(const std::string& input) { return std::string("d").append(input); }

inline Damage gradient_off_by(const std::string& input, double factor) {
  return {.backward = [=](const Problem& p, const BackwardArgs& args) {
    for_each(member_of(args, input), input, p, [&](double x, std::int64_t) { return x * factor; });
  }};
}

}  // namespace mlstm::test
