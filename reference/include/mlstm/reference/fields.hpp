// SPDX-License-Identifier: Apache-2.0
// The members of the argument structures by name, to slice, check and convert them without repeating the list.
#pragma once

#include <array>
#include <cstddef>
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

/// The members of S named as the inputs are: of Inputs and Gradients, of ForwardArgs and BackwardArgs, and of the
/// structures of mlstm_kernel.h.
template <class S>
constexpr auto input_fields() {
  return std::array<Field<S, decltype(S::q)>, 8>{{{"q", "q", &S::q},
                                                  {"k", "k", &S::k},
                                                  {"v", "v", &S::v},
                                                  {"i", "i", &S::i},
                                                  {"f", "f", &S::f},
                                                  {"c_initial", "c_initial", &S::c_initial},
                                                  {"n_initial", "n_initial", &S::n_initial},
                                                  {"m_initial", "m_initial", &S::m_initial}}};
}

/// Those named as the outputs are.
template <class S>
constexpr auto output_fields() {
  return std::array<Field<S, decltype(S::h)>, 4>{{{"h", "h", &S::h},
                                                  {"c_last", "c_last", &S::c_last},
                                                  {"n_last", "n_last", &S::n_last},
                                                  {"m_last", "m_last", &S::m_last}}};
}

/// Those of a backward pass named "d" and what they are the gradient of.
template <class S>
constexpr auto gradient_fields() {
  return std::array<Field<S, decltype(S::dq)>, 8>{{{"dq", "q", &S::dq},
                                                   {"dk", "k", &S::dk},
                                                   {"dv", "v", &S::dv},
                                                   {"di", "i", &S::di},
                                                   {"df", "f", &S::df},
                                                   {"dc_initial", "c_initial", &S::dc_initial},
                                                   {"dn_initial", "n_initial", &S::dn_initial},
                                                   {"dm_initial", "m_initial", &S::dm_initial}}};
}

/// Those of a backward pass named "d" and what they are the cotangent of.
template <class S>
constexpr auto cotangent_fields() {
  return std::array<Field<S, decltype(S::dh)>, 4>{{{"dh", "h", &S::dh},
                                                   {"dc_last", "c_last", &S::dc_last},
                                                   {"dn_last", "n_last", &S::dn_last},
                                                   {"dm_last", "m_last", &S::dm_last}}};
}

template <class T>
constexpr auto fields_of(const Inputs<T>&) {
  return input_fields<Inputs<T>>();
}

template <class T>
constexpr auto fields_of(const Gradients<T>&) {
  return input_fields<Gradients<T>>();
}

template <class T>
constexpr auto fields_of(const Outputs<T>&) {
  return output_fields<Outputs<T>>();
}

template <class T>
constexpr auto fields_of(const Cotangents<T>&) {
  return output_fields<Cotangents<T>>();
}

template <class T>
constexpr auto fields_of(const Intermediates<T>&) {
  using S = Intermediates<T>;
  return std::array<Field<S, T*>, 3>{{{"m", "i", &S::m}, {"l", "i", &S::l}, {"d", "i", &S::d}}};
}

/// to.x = from.x for the same members of two structures, as two calls of one of the functions above name them.
template <class From, class FromFields, class To, class ToFields>
void copy_fields(const From& from, const FromFields& from_fields, To& to, const ToFields& to_fields) {
  for (std::size_t n = 0; n < from_fields.size(); ++n) to.*(to_fields[n].member) = from.*(from_fields[n].member);
}

/// A structure whose members are what `pointer` gives for their names.
template <class Struct, class PointerOf>
Struct pointers_by_name(const PointerOf& pointer) {
  Struct result;
  for (const auto& field : fields_of(result)) result.*(field.member) = pointer(field.name);
  return result;
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
