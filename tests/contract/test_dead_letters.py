"""What a DeadLetterStore promises: letters survive, once each, in bounds, newest first."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from typing import Any

import pytest

from msgtrace.model.dead_letter import DeadLetter, DeadLetterTotals, LetterId
from msgtrace.model.span import TenantId
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import DeadLetterStore, Storage
from tests.batches import NOON_NS, TRACE_A, TRACE_B, span_id_of
from tests.contract.reading import TENANT

PLENTY = 2**40

SPANS = [(TRACE_A, span_id_of("one")), (TRACE_B, span_id_of("two"))]


def letter(name: str = "request", **fields: Any) -> DeadLetter:
    """A letter whose request follows from its name."""
    plain = DeadLetter(
        tenant_id=TENANT,
        refused_at_ns=NOON_NS,
        reason="refused for its data",
        encoding="protobuf",
        payload=name.encode() + b"\0\xff" + hashlib.sha256(name.encode()).digest(),
        spans=SPANS,
    )
    return dataclasses.replace(plain, **fields)


@pytest.fixture
def letters(storage: Storage) -> DeadLetterStore:
    return storage.dead_letters


async def ids(letters: DeadLetterStore, **page: Any) -> list[LetterId]:
    return [each.letter_id for each in await letters.list(TENANT, **({"limit": 100} | page))]


async def test_a_kept_letter_comes_back_whole_after_a_restart(settings: Settings) -> None:
    kept = letter(encoding="json", payload=bytes(range(256)) * 8_000)
    async with open_storage(settings) as storage:
        assert await storage.dead_letters.keep(kept, max_bytes=PLENTY)

    async with open_storage(settings) as storage:
        assert await storage.dead_letters.get(TENANT, kept.letter_id) == kept
        [summary] = await storage.dead_letters.list(TENANT, limit=10)

    assert dataclasses.asdict(summary) == {
        "letter_id": kept.letter_id,
        "tenant_id": TENANT,
        "refused_at_ns": NOON_NS,
        "reason": "refused for its data",
        "encoding": "json",
        "span_count": 2,
        "payload_bytes": 256 * 8_000,
    }


async def test_an_empty_store_has_nothing(letters: DeadLetterStore) -> None:
    assert await ids(letters) == []
    assert await letters.get(TENANT, letter().letter_id) is None
    assert await letters.sum() == DeadLetterTotals(letter_count=0, kept_bytes=0)


async def test_the_list_is_newest_first_and_goes_on_where_a_page_ended(
    letters: DeadLetterStore,
) -> None:
    kept = [letter(f"{n}", refused_at_ns=NOON_NS + n // 3) for n in range(10)]
    for each in kept:
        await letters.keep(each, max_bytes=PLENTY)
    newest_first = sorted(kept, key=lambda each: (each.refused_at_ns, each.letter_id), reverse=True)

    found: list[LetterId] = []
    after = None
    while page := await letters.list(TENANT, limit=4, after=after):
        found += [each.letter_id for each in page]
        after = page[-1].place

    assert found == [each.letter_id for each in newest_first]
    assert await ids(letters, limit=3) == found[:3]


async def test_the_same_request_is_one_letter_with_the_newest_reason_and_the_first_time(
    letters: DeadLetterStore,
) -> None:
    first = letter()
    again = letter(reason="another", spans=SPANS[:1], refused_at_ns=NOON_NS + 5)
    await letters.keep(first, max_bytes=PLENTY)

    assert await letters.keep(again, max_bytes=0), "it needs no more room"

    assert await ids(letters) == [first.letter_id] == [again.letter_id]
    assert await letters.get(TENANT, first.letter_id) == letter(reason="another", spans=SPANS[:1])
    assert (await letters.sum()).kept_bytes == again.kept_bytes


@pytest.mark.parametrize(
    "other", [{"payload": b"another"}, {"encoding": "json"}, {"tenant_id": TenantId(1)}]
)
def test_requests_that_differ_are_different_letters(other: dict[str, Any]) -> None:
    assert letter().letter_id != letter(**other).letter_id


async def test_tenants_see_their_own_letters(letters: DeadLetterStore) -> None:
    other = letter(tenant_id=TenantId(1))
    for each in (letter(), other):
        await letters.keep(each, max_bytes=PLENTY)

    assert await ids(letters) == [letter().letter_id]
    assert await letters.get(TENANT, other.letter_id) is None
    assert not await letters.delete(TENANT, other.letter_id)
    assert (await letters.sum()).letter_count == 2


async def test_a_deleted_letter_is_gone(letters: DeadLetterStore) -> None:
    for name in ("a", "b"):
        await letters.keep(letter(name), max_bytes=PLENTY)

    assert await letters.delete(TENANT, letter("a").letter_id)
    assert not await letters.delete(TENANT, letter("a").letter_id)

    assert await ids(letters) == [letter("b").letter_id]


async def test_no_letter_is_kept_beyond_the_limit(letters: DeadLetterStore) -> None:
    size_bytes = letter("0").kept_bytes
    limit = 3 * size_bytes

    kept = [await letters.keep(letter(f"{n}"), max_bytes=limit) for n in range(5)]

    assert kept == [True, True, True, False, False]
    assert await letters.sum() == DeadLetterTotals(letter_count=3, kept_bytes=limit)
    await letters.delete(TENANT, letter("1").letter_id)
    assert await letters.keep(letter("4"), max_bytes=limit)


async def test_the_limit_holds_for_letters_of_several_collectors_at_once(
    settings: Settings,
) -> None:
    limit = 5 * letter("0 0").kept_bytes
    async with open_storage(settings) as one, open_storage(settings) as two:
        kept = await asyncio.gather(
            *(
                storage.dead_letters.keep(letter(f"{n} {number}"), max_bytes=limit)
                for n in range(10)
                for number, storage in enumerate((one, two))
            )
        )

        assert sum(kept) == 5
        assert (await one.dead_letters.sum()).kept_bytes == limit


def test_what_a_letter_shows_of_itself_holds_nothing_of_the_request() -> None:
    assert "secret" not in repr(letter(payload=b"my secret"))
