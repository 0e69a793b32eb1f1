# SPDX-License-Identifier: Apache-2.0
"""One exception for each status of the library."""

from typing import TYPE_CHECKING, Dict, List, Optional, Tuple, Type

if TYPE_CHECKING:
    from ._compiler import Result


class WarmcacheError(Exception):
    """What this package raises, but for TypeError and ValueError of bad arguments, and OSError
    when there is no library to load.

    `message` is one line, `log` NVRTC's whole log ("" when there is none), `nvrtc_result` the
    nvrtcResult (0 when NVRTC wasn't asked). str() gives message and log.
    """

    def __init__(self, message: str, log: str = "", nvrtc_result: int = 0) -> None:
        super().__init__(message, log, nvrtc_result)
        self.message = message
        self.log = log
        self.nvrtc_result = nvrtc_result

    def __str__(self) -> str:
        return f"{self.message}\n{self.log}".rstrip()


class InvalidError(WarmcacheError, ValueError):
    """The library refused an argument; the message names it."""


class NvrtcNotFoundError(WarmcacheError):
    """libnvrtc, or its builtins library, is not to be found; the message tells where not."""


class CompileError(WarmcacheError):
    """The program doesn't compile; `log` says why."""


class HelperError(WarmcacheError):
    """The helper, warmcache-nvrtc, is missing, died or took too long."""


class OutOfMemoryError(WarmcacheError, MemoryError):
    """There was no memory for it."""


class NvrtcError(WarmcacheError):
    """NVRTC failed otherwise; `nvrtc_result` is its code."""


class CompileManyError(WarmcacheError):
    """Some of many programs failed. `results[i]` is None where `errors[i]` is not."""

    def __init__(self, results: "List[Optional[Result]]",
                 errors: List[Optional[WarmcacheError]]) -> None:
        failed = [(i, error) for i, error in enumerate(errors) if error is not None]
        number, first = failed[0]
        super().__init__(f"{len(failed)} of {len(errors)} programs failed, first programs[{number}]"
                         f": {first.message}", first.log, first.nvrtc_result)
        self.results = results
        self.errors = errors

    def __reduce__(self) -> Tuple[object, ...]:
        return type(self), (self.results, self.errors)


_BY_STATUS: Dict[int, Type[WarmcacheError]] = {
    1: InvalidError,
    2: NvrtcNotFoundError,
    3: CompileError,
    4: HelperError,
    5: OutOfMemoryError,
    6: NvrtcError,
}


def error_of(status: int, message: str, log: str = "", nvrtc_result: int = 0) -> WarmcacheError:
    """The exception for a status of the library."""
    return _BY_STATUS.get(status, WarmcacheError)(message, log, nvrtc_result)
