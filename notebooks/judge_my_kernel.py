#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Have your own kernel judged: an example with h5py.

    mlstm fixtures generate --suite smoke --dtype float32 --out build/problems
    notebooks/judge_my_kernel.py build/problems
    mlstm verify --captures build/problems

The kernel here is a forward pass in NumPy, step by step in float32. With --bug it has a mistake that real kernels have
had: the denominator is max(n.q, exp(-m)) instead of max(|n.q|, exp(-m)). Then "mlstm verify" fails.

reference/CONTRACT.md defines the function (section 2) and the file format (section 5).
"""
import argparse
from pathlib import Path

import h5py
import numpy as np

TENSORS = {"c_initial": "c", "n_initial": "n", "m_initial": "m"}


def log_sigmoid(x):
    return -np.logaddexp(np.float32(0), -x)


def mlstm(q, k, v, i, f, state, gate, normalize, eps, bug):
    """h (B,NH,S,DHV) and the last state; all arrays are float32. state holds c, n and, with the exp gate, m."""
    c, n, m = state["c"], state["n"], state["m"]
    q = q * np.float32(q.shape[-1] ** -0.5)
    h = np.empty_like(v)
    for t in range(q.shape[2]):
        q_t, k_t, v_t = q[:, :, t], k[:, :, t], v[:, :, t]
        log_f, log_i = log_sigmoid(f[:, :, t]), i[:, :, t]
        if gate == "sigmoid":
            log_i, m_next = log_sigmoid(log_i), m  # m stays 0
        else:
            m_next = np.maximum(log_f + m, log_i)
        forget, input_ = np.exp(log_f + m - m_next), np.exp(log_i - m_next)
        m = m_next
        c = forget[..., None, None] * c + input_[..., None, None] * k_t[..., :, None] * v_t[..., None, :]
        n = forget[..., None] * n + input_[..., None] * k_t
        numerator = np.einsum("bhkv,bhk->bhv", c, q_t)
        if normalize:
            n_q = np.einsum("bhk,bhk->bh", n, q_t)
            with np.errstate(over="ignore"):  # then h is 0
                floor = np.exp(-m)
            d = np.maximum(n_q if bug else np.abs(n_q), floor) + np.float32(eps)
            numerator /= d[..., None]
        h[:, :, t] = numerator
    return h, {"c": c, "n": n, "m": m}


def fill_in(path, bug):
    with h5py.File(path, "r+") as file:
        attributes = {name: a.decode() if isinstance(a, bytes) else a for name, a in file.attrs.items()}
        if attributes["dtype"] != "float32":
            raise SystemExit(f"{path}: the dtype is {attributes['dtype']}; this kernel computes in float32")
        inputs = {name: data[()] for name, data in file["inputs"].items()}
        batch, heads, _, dim_qk = inputs["q"].shape
        dim_v = inputs["v"].shape[-1]
        state = {
            "c": np.zeros((batch, heads, dim_qk, dim_v), np.float32),
            "n": np.zeros((batch, heads, dim_qk), np.float32),
            "m": np.zeros((batch, heads), np.float32),
        }
        if attributes["gate"] == "exp" and attributes["stabilizer_init"] == "neg_inf":
            state["m"] -= np.inf
        state |= {TENSORS[name]: data for name, data in inputs.items() if name in TENSORS}

        h, last = mlstm(
            *(inputs[name] for name in "qkvif"), state, attributes["gate"], attributes["normalize"], attributes["eps"], bug
        )
        if attributes["gate"] == "sigmoid":
            del last["m"]

        if "kernel" in file:
            del file["kernel"]
        kernel = file.create_group("kernel")
        kernel.attrs["variant"] = "recurrent--native_numpy"
        kernel.create_dataset("outputs/h", data=h)
        for name, data in last.items():
            kernel.create_dataset(f"outputs/{name}_last", data=data)
        # gradients, if your kernel has them: kernel/gradients/q, k, v, i, f


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="problems written by mlstm fixtures generate")
    parser.add_argument("--bug", action="store_true", help="leave out the absolute value in the denominator")
    arguments = parser.parse_args()
    paths = sorted(arguments.directory.glob("*.h5"))
    for path in paths:
        fill_in(path, arguments.bug)
    print(f"{len(paths)} files filled in")


if __name__ == "__main__":
    main()
