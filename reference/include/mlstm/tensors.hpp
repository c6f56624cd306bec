// SPDX-License-Identifier: Apache-2.0
// The arguments of an mLSTM forward and backward pass as plain row-major pointers; shapes are those of
// mlstm::shape_of (contract §1). Nothing here owns memory.
#pragma once

namespace mlstm {

/// Inputs. Initial states are all null or all given (m_initial null with the sigmoid gate).
template <class T>
struct Inputs {
  const T *q = nullptr, *k = nullptr, *v = nullptr, *i = nullptr, *f = nullptr;
  const T *c_initial = nullptr, *n_initial = nullptr, *m_initial = nullptr;
};

/// Outputs. A null pointer means: not wanted.
template <class T>
struct Outputs {
  T *h = nullptr, *c_last = nullptr, *n_last = nullptr, *m_last = nullptr;
};

/// Cotangents of the outputs. A null pointer means zero.
template <class T>
struct Cotangents {
  const T *h = nullptr, *c_last = nullptr, *n_last = nullptr, *m_last = nullptr;
};

/// Gradients of the inputs. A null pointer means: not wanted.
template <class T>
struct Gradients {
  T *q = nullptr, *k = nullptr, *v = nullptr, *i = nullptr, *f = nullptr;
  T *c_initial = nullptr, *n_initial = nullptr, *m_initial = nullptr;
};

}  // namespace mlstm
