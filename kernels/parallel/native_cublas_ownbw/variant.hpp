// SPDX-License-Identifier: Apache-2.0
// Parallel mLSTM (contract §3) with materialised S x S matrices and cuBLAS:
//
//   h = P v / d,  P = (s q kᵀ)∘D,  D = exp(logD - m)
//   dq = (s dP∘D) k,  dk = (s dP∘D)ᵀ q,  dv = Pᵀ (dh/d)
//
// It is the variant chunkwise/native_cublas_ownbw with one chunk as long as the sequence, between two states: the
// initial state is one more column of D, which all steps see, and the last state is what a step after the last would
// see. Memory: S² (r + b) bytes forward and twice that backward, for b bytes per element and r = 4 (float64: 8), for
// each head computed at once; those are as many as fit 2 GiB, or one. Hence the limit on S.
#pragma once

#include "chunkwise/native_cublas_ownbw/variant.hpp"
