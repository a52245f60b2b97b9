"""While the database is away, requests are acknowledged from disk; later it gets them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from msgtrace.errors import Overloaded, SpillUnavailable, StorageUnavailable
from msgtrace.pipeline.batcher import HOLD_S
from msgtrace.pipeline.batcher import RETRY_INTERVAL_S as HOLD_STEP_S
from msgtrace.pipeline.drain import PASS_OVER_S
from msgtrace.pipeline.drain import RETRY_INTERVAL_S as DRAIN_STEP_S
from msgtrace.pipeline.spill import LOOK_INTERVAL_S
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import SpilledRequest
from tests.pipelines import (
    REQUEST_BYTES,
    ScriptedDatabase,
    batch_of,
    payload_of,
    spilling_pipeline,
)
from tests.spilled import ENOUGH, in_file, payloads
from tests.virtual_time import ConnectionInLoop, in_virtual_time, now_s

AWAY = ["away", "frozen"]


@pytest.fixture(autouse=True)
def spill_in_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msgtrace.storage.spill.ConnectionThread", ConnectionInLoop)


def lose(database: ScriptedDatabase, how: str) -> None:
    if how == "away":
        database.go_away()
    else:
        database.freeze()


def bring_back(database: ScriptedDatabase) -> None:
    database.come_back()
    database.thaw()


async def left_in(folder: Path) -> list[bytes]:
    """What the next start finds."""
    async with Spill.open(folder, ENOUGH) as spill:
        return payloads(in_file(spill.path))


@in_virtual_time
async def test_a_database_that_works_leaves_the_spill_empty(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await asyncio.gather(*pipeline.send(*range(300)))

        assert set(database.stored) == {payload_of(number) for number in range(300)}
        assert pipeline.spill.content.requests == 0


@pytest.mark.parametrize("how", AWAY)
@in_virtual_time
async def test_an_absence_begins_when_a_request_has_been_held_and_not_before(
    tmp_path: Path, how: str
) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        lose(database, how)
        await asyncio.sleep(60)
        assert not pipeline.is_away()  # nobody has missed the database yet
        began_s = now_s()
        [sender] = pipeline.send(1)

        await asyncio.sleep(HOLD_S - HOLD_STEP_S - 0.01)
        assert not pipeline.is_away()
        assert not sender.done()
        await sender

        assert now_s() - began_s <= HOLD_S + LOOK_INTERVAL_S
        assert pipeline.is_away()
        assert payloads(in_file(pipeline.spill.path)) == [payload_of(1)]


@pytest.mark.parametrize("how", AWAY)
@in_virtual_time
async def test_a_database_that_is_back_within_the_hold_costs_no_way_over_the_disk(
    tmp_path: Path, how: str
) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        lose(database, how)
        senders = pipeline.send(1, 2, 3)
        await asyncio.sleep(HOLD_S * 0.7)
        bring_back(database)
        await asyncio.gather(*senders)

        assert set(database.stored) == {payload_of(number) for number in (1, 2, 3)}
        assert pipeline.metrics.totals()["requests_spilled"] == 0
        assert not pipeline.is_away()


@in_virtual_time
async def test_all_who_wait_for_a_frozen_database_are_answered_by_the_spill(tmp_path: Path) -> None:
    database = ScriptedDatabase(writer_count=2)
    async with spilling_pipeline(tmp_path, database, max_batch_bytes=REQUEST_BYTES) as pipeline:
        database.freeze()
        await asyncio.gather(*pipeline.send(*range(50)))

        assert now_s() <= HOLD_S + LOOK_INTERVAL_S
        assert set(payloads(in_file(pipeline.spill.path))) == {payload_of(n) for n in range(50)}
        database.thaw()


@in_virtual_time
async def test_during_an_absence_requests_go_to_the_spill_at_once(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await pipeline.begin_absence(0)
        began_s = now_s()

        await asyncio.gather(*pipeline.send(*range(1, 100)))

        assert now_s() == began_s
        assert pipeline.spill.content.requests == 100
        described = pipeline.sink.describe()
        assert isinstance(described.pop("oldest_age_s"), float)  # by the real clock
        assert described == {
            "requests": 100,
            "set_aside": 0,
            "bytes": 100 * REQUEST_BYTES,
            "limit_bytes": ENOUGH,
            "database_away": True,
        }


@in_virtual_time
async def test_spilled_requests_share_their_commits(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await pipeline.begin_absence(0)
        await asyncio.gather(*pipeline.send(*range(1, 51)))

        moments = {each.received_at_ns for each in in_file(pipeline.spill.path)}

    assert len(moments) <= 3  # one a commit


@pytest.mark.parametrize("writer_count", [1, 2])
@in_virtual_time
async def test_a_database_that_is_slow_but_commits_is_not_away(
    tmp_path: Path, writer_count: int
) -> None:
    database = ScriptedDatabase(writer_count)
    database.takes_s = HOLD_S - 0.5
    async with spilling_pipeline(tmp_path, database, max_batch_bytes=REQUEST_BYTES) as pipeline:
        senders = pipeline.send(*range(10))
        await asyncio.gather(*senders)

        assert now_s() >= 10 * database.takes_s / writer_count
        assert pipeline.metrics.totals()["requests_spilled"] == 0
        assert len(database.stored) == 10


@in_virtual_time
async def test_a_full_spill_refuses_at_once_until_it_is_drained(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database, max_spill_bytes=3 * REQUEST_BYTES) as pipeline:
        await pipeline.begin_absence(0)
        await asyncio.gather(*pipeline.send(1, 2))
        assert not pipeline.sink.has_room
        began_s = now_s()

        with pytest.raises(Overloaded, match="the spill that replaces it holds"):
            await pipeline.sink.submit(batch_of(3))

        assert now_s() == began_s
        database.come_back()
        await asyncio.sleep(DRAIN_STEP_S + HOLD_S)
        await pipeline.sink.submit(batch_of(3))
        assert database.stored == [payload_of(number) for number in range(4)]


@pytest.mark.parametrize("how", AWAY)
@in_virtual_time
async def test_a_database_that_is_back_gets_all_oldest_first(tmp_path: Path, how: str) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        lose(database, how)
        for number in range(500):
            await pipeline.sink.submit(batch_of(number))
        database.stored.clear()
        bring_back(database)
        await asyncio.sleep(DRAIN_STEP_S + HOLD_S)

        assert not pipeline.is_away()
        assert list(dict.fromkeys(database.stored)) == [payload_of(n) for n in range(500)]
        assert pipeline.spill.content.requests == 0
        assert pipeline.metrics.totals() == {"requests_spilled": 500, "in_spill": 0}


@in_virtual_time
async def test_an_absent_database_is_asked_with_one_request_about_once_a_second(
    tmp_path: Path,
) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await pipeline.begin_absence(0)
        await asyncio.gather(*pipeline.send(*range(1, 100)))
        database.flushes.clear()
        await asyncio.sleep(60)

    assert 20 <= len(database.flushes) <= 60 / HOLD_STEP_S
    assert {len(flush) for flush in database.flushes} == {1}


@in_virtual_time
async def test_live_requests_and_the_drain_do_not_starve_each_other(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await pipeline.begin_absence(0)
        await asyncio.gather(*pipeline.send(*range(1, 400)))
        database.come_back()
        database.takes_s = 0.05
        await asyncio.sleep(DRAIN_STEP_S + HOLD_S)
        assert not pipeline.is_away()

        waited_s = []
        for number in range(1_000, 1_040):
            began_s = now_s()
            await pipeline.sink.submit(batch_of(number))
            waited_s.append(now_s() - began_s)

        assert max(waited_s) <= 4 * database.takes_s
        assert pipeline.spill.content.requests == 0
        assert len(set(database.stored)) == 440
        assert pipeline.metrics.totals()["requests_spilled"] == 400


async def put_into(folder: Path, *requests: bytes) -> None:
    async with Spill.open(folder, ENOUGH) as spill:
        await spill.append(
            [
                SpilledRequest(payload=each, encoding="protobuf", span_count=1, received_at_ns=n)
                for n, each in enumerate(requests)
            ]
        )


@in_virtual_time
async def test_what_an_earlier_run_left_is_drained_without_any_request(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    await put_into(tmp_path, payload_of(1), payload_of(2))
    async with spilling_pipeline(tmp_path, database):
        await asyncio.sleep(1)

    assert database.stored == [payload_of(1), payload_of(2)]
    assert await left_in(tmp_path) == []


@in_virtual_time
async def test_requests_that_cannot_be_stored_are_set_aside_and_hold_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = ScriptedDatabase()
    database.refused = {payload_of(3)}
    damaged = b"\xff" * 20
    await put_into(tmp_path, damaged, *(payload_of(number) for number in range(6)))
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await asyncio.sleep(5)

        assert database.stored == [payload_of(number) for number in (0, 1, 2, 4, 5)]
        content = pipeline.spill.content
        assert (content.requests, content.set_aside) == (0, 2)

    assert await left_in(tmp_path) == [damaged, payload_of(3)]
    assert caplog.text.count("spilled_request_set_aside") == 2


@in_virtual_time
async def test_a_request_that_cannot_be_decoded_does_not_end_an_absence(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    database.go_away()
    await put_into(tmp_path, payload_of(0))
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await pipeline.sink.submit(batch_of(1))
        assert pipeline.is_away()
        await pipeline.spill.remove(await pipeline.spill.oldest(ENOUGH))
        await pipeline.spill.append(
            [SpilledRequest(payload=b"\xff", encoding="none", span_count=1, received_at_ns=0)]
        )
        await pipeline.sink.submit(batch_of(2))
        while pipeline.spill.content.set_aside == 0:
            assert pipeline.is_away()
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)

        assert pipeline.is_away()
        began_s = now_s()
        await pipeline.sink.submit(batch_of(3))
        assert now_s() == began_s


@in_virtual_time
async def test_an_absence_in_which_nothing_could_be_spilled_ends_as_well(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        database.go_away()
        pipeline.disk.error = StorageUnavailable("no disk")
        with pytest.raises(SpillUnavailable):
            await pipeline.sink.submit(batch_of(1))
        await asyncio.sleep(60)
        assert pipeline.is_away()

        database.come_back()
        await asyncio.sleep(3 * DRAIN_STEP_S)

        assert not pipeline.is_away()
        await pipeline.sink.submit(batch_of(2))
        assert database.stored == [payload_of(2)]


@in_virtual_time
async def test_a_spill_that_cannot_be_read_does_not_prolong_an_absence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = ScriptedDatabase()
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await pipeline.begin_absence(0)
        pipeline.disk.error = StorageUnavailable("no disk")
        await asyncio.sleep(10)
        assert pipeline.is_away()

        database.come_back()
        await asyncio.sleep(HOLD_S + 3 * DRAIN_STEP_S)
        assert not pipeline.is_away()
        await pipeline.sink.submit(batch_of(1))
        assert database.stored == [payload_of(1)]
        assert "spill_unusable" in caplog.text

        pipeline.disk.error = None
        await asyncio.sleep(3 * DRAIN_STEP_S)
        assert database.stored == [payload_of(1), payload_of(0)]
        assert pipeline.spill.content.requests == 0


@pytest.mark.parametrize("places", [[0], [2], [0, 1, 7], list(range(10))])
@in_virtual_time
async def test_requests_that_a_database_never_takes_hold_up_no_others(
    tmp_path: Path, places: list[int]
) -> None:
    """It answers, and takes others: their cause is the operator's to mend, in his own time."""
    database = ScriptedDatabase()
    await put_into(tmp_path, *(payload_of(number) for number in range(30)))
    database.troubling = {payload_of(number) for number in places}
    good = {payload_of(number) for number in range(30)} - database.troubling
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await asyncio.sleep(600)

        assert set(database.stored) == good
        assert pipeline.spill.content.requests == len(places)
        assert not pipeline.is_away()
        await pipeline.sink.submit(batch_of(100))
        assert database.stored[-1] == payload_of(100)

        database.troubling = set()
        await asyncio.sleep(PASS_OVER_S + 10)
        assert pipeline.spill.content.requests == 0
        assert len(set(database.stored)) == 31


@in_virtual_time
async def test_a_request_that_is_never_taken_is_tried_once_a_minute(tmp_path: Path) -> None:
    database = ScriptedDatabase()
    await put_into(tmp_path, payload_of(1), payload_of(2))
    database.troubling = {payload_of(1)}
    async with spilling_pipeline(tmp_path, database):
        await asyncio.sleep(60)
        database.flushes.clear()
        await asyncio.sleep(20 * PASS_OVER_S)

        assert 18 <= len(database.flushes) / (HOLD_S / HOLD_STEP_S) <= 23


@in_virtual_time
async def test_what_a_database_that_took_nothing_missed_is_stored_soon_after(
    tmp_path: Path,
) -> None:
    """A full disk: it answers all the time, and no request is to blame."""
    database = ScriptedDatabase()
    database.troubling = {payload_of(number) for number in range(200)}
    await put_into(tmp_path, *(payload_of(number) for number in range(200)))
    async with spilling_pipeline(tmp_path, database) as pipeline:
        await asyncio.sleep(3_600)
        assert pipeline.spill.content.requests == 200
        database.troubling = set()
        await asyncio.sleep(HOLD_S + 2 * DRAIN_STEP_S)

        assert pipeline.spill.content.requests == 0
        assert len(set(database.stored)) == 200
