"""A bound on the bytes of all requests under way, beside the bound on each.

When it is reached, the unfinished body that holds most gives way: many that stall, or a few that
are large, do not shut out the small requests of everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter

from msgtrace.errors import Overloaded
from msgtrace.receivers.unfinished import UnfinishedBody


class ByteBudget:
    """Counts bytes held by requests; several requests share one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._unfinished: dict[ByteLease, UnfinishedBody] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._held_bytes

    def lease(self) -> ByteLease:
        """What one request holds; leave its block to give it back."""
        return ByteLease(self)

    def _hold(self, lease: ByteLease, count: int) -> None:
        # A request that is alone is bounded by its own limit: told to retry, it would never end.
        while self._held_bytes + count > self._max_bytes and self._held_bytes != lease.held_bytes:
            self._make_room(lease.held_bytes + count)
        self._held_bytes += count

    def _make_room(self, asked_bytes: int) -> None:
        """End the unfinished body that holds most, if that is more than is asked for."""
        most = max(self._unfinished, key=attrgetter("held_bytes"), default=None)
        if most is None or most.held_bytes <= asked_bytes:
            raise self._overloaded()
        self._unfinished.pop(most).end(self._overloaded())
        most.give_back()

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"requests under way hold {self._held_bytes} bytes, the limit is {self._max_bytes}"
        )

    @contextmanager
    def _reading(self, lease: ByteLease) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a body is read by a task")
        with UnfinishedBody(task) as body:
            self._unfinished[lease] = body
            try:
                yield
            finally:
                self._unfinished.pop(lease, None)

    def _give_back(self, count: int) -> None:
        self._held_bytes -= count


class ByteLease:
    """The bytes of one request, growing as they arrive."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """Hold more. Raises Overloaded if all requests together would hold too much."""
        self._budget._hold(self, count)
        self.held_bytes += count

    def reading(self) -> AbstractContextManager[None]:
        """A block in which the body is unfinished.

        It ends with Overloaded if others need the room more.
        """
        return self._budget._reading(self)

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._budget._give_back(self.held_bytes)
        self.held_bytes = 0

    def __enter__(self) -> ByteLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
