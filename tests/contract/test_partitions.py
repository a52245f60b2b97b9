"""PostgreSQL keeps the spans of each day near today in a partition of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from datetime import UTC, datetime

import asyncpg
import pytest

from msgtrace.errors import StorageUnavailable
from msgtrace.model.units import NS_PER_DAY
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.postgres import purge as purge_module
from msgtrace.storage.postgres.partitions import estimated_rows, make_partition
from msgtrace.storage.protocol import Storage
from tests.batches import make_batch, span, trace_id_of
from tests.contract.purging import midnight, purge, trace_at
from tests.contract.reading import TENANT, find, read_trace

pytestmark = pytest.mark.postgres


@pytest.fixture
def settings(postgres_url: str) -> Settings:
    """Partitions are PostgreSQL's alone."""
    return Settings(database_url=postgres_url)


def partition_of(days_from_today: int) -> str:
    day = datetime.fromtimestamp(midnight(days_from_today) // 1_000_000_000, UTC)
    return f"spans_{day:%Y%m%d}"


async def names_by_partition(url: str) -> dict[str, set[str]]:
    """The names of the spans in each partition that has any."""
    found: dict[str, set[str]] = {}
    connection = await asyncpg.connect(url)
    try:
        for row in await connection.fetch("SELECT tableoid::regclass::text, name FROM spans"):
            found.setdefault(row[0], set()).add(row[1])
    finally:
        await connection.close()
    return found


async def partitions(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'spans'::regclass"
        )
    finally:
        await connection.close()
    return {row[0] for row in rows}


async def write_days(storage: Storage, *days_from_today: int) -> None:
    """One trace a day, named after the distance from today."""
    spans = [
        span(f"{days}", trace_id=trace_id_of(f"{days}"), start_ns=midnight(days), duration_ns=5)
        for days in days_from_today
    ]
    await storage.write_spans([make_batch(*spans)])


async def test_days_near_today_have_a_partition(storage: Storage, postgres_url: str) -> None:
    await write_days(storage, -30, -1, 0, 1, 2)

    assert await names_by_partition(postgres_url) == {
        partition_of(days): {f"{days}"} for days in (-30, -1, 0, 1, 2)
    }


async def test_days_far_from_today_share_the_default_partition(
    storage: Storage, postgres_url: str
) -> None:
    await write_days(storage, -10_000, -32, 4, 10_000)

    assert await names_by_partition(postgres_url) == {
        "spans_default": {"-10000", "-32", "4", "10000"}
    }
    assert len(await partitions(postgres_url)) <= 4


async def test_the_first_write_makes_room_for_tomorrow(storage: Storage, postgres_url: str) -> None:
    await write_days(storage, 0)

    assert {partition_of(0), partition_of(1)} <= await partitions(postgres_url)


async def test_both_edges_of_a_day_are_in_its_partition(
    storage: Storage, postgres_url: str
) -> None:
    first = span("first", start_ns=midnight(0), duration_ns=0)
    last = span("last", start_ns=midnight(1) - 1, duration_ns=0)
    after = span("after", start_ns=midnight(1), duration_ns=0)
    await storage.write_spans([make_batch(first, last, after)])

    assert await names_by_partition(postgres_url) == {
        partition_of(0): {"first", "last"},
        partition_of(1): {"after"},
    }


async def test_a_trace_over_several_partitions_is_one_trace(storage: Storage) -> None:
    starts = [0, midnight(-40), midnight(-2), midnight(0), 2**63 - 1]
    spans = [span(f"{n}", start_ns=start, duration_ns=0) for n, start in enumerate(starts)]
    await storage.write_spans([make_batch(each) for each in reversed(spans)])
    await storage.write_spans([make_batch(*spans)])

    assert [each.start_time_ns for each in (await read_trace(storage)).spans] == starts
    assert (await find(storage, name="2")).total == 1


async def test_a_day_that_cannot_get_a_partition_is_stored_all_the_same(
    settings: Settings, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        # A span of today in the default partition keeps today's from being attached.
        await connection.execute(
            "INSERT INTO spans (tenant_id, trace_id, span_id, start_time_ns, end_time_ns,"
            " resource_id, scope_id, kind, status_code, service_name, name)"
            f" VALUES (0, '\\x01', '\\x01', {midnight(0)}, 0, 0, 0, 0, 0, 'old', 'old')"
        )
    finally:
        await connection.close()
    async with open_storage(settings) as storage:
        await write_days(storage, 0, -1)

        assert (await find(storage, name="0")).total == 1

    assert await names_by_partition(postgres_url) == {
        "spans_default": {"old", "0"},
        partition_of(-1): {"-1"},
    }


async def test_collectors_may_make_the_same_partitions_at_the_same_time(
    settings: Settings, postgres_url: str
) -> None:
    async with open_storage(settings) as one, open_storage(settings) as two:
        days = range(-6, 1)
        await asyncio.gather(*(write_days(each, n) for n in days for each in (one, two)))

        assert (await find(one)).total == len(days)

    assert await names_by_partition(postgres_url) == {partition_of(n): {f"{n}"} for n in days}


async def test_deletion_reaches_every_partition(storage: Storage, postgres_url: str) -> None:
    await write_days(storage, -100, -1, 0, 100)

    for days in (-100, -1, 0, 100):
        assert await storage.delete_trace(TENANT, trace_id_of(f"{days}"))

    assert await names_by_partition(postgres_url) == {}


async def test_rows_on_their_way_to_the_default_partition_find_one_made_meanwhile(
    storage: Storage, postgres_url: str
) -> None:
    await write_days(storage, -3)
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"DROP TABLE {partition_of(-3)}")
        attaching = connection.transaction()
        await attaching.start()
        await make_partition(connection, midnight(-3) // NS_PER_DAY)
        late = span("late", start_ns=midnight(-3))
        writing = asyncio.create_task(storage.write_spans([make_batch(late)]))
        await asyncio.sleep(0.3)
        assert not writing.done()  # it waits for the lock on the default partition
        await attaching.commit()

        assert await writing == 1
    finally:
        await connection.close()
    assert await names_by_partition(postgres_url) == {partition_of(-3): {"late"}}


async def test_spans_resent_between_the_end_of_their_partition_and_that_of_their_summary_are_taken(
    storage: Storage, postgres_url: str
) -> None:
    """What they state of tokens is still there then, though they are not."""
    sent = trace_at("long", midnight(-3), midnight(0))
    await storage.write_spans([sent])
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"DROP TABLE {partition_of(-3)}")
    finally:
        await connection.close()

    assert await storage.write_spans([sent]) == 1

    await purge(storage, midnight(-2))
    (left,) = (await find(storage)).traces
    (_, today) = trace_at("long", midnight(-3), midnight(0)).genai.values()
    assert (left.span_count, left.input_tokens, left.cost) == (1, today.input_tokens, today.cost)


async def test_days_that_are_about_to_be_deleted_get_no_partition(
    settings: Settings, postgres_url: str
) -> None:
    async with open_storage(dataclasses.replace(settings, retention="2d")) as storage:
        await write_days(storage, -5, -3, -2, 0)

    assert await names_by_partition(postgres_url) == {
        "spans_default": {"-5", "-3"},
        partition_of(-2): {"-2"},
        partition_of(0): {"0"},
    }


async def test_partitions_are_made_ahead_without_any_span(
    storage: Storage, postgres_url: str
) -> None:
    assert await storage.maintenance.make_partitions(3) == [partition_of(n) for n in range(4)]
    assert await storage.maintenance.make_partitions(3) == []
    assert {partition_of(n) for n in range(4)} <= await partitions(postgres_url)


async def test_a_partition_that_is_read_is_left_to_a_later_purge_and_holds_up_nobody(
    storage: Storage, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_module, "DROP_TRIES", 3)
    monkeypatch.setattr(purge_module, "DROP_PAUSE_S", 0.05)
    await write_days(storage, -5, 0)
    reader = await asyncpg.connect(postgres_url)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT count(*) FROM spans")
            purging = asyncio.create_task(purge(storage, midnight(-2)))
            while not purging.done():
                new = span(trace_id=random.randbytes(16), start_ns=midnight(0))
                await asyncio.wait_for(storage.write_spans([make_batch(new)]), 5)
                await asyncio.sleep(0.01)
            with pytest.raises(
                StorageUnavailable, match=f"{partition_of(-5)} could not be dropped"
            ):
                await purging
            assert partition_of(-5) in await partitions(postgres_url)
            assert (await find(storage, name="-5")).total == 0
    finally:
        await reader.close()

    purged = await purge(storage, midnight(-2))

    assert (purged.partitions, purged.traces) == (1, 0)
    assert partition_of(-5) not in await partitions(postgres_url)
    assert (await find(storage, name="0")).total == 1


@pytest.mark.parametrize(
    ("analyzed_rows", "analyzed_pages", "heap_bytes", "counted_rows", "rows"),
    [
        (-1, 0, 0, 0, 0),
        (-1, 0, 8192 * 10, 70, 70),  # never analyzed
        (100, 2, 8192 * 10, 0, 500),  # has grown since; the counts were lost in a crash
        (100, 2, 8192 * 2, 130, 130),
    ],
)
def test_rows_are_estimated_from_statistics(
    analyzed_rows: int, analyzed_pages: int, heap_bytes: int, counted_rows: int, rows: int
) -> None:
    assert rows == estimated_rows(
        analyzed_rows=analyzed_rows,
        analyzed_pages=analyzed_pages,
        heap_bytes=heap_bytes,
        counted_rows=counted_rows,
    )
