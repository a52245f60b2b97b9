"""Whether a process can do its work now: what /ready and the gRPC health service answer.

Ready means that the database answers and, for a collector, that the queue is below its high-water
mark. A collector whose spill has room is ready without its database. Probes cannot hammer the
database: it is asked at most once a second, however many ask us.
Not here: whether the process lives. It does if it can say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from msgtrace.errors import MsgtraceError
from msgtrace.telemetry.metrics import DatabaseMetrics

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 2.0
"""How long the database may take to answer."""

CHECK_INTERVAL_S = 1.0
"""How long an answer counts."""

WATCH_INTERVAL_S = 5.0
"""How often a process looks by itself, so that the log tells without any probe."""

HIGH_WATER = 0.8
"""The part of the limit of queue or spill from which on a collector wants no more senders."""

STOPPING = "the service is stopping"

Problem = Callable[[], Awaitable[str | None]]
"""Says in one clause why the process is not ready, None if all is well."""


class DatabaseProbe:
    """Asks the database whether it answers. Several readinesses may share one.

    A change is logged once, whoever asked. `check` is `StorageAdmin.check`.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        metrics: DatabaseMetrics | None = None,
        *,
        timeout_s: float = CHECK_TIMEOUT_S,
        interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self._check = check
        self._metrics = metrics or DatabaseMetrics()
        self._timeout_s = timeout_s
        self._interval_s = interval_s
        self._under_way: asyncio.Task[str | None] | None = None
        self._problem: str | None = None
        self._asked_at = float("-inf")

    async def problem(self) -> str | None:
        """Why the database is of no use now, None if it answers. Takes `timeout_s` at most.

        A check that does not end is not cancelled but waited for again by the next who asks: there
        is never more than one.
        """
        if time.monotonic() - self._asked_at < self._interval_s:
            return self._problem
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._ask(), name="database-check")
        check = self._under_way
        await asyncio.wait({check}, timeout=self._timeout_s)
        if check is self._under_way:  # else somebody who waited as well has settled it
            if check.done():
                self._under_way = None
            self._settle(
                check.result()
                if check.done()
                else f"the database does not answer within {self._timeout_s:g} s"
            )
        return self._problem

    async def _ask(self) -> str | None:
        try:
            await self._check()
        except MsgtraceError as error:
            return f"the database does not answer: {error}"
        except Exception as error:
            logger.error("database_check_failed", exc_info=error)
            return f"the database does not answer: {type(error).__name__}"
        return None

    def _settle(self, problem: str | None) -> None:
        if problem is not None and self._problem is None:
            logger.error("database_unreachable", extra={"reason": problem})
        elif problem is None and self._problem is not None:
            logger.info("database_reachable_again")
        self._problem = problem
        self._asked_at = time.monotonic()
        self._metrics.set_answers(problem is None)


class Readiness:
    """Whether a process can do its work, and if not, why."""

    def __init__(self, *problems: Problem) -> None:
        self._problems = problems
        self._stopping = asyncio.Event()

    async def reasons(self) -> list[str]:
        """Why the process is not ready, one clause each; empty if it is."""
        if self._stopping.is_set():
            return [STOPPING]
        found = [await problem() for problem in self._problems]
        return [problem for problem in found if problem is not None]

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look now and then; on leaving, the process is not ready for good."""
        watch = asyncio.create_task(self._watch(), name="readiness-watch")
        try:
            yield
        finally:
            self._stopping.set()
            watch.cancel()

    async def stops_within(self, seconds: float) -> bool:
        """Wait for a stop; False if none came in that time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _watch(self) -> None:
        while not await self.stops_within(WATCH_INTERVAL_S):
            await self.reasons()


def queue_problem(queued_bytes: Callable[[], int], max_queued_bytes: int) -> Problem:
    """A problem while the queue is at its high-water mark or above."""

    async def problem() -> str | None:
        if queued_bytes() < HIGH_WATER * max_queued_bytes:
            return None
        return f"the queue holds {queued_bytes()} bytes of at most {max_queued_bytes}"

    return problem


def unless(covered: Callable[[], bool], problem: Problem) -> Problem:
    """The same problem, which is none while something else does the work."""

    async def remaining() -> str | None:
        found = await problem()
        return None if covered() else found

    return remaining
