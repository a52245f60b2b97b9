"""An event loop whose clock jumps to the next thing due: a test of minutes takes no time.

Waits of seconds take no time, and every run takes the same course. Work for threads is done by the
loop itself, as the clock must not jump while it goes on.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

from msgtrace.storage.sqlite.connection import ConnectionThread, translated_errors

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

LONGEST_S = 10_000.0
"""A test that takes longer waits for something that will not happen."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s."""

    def __init__(self) -> None:
        self._clock = _JumpingClock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        return self.soon(lambda: func(*args))

    def soon(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """What `work` returns or raises. It is done also if nobody waits for it any more."""
        done: asyncio.Future[T] = self.create_future()

        def do() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - raised where it is awaited
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self.call_soon(do)
        return done


class _JumpingClock(selectors.DefaultSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0:
            if timeout is None or self.now_s > LONGEST_S:
                raise AssertionError("everybody waits for something that does not happen")
            self.now_s += timeout
        return ready


class ConnectionInLoop(ConnectionThread):
    """A connection whose work is done by a VirtualTimeLoop. `error` is what all work meets."""

    def __init__(self, open_: Callable[[], sqlite3.Connection], name: str) -> None:
        self._open = open_
        self._connection = None
        self.error: Exception | None = None

    async def run(
        self, work: Callable[[sqlite3.Connection], T], timeout_s: float | None = None
    ) -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return await loop.soon(lambda: self._do(work))

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.error is not None:
            raise self.error
        with translated_errors():
            return work(self._connected())


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now_s() -> float:
    """Of the loop that runs."""
    return asyncio.get_running_loop().time()
