#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the published Triton kernels (https://github.com/NX-AI/mlstm_kernels), for `mlstm bench --peers`.

    verify/bench_published.py --source CHECKOUT --out peers.json
    mlstm bench --peers peers.json

Needs a GPU, torch, triton, numpy and einops. CHECKOUT is a folder that holds the package mlstm_kernels. Times are
medians in milliseconds, by CUDA events, after warming up, of forward (without autograd) and of forward + backward
(autograd, a random dh); a decoding step is a CUDA graph of many launches. Every measurement is a process of its own,
because a compiler may take its process along when it fails; what failed has a row with `error` and no times.

The output: {"schema": "mlstm-bench-peers", "schema_version": 1, "device", "versions", "rows": [{"kernel",
"compares_with", "shape": [B, NH, S, DHQK, DHV], "dtype", "gate", "chunk_size", "initial_states", "forward_ms",
"forward_backward_ms", "forward_extra_bytes", "samples", "error"}]}. "compares_with" is the key of the variant of ours
that does the same; other programs may write such files too.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

# Triton 3.6 cannot compile xl_chunk and limit_headdim with LLVM's passes.
NO_PASSES = {"DISABLE_LLVM_OPT": "1"}
# name here: (name there, variant of ours, gate, environment)
SEQUENCE_KERNELS = {
    "xl_chunk": ("chunkwise--triton_xl_chunk", "chunkwise--xl_chunk_cuda_ownbw", "exp", NO_PASSES),
    "xl_chunk_siging": ("chunkwise--triton_xl_chunk_siging", "chunkwise--xl_chunk_cuda_ownbw", "sigmoid", NO_PASSES),
    "limit_chunk": ("chunkwise--triton_limit_chunk", "chunkwise--limit_chunk_cuda_ownbw", "exp", {}),
    "limit_headdim": ("parallel--triton_limit_headdim", "parallel--limit_headdim_cuda_ownbw", "exp", NO_PASSES),
}
STEP_KERNEL = ("recurrent--triton", "recurrent--step_fused_cuda", "exp", {})
TIMEOUT = 300  # seconds a measurement may take, compilation included


def parse_shape(text):
    extents = [int(word) for word in text.split(",")]
    if len(extents) != 5 or min(extents) < 1:
        raise argparse.ArgumentTypeError(f'"{text}"; expected five positive integers B,NH,S,DHQK,DHV')
    return extents


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="folder that holds the package mlstm_kernels")
    parser.add_argument("--out", help="JSON file to write")
    names = [*SEQUENCE_KERNELS, "step"]
    parser.add_argument("--kernel", action="append", choices=names, help="only these; may be repeated")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    shape = {"type": parse_shape, "action": "append", "metavar": "B,NH,S,DHQK,DHV"}
    parser.add_argument("--shape", help="of the chunkwise kernels; default: 8,16,8192,128,256", **shape)
    parser.add_argument("--parallel-shape", help="default: 32,16,2048,128,128 and 8,16,8192,128,128", **shape)
    parser.add_argument("--step-shape", help="S is 1; default: 128,8,1,256,512 and 128,16,1,128,256", **shape)
    parser.add_argument("--xl-chunk-size", type=int, action="append", help="chunk size of xl_chunk*; default: 128")
    parser.add_argument("--limit-chunk-size", type=int, action="append", help="chunk size of limit_chunk; default: 64")
    parser.add_argument("--seconds", type=float, default=0.5, help="to measure each number for")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # one row as JSON: measure it in this process
    arguments = parser.parse_args()
    if not arguments.worker and not arguments.out:
        parser.error("--out is missing; expected a file to write")
    return arguments


def plan(arguments):
    """The rows to measure, each with the environment that its process gets."""
    for name in arguments.kernel or [*SEQUENCE_KERNELS, "step"]:
        chunk_sizes = [None]
        if name == "step":
            kernel, ours, gate, environment = STEP_KERNEL
            shapes = arguments.step_shape or [[128, 8, 1, 256, 512], [128, 16, 1, 128, 256]]
        else:
            kernel, ours, gate, environment = SEQUENCE_KERNELS[name]
            shapes = arguments.shape or [[8, 16, 8192, 128, 256]]
            if name == "limit_headdim":
                shapes = arguments.parallel_shape or [[32, 16, 2048, 128, 128], [8, 16, 8192, 128, 128]]
            elif name == "limit_chunk":
                chunk_sizes = arguments.limit_chunk_size or [64]
            else:
                chunk_sizes = arguments.xl_chunk_size or [128]
        for shape in shapes:
            for chunk_size in chunk_sizes:
                row = {"kernel": kernel, "compares_with": ours, "shape": shape, "dtype": arguments.dtype, "gate": gate,
                       "chunk_size": chunk_size, "initial_states": name == "step", "forward_ms": None,
                       "forward_backward_ms": None, "error": None}
                yield row, environment


# ------------------------------------------------------------------------------------------- in a process of its own
def median_ms(call, seconds):
    """(median milliseconds, samples) of call(), whose work is queued; the GPU does not wait for the host."""
    import torch

    def run(count):
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        for start, stop in events:
            start.record()
            call()
            stop.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) for start, stop in events]

    run(1)  # compiles, tunes
    estimate = statistics.median(run(3))
    estimate = statistics.median(run(min(max(int(200 / estimate), 3), 1000)))  # warms up
    times = run(min(max(int(1000 * seconds / estimate), 5), 1000))
    return statistics.median(times), len(times)


def measure_sequence(row, seconds):
    import torch
    from mlstm_kernels.torch import get_mlstm_kernel

    kernel = get_mlstm_kernel(row["kernel"])
    B, NH, S, DHQK, DHV = row["shape"]
    dtype = getattr(torch, row["dtype"])

    def random(*extents, mean=0.0):
        return (torch.randn(*extents, device="cuda") + mean).to(dtype)

    inputs = [random(B, NH, S, DHQK), random(B, NH, S, DHQK), random(B, NH, S, DHV), random(B, NH, S),
              random(B, NH, S, mean=3.0)]
    dh = random(B, NH, S, DHV)
    options = {"eps": 1e-6, "autocast_kernel_dtype": dtype}
    if row["chunk_size"] is not None:
        options["chunk_size"] = row["chunk_size"]

    def forward():
        with torch.no_grad():
            return kernel(*inputs, **options)

    h = forward()
    torch.cuda.synchronize()
    if not torch.isfinite(h).all():
        raise RuntimeError("h is not finite")
    h_bytes = h.numel() * h.element_size()
    del h
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    forward()
    row["forward_extra_bytes"] = torch.cuda.max_memory_allocated() - before - h_bytes
    row["forward_ms"], row["samples"] = median_ms(forward, seconds)

    leaves = [x.requires_grad_() for x in inputs]

    def forward_backward():
        return torch.autograd.grad(kernel(*leaves, **options), leaves, dh)

    if not all(torch.isfinite(gradient).all() for gradient in forward_backward()):
        raise RuntimeError("a gradient is not finite")
    row["forward_backward_ms"], _ = median_ms(forward_backward, seconds)


def measure_step(row, seconds):
    import torch
    from mlstm_kernels.torch import get_mlstm_step_kernel

    kernel = get_mlstm_step_kernel(row["kernel"].removeprefix("recurrent--"))
    B, NH, S, DHQK, DHV = row["shape"]
    if S != 1:
        raise ValueError(f"S is {S}; expected 1 for a decoding step")
    dtype = getattr(torch, row["dtype"])

    def random(*extents, kind=dtype, mean=0.0):
        return (torch.randn(*extents, device="cuda") + mean).to(kind)

    def one_set():
        f32 = torch.float32
        states = {"c": random(B, NH, DHQK, DHV, kind=f32), "n": random(B, NH, DHQK, kind=f32),
                  "m": random(B, NH, 1, kind=f32)}
        new = {"matC_new": torch.empty_like(states["c"]), "vecN_new": torch.empty_like(states["n"]),
               "scaM_new": torch.empty_like(states["m"])}
        return {"q": random(B, NH, DHQK), "k": random(B, NH, DHQK), "v": random(B, NH, DHV), "i": random(B, NH, 1),
                "f": random(B, NH, 1, mean=3.0), **states, **new, "eps": 1e-6, "dtype_state": f32}

    # states alternate until together they are three times as large as the cache
    state_bytes = 2 * 4 * B * NH * DHQK * DHV
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    sets = [one_set() for _ in range(min(3 * cache // state_bytes + 1, 64))]
    h, _ = kernel(**sets[0])
    torch.cuda.synchronize()
    if not torch.isfinite(h).all():
        raise RuntimeError("h is not finite")
    rounds = max(1, 64 // len(sets))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for arguments in sets:
                kernel(**arguments)
    milliseconds, row["samples"] = median_ms(graph.replay, seconds)
    row["forward_ms"] = milliseconds / (rounds * len(sets))


def work(arguments):
    """Measures one row and prints it, with what it was measured on, as the last line."""
    sys.path.insert(0, os.path.abspath(arguments.source))
    import torch
    import triton
    import mlstm_kernels

    row = json.loads(arguments.worker)
    try:
        (measure_step if row["initial_states"] else measure_sequence)(row, arguments.seconds)
    except Exception as error:  # whatever goes wrong in there is a fact about the kernel
        row["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        print(row["error"], file=sys.stderr)
    about = {"device": torch.cuda.get_device_name(0),
             "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__,
                          "mlstm_kernels": mlstm_kernels.__version__}}
    print(json.dumps({"row": row, **about}))


# ------------------------------------------------------------------------------------------------------- all of them
def run_worker(arguments, row, environment):
    command = [sys.executable, os.path.abspath(__file__), "--source", arguments.source, "--seconds",
               str(arguments.seconds), "--worker", json.dumps(row)]
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
                              timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"row": {**row, "error": f"no result within {TIMEOUT} s"}}
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return {"row": {**row, "error": f"the process ended with status {done.returncode}"}}
    return json.loads(lines[-1])


def main():
    arguments = parse_arguments()
    if arguments.worker:
        return work(arguments)
    if not os.path.isdir(os.path.join(arguments.source, "mlstm_kernels")):
        sys.exit(f'--source is "{arguments.source}"; expected a folder that holds the package mlstm_kernels')
    result = {"schema": "mlstm-bench-peers", "schema_version": 1, "device": "", "versions": {}, "rows": []}
    for row, environment in plan(arguments):
        measured = run_worker(arguments, row, environment)
        result["rows"].append(measured["row"])
        result.update({key: measured[key] for key in ("device", "versions") if key in measured})
        times = [measured["row"][key] for key in ("forward_ms", "forward_backward_ms")]
        print(f"{row['kernel']:<34} {','.join(map(str, row['shape'])):<20} {row['dtype']} L={row['chunk_size']}  " +
              (measured["row"]["error"] or " / ".join(f"{t:.4g} ms" for t in times if t)), flush=True)
        with open(arguments.out + ".part", "w") as file:  # after every row: what is done survives
            json.dump(result, file, indent=1)
        os.replace(arguments.out + ".part", arguments.out)
    return 0 if all(row["error"] is None for row in result["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
