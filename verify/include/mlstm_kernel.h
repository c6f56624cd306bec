/* SPDX-License-Identifier: Apache-2.0
 *
 * mlstm_kernel.h: third-party kernels as shared libraries, for `mlstm verify --plugin ./libmine.so`.
 *
 * A library exports one function, mlstm_kernels, which lists its kernels. Each declares what it takes and computes, and
 * has the functions to call. Plain C11, and C++. A plugin links nothing of mlstm; it needs only this file. Examples are
 * verify/examples/recurrent_plugin.c, forward and backward in C, and verify/examples/parallel_plugin.cu, forward in
 * CUDA.
 *
 * The function is defined in reference/CONTRACT.md, section 2, and its two gradient conventions in section 3. In short,
 * with the exp gate, per head and step, and s = DHQK^(-1/2):
 *     m_t = max(log sigmoid(f_t) + m_{t-1}, i_t)    F_t = exp(log sigmoid(f_t) + m_{t-1} - m_t)    I_t = exp(i_t - m_t)
 *     C_t = F_t C_{t-1} + I_t k_t v_t^T             n_t = F_t n_{t-1} + I_t k_t
 *     h_t = C_t^T (s q_t) / (max(|n_t . (s q_t)|, exp(-m_t)) + eps)
 * and with the sigmoid gate F_t = sigmoid(f_t), I_t = sigmoid(i_t), no m, and max(|n_t . (s q_t)|, 1) + eps, or a
 * denominator of 1 if `normalize` is 0. q carries no scale: the kernel applies s. i and f are pre-activations. The last
 * states c, n are the stabilised ones above. Gradients are those with respect to the tensors as given: q before the
 * scale, i and f before the activation.
 *
 * Memory. The caller allocates everything: inputs, outputs, `saved` (what forward leaves for backward) and `workspace`.
 * Pointers are to memory of the declared device: host memory, or memory of the current CUDA device. All are aligned to
 * 256 bytes. A kernel writes only through pointers that are not const, and reads only what it was given or has written.
 * Outputs are overwritten, whatever they held; workspace holds nothing before a call, and nothing after it.
 *
 * Null. Each of c_last, n_last, m_last, dc_initial, dn_initial and dm_initial may be null by itself, whatever else is:
 * not wanted, though states may be given. Each of dh, dc_last, dn_last and dm_last may be: it counts as zeros. The
 * given initial states are null together. `saved` is null if no backward follows. All else is never null, and no result
 * depends on what else is asked for.
 *
 * Calls. All that backward needs of its forward is in its arguments: the values of that forward, perhaps at other
 * addresses, in another thread, and after other calls of this kernel. Calls whose buffers do not overlap may run at the
 * same time, in several threads and on several streams of one thread: a kernel writes no memory of the library's, such
 * as a static workspace, that another call might read.
 *
 * Tensors are row-major and contiguous:
 *     q, k (B,NH,S,DHQK)    v, h (B,NH,S,DHV)    i, f (B,NH,S)
 *     c (B,NH,DHQK,DHV)     n (B,NH,DHQK)        m (B,NH)          gradients and cotangents as what they belong to
 * in the problem's dtype: float64, float32, float16 or bfloat16. The states c, n, m and their gradients and cotangents
 * are float32 if that is a 16-bit one.
 * With the sigmoid gate there is no m: its pointers are null.
 *
 * Errors. A function that fails returns a number other than 0 and says why in `message` (at most message_size bytes,
 * including the terminating 0). No exception may leave a function.
 *
 * Growth. Structures begin with their size, as known to the side that fills them, and grow at the end only. What a
 * plugin does not fill counts as 0, which means "none" or "no limit".
 */
#ifndef MLSTM_KERNEL_H
#define MLSTM_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLSTM_KERNEL_ABI_VERSION 1u

#if defined(__GNUC__)
#define MLSTM_KERNEL_EXPORT __attribute__((visibility("default")))
#else
#define MLSTM_KERNEL_EXPORT
#endif

/* Sets are values ORed together. */
enum { MLSTM_FLOAT64 = 1, MLSTM_FLOAT32 = 2, MLSTM_TFLOAT32 = 4, MLSTM_FLOAT16 = 8, MLSTM_BFLOAT16 = 16 };
enum { MLSTM_GATE_EXP = 1, MLSTM_GATE_SIGMOID = 2 };
/* m before the first step, if no state is given (exp gate): 0 or -infinity. */
enum { MLSTM_STABILIZER_ZERO = 1, MLSTM_STABILIZER_NEG_INF = 2 };
/* exact: the derivative of the function. detached: denominator and stabiliser are constants. */
enum { MLSTM_GRADIENT_EXACT = 1, MLSTM_GRADIENT_DETACHED = 2 };
enum { MLSTM_RECURRENT = 1, MLSTM_PARALLEL = 2, MLSTM_CHUNKWISE = 3 };
enum { MLSTM_DEVICE_CPU = 1, MLSTM_DEVICE_CUDA = 2 };

/* mlstm_kernel.flags */
enum {
  MLSTM_TAKES_INITIAL_STATES = 1,        /* c_initial, n_initial, m_initial, and computes their gradients */
  MLSTM_RETURNS_LAST_STATES = 2,         /* c_last, n_last, m_last */
  MLSTM_TAKES_LAST_STATE_COTANGENTS = 4, /* dc_last, dn_last, dm_last */
  MLSTM_TAKES_UNNORMALIZED = 8,          /* the sigmoid gate with a denominator of 1 */
  MLSTM_FULL_PRECISION_ROWS = 16,        /* m and denominators are saved in the states' dtype, not the problem's */
  MLSTM_STRADDLING_GATE_SUMS = 32,       /* df from unrounded terms over pairs j < r <= t: has a tighter bound */
  MLSTM_TRUNCATES = 64                   /* operands of products and results are truncated, not rounded to nearest */
};

/* Inclusive; only multiples of multiple_of. 0 in any place: no limit there. */
typedef struct mlstm_size_limit {
  int64_t min, max, multiple_of;
} mlstm_size_limit;

typedef struct mlstm_problem {
  uint32_t struct_size;
  uint32_t dtype, gate, stabilizer_init; /* one value each of those above */
  uint32_t normalize;                    /* 0: the denominator is 1 (sigmoid gate only) */
  uint32_t has_initial_state;
  double eps;
  int64_t B, NH, S, DHQK, DHV;
  int64_t chunk_size; /* L; 0 if not applicable */
} mlstm_problem;

typedef struct mlstm_forward_args {
  uint32_t struct_size;
  const void *q, *k, *v, *i, *f;
  const void *c_initial, *n_initial, *m_initial; /* null: none given */
  void* h;
  void *c_last, *n_last, *m_last; /* null, each by itself: not wanted */
  void* saved;                    /* null if no backward follows, or if its size is 0 */
  void* workspace;                /* null if its size is 0; contents undefined */
  void* stream;                   /* cudaStream_t; null on the CPU */
} mlstm_forward_args;

typedef struct mlstm_backward_args {
  uint32_t struct_size;
  uint32_t convention; /* one of the declared ones */
  const void *q, *k, *v, *i, *f;
  const void *c_initial, *n_initial, *m_initial;
  const void* h;     /* as forward wrote it */
  const void* saved; /* as forward wrote it */
  const void* dh;    /* cotangents; null, each by itself: zero */
  const void *dc_last, *dn_last, *dm_last;
  void *dq, *dk, *dv, *di, *df;               /* never null */
  void *dc_initial, *dn_initial, *dm_initial; /* null: not wanted */
  void* workspace;
  void* stream;
} mlstm_backward_args;

/* One kernel. The declaration has to be true: the error bounds follow it. */
typedef struct mlstm_kernel mlstm_kernel;
struct mlstm_kernel {
  uint32_t struct_size;
  uint32_t module;         /* MLSTM_RECURRENT, ... */
  const char* name;        /* letters, digits, '_', '-' and '.'; reported as <module>--<name> */
  const char* description; /* one line */
  uint32_t device;
  uint32_t dtypes;           /* set; without MLSTM_TFLOAT32 */
  uint32_t gates;            /* set */
  uint32_t stabilizer_inits; /* set; with the exp gate at least one */
  uint32_t gradients;        /* set of conventions; 0: forward only */
  uint32_t operand_dtype;    /* what matrix products read; 0: the problem's dtype */
  uint32_t state_dtype;      /* what chunk states are kept in; 0: float32, or float64 for float64 */
  uint32_t flags;
  mlstm_size_limit S, L, DHQK, DHV; /* L matters to chunkwise kernels only */
  const void* user;                 /* for the plugin's own use */

  /* Asked for problems within the declaration. 0: can be run. Else it is not run, and reported as an ERROR with the
   * reason in `message`, since the declaration admits it: for sizes that no declaration can rule out, such as more
   * blocks than a launch takes. May be null. */
  int (*supports)(const mlstm_kernel*, const mlstm_problem*, char* message, size_t message_size);
  /* Bytes. May be null: 0. */
  size_t (*saved_size)(const mlstm_kernel*, const mlstm_problem*);
  size_t (*workspace_size)(const mlstm_kernel*, const mlstm_problem*, int backward);
  /* On CUDA: enqueue on the stream and return. */
  int (*forward)(const mlstm_kernel*, const mlstm_problem*, const mlstm_forward_args*, char* message,
                 size_t message_size);
  int (*backward)(const mlstm_kernel*, const mlstm_problem*, const mlstm_backward_args*, char* message,
                  size_t message_size); /* null exactly if `gradients` is 0 */

  uint32_t gate_dtype;    /* what log sigmoid, m, F and I are computed or kept in; 0: float32, or float64 for float64 */
  uint32_t product_dtype; /* what the terms of sums are rounded to; 0: they are not */
};

typedef struct mlstm_kernel_library {
  uint32_t struct_size;
  uint32_t abi_version; /* MLSTM_KERNEL_ABI_VERSION of this file */
  size_t kernel_count;
  const mlstm_kernel* const* kernels;
} mlstm_kernel_library;

/* What a plugin exports. `abi_version` is that of the caller. Returns null if the plugin does not support it; else a
 * library that stays valid as long as it is loaded. */
MLSTM_KERNEL_EXPORT const mlstm_kernel_library* mlstm_kernels(uint32_t abi_version);

#ifdef __cplusplus
}
#endif

#endif /* MLSTM_KERNEL_H */
