"""One worker's view of the others: it answers the supervisor, and shows operators the whole.

Without several workers there is no Member, and a process shows itself only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from msgtrace.telemetry.health import CHECK_INTERVAL_S, Problem, Readiness
from msgtrace.telemetry.metrics import WorkerMetrics
from msgtrace.workers.messages import (
    AllShown,
    Channel,
    Message,
    Serving,
    ShowAll,
    Shown,
    ShowYourself,
    Snapshot,
)
from msgtrace.workers.snapshots import merged_metrics, read_families

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 2.0
"""How long an operator waits for the other workers; then this one shows itself only."""


class Member:
    """This process as one of several workers."""

    def __init__(self, number: int, channel: Channel, *, is_first: bool) -> None:
        self.number = number
        self.is_first = is_first
        self._channel = channel
        self._questions = itertools.count()
        self._waiting: dict[int, asyncio.Future[AllShown]] = {}
        self._own = Readiness()
        self._details: Callable[[], Mapping[str, Any]] = dict
        self._registry = CollectorRegistry()
        self._last: AllShown | None = None
        self._asked_at = float("-inf")

    def say_serving(self) -> None:
        """The ports of this worker are open."""
        self._channel.send(Serving())

    def shows(
        self,
        problems: tuple[Problem, ...],
        details: Callable[[], Mapping[str, Any]],
        registry: CollectorRegistry,
    ) -> None:
        """What belongs into the snapshot of this worker."""
        self._own = Readiness(*problems)
        self._details = details
        self._registry = registry

    async def problem(self) -> str | None:
        """Why any other worker is not ready, None if all are. One that restarts is no reason."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= CHECK_INTERVAL_S:
            self._last, self._asked_at = await self._ask(), now
        shown = self._last.snapshots if self._last else []
        reasons = [
            f"worker {each.number}: {reason}"
            for each in shown
            if each.number != self.number
            for reason in each.reasons
        ]
        return "; ".join(reasons) or None

    async def describe(self) -> dict[str, Any]:
        """What /ready says of the workers."""
        whole = await self._ask()
        if whole is None:
            return {"worker": self.number, **self._details()}
        return {
            "workers": whole.workers,
            "restarts": whole.restarts,
            "running": [
                {"worker": each.number, "reasons": each.reasons, **each.details}
                for each in whole.snapshots
            ],
        }

    async def metrics(self) -> bytes:
        """The metrics of all workers in Prometheus' text format, each with the label `worker`."""
        whole = await self._ask()
        if whole is None:
            return merged_metrics([await self._snapshot()])
        registry = CollectorRegistry()
        WorkerMetrics(registry).set_workers(
            wanted=whole.workers, running=len(whole.snapshots), restarts=whole.restarts
        )
        return merged_metrics(whole.snapshots, read_families(registry))

    async def listen(self) -> None:
        """Answer the supervisor until it has ended."""
        while (message := await self._channel.receive()) is not None:
            await self._answer(message)

    async def _answer(self, message: Message) -> None:
        if isinstance(message, ShowYourself):
            self._channel.send(Shown(message.question, await self._snapshot()))
        elif isinstance(message, AllShown):
            waiting = self._waiting.pop(message.question, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)

    async def _ask(self) -> AllShown | None:
        """The snapshots of all workers, None if the supervisor does not answer."""
        question = next(self._questions)
        waiting = self._waiting[question] = asyncio.get_running_loop().create_future()
        self._channel.send(ShowAll(question))
        try:
            return await asyncio.wait_for(waiting, ANSWER_TIMEOUT_S)
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(question, None)

    async def _snapshot(self) -> Snapshot:
        return Snapshot(
            number=self.number,
            reasons=await self._own.reasons(),
            details=dict(self._details()),
            families=read_families(self._registry),
        )


@contextlib.asynccontextmanager
async def listening(member: Member | None, stop: Callable[[], None]) -> AsyncIterator[None]:
    """Answer the supervisor, if there is one, while the block runs. stop: called when it ends."""
    if member is None:
        yield
        return

    async def listen() -> None:
        await member.listen()
        logger.error("supervisor_ended")
        stop()

    listener = asyncio.create_task(listen(), name="supervisor-channel")
    try:
        yield
    finally:
        listener.cancel()
