"""Which services and operations there are."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest

from msgtrace.errors import DataRefused
from msgtrace.model.maintenance import Level
from msgtrace.model.prices import NO_PRICES
from msgtrace.model.trace import Operation
from msgtrace.model.units import NS_PER_DAY
from msgtrace.settings.table import Settings
from msgtrace.storage import operations, rebuild
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from msgtrace.storage.rebuild import rebuild_summaries
from tests.batches import NOON_NS, TRACE_A, TRACE_B, make_batch, span, trace_id_of
from tests.contract.purging import midnight, purge
from tests.contract.reading import TENANT, find
from tests.poison import POISON, execute, forbid_poison


async def names(storage: Storage, service: str = "shop") -> list[str]:
    """Of the service's operations."""
    return [each.name for each in await storage.list_operations(TENANT, service)]


async def test_an_empty_database_has_no_services(storage: Storage) -> None:
    assert await storage.list_services(TENANT) == []
    assert await storage.list_operations(TENANT, "shop") == []


async def test_services_are_listed_once_and_sorted(storage: Storage) -> None:
    for number, service in enumerate(["b", "a", "B", "é", "a", "", "0"]):
        batch = make_batch(span(f"{number}", start_ns=NOON_NS + number), service=service)
        await storage.write_spans([batch])

    services = await storage.list_services(TENANT)

    assert services == ["0", "B", "a", "b", "unknown_service", "é"]


async def test_services_of_all_times_are_listed(storage: Storage) -> None:
    for service, start_ns in {"old": 0, "new": NOON_NS, "future": 2**63 - 1}.items():
        batch = make_batch(
            span(service, trace_id=trace_id_of(service), start_ns=start_ns), service=service
        )
        await storage.write_spans([batch])

    assert await storage.list_services(TENANT) == ["future", "new", "old"]


async def test_operations_are_the_distinct_names_and_kinds_of_one_service(storage: Storage) -> None:
    await storage.write_spans(
        [
            make_batch(
                span("GET /", span_id=b"1" * 8, kind=2),
                span("GET /", span_id=b"2" * 8, kind=2),
                span("GET /", span_id=b"3" * 8, kind=3),
                span("", kind=-7),
                span("DELETE /", kind=99),
            ),
            make_batch(span("other"), service="bank"),
        ]
    )

    listed = await storage.list_operations(TENANT, "shop")

    assert listed == [
        Operation(name="", span_kind=-7),
        Operation(name="DELETE /", span_kind=99),
        Operation(name="GET /", span_kind=2),
        Operation(name="GET /", span_kind=3),
    ]
    assert await storage.list_operations(TENANT, "sho") == []


async def test_names_are_cut_as_all_texts_in_indexes_are(storage: Storage) -> None:
    sent = ["n" * 254, "n" * 255, "n" * 10_000, "\0" * 300]
    await storage.write_spans([make_batch(*map(span, sent))])

    nuls = "\0" * 127 + "␀"  # half of the last one's escape is left
    assert await names(storage) == sorted([nuls, "n" * 254, "n" * 255])


# What goes when


async def test_deleted_traces_leave_their_operations_listed(storage: Storage) -> None:
    await storage.write_spans([make_batch(span("a"), span("b", trace_id=TRACE_B))])

    await storage.delete_trace(TENANT, TRACE_A)

    assert await names(storage) == ["a", "b"]


async def test_nothing_is_listed_once_the_last_trace_is_deleted(storage: Storage) -> None:
    await storage.write_spans([make_batch(span("a"), span("b", trace_id=TRACE_B))])

    await storage.delete_trace(TENANT, TRACE_A)
    await storage.delete_trace(TENANT, TRACE_B)

    assert await storage.list_services(TENANT) == []
    assert await names(storage) == []


async def test_a_purge_takes_the_operations_whose_newest_span_it_takes(storage: Storage) -> None:
    edge_ns = midnight(-2)
    starts = {
        "old": [edge_ns - 1],
        "of both": [edge_ns - 1, edge_ns],
        "at the edge": [edge_ns],
        "ahead": [2**63 - 1],
    }
    for name, starts_ns in starts.items():
        spans = [
            span(name, trace_id=trace_id_of(f"{name} {at}"), start_ns=at, duration_ns=0)
            for at in starts_ns
        ]
        await storage.write_spans([make_batch(*spans)])
    await storage.write_spans([make_batch(span("alone", start_ns=edge_ns - 1), service="gone")])
    assert await storage.list_services(TENANT) == ["gone", "shop"]

    await purge(storage, edge_ns)

    assert await names(storage) == ["ahead", "at the edge", "of both"]
    assert await storage.list_services(TENANT) == ["shop"]


async def test_the_day_on_which_a_purge_cuts_keeps_its_operations(storage: Storage) -> None:
    """A SQLite file can be cut at any time; operations only know of days."""
    noon = midnight(-2) + NS_PER_DAY // 2
    for name, start_ns in {"morning": midnight(-2), "before": midnight(-2) - 1}.items():
        trace_id = trace_id_of(name)
        await storage.write_spans([make_batch(span(name, trace_id=trace_id, start_ns=start_ns))])

    await purge(storage, noon)

    assert await names(storage) == ["morning"]


async def test_an_operation_that_was_purged_is_back_with_its_next_span(settings: Settings) -> None:
    """Also where another process has purged."""
    async with open_storage(settings) as storage, open_storage(settings) as other:
        await storage.write_spans([make_batch(span("work", start_ns=midnight(-9)))])
        await purge(other, midnight(-2))
        assert await names(storage) == []

        new = span("work", trace_id=TRACE_B, start_ns=midnight(0))
        await storage.write_spans([make_batch(new)])

        assert await names(storage) == ["work"]


async def test_a_row_that_is_lost_is_back_when_the_writer_tells_of_it_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "REMEMBERED_S", 0.0)
    async with open_storage(settings) as storage:
        await storage.write_spans([make_batch(span("work"))])
        await asyncio.to_thread(execute, settings.database_url, "DELETE FROM operations")
        await storage.write_spans([make_batch(span("work", trace_id=TRACE_B))])

        assert await names(storage) == ["work"]


# Writers


async def test_a_resent_span_that_lost_its_row_is_listed_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "REMEMBERED_S", 0.0)
    batch = make_batch(span("work"))
    async with open_storage(settings) as storage:
        assert await storage.write_spans([batch]) == 1
        await asyncio.to_thread(execute, settings.database_url, "DELETE FROM operations")
        assert await storage.write_spans([batch]) == 0

        assert await names(storage) == ["work"]


async def test_writers_of_the_same_operations_do_not_hold_each_other_up(settings: Settings) -> None:
    """New names and new days all the while, in any order, from two processes at a time."""
    chance = random.Random(5)
    async with open_storage(settings) as one, open_storage(settings) as two:

        async def write(storage: Storage, writer: int) -> None:
            for flush in range(20):
                spans = [
                    span(
                        f"name {chance.randrange(3 * flush + 3)}",
                        span_id=bytes([writer, flush, number, 1, 1, 1, 1, 1]),
                        trace_id=trace_id_of(f"{chance.randrange(4)}"),
                        start_ns=midnight(flush - 19),
                        kind=chance.randrange(3),
                    )
                    for number in range(12)
                ]
                sent.update((each.name, each.kind) for each in spans)
                assert await storage.write_spans([make_batch(*spans)]) == 12

        sent: set[tuple[str, int]] = set()
        await asyncio.gather(*(write(each, n) for n, each in enumerate((one, two, one, two))))

        listed = await one.list_operations(TENANT, "shop")
        assert {(each.name, each.span_kind) for each in listed} == sent
        await purge(one, midnight(0))
        latest = await one.list_operations(TENANT, "shop")
        assert 0 < len(latest) < len(listed)


async def test_a_refused_flush_leaves_no_operations(settings: Settings) -> None:
    async with open_storage(settings) as storage:
        await storage.write_spans([make_batch(span("first"))])
        await asyncio.to_thread(forbid_poison, settings.database_url)

        with pytest.raises(DataRefused):
            await storage.write_spans([make_batch(span(POISON), span("beside"))])
        assert await names(storage) == ["first"]

        # Nor does the writer believe that they are stored.
        await storage.write_spans([make_batch(span("beside"))])
        assert await names(storage) == ["beside", "first"]


@pytest.mark.postgres
async def test_a_purge_does_not_wait_for_a_writer_of_operations(postgres_url: str) -> None:
    """It meets their rows in another order than writers do; the two would lock each other out."""
    old = [span(name, start_ns=midnight(-9)) for name in ("busy", "idle")]
    async with open_storage(Settings(database_url=postgres_url)) as storage:
        await storage.write_spans([make_batch(*old)])
        writer = await asyncpg.connect(postgres_url)
        async with writer.transaction():
            await writer.execute("UPDATE operations SET last_day = 99999 WHERE name = 'busy'")
            await asyncio.wait_for(purge(storage, midnight(-2)), 10)
            async for _ in rebuild_summaries(storage, NO_PRICES, is_of_all=True):
                pass
        await writer.close()

        assert await names(storage) == ["busy"]


# Bounds


async def test_ever_new_names_are_stored_and_found_but_listed_within_bounds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_OF_SERVICE", 5)
    monkeypatch.setattr(operations, "MAX_OF_TENANT", 12)
    async with open_storage(settings) as storage:
        for flush in range(4):
            for service in ("a", "b", "c", "d"):
                spans = [
                    span(f"{flush} {n}", trace_id=trace_id_of(f"{service} {flush} {n}"))
                    for n in range(3)
                ]
                await storage.write_spans([make_batch(*spans, service=service)])

        listed = [len(await storage.list_operations(TENANT, service)) for service in "abcd"]
        assert listed == [3, 3, 3, 3]
        assert (await find(storage)).total == 48
        assert (await find(storage, service_name="a", name="3 2")).total == 1
        [finding] = [
            each for each in await storage.maintenance.examine() if each.check == "operations"
        ]
        assert (finding.level, "all services together" in finding.message) == (Level.WARNING, True)


async def test_one_service_cannot_take_the_room_of_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_OF_SERVICE", 5)
    monkeypatch.setattr(operations, "REMEMBERED_S", 0.0)
    async with open_storage(settings) as storage:
        many = [span(f"{n}", start_ns=midnight(-1) + n) for n in range(40)]
        await storage.write_spans([make_batch(*many)])
        await storage.write_spans([make_batch(span("quiet"), service="bank")])

        assert await names(storage) == ["0", "1", "10", "11", "12"]
        assert await storage.list_services(TENANT) == ["bank", "shop"]
        [finding] = [
            each for each in await storage.maintenance.examine() if each.check == "operations"
        ]
        assert (finding.level, "shop" in finding.message) == (Level.WARNING, True)

        # What is listed is kept up to date, though there is no room for others.
        await storage.write_spans([make_batch(span("11", trace_id=TRACE_B, start_ns=midnight(0)))])
        await purge(storage, midnight(0))
        assert await names(storage) == ["11"]


# A table that is wrong


async def test_the_doctor_finds_what_is_not_listed_and_a_rebuild_mends_it(
    settings: Settings, storage: Storage
) -> None:
    spans = [span(f"{n}", trace_id=trace_id_of(f"{n}"), kind=n) for n in range(4)]
    await storage.write_spans([make_batch(*spans)])
    right = await storage.list_operations(TENANT, "shop")
    await asyncio.to_thread(
        execute,
        settings.database_url,
        "DELETE FROM operations WHERE name = '1'",
        "INSERT INTO operations (tenant_id, service_name, name, kind, last_day)"
        " VALUES (0, 'ghost', 'boo', 1, 99999)",
        "UPDATE operations SET last_day = 1 WHERE name = '2'",
    )
    [finding] = [each for each in await storage.maintenance.examine() if each.check == "operations"]
    assert (finding.level, "shop" in finding.message) == (Level.PROBLEM, True)

    async for _ in rebuild_summaries(storage, NO_PRICES, is_of_all=True):
        assert await storage.list_services(TENANT) != []

    assert await storage.list_operations(TENANT, "shop") == right
    assert await storage.list_services(TENANT) == ["shop"]
    await purge(storage, NOON_NS - NS_PER_DAY)  # the days are right again, too
    assert await storage.list_operations(TENANT, "shop") == right
    [finding] = [each for each in await storage.maintenance.examine() if each.check == "operations"]
    assert finding.level is Level.OK


async def test_an_interrupted_rebuild_ends_in_the_right_list(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "BATCH_SPANS", 1)
    for n in range(4):
        await storage.write_spans([make_batch(span(f"{n}", trace_id=trace_id_of(f"{n}")))])
    interrupted = rebuild_summaries(storage, NO_PRICES, is_of_all=True)
    for _ in range(3):
        await anext(interrupted)
    await interrupted.aclose()
    assert await names(storage) == ["0", "1", "2", "3"]

    async for _ in rebuild_summaries(storage, NO_PRICES, is_of_all=True):
        pass

    assert await names(storage) == ["0", "1", "2", "3"]
