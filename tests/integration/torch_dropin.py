#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch with the drop-in libnvrtc preloaded: torch_dropin.py [--bin DIR]

`import torch`, and kernels compiled as torch.cuda._compile_kernel does it: in one process each
without the drop-in, with it and an empty cache, and with it again. All three must say the same;
the second compiles, the third reads. Needs no GPU. Installs torch like scripts/demo-torch does."""

import argparse
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PARTS = os.environ.get("WARM_PARTS", os.path.join(ROOT, "build/parts"))

CODE = r"""
import ctypes, hashlib, json, os
import torch
from torch.cuda._utils import _nvrtc_compile

def bound(name):
    # Where libtorch_cuda.so gets it from.
    library = ctypes.CDLL(os.path.join(torch.__path__[0], "lib/libtorch_cuda.so"))
    at = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    for line in open("/proc/self/maps"):
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        if start <= at < end:
            return line.split()[-1]

SOURCE = '''
#include <cuda_fp16.h>
template<typename T> __global__ void scale(T *x, T by) { x[threadIdx.x] *= by; }
extern "C" __global__ void add(const float *a, const float *b, float *c, int n)
{ int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) c[i] = a[i] + b[i]; }
'''
said = {"torch": torch.__version__, "sum": float(torch.arange(10.).sum())}
for name in ("add", "scale<float>", "scale<double>"):
    cubin, lowered = _nvrtc_compile(SOURCE, name, compute_capability="90")
    said[name] = [len(cubin), hashlib.sha256(cubin).hexdigest(), lowered]
for name, source, options in (("absent", SOURCE, None), ("add", SOURCE + "}", None),
                              ("add", SOURCE, ["--bogus"])):
    try:
        _nvrtc_compile(source, name, compute_capability="90", nvcc_options=options)
    except RuntimeError as e:
        said["error %d" % len(said)] = str(e)
print(json.dumps([said, bound("nvrtcCompileProgram")]))
"""


def install():
    """The venv of scripts/demo-torch, made here where it is missing."""
    venv = os.path.join(PARTS, "torch")
    python, stamp = os.path.join(venv, "bin/python"), os.path.join(venv, "warmcache-demo.stamp")
    with open(os.path.join(ROOT, "scripts/demo-torch")) as f:
        wanted = re.search(r"^requirements=\((.*)\)$", f.read(), re.M).group(1)
    if os.path.exists(stamp):
        with open(stamp) as f:
            if f.read().strip() == wanted:
                return python
    print("installing %s (some minutes, 6 GB, once)" % wanted, flush=True)
    subprocess.check_call([sys.executable, "-m", "venv", "--clear", venv])
    subprocess.check_call([python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                           *wanted.split()])
    with open(stamp, "w") as f:
        f.write(wanted + "\n")
    return python


def run(python, where, **more):
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("WARM_") and k not in ("LD_PRELOAD", "LD_LIBRARY_PATH")}
    home, = glob.glob(os.path.join(PARTS, "torch/lib/python3*/site-packages/nvidia/cu13"))
    env.update(more, CUDA_HOME=home, HOME=where)
    start = time.monotonic()
    p = subprocess.run([python, "-c", CODE], env=env, cwd=where, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
    assert p.returncode == 0, "exit %d\n%s" % (p.returncode, p.stderr)
    said, library = json.loads(p.stdout.splitlines()[-1])
    return said, library, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default="build/bin")
    args = parser.parse_args()
    dropin = os.path.realpath(os.path.join(args.bin, "../lib/nvrtc/libnvrtc.so.13"))
    assert os.path.exists(dropin), "%s is missing: run make first" % dropin
    python = install()
    compiled = ["add.cu", "scale_float_.cu", "scale_double_.cu"]
    failed = ["absent.cu", "add.cu", "add.cu"]
    with tempfile.TemporaryDirectory(prefix="warm-torch.") as where:
        os.mkdir(os.path.join(where, "volume"))
        want, real, _ = run(python, where)
        assert real != dropin and want["sum"] == 45.0, (real, want)
        assert len(want) == 8 and all("error %d" % n in want for n in (5, 6, 7)), want
        for word, event in (("cold", "miss"), ("warm", "hit")):
            log = os.path.join(where, word)
            got, library, took = run(python, where, LD_PRELOAD=dropin, WARM_COMPILER_LOG=log,
                                     WARM_CACHE_DIR=os.path.join(where, "volume"))
            assert library == dropin, "bound to %s" % library
            assert got == want, "%s: real %s\n drop-in %s" % (word, want, got)
            with open(log) as f:
                events = [(e["event"], e["name"]) for e in map(json.loads, f)]
            wanted = [(event, n) for n in compiled] + [("error", n) for n in failed]
            assert events == wanted, events
            print("ok   torch %s, %s: %d kernels, each a %s, same as without (%.1f s)" % (
                want["torch"], word, len(compiled), event, took))
    return 0


if __name__ == "__main__":
    sys.exit(main())
