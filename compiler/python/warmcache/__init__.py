# SPDX-License-Identifier: Apache-2.0
"""NVRTC with a cache that outlives the process.

    from warmcache import Compiler

    with Compiler(cache_dir="/warmcache") as compiler:
        result = compiler.compile(source, name="kernel.cu", options=["-arch=sm_90"])
        load(result.cubin)

The first call compiles; every later call with the same inputs, in any process that shares the
directory, reads.
"""

from ._compiler import Compiler, Mode, Program, Result, Source, library_version, preload_path
from ._errors import (
    CompileError,
    CompileManyError,
    HelperError,
    InvalidError,
    NvrtcError,
    NvrtcNotFoundError,
    OutOfMemoryError,
    WarmcacheError,
)
from ._library import Counters

__all__ = [
    "Compiler",
    "CompileError",
    "CompileManyError",
    "Counters",
    "HelperError",
    "InvalidError",
    "Mode",
    "NvrtcError",
    "NvrtcNotFoundError",
    "OutOfMemoryError",
    "Program",
    "Result",
    "Source",
    "WarmcacheError",
    "library_version",
    "preload_path",
]
