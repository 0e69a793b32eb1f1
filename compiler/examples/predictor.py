#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Cog predictor whose kernels compile once: setup() of every later boot reads them.

In cog.yaml: `predict: "predictor.py:Predictor"`, `python_packages: ["warmcache[nvrtc13]"]`, and
WARM_CACHE_DIR in the environment. Without Cog: `python predictor.py`.
"""

import ctypes
import json
import time
from ctypes import byref, c_float, c_int, c_size_t, c_uint64, c_void_p
from typing import List, Optional

from warmcache import Compiler, Program

try:
    from cog import BasePredictor
except ImportError:
    BasePredictor = object

SAXPY = """
extern "C" __global__ void saxpy(float a, const float *x, float *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}
"""
SCALE = """
#include "scale.h"
template <typename T> __global__ void scale(T *x, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] *= static_cast<T>(FACTOR);
}
"""


class Gpu:
    """The first GPU, by the driver's API."""

    MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

    def __init__(self, driver: ctypes.CDLL) -> None:
        self._driver = driver
        device, self._context = c_int(), c_void_p()
        self._call("cuDeviceGet", byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)
        major, minor = c_int(), c_int()
        self._call("cuDeviceGetAttribute", byref(major), self.MAJOR, device)
        self._call("cuDeviceGetAttribute", byref(minor), self.MINOR, device)
        self.arch = f"sm_{major.value}{minor.value}"

    @classmethod
    def find(cls) -> "Optional[Gpu]":
        count = c_int()
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return None
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(byref(count)) != 0 or count.value == 0:
            return None
        return cls(driver)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} failed: CUDA error {code}")

    def load(self, cubin: bytes, kernel: bytes) -> c_void_p:
        module, function = c_void_p(), c_void_p()
        self._call("cuModuleLoadData", byref(module), cubin)
        self._call("cuModuleGetFunction", byref(function), module, kernel)
        return function

    def saxpy(self, function: c_void_p, a: float, x: List[float], y: List[float]) -> List[float]:
        self._call("cuCtxSetCurrent", self._context)  # predict() may run in another thread
        n, size = len(x), c_size_t(4 * len(x))
        host = [(c_float * n)(*values) for values in (x, y)]
        device = [c_uint64(), c_uint64()]
        for memory, values in zip(device, host):
            self._call("cuMemAlloc_v2", byref(memory), size)
            self._call("cuMemcpyHtoD_v2", memory, values, size)
        factor, count = c_float(a), c_int(n)
        pointers = (c_void_p * 4)(*map(ctypes.addressof, (factor, *device, count)))
        self._call("cuLaunchKernel", function, (n + 255) // 256, 1, 1, 256, 1, 1, 0, None,
                   pointers, None)
        self._call("cuCtxSynchronize")
        self._call("cuMemcpyDtoH_v2", host[1], device[1], size)
        for memory in device:
            self._call("cuMemFree_v2", memory)
        return list(host[1])


class Predictor(BasePredictor):
    def setup(self) -> None:
        start = time.monotonic()
        self.gpu = Gpu.find()
        arch = self.gpu.arch if self.gpu else "sm_90"
        options = [f"-arch={arch}", "-std=c++17"]
        with Compiler() as compiler:  # in WARM_CACHE_DIR
            saxpy, scale = compiler.compile_many([
                Program(SAXPY, name="saxpy.cu", options=options),
                Program(SCALE, name="scale.cu", options=options,
                        headers={"scale.h": "#define FACTOR 2\n"},
                        name_expressions=["scale<float>", "scale<int>"]),
            ])
            counters = compiler.counters
        self.ready = {
            "ready_seconds": round(time.monotonic() - start, 4),
            "arch": arch,
            "compiled": counters.misses,
            "hits": counters.hits,
            "kernels": ["saxpy", scale.lowered_name("scale<float>")],
        }
        assert saxpy.cubin is not None
        self.function = self.gpu.load(saxpy.cubin, b"saxpy") if self.gpu else None

    def predict(self, a: float = 2.0, n: int = 1000) -> str:
        """a * x + y for n numbers, checked."""
        if self.gpu is None or self.function is None:
            return "there is no GPU here: the kernels are compiled, not run"
        x, y = [float(i) for i in range(n)], [1.0] * n
        result = self.gpu.saxpy(self.function, a, x, y)
        wrong = sum(abs(got - (a * x[i] + y[i])) > 1e-3 * (1 + abs(got))
                    for i, got in enumerate(result))
        if wrong:
            raise RuntimeError(f"{wrong} of {n} numbers are wrong")
        return f"saxpy is right for {n} numbers"


if __name__ == "__main__":
    predictor = Predictor()
    predictor.setup()
    print(json.dumps({**predictor.ready, "predict": predictor.predict()}))
