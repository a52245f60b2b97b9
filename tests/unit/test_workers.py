"""Workers and their supervisor, without processes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from msgtrace.errors import InvalidSetting
from msgtrace.settings.table import Settings
from msgtrace.telemetry.collector_metrics import CollectorMetrics
from msgtrace.workers import member as member_module
from msgtrace.workers import supervisor
from msgtrace.workers.member import Member, listening
from msgtrace.workers.messages import (
    AllShown,
    Assignment,
    Channel,
    Message,
    Serving,
    ShowAll,
    Shown,
    ShowYourself,
    Snapshot,
)
from msgtrace.workers.snapshots import merged_metrics, read_families
from msgtrace.workers.supervisor import Delays, share_of


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel]]:
    """Both ends of a channel."""
    one, other = [await Channel.open(end) for end in socket.socketpair()]
    try:
        yield one, other
    finally:
        one.close()
        other.close()


def snapshot(number: int, *reasons: str) -> Snapshot:
    return Snapshot(number=number, reasons=list(reasons), details={"n": number}, families=[])


async def expect(channel: Channel, kind: type[Message]) -> Message:
    message = await asyncio.wait_for(channel.receive(), 5)
    assert isinstance(message, kind)
    return message


async def test_a_worker_is_told_all_settings_as_they_are() -> None:
    settings = Settings(database_url="postgresql://u:p@h/d", cors_origins=("a", "b"), workers=3)
    async with pair() as (ours, theirs):
        ours.send(Assignment("collector", settings, 2, is_first=False))

        assert await theirs.receive() == Assignment("collector", settings, 2, is_first=False)


async def test_a_channel_whose_other_end_is_gone_says_so() -> None:
    async with pair() as (ours, theirs):
        theirs.close()

        assert await asyncio.wait_for(ours.receive(), 5) is None
        ours.send(Serving())


def test_workers_share_what_one_process_may_hold() -> None:
    settings = Settings(
        workers=4, max_queued_bytes=4_000, max_inflight_bytes=8_000, max_spill_bytes=2
    )

    share = share_of(settings)

    assert (share.max_queued_bytes, share.max_inflight_bytes, share.max_spill_bytes) == (
        1_000,
        2_000,
        1,
    )
    assert share.max_batch_bytes == settings.max_batch_bytes


@pytest.mark.parametrize(
    ("platform", "url", "problem"),
    [("darwin", "postgresql://x/y", "only Linux"), ("linux", "sqlite:///x.db", "with SQLite")],
)
async def test_several_workers_are_refused_where_they_would_do_no_good(
    platform: str, url: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)

    with pytest.raises(InvalidSetting, match=problem):
        await supervisor.supervise("collector", Settings(database_url=url, workers=2))


def test_a_worker_that_ends_soon_is_started_again_ever_more_slowly() -> None:
    delays = Delays()

    assert [delays.after(1.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert delays.after(supervisor.WELL_AFTER_S) == 0
    assert delays.after(1.0) == 0.5


def test_a_page_of_all_workers_has_each_series_once_and_tells_whose_it_is() -> None:
    snapshots = []
    for number in (0, 1):
        registry = CollectorRegistry()
        metrics = CollectorMetrics(registry)
        metrics.count_received("grpc", "protobuf", 10 + number)
        metrics.count_flush(spans=1, new=1, body_bytes=1, took_s=0.1)
        snapshots.append(Snapshot(number, [], {}, read_families(registry)))

    page = merged_metrics(snapshots).decode()

    assert page.count("# TYPE msgtrace_requests_received_total counter") == 1
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    name, wire = "msgtrace_request_received_bytes_total", ("wire", "grpc")
    assert samples[name, wire, ("worker", "0")] == 10
    assert samples[name, wire, ("worker", "1")] == 11
    assert samples["msgtrace_commit_seconds_bucket", ("le", "+Inf"), ("worker", "1")] == 1
    assert page.count("\n") == len(set(page.splitlines()))


async def test_a_worker_shows_itself_when_the_supervisor_asks() -> None:
    async def problem() -> str | None:
        return "the queue is full"

    async with pair() as (ours, theirs):
        member = Member(1, theirs, is_first=False)
        member.shows((problem,), lambda: {"spill": 7}, CollectorRegistry())
        async with listening(member, lambda: None):
            ours.send(ShowYourself(5))
            answer = await expect(ours, Shown)

    assert answer == Shown(5, Snapshot(1, ["the queue is full"], {"spill": 7}, []))


async def test_the_whole_is_as_ready_as_its_workers() -> None:
    async with pair() as (ours, theirs):
        member = Member(0, theirs, is_first=True)
        async with listening(member, lambda: None):
            asking = asyncio.create_task(member.problem())
            asked = await expect(ours, ShowAll)
            assert isinstance(asked, ShowAll)
            shown = [snapshot(0, "its own matter"), snapshot(1, "slow"), snapshot(2)]
            ours.send(AllShown(asked.question, 3, 0, shown))

            assert await asking == "worker 1: slow"
            assert await member.problem() == "worker 1: slow"  # without asking again so soon


async def test_a_worker_whose_supervisor_does_not_answer_shows_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(member_module, "ANSWER_TIMEOUT_S", 0.01)
    async with pair() as (_, theirs):
        member = Member(3, theirs, is_first=True)
        member.shows((), lambda: {"spill": 1}, CollectorRegistry())

        assert await member.problem() is None
        assert await member.describe() == {"worker": 3, "spill": 1}
        assert await member.metrics() == b""


async def test_a_worker_stops_when_its_supervisor_has_ended() -> None:
    stopped = asyncio.Event()
    async with pair() as (ours, theirs), listening(Member(0, theirs, is_first=True), stopped.set):
        ours.close()

        await asyncio.wait_for(stopped.wait(), 5)


async def test_without_a_supervisor_nothing_listens() -> None:
    async with listening(None, lambda: pytest.fail("nobody ended")):
        pass
