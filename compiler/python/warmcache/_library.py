# SPDX-License-Identifier: Apache-2.0
"""libwarmcache-compiler as ctypes sees it; warmcache/compiler.h says what things mean."""

import ctypes
import functools
import os
from ctypes import POINTER, c_char, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

SONAME = "libwarmcache-compiler.so.0"
OWN_DIRECTORY = Path(__file__).resolve().parent / "lib"


class Options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("cache_dir", c_char_p),
        ("nvrtc_library", c_char_p),
        ("helper", c_char_p),
        ("mode", c_int),
        ("sealed_dirs", POINTER(c_char_p)),
        ("max_parallel", c_uint),
        ("timeout_ms", c_uint),
        ("fallback", c_int),
        ("max_bytes", c_uint64),
    ]


class Error(ctypes.Structure):
    _fields_ = [
        ("status", c_int),
        ("nvrtc_result", c_int),
        ("message", c_char * 512),
        ("log", c_char_p),
        ("ptx", c_char_p),
        ("log_bytes", c_size_t),
    ]


class Header(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("source", c_char_p), ("source_bytes", c_size_t)]


class Program(ctypes.Structure):
    _fields_ = [
        ("source", c_char_p),
        ("source_bytes", c_size_t),
        ("name", c_char_p),
        ("options", POINTER(c_char_p)),
        ("n_options", c_size_t),
        ("headers", POINTER(Header)),
        ("n_headers", c_size_t),
        ("name_expressions", POINTER(c_char_p)),
        ("n_name_expressions", c_size_t),
    ]


class Counters(NamedTuple):
    """What a compiler did since it was opened. Times add up over threads."""

    hits: int
    misses: int  #: compiles, stored or not
    waits: int  #: of the hits: waited for another's compile
    uncacheable: int  #: of the misses: must not be stored
    unstored: int  #: of the misses: could not be stored
    bad_entries: int  #: files that were no whole entry
    failed: int  #: compiles that failed
    evicted: int  #: entries deleted to keep `max_bytes`
    helpers_started: int
    bytes_read: int  #: of entries that hit
    bytes_written: int  #: of entries stored
    hit_us: int  #: microseconds spent in hits, waiting included
    compile_us: int  #: and in compiles
    uncacheable_option: int  #: uncacheable, by reason
    uncacheable_environment: int
    uncacheable_time: int
    uncacheable_changed: int
    uncacheable_host: int


class CCounters(ctypes.Structure):
    _fields_ = [(name, c_uint64) for name in Counters._fields]


def _function(library: ctypes.CDLL, name: str, returns: Any, *takes: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = returns, takes
    return function


class Library:
    """The C functions, typed. Those that work release the GIL. Those that look at a result keep
    it: a result belongs to one thread at a time, and they are shorter than a change of the GIL."""

    def __init__(self, path: str) -> None:
        try:
            work, look = ctypes.CDLL(path), ctypes.PyDLL(path)
        except OSError as error:
            raise OSError(f"the compiler library: {error} (WARM_COMPILER_LIBRARY is its path)"
                          ) from None
        error_p, result = POINTER(Error), "warm_compile_result_"
        self.open = _function(work, "warm_compiler_open", c_int,
                              POINTER(Options), POINTER(c_void_p), error_p)
        self.close = _function(work, "warm_compiler_close", None, c_void_p)
        self.compile = _function(work, "warm_compiler_compile", c_int,
                                 c_void_p, POINTER(Program), POINTER(c_void_p), error_p)
        self.counters = _function(work, "warm_compiler_get_counters", None,
                                  c_void_p, POINTER(CCounters), c_size_t)
        self.version = _function(look, "warm_compiler_version", c_char_p)
        self.error_release = _function(look, "warm_compiler_error_release", None, error_p)
        self.result_free = _function(look, result + "free", None, c_void_p)
        self.output = _function(look, result + "output", c_void_p,
                                c_void_p, c_int, POINTER(c_size_t))
        self.log = _function(look, result + "log", c_char_p, c_void_p)
        self.lowered_name = _function(look, result + "lowered_name", c_char_p, c_void_p, c_char_p)
        self.source = _function(look, result + "source", c_int, c_void_p)
        self.reason = _function(look, result + "reason", c_char_p, c_void_p)
        self.fingerprint = _function(look, result + "fingerprint", c_char_p, c_void_p)


@functools.lru_cache(maxsize=None)
def load() -> Library:
    """At its first use, so that `import warmcache` needs no library. The environment names it;
    else it is the wheel's own, else what the system's loader finds."""
    own = OWN_DIRECTORY / SONAME
    return Library(os.environ.get("WARM_COMPILER_LIBRARY")
                   or (str(own) if own.exists() else SONAME))
