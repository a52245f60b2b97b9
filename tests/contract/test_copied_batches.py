"""What PostgreSQL promises of batches whose decoder has encoded the spans for its COPY."""

from __future__ import annotations

import dataclasses

import pytest

from msgtrace.errors import DataRefused
from msgtrace.pipeline.isolate import store_all_but_refused
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.batches import TRACE_A, TRACE_B, make_batch, span
from tests.contract.reading import expected_summaries, read_trace
from tests.copied import copied, were_rows_made

pytestmark = pytest.mark.postgres

EVERY_KIND = [
    span("root", attributes={"text": "␀ é", "n": -1, "list": [1, 2.5, None]}, kind=2, flags=257),
    span("child", parent="root", status_code=2, status_message="no", trace_state="a=b"),
    span("", dropped_attributes_count=2**32 - 1, start_ns=0, duration_ns=0),
]


async def test_encoded_spans_are_stored_as_their_rows_would_be(postgres_url: str) -> None:
    batch = make_batch(*EVERY_KIND)
    as_rows = make_batch(*(span(f"{n}", trace_id=TRACE_B) for n in range(3)))
    encoded = await copied(batch, postgres_url)
    async with open_storage(Settings(database_url=postgres_url)) as storage:
        assert await storage.write_spans([encoded, as_rows]) == 6

        assert not were_rows_made(encoded)
        trace = await read_trace(storage)
        assert trace.summary == expected_summaries([batch])[TRACE_A]
        assert await storage.delete_trace(batch.spans[0][0], TRACE_A)
        assert await storage.write_spans([batch]) == 3
        assert await read_trace(storage) == trace


async def test_resent_encoded_spans_are_stored_once(postgres_url: str) -> None:
    spans = [span(f"{n}") for n in range(4)]
    first = await copied(make_batch(*spans[:2]), postgres_url)
    second = await copied(make_batch(*spans[1:]), postgres_url)
    async with open_storage(Settings(database_url=postgres_url)) as storage:
        assert await storage.write_spans([first]) == 2
        assert await storage.write_spans([first, second]) == 2

        trace = await read_trace(storage)
        assert trace.summary == expected_summaries([make_batch(*spans)])[TRACE_A]


async def test_spans_that_were_encoded_wrongly_are_stored_from_their_rows(
    postgres_url: str,
) -> None:
    batch = await copied(make_batch(*EVERY_KIND), postgres_url)
    broken = dataclasses.replace(batch, copy_rows=lambda: b"\0\1\0\0\0\0")
    async with open_storage(Settings(database_url=postgres_url)) as storage:
        with pytest.raises(DataRefused) as refusal:
            await storage.write_spans([broken])
        isolated = await store_all_but_refused(storage.write_spans, broken, refusal.value)

        assert not isolated.refused
        assert len((await read_trace(storage)).spans) == 3
