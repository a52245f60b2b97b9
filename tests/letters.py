"""Dead letters in memory, and a writer that refuses spans by their names, for unit tests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Sequence

from msgtrace.errors import DataRefused
from msgtrace.model.batch import SpanBatch
from msgtrace.model.dead_letter import (
    DeadLetter,
    DeadLetterSummary,
    DeadLetterTotals,
    LetterId,
    Place,
)
from msgtrace.model.span import SPAN_COLUMNS, TenantId

NAME = SPAN_COLUMNS.index("name")


def names_in(batch: SpanBatch) -> list[str]:
    return [row[NAME] for row in batch.spans]


class PickyWriter:
    """Refuses every write with a span of a poisoned name in it."""

    writer_count = 1

    def __init__(self, poison: Collection[str] = ()) -> None:
        self.poison = poison
        self.error: Exception | None = None
        self.writes: list[list[str]] = []
        self.stored: list[str] = []

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        names = [name for batch in batches for name in names_in(batch)]
        self.writes.append(names)
        if self.error is not None:
            raise self.error
        if refused := [name for name in names if name in self.poison]:
            raise DataRefused(f"{len(refused)} refused")
        self.stored += names
        return len(names)


class MemoryLetters:
    """A DeadLetterStore without a database.

    `error` is what every call then meets; nothing is kept while it is not open.
    """

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.kept: dict[LetterId, DeadLetter] = {}
        self.error: Exception | None = None

    async def keep(self, letter: DeadLetter, *, max_bytes: int) -> bool:
        await self.is_open.wait()
        self._fail()
        known = self.kept.get(letter.letter_id)
        used_bytes = (await self.sum()).kept_bytes
        if known is None and used_bytes + letter.kept_bytes > max_bytes:
            return False
        time_ns = (known or letter).refused_at_ns
        self.kept[letter.letter_id] = dataclasses.replace(letter, refused_at_ns=time_ns)
        return True

    async def list(
        self, tenant_id: TenantId, *, limit: int, after: Place | None = None
    ) -> Sequence[DeadLetterSummary]:
        self._fail()
        raise NotImplementedError

    async def get(self, tenant_id: TenantId, letter_id: LetterId) -> DeadLetter | None:
        self._fail()
        return self.kept.get(letter_id)

    async def delete(self, tenant_id: TenantId, letter_id: LetterId) -> bool:
        self._fail()
        return self.kept.pop(letter_id, None) is not None

    async def sum(self) -> DeadLetterTotals:
        self._fail()
        return DeadLetterTotals(
            letter_count=len(self.kept),
            kept_bytes=sum(each.kept_bytes for each in self.kept.values()),
        )

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
