# SPDX-License-Identifier: Apache-2.0
"""Compiler, Program, Result."""

import ctypes
import enum
import functools
import math
import operator
import os
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor, as_completed
from ctypes import byref, c_char_p, c_size_t, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Iterable, List, Mapping, Optional, Sequence, Type, Union

from . import _library as c
from ._errors import CompileManyError, NvrtcNotFoundError, WarmcacheError, error_of

Text = Union[str, bytes]
PathText = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


class Source(enum.IntEnum):
    """Where a result comes from."""

    HIT = 0  #: read from the cache
    MISS = 1  #: compiled, and stored
    UNCACHEABLE = 2  #: compiled; must not be stored, see `Result.reason`
    UNSTORED = 3  #: compiled; could not be stored, see `Result.reason`


class Mode(enum.IntEnum):
    """What a hit checks of the files that the program had opened; see compiler.h."""

    TRACED = 0  #: contents at the first look in this process, later by inode, size and times
    SEALED = 1  #: the same, and below `sealed_dirs` only once
    CLOSED = 2  #: only programs that opened no file hit


@dataclass(frozen=True)
class Program:
    """A CUDA C++ program, as nvrtcCreateProgram() and nvrtcCompileProgram() take it."""

    source: Text
    #: The file name in messages; its directory is where quoted includes are looked for.
    name: Optional[PathText] = None
    #: NVRTC's, for example ["-arch=sm_90", "-I/usr/local/cuda/include"]. They also decide which
    #: outputs there are: "-arch=sm_90" makes PTX and a cubin, "-dlto" LTO-IR.
    options: Sequence[Text] = ()
    #: In-memory headers: what is included, and its text.
    headers: Mapping[str, Text] = field(default_factory=dict)
    #: Names of kernels and variables to be lowered, for example ["f<int>"].
    name_expressions: Sequence[Text] = ()


class Result:
    """A compiled program. Outputs are None where the options didn't ask for them.

    Any thread may use it, also after its compiler was closed.
    """

    #: Where it comes from.
    source: Source
    #: NVRTC's log, "" when empty.
    log: str
    #: Why it is UNCACHEABLE or UNSTORED, else "".
    reason: str
    #: What it is cached under, 32 hexadecimal digits.
    fingerprint: str

    def __init__(self, library: c.Library, pointer: int) -> None:
        self._library, self._pointer = library, pointer
        self.source = Source(library.source(pointer))
        self.log = _decode(library.log(pointer))
        self.reason = _decode(library.reason(pointer))
        self.fingerprint = _decode(library.fingerprint(pointer))
        _free_with(self, library.result_free, pointer)

    def _output(self, kind: int) -> Optional[bytes]:
        size = c_size_t()
        data = self._library.output(self._pointer, kind, byref(size))
        return None if data is None else ctypes.string_at(data, size.value)

    @functools.cached_property
    def ptx(self) -> Optional[bytes]:
        """PTX, without the NUL that NVRTC ends it by."""
        ptx = self._output(0)
        return None if ptx is None else ptx[:-1]

    @functools.cached_property
    def cubin(self) -> Optional[bytes]:
        """What cuModuleLoadData() takes."""
        return self._output(1)

    @functools.cached_property
    def ltoir(self) -> Optional[bytes]:
        """LTO-IR, for nvJitLink."""
        return self._output(2)

    @functools.cached_property
    def optixir(self) -> Optional[bytes]:
        """OptiX IR."""
        return self._output(3)

    @functools.cached_property
    def tileir(self) -> Optional[bytes]:
        """Tile IR, of NVRTC 13.2 and newer."""
        return self._output(4)

    def lowered_name(self, name_expression: Text) -> str:
        """The lowered (mangled) name of an expression; KeyError when the program gave no such."""
        wanted = _contents("name_expression", name_expression)
        name = self._library.lowered_name(self._pointer, wanted)
        if name is None:
            raise KeyError(name_expression)
        return _decode(name)

    def __repr__(self) -> str:
        return f"<warmcache.Result {self.fingerprint} {self.source.name}>"


class _Handle:
    """The C object. A call holds a reference to its handle, so that close() in another thread
    takes effect when the last call has ended."""

    def __init__(self, library: c.Library, options: c.Options) -> None:
        pointer, error = c_void_p(), c.Error()
        if library.open(byref(options), byref(pointer), byref(error)) != 0:
            raise _take_error(library, error)
        self.library, self.pointer = library, pointer
        _free_with(self, library.close, pointer)

    def compile(self, program: c.Program) -> Result:
        pointer, error = c_void_p(), c.Error()
        if self.library.compile(self.pointer, byref(program), byref(pointer), byref(error)) != 0:
            raise _take_error(self.library, error)
        assert pointer.value is not None
        return Result(self.library, pointer.value)


class Compiler:
    """NVRTC with a cache that outlives the process. Any number of threads may share one.

    cache_dir      entries go to nvrtc/v1 in it; None: WARM_CACHE_DIR; neither: no cache
    nvrtc_library  libnvrtc's path; None: WARM_NVRTC_LIBRARY, one that is loaded, LD_LIBRARY_PATH,
                   CUDA's usual places, NVIDIA's wheels
    helper         path of warmcache-nvrtc; None: WARM_NVRTC_HELPER, or beside the library
    mode           what a hit checks of files
    sealed_dirs    absolute directories, for Mode.SEALED
    max_parallel   compiles at once; 0: as many as CPUs
    timeout        of one compile, in seconds; None: ten minutes
    fallback       where the helper is missing, dies or takes too long, compile in this process;
                   such a result isn't stored
    max_bytes      of all entries; above it those go that were not read for the longest time.
                   0: WARM_COMPILER_MAX_BYTES; neither: no limit

    Raises NvrtcNotFoundError. A cache directory that can't be used is no error: every call
    compiles, and `Result.reason` says why.
    """

    def __init__(
        self,
        cache_dir: Optional[PathText] = None,
        *,
        nvrtc_library: Optional[PathText] = None,
        helper: Optional[PathText] = None,
        mode: Mode = Mode.TRACED,
        sealed_dirs: Sequence[PathText] = (),
        max_parallel: int = 0,
        timeout: Optional[float] = None,
        fallback: bool = False,
        max_bytes: int = 0,
    ) -> None:
        if isinstance(sealed_dirs, (str, bytes)):
            raise TypeError("sealed_dirs must be a sequence of paths, not one")
        sealed = [_path(f"sealed_dirs[{i}]", one) for i, one in enumerate(sealed_dirs)]
        for i, one in enumerate(sealed):
            if not os.path.isabs(one):
                raise ValueError(f"sealed_dirs[{i}] is not absolute: {os.fsdecode(one)}")
        options = c.Options(
            size=ctypes.sizeof(c.Options),
            cache_dir=_optional_path("cache_dir", cache_dir),
            nvrtc_library=_optional_path("nvrtc_library", nvrtc_library),
            helper=_optional_path("helper", helper),
            mode=Mode(mode),
            sealed_dirs=(c_char_p * (len(sealed) + 1))(*sealed),
            max_parallel=_number("max_parallel", max_parallel, 2**32 - 1),
            timeout_ms=_milliseconds("timeout", timeout),
            fallback=bool(fallback),
            max_bytes=_number("max_bytes", max_bytes, 2**64 - 1),
        )
        self._threads = options.max_parallel or len(os.sched_getaffinity(0))
        library = c.load()
        try:
            self._handle: Optional[_Handle] = _Handle(library, options)
        except NvrtcNotFoundError:
            found = _nvrtc_of_wheels()
            if options.nvrtc_library or os.environ.get("WARM_NVRTC_LIBRARY") or found is None:
                raise
            options.nvrtc_library = found
            self._handle = _Handle(library, options)

    def compile(
        self,
        source: Text,
        *,
        name: Optional[PathText] = None,
        options: Sequence[Text] = (),
        headers: Optional[Mapping[str, Text]] = None,
        name_expressions: Sequence[Text] = (),
    ) -> Result:
        """Compile, or read what an earlier call compiled; see Program for the arguments.

        Raises CompileError, whose `log` is NVRTC's; HelperError; another WarmcacheError.
        """
        program = Program(source, name, options, headers or {}, name_expressions)
        return self._open_handle().compile(_c_program("", program))

    def compile_many(
        self,
        programs: Iterable[Program],
        progress: Optional[Callable[[int, Optional[Result]], object]] = None,
    ) -> List[Result]:
        """Compile or read many programs, as many at once as CPUs (or `max_parallel`).

        `progress(index, result)` is called in this thread after each program, as they end;
        `result` is None where it failed.

        Returns the results in the programs' order. One that fails doesn't stop the others: then
        CompileManyError is raised at the end, which holds all results and errors. When `progress`
        raises, or at Ctrl-C, that is raised at once; no further program is begun.
        """
        handle = self._open_handle()
        kept = [_c_program(f"programs[{i}].", one) for i, one in enumerate(programs)]
        results: List[Optional[Result]] = [None] * len(kept)
        errors: List[Optional[WarmcacheError]] = [None] * len(kept)
        # Not by the library's own function for many: while C runs, Python sees no signal.
        pool = ThreadPoolExecutor(max(1, min(self._threads, len(kept))))
        try:
            indexes = {pool.submit(handle.compile, one): i for i, one in enumerate(kept)}
            for future in as_completed(indexes):
                i = indexes[future]
                try:
                    results[i] = future.result()
                except WarmcacheError as error:
                    errors[i] = error
                if progress is not None:
                    progress(i, results[i])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if any(errors):
            raise CompileManyError(results, errors)
        return [one for one in results if one is not None]

    @property
    def counters(self) -> c.Counters:
        """What was done since it was opened."""
        handle = self._open_handle()
        counters = c.CCounters()
        handle.library.counters(handle.pointer, byref(counters), ctypes.sizeof(counters))
        return c.Counters(*(getattr(counters, name) for name in c.Counters._fields))

    def close(self) -> None:
        """Calls that run in other threads end first; later ones raise ValueError."""
        self._handle = None

    def _open_handle(self) -> _Handle:
        handle = self._handle
        if handle is None:
            raise ValueError("the compiler is closed")
        return handle

    def __enter__(self) -> "Compiler":
        self._open_handle()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()


def library_version() -> str:
    """The version of the C library that is loaded."""
    return _decode(c.load().version())


def preload_path(major: int = 13) -> Path:
    """The drop-in libnvrtc of CUDA `major`, for LD_PRELOAD: what calls NVRTC itself (CuPy, torch)
    then compiles through the cache in WARM_CACHE_DIR. FileNotFoundError when there is none."""
    path = c.OWN_DIRECTORY / "nvrtc" / f"libnvrtc.so.{major}"
    if not path.exists():
        raise FileNotFoundError(f"no drop-in library for CUDA {major}: {path}")
    return path


# ---- what C takes and gives ----


def _free_with(owner: object, function: Any, pointer: Union[int, c_void_p]) -> None:
    """When `owner` goes, but not at the interpreter's exit: daemon threads may still use it."""
    finalizer = weakref.finalize(owner, function, pointer)
    finalizer.atexit = False  # type: ignore[misc]  # a property that typeshed lacks


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _take_error(library: c.Library, error: c.Error) -> WarmcacheError:
    taken = error_of(error.status, _decode(error.message), _decode(error.log or b""),
                     error.nvrtc_result)
    library.error_release(byref(error))
    return taken


def _without_nul(what: str, data: bytes) -> bytes:
    if b"\0" in data:
        raise ValueError(f"{what} holds a NUL byte")
    return data


def _contents(what: str, value: Text) -> bytes:
    """UTF-8 in any locale: the bytes are part of what is cached."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    elif not isinstance(value, bytes):
        raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")
    return _without_nul(what, value)


def _path(what: str, value: PathText) -> bytes:
    try:
        return _without_nul(what, os.fsencode(value))
    except TypeError:
        raise TypeError(f"{what} must be str, bytes or os.PathLike, not {type(value).__name__}"
                        ) from None


def _optional_path(what: str, value: Optional[PathText]) -> Optional[bytes]:
    return None if value is None else _path(what, value)


def _number(what: str, value: int, largest: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an int, not {type(value).__name__}") from None
    if not 0 <= number <= largest:
        raise ValueError(f"{what} is {number}, not in 0..{largest}")
    return number


def _milliseconds(what: str, seconds: Optional[float]) -> int:
    if seconds is None:
        return 0
    if not isinstance(seconds, (int, float)):
        raise TypeError(f"{what} must be a number, not {type(seconds).__name__}")
    if not 0 < seconds * 1000 <= 2**32 - 1:
        raise ValueError(f"{what} is {seconds}, not in 0..{2**32 // 1000} seconds")
    return math.ceil(seconds * 1000)


def _strings(what: str, values: Sequence[Text]) -> "ctypes.Array[c_char_p]":
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{what} must be a sequence of strings, not one string")
    strings = [_contents(f"{what}[{i}]", one) for i, one in enumerate(values)]
    return (c_char_p * len(strings))(*strings)


def _c_program(prefix: str, program: Program) -> c.Program:
    """The structure refers to the Python objects that it points to."""
    if not isinstance(program, Program):
        raise TypeError(f"{prefix[:-1]} must be a Program, not {type(program).__name__}")
    if not isinstance(program.headers, Mapping):
        raise TypeError(f"{prefix}headers must be a mapping, not {type(program.headers).__name__}")
    source = _contents(prefix + "source", program.source)
    options = _strings(prefix + "options", program.options)
    expressions = _strings(prefix + "name_expressions", program.name_expressions)
    headers = []
    for name, text in program.headers.items():
        data = _contents(f"{prefix}headers[{name!r}]", text)
        headers.append(c.Header(_contents(f"a name in {prefix}headers", name), data, len(data)))
    return c.Program(
        source, len(source), _optional_path(prefix + "name", program.name),
        options, len(options),
        (c.Header * len(headers))(*headers), len(headers),
        expressions, len(expressions),
    )


def _nvrtc_of_wheels() -> Optional[bytes]:
    """NVIDIA's wheels on sys.path, of which the library knows only a part."""
    for entry in sys.path:
        for place in ("nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"):
            path = os.path.join(entry or os.getcwd(), place)
            if os.path.exists(path):
                return os.fsencode(path)
    return None
