# SPDX-License-Identifier: Apache-2.0
"""A hit as a Python program sees it: CuPy's disk cache beside ours, of one source.

    kernel.py DIRECTORY SOURCE

By a Python that has CuPy; PYTHONPATH leads to our package, WARM_COMPILER_LIBRARY is its library.
Prints one JSON object: for each the microseconds of every call, from the source to the cubin as
bytes. No GPU is needed: CuPy is told the architecture, and what would load the module keeps the
bytes. So neither the query of the device nor the load is in CuPy's time.
"""
import json
import os
import sys
import types
from time import perf_counter

directory, path = sys.argv[1:]
os.environ["CUPY_CACHE_DIR"] = os.path.join(directory, "cupy")

from cupy.cuda import compiler as cupy_compiler  # noqa: E402 (it reads CUPY_CACHE_DIR)
import warmcache  # noqa: E402

TURNS, CALLS = 60, 50


class Module:
    def load(self, cubin):
        self.cubin = cubin

    def _set_mapping(self, mapping):
        pass


cupy_compiler.function = types.SimpleNamespace(Module=Module)
cupy_compiler._get_arch_for_options_for_nvrtc = lambda arch=None: ("-arch=sm_90", "cubin")

with open(path) as f:
    source = f.read()
os.mkdir(os.path.join(directory, "ours"))
ours = warmcache.Compiler(os.path.join(directory, "ours"))


def by_cupy():
    return cupy_compiler._compile_module_with_cache(source, ("--no-cache",), arch="90").cubin


def by_us():
    return ours.compile(source, name="bench.cu", options=["-arch=sm_90"]).cubin


times = {"cupy_hit": [], "python_hit": []}
ways = [(by_cupy, times["cupy_hit"]), (by_us, times["python_hit"])]
for call, _ in ways:
    first = call()  # compiles
    assert first[:4] == b"\x7fELF" and call() == first
for _ in range(TURNS):
    for call, list_of in ways:
        for _ in range(CALLS):
            start = perf_counter()
            call()
            list_of.append((perf_counter() - start) * 1e6)
counters = ours.counters
assert counters.misses == 1 and counters.hits == TURNS * CALLS + 1, counters
assert len(os.listdir(os.environ["CUPY_CACHE_DIR"])) == 1
print(json.dumps(times))
