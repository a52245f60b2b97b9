"""Offenders among many senders of real databases: everybody else's spans are stored, once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.otlp.encodings import PROTOBUF, decode_as
from msgtrace.pipeline.batcher import Batcher
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.pipeline.replay import replay_letter
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, request, span, span_id_of, trace_id_of
from tests.contract.reading import TENANT, expected_summaries, find, read_trace
from tests.poison import POISON, allow_poison, forbid_poison

SENDERS = 24
BAD_SENDERS = range(0, SENDERS, 5)
SPANS = 6
BAD_SPANS = (1, 4)


def sent_by(sender: int) -> bytes:
    """Spans of three traces; a bad sender's second and fifth are refused."""
    spans = []
    for n in range(SPANS):
        is_bad = sender in BAD_SENDERS and n in BAD_SPANS
        spans.append(
            span(
                POISON if is_bad else f"{sender}.{n}",
                span_id=span_id_of(f"{sender}.{n}"),
                trace_id=trace_id_of(f"{n % 3}"),
                start_ns=NOON_NS + n,
                attributes={"gen_ai.usage.input_tokens": 1},
            )
        )
    return request(*spans, service=f"service {sender % 4}").SerializeToString()


def decoded(sender: int) -> SpanBatch:
    return decode_as(PROTOBUF, sent_by(sender))


def batcher_over(storage: Storage) -> Batcher:
    return Batcher(
        storage,
        max_batch_bytes=1_000_000,
        max_queued_bytes=10_000_000,
        keeper=DeadLetterKeeper(storage.dead_letters, max_bytes=10_000_000),
    )


async def require_all_stored(storage: Storage) -> None:
    expected = expected_summaries([decoded(sender) for sender in range(SENDERS)])
    page = await find(storage)
    assert {each.trace_id: each for each in page.traces} == expected


async def test_two_collectors_isolate_the_same_requests_and_a_replay_makes_all_totals_right(
    settings: Settings, storage_url: str
) -> None:
    async with AsyncExitStack() as stack:
        storages = [await stack.enter_async_context(open_storage(settings)) for _ in range(2)]
        storage = storages[0]
        await asyncio.to_thread(forbid_poison, storage_url)
        batches = [(decoded(sender), decoded(sender)) for sender in range(SENDERS)]
        async with batcher_over(storages[0]) as one, batcher_over(storages[1]) as two:
            await asyncio.gather(
                *(sink.submit(batch[n]) for batch in batches for n, sink in enumerate((one, two)))
            )

        for sender, pair in enumerate(batches):
            is_bad = sender in BAD_SENDERS
            told = {Rejection.KEPT_AS_DEAD_LETTER: len(BAD_SPANS)} if is_bad else {}
            assert [each.rejections for each in pair] == [told, told]
        letters = await storage.dead_letters.list(TENANT, limit=100)
        assert len(letters) == len(BAD_SENDERS)
        page = await find(storage)
        bad_spans = len(BAD_SENDERS) * len(BAD_SPANS)
        assert sum(each.span_count for each in page.traces) == SENDERS * SPANS - bad_spans
        for each in page.traces:
            assert len((await read_trace(storage, each.trace_id)).spans) == each.span_count

        await asyncio.to_thread(allow_poison, storage_url)
        for summary in letters:
            letter = await storage.dead_letters.get(TENANT, summary.letter_id)
            assert letter is not None
            replayed = await asyncio.gather(*(replay_letter(each, letter) for each in storages))
            assert sum(each.new_spans for each in replayed) == len(BAD_SPANS)

        await require_all_stored(storage)
        assert (await storage.dead_letters.sum()).letter_count == 0


async def test_a_request_that_was_refused_and_is_sent_again_after_the_cure_is_stored(
    storage: Storage, storage_url: str
) -> None:
    await asyncio.to_thread(forbid_poison, storage_url)
    async with batcher_over(storage) as batcher:
        for _ in range(2):
            await batcher.submit(decoded(0))
        assert (await storage.dead_letters.sum()).letter_count == 1
        await asyncio.to_thread(allow_poison, storage_url)
        for sender in range(SENDERS):
            batch = decoded(sender)
            await batcher.submit(batch)
            assert batch.rejections == {}

    await require_all_stored(storage)


async def test_a_replay_stores_what_it_can_and_keeps_the_rest(
    storage: Storage, storage_url: str
) -> None:
    await asyncio.to_thread(forbid_poison, storage_url)
    async with batcher_over(storage) as batcher:
        await batcher.submit(decoded(0))
    [summary] = await storage.dead_letters.list(TENANT, limit=10)
    letter = await storage.dead_letters.get(TENANT, summary.letter_id)
    assert letter is not None
    good = (trace_id_of("0"), span_id_of("0.0"))
    wider = replace(letter, spans=[good, *letter.spans])

    replayed = await replay_letter(storage, wider)

    assert (replayed.new_spans, replayed.known_spans, replayed.refused_spans) == (0, 1, 2)
    left = await storage.dead_letters.get(TENANT, letter.letter_id)
    assert left is not None
    assert left.spans == letter.spans
    assert left.reason == replayed.reason


async def test_a_replay_brings_nothing_back_that_was_deleted(
    storage: Storage, storage_url: str
) -> None:
    await asyncio.to_thread(forbid_poison, storage_url)
    async with batcher_over(storage) as batcher:
        await batcher.submit(decoded(0))
    [summary] = await storage.dead_letters.list(TENANT, limit=10)
    letter = await storage.dead_letters.get(TENANT, summary.letter_id)
    assert letter is not None
    await storage.delete_trace(TENANT, trace_id_of("0"))
    await asyncio.to_thread(allow_poison, storage_url)

    await replay_letter(storage, letter)

    assert await storage.get_trace(TENANT, trace_id_of("0")) is None
    assert (await read_trace(storage, trace_id_of("1"))).summary.span_count == 2
    assert (await storage.dead_letters.sum()).letter_count == 0


async def test_a_letter_whose_request_cannot_be_read_is_kept_as_it_is(storage: Storage) -> None:
    batch = decoded(0)
    keeper = DeadLetterKeeper(storage.dead_letters, max_bytes=10_000_000)
    batch.payload = b"\xff"

    async def refuse(_: object) -> int:
        raise ValueError

    await keeper.settle(batch, ValueError(), refuse)
    [summary] = await storage.dead_letters.list(TENANT, limit=10)
    letter = await storage.dead_letters.get(TENANT, summary.letter_id)
    assert letter is not None

    replayed = await replay_letter(storage, letter)

    assert replayed.refused_spans == SPANS
    assert await storage.dead_letters.get(TENANT, summary.letter_id) == letter
    other = replace(letter, payload=request(span("another")).SerializeToString())
    assert "not found in the request" in (await replay_letter(storage, other)).reason
