"""Offenders are kept and told of; nothing makes a batch fail for ever."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from msgtrace.errors import DataRefused, StorageUnavailable
from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.pipeline import dead_letters
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.telemetry.collector_metrics import CollectorMetrics
from tests.batches import TRACE_A, make_batch, span, span_id_of
from tests.letters import MemoryLetters, PickyWriter

WHOLE = DataRefused("the database refuses this")


def mixed_batch() -> SpanBatch:
    batch = make_batch(*(span(name) for name in ("a", "poison", "b", "venom")))
    return dataclasses.replace(batch, payload=b"my secret request", encoding="json")


@pytest.fixture
def writer() -> PickyWriter:
    return PickyWriter({"poison", "venom"})


@pytest.fixture
def letters() -> MemoryLetters:
    return MemoryLetters()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def keeper(letters: MemoryLetters, registry: CollectorRegistry) -> DeadLetterKeeper:
    return DeadLetterKeeper(letters, max_bytes=1_000, metrics=CollectorMetrics(registry))


async def wait_until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110 - a gauge tells nobody that it changed
            await asyncio.sleep(0.01)


async def test_offenders_become_one_letter_with_the_request_and_are_counted(
    keeper: DeadLetterKeeper, writer: PickyWriter, letters: MemoryLetters
) -> None:
    batch = mixed_batch()
    batch.rejections = {Rejection.INVALID_SPAN_ID: 3}

    await keeper.settle(batch, WHOLE, writer.write_spans)

    assert sorted(writer.stored) == ["a", "b"]
    assert batch.rejections == {
        Rejection.INVALID_SPAN_ID: 3,
        Rejection.KEPT_AS_DEAD_LETTER: 2,
    }
    [letter] = letters.kept.values()
    assert letter.payload == b"my secret request"
    assert letter.encoding == "json"
    assert letter.reason == "1 refused"
    assert letter.spans == [(TRACE_A, span_id_of("poison")), (TRACE_A, span_id_of("venom"))]


async def test_a_batch_that_is_taken_in_parts_leaves_no_letter(
    keeper: DeadLetterKeeper, writer: PickyWriter, letters: MemoryLetters
) -> None:
    writer.poison = ()
    batch = mixed_batch()

    await keeper.settle(batch, WHOLE, writer.write_spans)

    assert len(writer.stored) == 4
    assert (batch.rejections, letters.kept) == ({}, {})


async def test_the_same_request_again_is_the_same_letter(
    keeper: DeadLetterKeeper, writer: PickyWriter, letters: MemoryLetters
) -> None:
    await keeper.settle(mixed_batch(), WHOLE, writer.write_spans)
    await keeper.settle(mixed_batch(), WHOLE, writer.write_spans)

    assert len(letters.kept) == 1


async def test_when_letters_are_full_the_spans_are_still_told_of(
    keeper: DeadLetterKeeper,
    writer: PickyWriter,
    letters: MemoryLetters,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batches = [dataclasses.replace(mixed_batch(), payload=b"%d" % n) for n in range(3)]
    for batch in batches:
        await keeper.settle(batch, WHOLE, writer.write_spans)

    assert batches[-1].rejections == {Rejection.DEAD_LETTERS_FULL: 2}
    message = "2 spans: refused by the database, and not kept: dead letters are full"
    assert batches[-1].rejection_message == message
    assert len(letters.kept) == 1
    assert [record.message for record in caplog.records][-1] == "dead_letters_full"
    name = "msgtrace_spans_rejected_total"
    assert registry.get_sample_value(name, {"reason": "dead_letters_full"}) == 4


async def test_a_database_that_goes_away_before_the_letter_is_kept_leaves_the_batch_as_it_was(
    keeper: DeadLetterKeeper,
    writer: PickyWriter,
    letters: MemoryLetters,
    registry: CollectorRegistry,
) -> None:
    batch = mixed_batch()
    letters.error = StorageUnavailable("gone")

    with pytest.raises(StorageUnavailable):
        await keeper.settle(batch, WHOLE, writer.write_spans)

    assert batch.rejections == {}
    assert registry.get_sample_value("msgtrace_spans_accepted_total") == 0


@pytest.mark.parametrize("error", [DataRefused("no"), KeyError("a bug")])
async def test_a_letter_that_is_refused_itself_does_not_hold_up_its_sender(
    keeper: DeadLetterKeeper, writer: PickyWriter, letters: MemoryLetters, error: Exception
) -> None:
    batch = mixed_batch()
    letters.error = error

    await keeper.settle(batch, WHOLE, writer.write_spans)

    assert batch.rejections == {Rejection.DEAD_LETTER_REFUSED: 2}


async def test_the_log_names_the_letter_and_nothing_of_the_request(
    keeper: DeadLetterKeeper,
    writer: PickyWriter,
    letters: MemoryLetters,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    await keeper.settle(mixed_batch(), WHOLE, writer.write_spans)

    [record] = caplog.records
    [letter_id] = letters.kept
    assert record.message == "dead_letter_kept"
    assert vars(record)["letter_id"] == letter_id.hex()
    assert vars(record)["spans"] == 2
    assert vars(record)["reason"] == "1 refused"
    assert not any("secret" in str(value) for value in vars(record).values())


async def test_the_gauges_follow_what_is_kept_here_and_deleted_elsewhere(
    keeper: DeadLetterKeeper,
    writer: PickyWriter,
    letters: MemoryLetters,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dead_letters, "LEAST_INTERVAL_S", 0.01)
    monkeypatch.setattr(dead_letters, "SUM_INTERVAL_S", 0.05)

    def shown() -> float | None:
        return registry.get_sample_value("msgtrace_dead_letters")

    letters.error = StorageUnavailable("not there yet")
    async with keeper.watched():
        await asyncio.sleep(0.02)
        assert shown() == 0
        letters.error = None
        await keeper.settle(mixed_batch(), WHOLE, writer.write_spans)
        await wait_until(lambda: shown() == 1)
        kept_bytes = registry.get_sample_value("msgtrace_dead_letter_bytes")
        assert kept_bytes == sum(each.kept_bytes for each in letters.kept.values()) > 0

        letters.kept.clear()
        await wait_until(lambda: shown() == 0)


async def test_the_watch_ends_with_its_block(
    keeper: DeadLetterKeeper, letters: MemoryLetters
) -> None:
    before = asyncio.all_tasks()
    with contextlib.suppress(RuntimeError):
        async with keeper.watched():
            assert len(asyncio.all_tasks()) == len(before) + 1
            raise RuntimeError

    assert asyncio.all_tasks() == before
