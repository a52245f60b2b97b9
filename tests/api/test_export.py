"""GET /api/v1/traces/export: matching traces as OTLP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from msgtrace.api.export import ExportPace
from msgtrace.model.batch import SpanBatch
from msgtrace.model.span import Span
from msgtrace.model.units import NS_PER_MS
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, make_batch, span, trace_id_of

PATH = "/api/v1/traces/export"


def json_records(content: bytes) -> Iterator[SpanBatch]:
    assert content == b"" or content.endswith(b"\n")
    yield from map(decode_export_json, content.splitlines())


def protobuf_records(content: bytes) -> Iterator[SpanBatch]:
    while content:
        end = 4 + int.from_bytes(content[:4], "big")
        yield decode_export_request(content[4:end])
        content = content[end:]


def names(records: Iterator[SpanBatch]) -> list[str]:
    return sorted(row[15] for batch in records for row in batch.spans)


async def store(storage: Storage, count: int) -> None:
    """Trace number n starts n ms after noon and has two spans."""
    for number in range(count):
        trace_id = trace_id_of(str(number))
        start_ns = NOON_NS + number * NS_PER_MS
        spans = [span(f"{number}{which}", trace_id=trace_id, start_ns=start_ns) for which in "ab"]
        await storage.write_spans(
            [make_batch(*spans, service="even" if number % 2 == 0 else "odd")]
        )


async def test_all_traces_come_in_one_reply_in_both_encodings(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await store(storage, 5)
    stored = sorted(f"{number}{which}" for number in range(5) for which in "ab")

    as_json = await client.get(PATH)
    as_protobuf = await client.get(PATH, params={"format": "protobuf"})

    assert as_json.headers["content-type"] == "application/x-ndjson"
    assert as_protobuf.headers["content-type"] == "application/x-protobuf"
    assert names(json_records(as_json.content)) == stored
    assert names(protobuf_records(as_protobuf.content)) == stored
    assert "msgtrace-next-cursor" not in as_json.headers


async def test_an_export_without_a_limit_goes_over_many_pages(
    client: httpx.AsyncClient, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msgtrace.api.export.MAX_LIMIT", 2)
    await store(storage, 7)

    assert len(names(json_records((await client.get(PATH)).content))) == 14


async def test_pages_follow_each_other_without_gap_or_repetition(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await store(storage, 5)
    found: list[str] = []
    counts: list[tuple[str, str]] = []
    parameters = {"limit": "2"}

    while True:
        reply = await client.get(PATH, params=parameters)
        found += names(json_records(reply.content))
        headers = reply.headers
        counts.append((headers["msgtrace-trace-count"], headers["msgtrace-span-count"]))
        if "msgtrace-next-cursor" not in headers:
            break
        parameters["cursor"] = headers["msgtrace-next-cursor"]

    assert sorted(found) == sorted(f"{number}{which}" for number in range(5) for which in "ab")
    assert counts == [("2", "4"), ("2", "4"), ("1", "2")]


async def test_it_takes_the_filters_of_the_list(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await store(storage, 4)

    reply = await client.get(PATH, params={"service_name": "odd", "limit": "10"})

    assert names(json_records(reply.content)) == ["1a", "1b", "3a", "3b"]


async def test_a_client_that_goes_away_does_not_break_a_read_off() -> None:
    is_reading, goes_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[list[Span]]:
        is_reading.set()
        await goes_on.wait()
        ended.set()
        yield []

    async def client() -> None:
        async for _ in ExportPace().records(chunks(), lambda _: b""):
            pass

    gone = asyncio.create_task(client())
    await is_reading.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone

    goes_on.set()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_nothing_that_matches_is_an_empty_reply(client: httpx.AsyncClient) -> None:
    reply = await client.get(PATH, params={"limit": "10"})

    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["msgtrace-trace-count"] == "0"


async def test_head_tells_the_counts_and_reads_no_span(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await store(storage, 1)

    reply = await client.head(PATH, params={"limit": "10"})

    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["msgtrace-span-count"] == "2"


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"format": "csv"}, "format: must be json or protobuf"),
        ({"limit": "0"}, "limit: must be a whole number from 1 to 1000"),
        ({"offset": "1"}, "offset: unknown parameter"),
        ({"cursor": "x"}, "cursor: must be the next_cursor of a page"),
    ],
)
async def test_a_wrong_parameter_is_named(
    client: httpx.AsyncClient, parameters: dict[str, str], detail: str
) -> None:
    reply = await client.get(PATH, params=parameters)

    assert (reply.status_code, reply.json()) == (400, {"detail": detail})
