// SPDX-License-Identifier: Apache-2.0
// The members of the argument structures by name, to slice, check and convert them without repeating the list.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "mlstm/problem.hpp"
#include "mlstm/reference/reference.hpp"
#include "mlstm/tensors.hpp"

namespace mlstm::reference {

template <class Struct, class Pointer>
struct Field {
  std::string_view name;    ///< as in messages
  std::string_view tensor;  ///< contract name of a tensor with this shape
  Pointer Struct::*member;
};

template <class T>
constexpr auto fields_of(const Inputs<T>&) {
  using S = Inputs<T>;
  return std::array<Field<S, const T*>, 8>{{{"q", "q", &S::q},
                                            {"k", "k", &S::k},
                                            {"v", "v", &S::v},
                                            {"i", "i", &S::i},
                                            {"f", "f", &S::f},
                                            {"c_initial", "c_initial", &S::c_initial},
                                            {"n_initial", "n_initial", &S::n_initial},
                                            {"m_initial", "m_initial", &S::m_initial}}};
}

template <class T>
constexpr auto fields_of(const Gradients<T>&) {
  using S = Gradients<T>;
  return std::array<Field<S, T*>, 8>{{{"q", "q", &S::q},
                                      {"k", "k", &S::k},
                                      {"v", "v", &S::v},
                                      {"i", "i", &S::i},
                                      {"f", "f", &S::f},
                                      {"c_initial", "c_initial", &S::c_initial},
                                      {"n_initial", "n_initial", &S::n_initial},
                                      {"m_initial", "m_initial", &S::m_initial}}};
}

template <class T>
constexpr auto fields_of(const Outputs<T>&) {
  using S = Outputs<T>;
  return std::array<Field<S, T*>, 4>{{{"h", "h", &S::h},
                                      {"c_last", "c_last", &S::c_last},
                                      {"n_last", "n_last", &S::n_last},
                                      {"m_last", "m_last", &S::m_last}}};
}

template <class T>
constexpr auto fields_of(const Cotangents<T>&) {
  using S = Cotangents<T>;
  return std::array<Field<S, const T*>, 4>{{{"h", "h", &S::h},
                                            {"c_last", "c_last", &S::c_last},
                                            {"n_last", "n_last", &S::n_last},
                                            {"m_last", "m_last", &S::m_last}}};
}

template <class T>
constexpr auto fields_of(const Intermediates<T>&) {
  using S = Intermediates<T>;
  return std::array<Field<S, T*>, 3>{{{"m", "i", &S::m}, {"l", "i", &S::l}, {"d", "i", &S::d}}};
}

/// The same structure with its pointers advanced to one head.
template <class Struct>
Struct slice(Struct pointers, const Shape& shape, std::int64_t head) {
  for (const auto& field : fields_of(pointers)) {
    auto& pointer = pointers.*(field.member);
    if (pointer) pointer += head * (size_of(field.tensor, shape) / shape.heads());
  }
  return pointers;
}

}  // namespace mlstm::reference
