"""Group commit: what waits is written together, and everyone hears what became of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from msgtrace.errors import DataRefused, Overloaded, StorageError, StorageUnavailable
from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.pipeline.batcher import Batcher
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from tests.batches import make_batch, span
from tests.letters import MemoryLetters, names_in

REFUSED = {Rejection.KEPT_AS_DEAD_LETTER: 1}

_numbers = itertools.count()


def request(body_bytes: int = 10) -> SpanBatch:
    """A batch of one span that no other has."""
    batch = make_batch(span(f"{next(_numbers)}"))
    return dataclasses.replace(batch, body_bytes=body_bytes, payload=names_in(batch)[0].encode())


def batcher_over(writer: RecordingWriter, letters: MemoryLetters, **limits: Any) -> Batcher:
    keeper = DeadLetterKeeper(letters, max_bytes=1_000_000)
    return Batcher(writer, keeper=keeper, **limits)


class RecordingWriter:
    """Writes when it is let, and remembers what it was given."""

    def __init__(self, writer_count: int = 1) -> None:
        self.writer_count = writer_count
        self.flushes: list[list[SpanBatch]] = []
        self.written: list[SpanBatch] = []
        self.poison: list[SpanBatch] = []
        self.error: Exception | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.running = self.most_running = 0

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        self.flushes.append(list(batches))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.is_open.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        if any(batch in self.poison for batch in batches):
            raise DataRefused("refused for its data")
        self.written += batches
        return len(batches)

    @property
    def flush_sizes(self) -> list[int]:
        return [len(flush) for flush in self.flushes]


@pytest.fixture
def writer() -> RecordingWriter:
    return RecordingWriter()


@pytest.fixture
def letters() -> MemoryLetters:
    return MemoryLetters()


@pytest.fixture
async def batcher(writer: RecordingWriter, letters: MemoryLetters) -> AsyncIterator[Batcher]:
    """At most 100 bytes a flush and 300 in all."""
    async with batcher_over(writer, letters, max_batch_bytes=100, max_queued_bytes=300) as entered:
        yield entered
        writer.is_open.set()


async def settle() -> None:
    """Let every task run until it waits for something outside."""
    for _ in range(20):
        await asyncio.sleep(0)


async def send(batcher: Batcher, *batches: SpanBatch) -> list[asyncio.Task[None]]:
    """Submit one after the other; a free writer takes each at once."""
    tasks = []
    for batch in batches:
        tasks.append(asyncio.create_task(batcher.submit(batch)))
        await settle()
    return tasks


async def test_submit_returns_after_the_write_and_not_before(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    batch = request()
    [sender] = await send(batcher, batch)
    assert writer.flushes == [[batch]]
    assert not sender.done()

    writer.is_open.set()
    await sender

    assert writer.written == [batch]
    assert batcher.queued_bytes == 0


async def test_an_idle_batcher_writes_each_request_at_once(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    for _ in range(3):
        await batcher.submit(request())

    assert writer.flush_sizes == [1, 1, 1]


async def test_requests_that_arrive_during_a_write_are_written_together_in_order(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    batches = [request() for _ in range(6)]
    senders = await send(batcher, *batches)

    writer.is_open.set()
    await asyncio.gather(*senders)

    assert writer.flush_sizes == [1, 5]
    assert writer.written == batches


async def test_a_flush_takes_no_more_once_it_is_full(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    senders = await send(batcher, *(request(40) for _ in range(7)))

    writer.is_open.set()
    await asyncio.gather(*senders)

    assert writer.flush_sizes == [1, 3, 3]


async def test_as_many_writes_run_at_once_as_the_writer_wants(letters: MemoryLetters) -> None:
    writer = RecordingWriter(writer_count=3)
    writer.is_open.clear()
    limits = {"max_batch_bytes": 10, "max_queued_bytes": 1_000}
    async with batcher_over(writer, letters, **limits) as batcher:
        senders = await send(batcher, *(request() for _ in range(8)))
        assert writer.flush_sizes == [1, 1, 1]
        writer.is_open.set()
        await asyncio.gather(*senders)

    assert writer.most_running == 3
    assert len(writer.written) == 8


async def test_beyond_the_limit_a_sender_is_refused_at_once(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    senders = await send(batcher, request(100), request(150), request(50))
    assert batcher.queued_bytes == 300

    with pytest.raises(Overloaded, match="300 bytes"):
        await asyncio.wait_for(batcher.submit(request(1)), 1)

    writer.is_open.set()
    await asyncio.gather(*senders)
    assert batcher.queued_bytes == 0
    await batcher.submit(request(1))
    assert len(writer.written) == 4


async def test_what_is_being_written_counts_as_waiting(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    await send(batcher, request(290))

    with pytest.raises(Overloaded):
        await batcher.submit(request(11))


async def test_a_request_larger_than_the_limit_is_taken_when_nothing_waits(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    await batcher.submit(request(5_000))
    writer.is_open.clear()
    await send(batcher, request(1))

    with pytest.raises(Overloaded):
        await batcher.submit(request(5_000))

    assert writer.flush_sizes == [1, 1]


async def test_a_request_that_is_refused_costs_no_other(
    batcher: Batcher, writer: RecordingWriter, letters: MemoryLetters
) -> None:
    writer.is_open.clear()
    batches = [request() for _ in range(8)]
    writer.poison = [batches[3]]
    senders = await send(batcher, *batches)

    writer.is_open.set()
    await asyncio.gather(*senders)

    assert writer.written == [batch for batch in batches if batch is not batches[3]]
    assert [batch.rejections for batch in batches] == [{}] * 3 + [REFUSED] + [{}] * 4
    assert [each.payload for each in letters.kept.values()] == [batches[3].payload]
    assert batcher.queued_bytes == 0


async def test_a_refused_request_is_taken_apart_when_all_others_have_their_answer(
    batcher: Batcher, writer: RecordingWriter, letters: MemoryLetters
) -> None:
    writer.is_open.clear()
    batches = [request() for _ in range(9)]
    writer.poison = [batches[2], batches[5]]
    letters.is_open.clear()
    senders = await send(batcher, *batches)

    writer.is_open.set()
    await settle()
    await settle()

    waiting = [batch for batch, sender in zip(batches, senders, strict=True) if not sender.done()]
    assert waiting == writer.poison
    letters.is_open.set()
    await asyncio.gather(*senders)
    assert [batch.rejections for batch in waiting] == [REFUSED, REFUSED]


async def test_one_refused_request_among_many_is_found_by_halves(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    batches = [request(1) for _ in range(65)]
    writer.poison = [batches[40]]
    senders = await send(batcher, *batches)

    writer.is_open.set()
    await asyncio.gather(*senders)

    assert writer.flush_sizes[:3] == [1, 64, 32]
    assert len(writer.flushes) == 2 + 2 * 6


async def test_a_fault_of_ours_is_a_dead_letter_and_does_not_end_the_writer(
    batcher: Batcher, writer: RecordingWriter, letters: MemoryLetters
) -> None:
    writer.error = ValueError("quotes a prompt")
    batch = request()
    await batcher.submit(batch)

    assert batch.rejections == REFUSED
    assert [each.reason for each in letters.kept.values()] == ["internal error: ValueError"]
    writer.error = None
    await batcher.submit(request())
    assert len(writer.written) == 1


async def test_a_fault_while_isolating_is_answered_without_its_text(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    broken, good = SpanBatch(spans=[("no row",)], body_bytes=1), request()
    writer.poison = [broken]
    writer.is_open.clear()
    senders = await send(batcher, request(), broken, good)

    writer.is_open.set()
    outcomes = await asyncio.gather(*senders, return_exceptions=True)

    assert [type(each) for each in outcomes] == [type(None), StorageError, type(None)]
    assert str(outcomes[1]) == "the batch could not be written"
    assert good in writer.written


async def test_a_database_that_goes_away_while_requests_are_isolated_is_told_to_the_rest(
    writer: RecordingWriter, letters: MemoryLetters, batcher: Batcher
) -> None:
    writer.is_open.clear()
    batches = [request() for _ in range(9)]
    bad = writer.poison = [batches[3], batches[6]]
    letters.error = StorageUnavailable("gone")
    senders = await send(batcher, *batches)

    writer.is_open.set()
    outcomes = await asyncio.gather(*senders, return_exceptions=True)

    assert [type(each) for each in outcomes if each is not None] == [StorageUnavailable] * 2
    assert all(batch.rejections == {} for batch in batches)
    assert batcher.queued_bytes == 0
    letters.error = None
    for batch in bad:
        await batcher.submit(batch)
        assert batch.rejections == REFUSED


async def test_an_unavailable_database_is_told_to_every_sender_without_another_try(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    writer.error = StorageUnavailable("restarting")
    senders = await send(batcher, *(request() for _ in range(5)))

    writer.is_open.set()
    outcomes = await asyncio.gather(*senders, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {StorageUnavailable}
    assert writer.flush_sizes == [1, 4]
    assert batcher.queued_bytes == 0
    writer.error = None
    await batcher.submit(request())


@pytest.mark.parametrize("is_being_written", [True, False])
async def test_a_sender_that_goes_away_leaves_its_batch_to_be_written(
    batcher: Batcher, writer: RecordingWriter, is_being_written: bool
) -> None:
    writer.is_open.clear()
    first, second = request(), request()
    senders = await send(batcher, first, second)
    senders[0 if is_being_written else 1].cancel()
    await settle()

    writer.is_open.set()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*senders)
    await batcher.submit(request())

    assert writer.written[:2] == [first, second]
    assert batcher.queued_bytes == 0


@pytest.mark.parametrize("error", [DataRefused("no"), StorageUnavailable("later")])
async def test_a_sender_that_went_away_is_not_missed_when_its_write_fails(
    batcher: Batcher, writer: RecordingWriter, error: Exception
) -> None:
    writer.is_open.clear()
    writer.error = error
    senders = await send(batcher, request(), request())
    senders[0].cancel()
    await settle()

    writer.is_open.set()
    [outcome] = await asyncio.gather(senders[1], return_exceptions=True)

    assert outcome is (None if isinstance(error, DataRefused) else error)
    assert batcher.queued_bytes == 0


@pytest.mark.parametrize("writer_count", [1, 3])
async def test_leaving_writes_all_that_waits(writer_count: int, letters: MemoryLetters) -> None:
    writer = RecordingWriter(writer_count)
    writer.is_open.clear()
    limits = {"max_batch_bytes": 20, "max_queued_bytes": 1_000}
    async with batcher_over(writer, letters, **limits) as batcher:
        senders = await send(batcher, *(request() for _ in range(20)))
        asyncio.get_running_loop().call_later(0.01, writer.is_open.set)

    assert all(sender.done() for sender in senders)
    await asyncio.gather(*senders)
    assert len(writer.written) == 20
    assert batcher.queued_bytes == 0


async def test_nothing_is_accepted_once_it_is_closing(
    writer: RecordingWriter, letters: MemoryLetters
) -> None:
    writer.is_open.clear()
    batcher = batcher_over(writer, letters, max_batch_bytes=100, max_queued_bytes=300)
    await batcher.__aenter__()
    [accepted] = await send(batcher, request())
    leaving = asyncio.create_task(batcher.__aexit__(None, None, None))
    await settle()

    with pytest.raises(Overloaded, match="stopping"):
        await batcher.submit(request())

    assert not leaving.done()
    writer.is_open.set()
    await leaving
    await accepted
    with pytest.raises(Overloaded, match="stopping"):
        await batcher.submit(request())


async def test_a_batch_without_spans_is_answered_without_a_write(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    await send(batcher, request(300))

    await asyncio.wait_for(
        batcher.submit(SpanBatch(rejections={Rejection.INVALID_TRACE_ID: 1}, body_bytes=500)), 1
    )

    assert writer.flush_sizes == [1]
    assert batcher.queued_bytes == 300


async def test_a_database_that_is_back_within_the_hold_costs_no_sender_an_error(
    writer: RecordingWriter,
) -> None:
    writer.error = StorageUnavailable("restarting")
    async with Batcher(writer, max_batch_bytes=100, max_queued_bytes=300, hold_s=60) as batcher:
        senders = await send(batcher, request(), request())
        assert not any(sender.done() for sender in senders)
        writer.error = None
        await asyncio.gather(*senders)

    assert len(writer.written) == 2


async def test_a_hold_ends_with_the_databases_own_reason(writer: RecordingWriter) -> None:
    writer.error = StorageUnavailable("restarting")
    async with Batcher(writer, max_batch_bytes=100, max_queued_bytes=300, hold_s=0.5) as batcher:
        with pytest.raises(StorageUnavailable, match="restarting"):
            await batcher.submit(request())

    assert len(writer.flushes) > 1
    assert batcher.queued_bytes == 0


async def test_giving_up_answers_everybody_and_makes_room(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    in_flight, queued = request(100), request(200)
    senders = await send(batcher, in_flight, queued)
    assert batcher.stalled_s > 0

    batcher.give_up(StorageUnavailable("no commit"))
    outcomes = await asyncio.gather(*senders, return_exceptions=True)

    assert [str(outcome) for outcome in outcomes] == ["no commit"] * 2
    assert batcher.stalled_s == 0
    assert batcher.queued_bytes == 100  # is being written still
    writer.is_open.set()
    await batcher.submit(request())
    assert queued not in writer.written
    assert batcher.queued_bytes == 0


async def test_a_batcher_that_commits_is_not_stalled_however_long_its_queue(
    batcher: Batcher, writer: RecordingWriter
) -> None:
    writer.is_open.clear()
    first, second = await send(batcher, request(100), request(100))
    await asyncio.sleep(0.5)
    before_s = batcher.stalled_s
    assert before_s >= 0.5
    writer.is_open.set()
    await first
    writer.is_open.clear()

    assert batcher.stalled_s < before_s
    writer.is_open.set()
    await second


async def test_a_database_that_refuses_is_not_stalled(
    batcher: Batcher, writer: RecordingWriter, letters: MemoryLetters
) -> None:
    writer.is_open.clear()
    batch = request()
    writer.poison = [batch]
    letters.is_open.clear()
    [sender] = await send(batcher, batch)
    await asyncio.sleep(0.5)
    before_s = batcher.stalled_s
    writer.is_open.set()
    await settle()

    assert before_s >= 0.5
    assert not sender.done()
    assert batcher.stalled_s < before_s
    letters.is_open.set()
    await sender


async def test_without_a_keeper_a_refused_request_fails_alone(writer: RecordingWriter) -> None:
    writer.is_open.clear()
    batches = [request() for _ in range(4)]
    writer.poison = [batches[2]]
    async with Batcher(writer, max_batch_bytes=100, max_queued_bytes=300) as batcher:
        senders = await send(batcher, *batches)
        writer.is_open.set()
        outcomes = await asyncio.gather(*senders, return_exceptions=True)

    assert [type(each) for each in outcomes] == [type(None)] * 2 + [StorageError, type(None)]


async def test_leaving_does_not_wait_for_a_write_that_nobody_waits_for(
    writer: RecordingWriter,
) -> None:
    writer.is_open.clear()
    async with Batcher(writer, max_batch_bytes=100, max_queued_bytes=300) as batcher:
        [sender] = await send(batcher, request())
        batcher.give_up(StorageUnavailable("no commit"))
        with pytest.raises(StorageUnavailable):
            await sender

    assert writer.running == 0
    assert writer.written == []
