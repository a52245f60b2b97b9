"""How much memory this process has, and how to give some back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable, Sequence


class ProcessMemory:
    """The memory that belongs to this process alone: what is in RAM of heaps and stacks."""

    def __init__(self) -> None:
        self._statm = _open_statm()
        self._page_bytes = os.sysconf("SC_PAGE_SIZE") if self._statm is not None else 0
        self._trim = _malloc_trim()
        self._later: list[asyncio.TimerHandle] = []

    def private_bytes(self) -> int:
        """So many bytes; 0 where the system does not tell. Takes some microseconds."""
        if self._statm is None:
            return 0
        _, resident, shared, *_ = os.pread(self._statm, 256, 0).split()  # proc(5), in pages
        return (int(resident) - int(shared)) * self._page_bytes

    def give_back(self) -> None:
        """Hand freed memory to the system, which glibc keeps for later. Takes milliseconds."""
        self._trim(0)

    def give_back_later(self, delays_s: Sequence[float]) -> None:
        """Give back after each of these times, in place of what was to come of an earlier call.

        Other tasks and threads let go of what a request held a moment after its answer.
        """
        for timer in self._later:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._later = [loop.call_later(delay_s, self.give_back) for delay_s in delays_s]

    def __del__(self) -> None:
        if self._statm is not None:
            os.close(self._statm)


def _open_statm() -> int | None:
    try:
        return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _malloc_trim() -> Callable[[int], object]:
    if sys.platform == "linux":
        # musl has no such function, and no need for it.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim.argtypes = [ctypes.c_size_t]
            return trim  # type: ignore[no-any-return]  # ctypes is not typed
    return lambda _: None
