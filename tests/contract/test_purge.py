"""What is deleted for its age goes whole, what stays is right, on every backend."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.errors import NotSupported
from msgtrace.maintenance.retention import RetentionPolicy, run_retention
from msgtrace.model.batch import SpanBatch, take_spans
from msgtrace.model.maintenance import Purged, RetentionState
from msgtrace.model.units import MIB, NS_PER_DAY
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.postgres import purge as postgres_purge
from msgtrace.storage.protocol import Storage
from msgtrace.storage.sqlite import purge as sqlite_purge
from tests.batches import make_batch, span, trace_id_of
from tests.contract.purging import midnight, purge, require_exactly, trace_at
from tests.contract.reading import find

DAY_S = 86_400.0


async def write(storage: Storage, *batches: SpanBatch) -> None:
    for batch in batches:
        await storage.write_spans([batch])


# What goes and what stays


async def test_traces_before_the_edge_go_and_all_others_stay(storage: Storage) -> None:
    old = [trace_at(f"old {day}", midnight(day) + 1, midnight(day) + 2) for day in (-9, -8, -3)]
    new = [trace_at(f"new {day}", midnight(day)) for day in (-2, -1, 0)]
    await write(storage, *old, *new)

    purged = await purge(storage, midnight(-2))

    assert (purged.spans, purged.traces, purged.shortened) == (6, 3, 0)
    await require_exactly(storage, new)


async def test_a_span_that_starts_at_the_edge_stays_and_one_just_before_goes(
    storage: Storage,
) -> None:
    edge_ns = midnight(-2)
    await write(storage, trace_at("before", edge_ns - 1, duration_ns=0), trace_at("at", edge_ns))

    await purge(storage, edge_ns)

    await require_exactly(storage, [trace_at("at", edge_ns)])


async def test_of_a_trace_over_the_edge_the_later_spans_stay_with_the_summary_of_these_alone(
    storage: Storage,
) -> None:
    edge_ns = midnight(-2)
    starts = [edge_ns - 2 * NS_PER_DAY, edge_ns - 1, edge_ns, edge_ns + 7, midnight(0)]
    whole = trace_at("long", *starts)
    await write(storage, whole, trace_at("later", edge_ns))

    purged = await purge(storage, edge_ns)

    assert (purged.spans, purged.traces, purged.shortened) == (2, 0, 1)
    later = take_spans(whole, [2, 3, 4])
    await require_exactly(storage, [later, trace_at("later", edge_ns)])


async def test_a_trace_whose_last_span_began_before_the_edge_and_ended_after_it_goes(
    storage: Storage,
) -> None:
    edge_ns = midnight(-2)
    await write(storage, trace_at("long", edge_ns - 10, duration_ns=NS_PER_DAY))

    assert (await purge(storage, edge_ns)).traces == 1

    await require_exactly(storage, [])


async def test_one_wild_clock_does_not_take_the_rest_of_its_trace_along(storage: Storage) -> None:
    today = midnight(0)
    good = span("good", start_ns=today + 1)
    await write(storage, make_batch(good, span("wild", start_ns=1)))

    purged = await purge(storage, midnight(-30))

    assert (purged.spans, purged.shortened) == (1, 1)
    await require_exactly(storage, [make_batch(good)])


async def test_spans_ahead_of_the_clock_stay(storage: Storage) -> None:
    ahead = [trace_at("soon", midnight(9)), trace_at("never", 2**63 - 1, duration_ns=0)]
    await write(storage, *ahead, trace_at("old", 5))

    await purge(storage, midnight(0))

    await require_exactly(storage, ahead)


async def test_spans_older_than_the_edge_are_accepted_and_gone_with_the_next_purge(
    storage: Storage,
) -> None:
    edge_ns = midnight(-2)
    kept = trace_at("kept", edge_ns)
    await write(storage, trace_at("first", edge_ns - 5), kept)
    await purge(storage, edge_ns)

    late = make_batch(
        span("late", trace_id=trace_id_of("first"), start_ns=edge_ns - 4),
        span("later", trace_id=trace_id_of("kept"), start_ns=edge_ns - 3),
    )
    assert await storage.write_spans([late]) == 2
    assert (await find(storage, name="late")).total == 1
    purged = await purge(storage, edge_ns)

    assert (purged.spans, purged.traces, purged.shortened) == (2, 1, 1)
    await require_exactly(storage, [kept])


async def test_what_is_purged_may_be_sent_again(storage: Storage) -> None:
    batch = trace_at("again", midnight(-3), midnight(-3) + 1)
    await write(storage, batch)
    await purge(storage, midnight(-1))

    assert await storage.write_spans([batch]) == 2
    await require_exactly(storage, [batch])


async def test_nothing_to_purge_is_no_work(storage: Storage) -> None:
    await write(storage, trace_at("new", midnight(0)))

    assert await purge(storage, midnight(-1)) == Purged()


async def test_any_mix_of_traces_ends_as_if_only_the_later_spans_had_been_sent(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of a few spans, so that every boundary between two steps is met."""
    monkeypatch.setattr(sqlite_purge, "STEP_SPANS", 7)
    monkeypatch.setattr(sqlite_purge, "STEP_TRACES", 3)
    monkeypatch.setattr(postgres_purge, "STEP_TRACES", 3)
    monkeypatch.setattr(postgres_purge, "STEP_SPANS", 2)
    monkeypatch.setattr(postgres_purge, "SUMMED_SPANS", 2)
    chance = random.Random(7)
    edge_ns = midnight(-2)
    days = [-400, -9, -3, -3, -2, -2, -1, 0, 400]
    sent, kept = [], []
    for number in range(40):
        starts = [
            midnight(chance.choice(days)) + chance.randrange(5)
            for _ in range(chance.choice((1, 2, 3, 20)))
        ]
        spans = [
            span(
                f"{number} {place}",
                trace_id=trace_id_of(f"{number}"),
                start_ns=start_ns,
                duration_ns=chance.choice((0, 5, 3 * NS_PER_DAY)),
                attributes={"user.id": f"user-{place}", "gen_ai.usage.output_tokens": place},
            )
            for place, start_ns in enumerate(starts)
        ]
        sent.append(make_batch(*spans))
        left = [each for each in spans if each.start_time_unix_nano >= edge_ns]
        kept += [make_batch(*left)] if left else []
    await storage.write_spans(sent)

    purged = await purge(storage, edge_ns)

    assert purged.spans == sum(len(each.spans) for each in sent) - sum(
        len(each.spans) for each in kept
    )
    await require_exactly(storage, kept)
    looked_at, drifted = await storage.maintenance.sample_drift(1_000)
    assert (looked_at, drifted) == (len(kept), [])


# Plans


async def test_a_plan_says_what_a_purge_then_does(storage: Storage) -> None:
    edge_ns = midnight(-2)
    await write(
        storage,
        trace_at("old", midnight(-5), midnight(-5) + 1),
        trace_at("long", edge_ns - 1, edge_ns),
        trace_at("new", edge_ns),
    )

    plan = await storage.maintenance.plan_purge(edge_ns)
    purged = await purge(storage, edge_ns)

    assert (plan.before_ns, plan.traces) == (edge_ns, 2)
    assert plan.traces == purged.traces + purged.shortened
    assert purged.spans <= plan.spans <= purged.spans + 1  # the long one counts whole
    assert (plan.freed_bytes > 0, len(plan.partitions)) == (True, purged.partitions)


async def test_the_edge_is_never_later_than_what_was_asked_for(storage: Storage) -> None:
    noon = midnight(-2) + NS_PER_DAY // 2
    edge_ns = storage.maintenance.edge_of(noon)
    assert edge_ns == (noon if storage.backend == "sqlite" else midnight(-2))
    assert storage.maintenance.edge_of(-5) == 0

    await write(storage, trace_at("morning", midnight(-2)), trace_at("evening", noon))
    await purge(storage, noon)

    assert (await find(storage, name="evening 0")).total == 1
    assert (await find(storage, name="morning 0")).total == (storage.backend == "postgres")


# One at a time


async def test_only_one_of_several_processes_purges(settings: Settings) -> None:
    async with open_storage(settings) as one, open_storage(settings) as two:
        async with one.maintenance.purging() as purger, two.maintenance.purging() as second:
            assert purger is not None
            assert second is None
        async with two.maintenance.purging() as third:
            assert third is not None


async def test_of_several_collectors_one_works_and_all_know_of_its_success(
    settings: Settings,
) -> None:
    policy = RetentionPolicy(max_age_s=2 * DAY_S)
    async with open_storage(settings) as one, open_storage(settings) as two:
        await write(one, *(trace_at(f"old {n}", midnight(-9) + n) for n in range(30)))
        runs = await asyncio.gather(
            *(run_retention(each.maintenance, policy) for each in (one, two, one, two))
        )
        states = [await each.maintenance.get_retention_state() for each in (one, two)]

    assert sum(run.purged.traces for run in runs) == 30
    assert 1 <= sum(run.was_ours for run in runs) <= 4
    assert states[0] == states[1]
    assert (states[0].purged_spans, states[0].purged_traces) == (30, 30)
    assert states[0].succeeded_at_ns > midnight(0)


async def test_runs_add_up_and_the_edge_never_goes_back(storage: Storage) -> None:
    runs = [(Purged(spans=3, traces=1), 50, 100), (Purged(spans=4, traces=2), 40, 200)]
    async with storage.maintenance.purging() as purger:
        assert purger is not None
        for purged, before_ns, now_ns in runs:
            await purger.record(purged, before_ns=before_ns, now_ns=now_ns)

    assert await storage.maintenance.get_retention_state() == RetentionState(
        succeeded_at_ns=200, purged_before_ns=50, purged_spans=7, purged_traces=3
    )


async def test_a_purge_that_is_cancelled_can_be_done_again(storage: Storage) -> None:
    batches = [trace_at(f"old {n}", midnight(-9) + n) for n in range(2_000)]
    await storage.write_spans(batches)
    stepped = asyncio.Event()

    async def purge_first_part() -> None:
        async with storage.maintenance.purging() as purger:
            assert purger is not None
            async for _ in purger.purge(midnight(-2)):
                stepped.set()

    task = asyncio.create_task(purge_first_part())
    await stepped.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    left = (await find(storage)).total
    assert 0 < left < 2_000
    looked_at, drifted = await storage.maintenance.sample_drift(100)
    assert (looked_at > 0, drifted) == (True, [])
    # SQLite ends the step that was under way when nobody waited for it any more.
    assert 0 < (await purge(storage, midnight(-2))).traces <= left
    await require_exactly(storage, [])


# Beside writers


async def test_purges_beside_writers_of_the_same_traces_end_with_right_summaries(
    storage: Storage,
) -> None:
    """Spans on both sides of the edge come in for traces that are being purged."""
    edge_ns = midnight(-2)
    chance = random.Random(3)
    is_done = False

    async def write_some(writer: int) -> None:
        for round_ in range(25):
            starts = [edge_ns + chance.randrange(-3, 3) for _ in range(6)]
            spans = [
                span(
                    f"{writer} {round_} {place}",
                    trace_id=trace_id_of(f"{chance.randrange(8)}"),
                    start_ns=start_ns,
                    duration_ns=1,
                )
                for place, start_ns in enumerate(starts)
            ]
            sent.extend(each for each in spans if each.start_time_unix_nano >= edge_ns)
            await storage.write_spans([make_batch(*spans)])

    async def purge_again_and_again() -> None:
        while not is_done:
            await purge(storage, edge_ns)
            await asyncio.sleep(0.002)

    sent: list[Span] = []
    purging = asyncio.create_task(purge_again_and_again())
    await asyncio.gather(*(write_some(writer) for writer in range(3)))
    is_done = True
    await purging
    await purge(storage, edge_ns)

    await require_exactly(storage, [make_batch(*sent)])


# Policies


async def test_nothing_is_deleted_without_a_policy(storage: Storage) -> None:
    old = trace_at("old", midnight(-400))
    await write(storage, old)

    run = await run_retention(storage.maintenance, RetentionPolicy())

    assert (run.was_ours, run.purged) == (True, Purged())
    assert await storage.maintenance.get_retention_state() == RetentionState()
    await require_exactly(storage, [old])


async def test_age_is_counted_from_now(storage: Storage) -> None:
    new = trace_at("new", midnight(-1))
    await write(storage, trace_at("old", midnight(-4)), new)

    run = await run_retention(storage.maintenance, RetentionPolicy(max_age_s=2 * DAY_S))

    assert run.purged.traces == 1
    await require_exactly(storage, [new])
    state = await storage.maintenance.get_retention_state()
    assert state.purged_before_ns == run.before_ns > midnight(-4)


async def test_over_the_size_limit_the_oldest_go_and_the_newest_stay(storage: Storage) -> None:
    filler = "x" * 2_000
    for days in range(-6, 1):
        spans = [
            span(
                f"{days} {number}",
                trace_id=trace_id_of(f"{days} {number}"),
                start_ns=midnight(days) + number,
                attributes={"filler": random.Random(number).randbytes(1000).hex(), "b": filler},
            )
            for number in range(250)
        ]
        await storage.write_spans([make_batch(*spans)])
    used = (await storage.maintenance.judge_size(1, midnight(1))).used_bytes
    limit = used * 6 // 10

    run = await run_retention(storage.maintenance, RetentionPolicy(max_bytes=limit))

    assert run.used_bytes is not None
    assert run.used_bytes >= used > MIB
    after = await storage.maintenance.judge_size(limit, midnight(1))
    assert after.used_bytes <= limit
    assert after.edge_ns is None
    page = await find(storage, start_ns=midnight(0))
    assert page.total == 250
    assert (await find(storage, end_ns=midnight(-5))).total == 0
    assert (await storage.maintenance.sample_drift(100))[1] == []


async def test_within_the_size_limit_nothing_goes(storage: Storage) -> None:
    old = trace_at("old", midnight(-20))
    await write(storage, old)

    run = await run_retention(storage.maintenance, RetentionPolicy(max_bytes=2**40))

    assert (run.purged, run.before_ns) == (Purged(), 0)
    assert run.used_bytes is not None
    await require_exactly(storage, [old])


# What one backend cannot do


async def test_partitions_are_listed_or_refused_with_the_reason(storage: Storage) -> None:
    await write(storage, trace_at("new", midnight(0)))
    made = await storage.maintenance.make_partitions(4)
    if storage.backend == "sqlite":
        assert made == []
        with pytest.raises(NotSupported, match="no partitions"):
            await storage.maintenance.list_partitions()
        return

    partitions = await storage.maintenance.list_partitions()

    days = [each.first_ns for each in partitions[:-1]]
    assert days == [midnight(day) for day in range(5)]
    assert [each.end_ns for each in partitions[:-1]] == [midnight(day + 1) for day in range(5)]
    assert (partitions[-1].name, partitions[-1].first_ns) == ("spans_default", None)
    assert len(made) == 3  # today's and tomorrow's stood since the write
    assert all(each.bytes > 0 for each in partitions)


async def test_a_file_of_an_older_version_gives_space_back_after_one_full_vacuum(
    tmp_path: Path,
) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE schema_migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
        " checksum TEXT NOT NULL, applied_at TEXT NOT NULL DEFAULT '') STRICT"
    )
    old.close()
    async with open_storage(Settings(database_url=f"sqlite:///{path}")) as storage:
        await storage.write_spans([trace_at("old", *(midnight(-9) + n for n in range(3_000)))])
        await purge(storage, midnight(-2))
        with pytest.raises(NotSupported, match="vacuum --full"):
            [step async for step in storage.maintenance.vacuum(full=False)]
        before = (await storage.get_status()).database_bytes
        steps = [step async for step in storage.maintenance.vacuum(full=True)]
        assert (steps[-1].done, steps[-1].total) == (1, 1)
        assert path.stat().st_size < before / 2
        await storage.write_spans([trace_at("new", midnight(0))])

        assert [step async for step in storage.maintenance.vacuum(full=False)]
        await require_exactly(storage, [trace_at("new", midnight(0))])
