/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin of one kernel: the recurrent mLSTM in plain C, float32, step by step, forward and backward.
 *
 *     cc -O2 -shared -fPIC -I verify/include verify/examples/recurrent_plugin.c -o librecurrent.so -lm
 *     mlstm verify --plugin ./librecurrent.so
 *
 *     C_t = F_t C_{t-1} + I_t k_t v_t',   n_t = F_t n_{t-1} + I_t k_t,   h_t = C_t' (s q_t) / d_t
 *
 * Gradients are the detached ones: d and m count as constants. With g_t = dh_t / d_t:
 *
 *     dC_t = s q_t g_t' + F_{t+1} dC_{t+1},   dq_t = s C_t g_t,   dk_t = I_t dC_t v_t,   dv_t = I_t dC_t' k_t
 *     dlog I_t = k_t . dk_t,   dlog F_t = F_t <dC_t, C_{t-1}>
 *
 * Forward saves F, I and d of every step, and every C.
 */
#include <math.h>
#include <string.h>

#include "mlstm_kernel.h"

/* One head's share of an array of `elements` per head. */
static const float* in(const void* array, int64_t head, int64_t elements) {
  return (const float*)array + head * elements;
}
static float* out(void* array, int64_t head, int64_t elements) { return (float*)array + head * elements; }

static float log_sigmoid(float x) { return x < 0 ? x - log1pf(expf(x)) : -log1pf(expf(-x)); }

/* Floats that one head saves: C_0 ... C_S, then F, I and d. */
static int64_t saved_floats(const mlstm_problem* p) { return (p->S + 1) * p->DHQK * p->DHV + 3 * p->S; }

static size_t saved_size(const mlstm_kernel* self, const mlstm_problem* p) {
  (void)self;
  return (size_t)(p->B * p->NH * saved_floats(p)) * sizeof(float);
}

/* n, and in forward C unless it is saved; in backward dC. */
static size_t workspace_size(const mlstm_kernel* self, const mlstm_problem* p, int backward) {
  (void)self, (void)backward;
  return (size_t)(p->DHQK * p->DHV + p->DHQK) * sizeof(float);
}

static void forward_head(const mlstm_problem* p, const mlstm_forward_args* a, int64_t head) {
  const int64_t S = p->S, K = p->DHQK, V = p->DHV;
  const float *q = in(a->q, head, S * K), *k = in(a->k, head, S * K), *v = in(a->v, head, S * V);
  const float *i = in(a->i, head, S), *f = in(a->f, head, S);
  const int exponential = p->gate == MLSTM_GATE_EXP;
  const float scale = 1 / sqrtf((float)K);
  float *C = a->workspace, *n = C + K * V, *h = out(a->h, head, S * V);
  float* saved = a->saved ? out(a->saved, head, saved_floats(p)) : NULL;
  float *F_saved = saved ? saved + (S + 1) * K * V : NULL, m = 0;
  for (int64_t x = 0; x < K * V; ++x) C[x] = a->c_initial ? in(a->c_initial, head, K * V)[x] : 0;
  for (int64_t x = 0; x < K; ++x) n[x] = a->n_initial ? in(a->n_initial, head, K)[x] : 0;
  if (a->m_initial) m = *in(a->m_initial, head, 1);
  if (saved) memcpy(saved, C, (size_t)(K * V) * sizeof *C);

  for (int64_t t = 0; t < S; ++t, q += K, k += K, v += V, h += V) {
    const float log_f = log_sigmoid(f[t]), log_i = exponential ? i[t] : log_sigmoid(i[t]);
    const float m_new = !exponential ? 0 : fmaxf(log_f + m, log_i);
    const float F = expf(log_f + m - m_new), I = expf(log_i - m_new);
    float l = 0;
    m = m_new;
    memset(h, 0, (size_t)V * sizeof *h);
    for (int64_t x = 0; x < K; ++x) {
      n[x] = F * n[x] + I * k[x];
      l += n[x] * scale * q[x];
      for (int64_t y = 0; y < V; ++y) {
        C[x * V + y] = F * C[x * V + y] + I * k[x] * v[y];
        h[y] += C[x * V + y] * scale * q[x];
      }
    }
    const float d = !exponential && !p->normalize ? 1 : fmaxf(fabsf(l), exponential ? expf(-m) : 1) + (float)p->eps;
    for (int64_t y = 0; y < V; ++y) h[y] = h[y] == 0 ? 0 : h[y] / d; /* where d overflows too */
    if (!saved) continue;
    memcpy(saved + (t + 1) * K * V, C, (size_t)(K * V) * sizeof *C);
    F_saved[t] = F, F_saved[S + t] = I, F_saved[2 * S + t] = d;
  }
  if (a->c_last) memcpy(out(a->c_last, head, K * V), C, (size_t)(K * V) * sizeof *C);
  if (a->n_last) memcpy(out(a->n_last, head, K), n, (size_t)K * sizeof *n);
  if (a->m_last) *out(a->m_last, head, 1) = m;
}

static void backward_head(const mlstm_problem* p, const mlstm_backward_args* a, int64_t head) {
  const int64_t S = p->S, K = p->DHQK, V = p->DHV;
  const float *C_saved = in(a->saved, head, saved_floats(p)), *F_saved = C_saved + (S + 1) * K * V;
  const float scale = 1 / sqrtf((float)K);
  float* dC = a->workspace;
  memset(dC, 0, (size_t)(K * V) * sizeof *dC);
  for (int64_t t = S - 1; t >= 0; --t) {
    const float *q = in(a->q, head, S * K) + t * K, *k = in(a->k, head, S * K) + t * K;
    const float *v = in(a->v, head, S * V) + t * V, *dh = a->dh ? in(a->dh, head, S * V) + t * V : NULL;
    const float F = F_saved[t], I = F_saved[S + t], d = F_saved[2 * S + t];
    const float *before = C_saved + t * K * V, *C = before + K * V;
    float *dq = out(a->dq, head, S * K) + t * K, *dk = out(a->dk, head, S * K) + t * K;
    float *dv = out(a->dv, head, S * V) + t * V, d_log_i = 0, d_log_f = 0;
    memset(dv, 0, (size_t)V * sizeof *dv);
    for (int64_t x = 0; x < K; ++x) {
      dq[x] = dk[x] = 0;
      for (int64_t y = 0; y < V; ++y) {
        const float g = dh ? dh[y] / d : 0;
        dC[x * V + y] += scale * q[x] * g;
        dq[x] += scale * C[x * V + y] * g;
        dk[x] += I * dC[x * V + y] * v[y];
        dv[y] += I * dC[x * V + y] * k[x];
        d_log_f += F * dC[x * V + y] * before[x * V + y];
        dC[x * V + y] *= F;
      }
      d_log_i += k[x] * dk[x];
    }
    const float i = in(a->i, head, S)[t], f = in(a->f, head, S)[t];
    out(a->di, head, S)[t] = p->gate == MLSTM_GATE_EXP ? d_log_i : d_log_i * expf(log_sigmoid(-i));
    out(a->df, head, S)[t] = d_log_f * expf(log_sigmoid(-f));
  }
  if (a->dc_initial) memcpy(out(a->dc_initial, head, K * V), dC, (size_t)(K * V) * sizeof *dC);
  if (a->dn_initial) memset(out(a->dn_initial, head, K), 0, (size_t)K * sizeof(float)); /* n acts through d alone */
  if (a->dm_initial) *out(a->dm_initial, head, 1) = 0;
}

static int forward(const mlstm_kernel* self, const mlstm_problem* p, const mlstm_forward_args* a, char* message,
                   size_t message_size) {
  (void)self, (void)message, (void)message_size;
  for (int64_t head = 0; head < p->B * p->NH; ++head) forward_head(p, a, head);
  return 0;
}

static int backward(const mlstm_kernel* self, const mlstm_problem* p, const mlstm_backward_args* a, char* message,
                    size_t message_size) {
  (void)self, (void)message, (void)message_size;
  for (int64_t head = 0; head < p->B * p->NH; ++head) backward_head(p, a, head);
  return 0;
}

static const mlstm_kernel recurrent = {
    .struct_size = sizeof(mlstm_kernel),
    .module = MLSTM_RECURRENT,
    .name = "sequence_c",
    .description = "example of a plugin: step by step, in plain C",
    .device = MLSTM_DEVICE_CPU,
    .dtypes = MLSTM_FLOAT32,
    .gates = MLSTM_GATE_EXP | MLSTM_GATE_SIGMOID,
    .stabilizer_inits = MLSTM_STABILIZER_ZERO,
    .gradients = MLSTM_GRADIENT_DETACHED,
    .flags = MLSTM_TAKES_INITIAL_STATES | MLSTM_RETURNS_LAST_STATES | MLSTM_TAKES_UNNORMALIZED,
    .saved_size = saved_size,
    .workspace_size = workspace_size,
    .forward = forward,
    .backward = backward,
};

const mlstm_kernel_library* mlstm_kernels(uint32_t abi_version) {
  static const mlstm_kernel* const kernels[] = {&recurrent};
  static const mlstm_kernel_library library = {sizeof library, MLSTM_KERNEL_ABI_VERSION, 1, kernels};
  return abi_version == MLSTM_KERNEL_ABI_VERSION ? &library : NULL;
}
