"""Batches as a decoder hands them over that encodes its spans for PostgreSQL itself.

The bytes are made by PostgreSQL, from the rows of an ordinary batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import overload

import asyncpg

from msgtrace.model.batch import COPY_HEADER, COPY_TRAILER, SpanBatch
from msgtrace.model.span import SPAN_COLUMNS, Row


class LazyRows(Sequence[Row]):
    """Rows that are made when they are first looked at; `was_made` tells whether they were."""

    def __init__(self, count: int, make: Callable[[], Sequence[Row]]) -> None:
        self._count = count
        self._make = make
        self._rows: Sequence[Row] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if self._rows is None:
            self._rows = self._make()
        return self._rows[index]

    @property
    def was_made(self) -> bool:
        return self._rows is not None


async def copied(batch: SpanBatch, database_url: str) -> SpanBatch:
    """The same batch with its spans encoded, and its rows made only when they are needed."""
    encoded = await _encode(batch.spans, database_url)
    lazy = LazyRows(len(batch.spans), lambda: batch.spans)
    return dataclasses.replace(batch, spans=lazy, copy_rows=lambda: encoded)


def were_rows_made(batch: SpanBatch) -> bool:
    """Whether anybody looked at the rows of a batch from `copied`."""
    assert isinstance(batch.spans, LazyRows)
    return batch.spans.was_made


async def _encode(rows: Sequence[Row], database_url: str) -> bytes:
    """The tuples of a binary COPY of the rows, as PostgreSQL writes them."""
    found = bytearray()

    async def collect(data: bytes) -> None:
        found.extend(data)

    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE TEMPORARY TABLE given (LIKE spans)")
        await connection.copy_records_to_table("given", records=rows, columns=SPAN_COLUMNS)
        await connection.copy_from_table(
            "given", output=collect, columns=SPAN_COLUMNS, format="binary"
        )
    finally:
        await connection.close()
    assert found.startswith(COPY_HEADER)
    assert found.endswith(COPY_TRAILER)
    return bytes(found[len(COPY_HEADER) : -len(COPY_TRAILER)])
